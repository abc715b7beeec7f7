"""The work of `difformer evaluate`: read files, score them, and write the report."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from os import PathLike
from typing import Any

from difformer_plugin.evaluation.history import read_history
from difformer_plugin.evaluation.inputs import load
from difformer_plugin.evaluation.report import write_report
from difformer_plugin.evaluation.results import Settings, Task, evaluate


@dataclass(frozen=True)
class Files:
    """The files of an evaluation.

    Attributes:
        system: a log of fairseq-generate, or a plain file of translations.
        baseline: a second system, in either form.
        references: raw references; None to take those of the log.
        sources: raw sources; None to take those of the log.
        history: file of --history-file, whose probabilities colour the report.
        report: HTML file to write; None for no report.
    """

    system: str | PathLike
    baseline: str | PathLike | None = None
    references: str | PathLike | None = None
    sources: str | PathLike | None = None
    history: str | PathLike | None = None
    report: str | PathLike | None = None


def evaluate_files(
    files: Files,
    settings: Settings,
    language: str | None = None,
    tokenised: bool | None = None,
    sentences: bool = True,
    progress: Callable[[list[Task]], Iterable[Task]] = iter,
    command: str = "",
) -> dict[str, Any]:
    """Read and score the files, and write the report if one is named.

    Args:
        language: see `inputs.load`.
        tokenised: see `inputs.load`.
        sentences: include example sentences in the report.
        progress: see `results.evaluate`.
        command: what the user typed, for the report.
    Returns:
        the results, see `results.evaluate`, with `made`: the date and the command.
    Raises:
        UserError: a file is unusable, or does not belong to the others.
    """
    test_set, systems = load(
        files.system,
        files.references,
        files.sources,
        files.baseline,
        language,
        settings.lowercase,
        tokenised,
    )
    history = read_history(files.history, systems[0]) if files.history else None
    result = evaluate(test_set, systems, settings, progress)
    result["made"] = {"date": datetime.now().astimezone().isoformat(" ", "minutes")}
    if command:
        result["made"]["command"] = command
    if files.report:
        write_report(files.report, result, test_set, systems, history, sentences)
    return result
