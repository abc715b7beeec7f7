"""The report that `difformer demo` prints at its end: scores, examples and wall times."""

import shlex
from collections.abc import Sequence
from itertools import groupby

from difformer_plugin.data.tokenisation import detokeniser
from difformer_plugin.demo.stages import StageRecord
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import Outputs, sentences_by_changes

EXAMPLES = 10


def translations(outputs: Outputs, count: int, language: str) -> list[str]:
    """Detokenised translations, in the order of the test set.

    Args:
        count: number of sentences in the test set.
        language: of the target.
    Raises:
        UserError: a translation is missing, or there are more.
    """
    best = outputs.best
    missing = [number for number in range(count) if number not in best]
    if missing or len(best) != count:
        raise UserError(
            f"fairseq-generate translated {len(best)} sentences where the test set has "
            f"{count} (without a translation: {missing[:5] or 'none'}): nothing is scored"
        )
    detokenise = detokeniser(language)
    return [detokenise(best[number]) for number in range(count)]


def score(hypotheses: list[str], references: list[str]) -> str:
    """Corpus BLEU on detokenised text, as one line with sacreBLEU's signature."""
    from sacrebleu.metrics import BLEU

    bleu = BLEU()
    result = bleu.corpus_score(hypotheses, [references])
    return result.format(signature=bleu.get_signature().format())


def error_analysis(hypotheses: list[str], references: list[str]) -> list[str]:
    """Lines with the number of exact outputs, and BLEU by whether the output length is right."""
    pairs = list(zip(hypotheses, references, strict=True))
    exact = sum(hypothesis == reference for hypothesis, reference in pairs)
    lines = [f"exactly the reference: {exact} of {len(pairs)} sentences"]
    by_length = {True: [], False: []}
    for hypothesis, reference in pairs:
        by_length[len(hypothesis.split()) == len(reference.split())].append((hypothesis, reference))
    names = {True: "with the reference's number of words", False: "with another number"}
    for same, some in by_length.items():
        if some:
            bleu = score(*map(list, zip(*some, strict=True))).split(" = ")[1].split()[0]
            lines.append(f"{names[same]}: {len(some)} sentences, BLEU {bleu}")
    return lines


def choose_emergence(outputs: Outputs) -> int | None:
    """Number of the sentence whose output changed most often during decoding.

    None if no output changed between the first and the last step.
    """
    return next(iter(sentences_by_changes(outputs.steps)), None)


def render_emergence(steps: Sequence[str]) -> list[str]:
    """A line for each distinct text: `step 3-5  the text`."""
    lines, start = [], 1
    for text, run in groupby(steps):
        end = start + len(list(run)) - 1
        lines.append(f"  step {start if start == end else f'{start}-{end}':<7} {text}")
        start = end + 1
    return lines


def render_examples(
    sources: Sequence[str], references: Sequence[str], hypotheses: Sequence[str]
) -> list[str]:
    """Source, reference and output of ten sentences, evenly spread over the test set."""
    distance = max(1, len(sources) // EXAMPLES)
    lines = []
    for number in range(0, len(sources), distance)[:EXAMPLES]:
        lines += [
            f"  source     {sources[number]}",
            f"  reference  {references[number]}",
            f"  output     {hypotheses[number]}",
            "",
        ]
    return lines


def render_stages(stages: Sequence[StageRecord]) -> list[str]:
    """Commands and wall times of the stages."""
    lines = ["Commands"]
    lines += [f"  {shlex.join(stage.command)}" for stage in stages if stage.command]
    lines += ["", "Wall time"]
    for stage in stages:
        note = "  (done in an earlier run)" if stage.skipped else ""
        lines.append(f"  {stage.name:<20}{stage.seconds:9.1f} s{note}")
    return lines


def render(
    stages: Sequence[StageRecord],
    pairs: Sequence[tuple[str, str]],
    outputs: Outputs,
    language: str,
) -> str:
    """The whole report as text.

    Args:
        stages: of the run.
        pairs: raw (source, reference) of the test set.
        outputs: of fairseq-generate.
        language: of the target, for detokenisation.
    Raises:
        UserError: a translation is missing.
    """
    sources, references = zip(*pairs, strict=True)
    hypotheses = translations(outputs, len(pairs), language)
    lines = render_stages(stages)
    lines += [
        "",
        f"Quality on {len(pairs)} test sentences, detokenised, against the raw references",
    ]
    lines += [f"  {score(hypotheses, list(references))}"]
    lines += [f"  {line}" for line in error_analysis(hypotheses, list(references))]
    lines += ["", "Examples"]
    lines += render_examples(sources, references, hypotheses)
    number = choose_emergence(outputs)
    if number is None:
        lines += ["How a sentence emerges: no output changed between its first and last step"]
    else:
        lines += ["How a sentence emerges", f"  source       {sources[number]}"]
        lines += render_emergence(outputs.steps[number])
    return "\n".join(lines) + "\n"
