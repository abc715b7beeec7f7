"""The file of --history-file, read: the tokens of each step with their probabilities."""

import json

from difformer_plugin.data.corpus import read_lines
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import FRAME, SENTENCEPIECE

MARK = "@@"


def read_history(path, count):
    """Read the steps of `count` sentences.

    Returns:
        sentence number -> steps, first step first, each a list of (token, probability).
    Raises:
        UserError: a line is no such JSON, or a sentence or a step is missing.
    """
    found = {}
    for number, line in enumerate(read_lines(path), start=1):
        try:
            entry = json.loads(line)
            tokens, probabilities = entry["tokens"], [float(p) for p in entry["probabilities"]]
            step = list(zip(map(str, tokens), probabilities, strict=True))
            found.setdefault(int(entry["id"]), {})[int(entry["step"])] = step
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}, line {number}: no step of a history ({error!r:.80}): give the file that "
                "fairseq-generate wrote with --history-file"
            ) from None
    missing = [number for number in range(count) if number not in found]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {count} sentences are missing, the first of them "
            f"{missing[0]} (counted from 0): the run was cut short, or is one of several shards"
        )
    for number, steps in found.items():
        if sorted(steps) != list(range(len(steps))):
            raise UserError(f"{path}: a step of sentence {number} is missing: run it again")
    return {number: [steps[k] for k in range(len(steps))] for number, steps in found.items()}


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
    """By step, the mean probability of all tokens of all sentences."""
    means = []
    for k in range(max(map(len, history.values()))):
        own = [p for steps in history.values() for _, p in steps[min(k, len(steps) - 1)]]
        means.append(sum(own) / len(own) if own else 0.0)
    return means
