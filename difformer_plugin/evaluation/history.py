"""Read the file of --history-file: the tokens of each decoding step and their probabilities."""

import json
from collections.abc import Mapping, Sequence
from os import PathLike

from difformer_plugin.data.sources import read_lines
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.inputs import System
from difformer_plugin.evaluation.outputs import BOUNDARIES, SENTENCEPIECE, matching_form

BPE_MARK = "@@"
# At least this share of the last outputs must agree with the system's. It is below 1 because
# the log's tokens may differ in form from the history's: SentencePiece text has no Moses tokens.
MIN_AGREEMENT = 0.8

Step = list[tuple[str, float]]  # (token, probability) of each position
History = dict[int, list[Step]]  # sentence number -> its steps, first step first


def read_history(path: str | PathLike, system: System) -> History:
    """Read the decoding steps of all sentences of a system.

    Raises:
        UserError: a line is malformed or holds a value that is not a probability, a sentence or a
            step is missing, or the last steps do not agree with the system's log.
    """
    num_sentences, found = len(system.texts), {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            entry = json.loads(line)
            tokens, probabilities = entry["tokens"], entry["probabilities"]
            bad = [p for p in probabilities if p is None or not 0 <= p <= 1]
            step = list(zip(map(str, tokens), probabilities, strict=True))
            found.setdefault(int(entry["id"]), {})[int(entry["step"])] = step
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not a line of a history file ({error!r:.80}): give the "
                "file that fairseq-generate wrote with --history-file"
            ) from None
        if bad:
            raise UserError(
                f"{path}, line {number}: {json.dumps(bad[0])} is not a probability between 0 and "
                "1: the model's scores overflowed or the file was edited; run fairseq-generate "
                "again, without --fp16"
            )
    if missing := [number for number in range(num_sentences) if number not in found]:
        raise UserError(
            f"{path}: {len(missing)} of {num_sentences} sentences are missing, the first of them "
            f"{missing[0]} (counted from 0): the run was cut short, or is one of several shards"
        )
    if len(found) > num_sentences:
        raise UserError(f"{path} has {len(found)} sentences, but {system.name} has {num_sentences}")
    for number, steps in found.items():
        # those of decoding by parts are not equally many; the log tells how many there were
        logged = 0 if system.steps is None else len(system.steps[number])
        if sorted(steps) != list(range(len(steps))) or len(steps) < logged:
            raise UserError(
                f"{path}: sentence {number} lacks some of its steps: the run was cut short; run it "
                "again"
            )
    history = {number: [steps[k] for k in range(len(steps))] for number, steps in found.items()}
    if system.steps is not None and _agreement(history, system.steps) < MIN_AGREEMENT:
        raise UserError(
            f"{path}: the last steps differ from those in {system.name}: give the file of the "
            "same run of fairseq-generate"
        )
    return history


def _agreement(history, steps):
    """The share of sentences whose last output is the same, apart from case and spaces."""
    same = 0
    for number, own in enumerate(steps):
        text = "".join(text for text, *_ in display_pieces(history[number][-1]))
        if len(own) == len(history[number]):
            same += matching_form(text) == matching_form(own[-1])
    return same / len(steps)


def display_pieces(step: Step) -> list[tuple[str, float, bool]]:
    """The tokens of a step as they are displayed: without BOS, EOS and subword marks.

    Returns:
        (text, probability, whether a space precedes it) of each token.
    """
    shown, joined = [], True
    sentencepiece = any(SENTENCEPIECE in token for token, _ in step)
    for token, probability in step:
        if token in BOUNDARIES:
            continue
        if sentencepiece:
            space = token.startswith(SENTENCEPIECE) and bool(shown)
            text = token.replace(SENTENCEPIECE, "")
        else:
            space, text = not joined, token.removesuffix(BPE_MARK)
            joined = token.endswith(BPE_MARK)
        shown.append((text, probability, space))
    return shown


def mean_probability(history: Mapping[int, Sequence[Step]]) -> list[float]:
    """The mean token probability at each step over all sentences, first step first.

    A sentence that takes fewer steps than others stays as it is after its last one. BOS and EOS do
    not count: their positions are given, so their probability is nearly 1. The mean of a step at
    which all sentences are empty is NaN.
    """
    most = max(map(len, history.values()))
    by_step = ([own[min(k, len(own) - 1)] for own in history.values()] for k in range(most))
    probabilities = [
        [p for step in steps for token, p in step if token not in BOUNDARIES] for steps in by_step
    ]
    return [sum(own) / len(own) if own else float("nan") for own in probabilities]
