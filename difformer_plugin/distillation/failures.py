"""Failures of a teacher: outputs that are empty, repeat themselves, are too long or cut off.

Outputs are compared with their source and raw target, because some text repeats itself (a row of
dashes, a chorus) or is short on one side. False positives are rare: with the raw targets of a
training set in place of outputs, compared with their sources alone, in words, these are flagged:

    Multi30k, German to English and back              0 of 29,000, both
    Debian descriptions, German to English            0 of 29,109
    Debian descriptions, English to German            1 of 29,109

tests/distillation/test_failures.py reproduces these numbers.
"""

from collections.abc import Sequence

EMPTY, REPETITION, TOO_LONG, CUT_OFF = "empty", "repetition", "too long", "cut off"
NO_SOURCE, LONG_SOURCE = "no source", "source too long"  # not given to the teacher
CAUSES = (NO_SOURCE, LONG_SOURCE, EMPTY, REPETITION, TOO_LONG, CUT_OFF)

MAX_UNIT = 8  # tokens; beam search and mask-predict get stuck in words and short phrases
MIN_REPEATED = 5  # tokens; ", very , very , very" repeats four, which is emphasis
LENGTH_RATIO, LENGTH_SLACK = 2.0, 10  # tokens; a one-word source may need a phrase


def repeated(tokens: Sequence) -> int:
    """Length of the longest repetition: tokens that only repeat a unit of up to MAX_UNIT tokens.

    A unit counts if it occurs at least three times in a row, since "the the" and "bit by bit by"
    are found in good text.

    Args:
        tokens: numbers or words.
    Returns:
        number of tokens after the first occurrence of the unit; 0 if there is no such unit.
    """
    if len(tokens) - len(set(tokens)) < 2:
        return 0
    most = 0
    for unit in range(1, min(MAX_UNIT, len(tokens) // 3) + 1):
        run = 0
        for token, before in zip(tokens[unit:], tokens):
            run = run + 1 if token == before else 0
            if run >= 2 * unit:
                most = max(most, run)
    return most


def failure(
    output: Sequence, source: Sequence, target: Sequence, limit: int | None = None
) -> str | None:
    """Why an output is not a translation.

    The thresholds are generous: a repetition must be more than twice as long as those in source and
    target, and the output more than twice as long as both (plus 10 tokens). A teacher that repeats
    a phrase once is still useful, and one that is stuck goes on to the limit.

    Args:
        output, source, target: tokens without BOS and EOS; the target is the raw one.
        limit: number of tokens at which the search cuts outputs off, if known.
    Returns:
        one of CAUSES, or None for a translation.
    """
    if not output:
        return EMPTY
    stretch = repeated(output)
    if stretch >= MIN_REPEATED and stretch > 2 * max(repeated(source), repeated(target)):
        return REPETITION
    if len(output) > LENGTH_RATIO * max(len(source), len(target)) + LENGTH_SLACK:
        return TOO_LONG
    if limit is not None and len(output) >= limit:
        return CUT_OFF
    return None
