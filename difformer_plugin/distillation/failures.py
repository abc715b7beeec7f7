"""Which outputs of a teacher are no translations: empty, running in circles, far too long.

Outputs are compared with their source and their raw target, since text may repeat itself (a row
of dashes, a chorus) and be short on one side. Judged as if it were an output, with its source
alone for comparison, in words, a raw target of the training set is flagged in

    Multi30k, German to English and back              0 of 29,000, both
    Debian descriptions, German to English            0 of 29,109
    Debian descriptions, English to German            1 of 29,109

pairs; tests/data/test_failures.py counts them again.
"""

EMPTY, REPETITION, TOO_LONG, CUT_OFF = "empty", "repetition", "too long", "cut off"
NO_SOURCE, LONG_SOURCE = "no source", "source too long"  # never given to the teacher
CAUSES = (NO_SOURCE, LONG_SOURCE, EMPTY, REPETITION, TOO_LONG, CUT_OFF)

LONGEST_UNIT = 8  # tokens; beam search and mask-predict get stuck in words and short phrases
LEAST_REPEATED = 5  # tokens; ", very , very , very" repeats four, which is emphasis
LENGTH_RATIO, LENGTH_SLACK = 2.0, 10  # tokens; a one-word source may need a phrase


def repeated(tokens):
    """How many tokens do nothing but repeat the ones before them, in the longest such stretch.

    A unit of n tokens counts from its third occurrence in a row on: "the the" and "bit by bit by"
    are found in good text.

    Args:
        tokens: a list of numbers.
    Returns:
        the length of the stretch after the unit's first occurrence; 0 without a third one.
    """
    if len(tokens) - len(set(tokens)) < 2:
        return 0
    most = 0
    for unit in range(1, min(LONGEST_UNIT, len(tokens) // 3) + 1):
        run = 0
        for token, before in zip(tokens[unit:], tokens):
            run = run + 1 if token == before else 0
            if run >= 2 * unit:
                most = max(most, run)
    return most


def failure(output, source, target, limit=None):
    """Why an output is no translation.

    A repetition must be twice that of source and target, and a length twice the greater of
    theirs (plus 10): a teacher that says a thing once too often is still one to learn from, while
    one that is stuck goes on to the limit.

    Args:
        output, source, target: lists of tokens, without BOS and EOS; target is the raw one.
        limit: the tokens after which the search stopped the output, or None.
    Returns:
        one of CAUSES, or None for a translation.
    """
    if not output:
        return EMPTY
    stretch = repeated(output)
    if stretch >= LEAST_REPEATED and stretch > 2 * max(repeated(source), repeated(target)):
        return REPETITION
    if len(output) > LENGTH_RATIO * max(len(source), len(target)) + LENGTH_SLACK:
        return TOO_LONG
    if limit is not None and len(output) >= limit:
        return CUT_OFF
    return None
