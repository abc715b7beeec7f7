"""What is translated: some sentences of a split, in batches, and texts that resemble candidates."""

import numpy as np

from difformer_plugin.errors import UserError


def parse_beams(text, fixed=True):
    """`7x3`, or a number of candidates as the paper splits it, to (b1, b2).

    Args:
        fixed: whether lengths are fixed before tokens are drawn; else all candidates differ in
            their noise alone.
    Raises:
        UserError: it is neither, or has lengths where there are none to try.
    """
    known = {"1": (1, 1), "10": (5, 2), "21": (7, 3)}
    if text in known:
        return known[text] if fixed else (1, int(text))
    lengths, _, noises = text.partition("x")
    if not (lengths.isdecimal() and noises.isdecimal() and int(lengths) and int(noises)):
        raise UserError(
            f"--beams {text}: give the number of lengths and of noises as 7x3, or 1, 10 or 21"
        )
    if not fixed and int(lengths) > 1:
        raise UserError(
            f"--beams {text}: this model's lengths grow, and there are none to try: give "
            f"1x{int(lengths) * int(noises)}"
        )
    return int(lengths), int(noises)


def chosen(count, total, seed):
    """The numbers of `count` of the sentences 0 .. total - 1, drawn without repetition."""
    if count > total:
        raise UserError(f"--sentences: the split has only {total}, not {count}")
    return np.random.default_rng(seed).permutation(total)[:count]


def in_batches(numbers, lengths, size):
    """Sentences sorted by length, as fairseq-generate sorts them, `size` at a time.

    Args:
        numbers: of the sentences.
        lengths: of all sentences of the split.
    Returns:
        a list of arrays of numbers.
    """
    ordered = numbers[np.argsort(np.asarray(lengths)[numbers], kind="stable")]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def around_quantiles(lengths, count, quantiles=(0.1, 0.5, 0.9)):
    """For each quantile of the lengths, the `count` sentences whose lengths are nearest to it."""
    lengths = np.asarray(lengths)
    wanted = np.quantile(lengths, quantiles)
    return [np.argsort(np.abs(lengths - length), kind="stable")[:count] for length in wanted]


def edited(sentence, vocabulary, candidates, rng, rate=0.15):
    """Candidates for a sentence, each with words of it replaced, dropped or doubled at random.

    Args:
        sentence: a list of words.
        vocabulary: words that replace others.
        candidates: how many.
        rng: NumPy's random generator.
        rate: probability that a word is edited.
    Returns:
        a list of texts.
    """
    texts = []
    for _ in range(candidates):
        words = []
        for word in sentence:
            edit = int(rng.integers(3)) if rng.random() < rate else None
            # replaced, dropped or doubled
            options = ([str(rng.choice(vocabulary))], [], [word, word])
            words += [word] if edit is None else options[edit]
        texts.append(" ".join(words))
    return texts
