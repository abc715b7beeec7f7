"""The file of --history-file, read: the tokens of each step with their probabilities."""

import json

from difformer_plugin.data.sources import read_lines
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import FRAME, SENTENCEPIECE, bare

MARK = "@@"
ALIKE = 0.8  # of sentences; the rest is for text in sentencepiece, which has no Moses tokens


def read_history(path, system):
    """Read the steps of all sentences of a System.

    Returns:
        sentence number -> steps, first step first, each a list of (token, probability).
    Raises:
        UserError: a line is no such JSON, what should be a probability is null or not within 0 to
            1, a sentence or a step is missing, or the steps are others than in the system's log.
    """
    count, found = len(system.texts), {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            entry = json.loads(line)
            tokens, probabilities = entry["tokens"], entry["probabilities"]
            bad = [p for p in probabilities if p is None or not 0 <= p <= 1]
            step = list(zip(map(str, tokens), probabilities, strict=True))
            found.setdefault(int(entry["id"]), {})[int(entry["step"])] = step
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: no step of a history ({error!r:.80}): give the file that "
                "fairseq-generate wrote with --history-file"
            ) from None
        if bad:
            raise UserError(
                f"{path}, line {number}: {json.dumps(bad[0])} is no probability from 0 to 1: the "
                "model's scores overflowed, or the file was edited: run fairseq-generate again, "
                "without --fp16"
            )
    if missing := [number for number in range(count) if number not in found]:
        raise UserError(
            f"{path}: {len(missing)} of {count} sentences are missing, the first of them "
            f"{missing[0]} (counted from 0): the run was cut short, or is one of several shards"
        )
    if len(found) > count:
        raise UserError(f"{path} holds {len(found)} sentences, and {system.name} {count}")
    decoding_steps = max(map(len, found.values()))
    for number, steps in found.items():
        if sorted(steps) != list(range(decoding_steps)):
            raise UserError(
                f"{path}: sentence {number} lacks some of {decoding_steps} steps: the run was cut "
                "short; run it again"
            )
    history = {number: [found[number][k] for k in range(decoding_steps)] for number in found}
    if system.steps is not None and _agreement(history, system.steps) < ALIKE:
        raise UserError(
            f"{path}: the last steps are others than in {system.name}: give the file of the same "
            "run of fairseq-generate"
        )
    return history


def _agreement(history, steps):
    """The share of sentences whose last steps agree but for case and spaces."""
    same = 0
    for number, own in enumerate(steps):
        text = "".join(text for text, *_ in pieces(history[number][-1]))
        if len(own) == len(history[number]):
            same += bare(text) == bare(own[-1])
    return same / len(steps)


def pieces(step):
    """A step's tokens as they are shown: (text, probability, whether a space goes before it)."""
    shown, joined = [], True
    sentencepiece = any(SENTENCEPIECE in token for token, _ in step)
    for token, probability in step:
        if token in FRAME:
            continue
        if sentencepiece:
            space = token.startswith(SENTENCEPIECE) and bool(shown)
            text = token.replace(SENTENCEPIECE, "")
        else:
            space, text = not joined, token.removesuffix(MARK)
            joined = token.endswith(MARK)
        shown.append((text, probability, space))
    return shown


def mean_probability(history):
    """By step, the mean probability of all words of all sentences; NaN where all are empty.

    <s> and </s> are left out: their places are given, so that they are next to certain.
    """
    by_step = zip(*history.values())
    probabilities = [
        [p for step in steps for token, p in step if token not in FRAME] for steps in by_step
    ]
    return [sum(own) / len(own) if own else float("nan") for own in probabilities]
