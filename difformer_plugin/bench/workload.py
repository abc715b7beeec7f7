"""What is translated: sentences of a split in batches, and synthetic candidates for MBR."""

from collections.abc import Sequence

import numpy as np

from difformer_plugin.errors import UserError

BEAMS_OF_PAPER = {"1": (1, 1), "10": (5, 2), "21": (7, 3)}  # candidates -> (b1, b2)


def parse_beams(text: str, tries_lengths: bool = True) -> tuple[int, int]:
    """Parse --beams into (b1, b2), the numbers of lengths and of noises.

    `7x3` names both; 1, 10 and 21 candidates are split as in the paper.

    Args:
        tries_lengths: whether several lengths can be tried (`Family.tries_lengths`); otherwise all
            candidates differ in their noise alone.
    Raises:
        UserError: the text has neither form, or asks for several lengths of a model that does not
            predict any.
    """
    if text in BEAMS_OF_PAPER:
        return BEAMS_OF_PAPER[text] if tries_lengths else (1, int(text))
    lengths, _, noises = text.partition("x")
    if not (lengths.isdecimal() and noises.isdecimal() and int(lengths) and int(noises)):
        raise UserError(
            f"--beams {text}: give the number of lengths and of noises as 7x3, or 1, 10 or 21"
        )
    if not tries_lengths and int(lengths) > 1:
        raise UserError(
            f"--beams {text}: this model predicts no lengths, so candidates cannot differ in "
            f"length: give 1x{int(lengths) * int(noises)}"
        )
    return int(lengths), int(noises)


def choose_sentences(count: int, total: int, seed: int) -> np.ndarray:
    """Numbers of `count` of the sentences 0 to total - 1, drawn without replacement.

    Raises:
        UserError: there are fewer sentences.
    """
    if count > total:
        raise UserError(f"--sentences: the split has only {total}, not {count}")
    return np.random.default_rng(seed).permutation(total)[:count]


def in_batches(numbers: np.ndarray, lengths: Sequence[int], size: int) -> list[np.ndarray]:
    """Split sentences into batches of `size`, sorted by length as fairseq-generate does.

    Args:
        numbers: of the sentences.
        lengths: of all sentences of the split.
    Returns:
        the sentence numbers of each batch.
    """
    ordered = numbers[np.argsort(np.asarray(lengths)[numbers], kind="stable")]
    return [ordered[start : start + size] for start in range(0, len(ordered), size)]


def around_quantiles(
    lengths: np.ndarray, count: int, quantiles: Sequence[float] = (0.1, 0.5, 0.9)
) -> list[np.ndarray]:
    """For each quantile, the `count` sentences whose lengths are nearest to it."""
    lengths = np.asarray(lengths)
    wanted = np.quantile(lengths, quantiles)
    return [np.argsort(np.abs(lengths - length), kind="stable")[:count] for length in wanted]


def random_edits(
    sentence: Sequence[str],
    vocabulary: Sequence[str],
    candidates: int,
    rng: np.random.Generator,
    rate: float = 0.15,
) -> list[str]:
    """Candidates for a sentence, made by replacing, dropping or doubling words at random.

    Args:
        sentence: its words.
        vocabulary: words to replace others with.
        candidates: how many to make.
        rate: probability of editing a word.
    """
    texts = []
    for _ in range(candidates):
        words = []
        for word in sentence:
            edit = int(rng.integers(3)) if rng.random() < rate else None
            edited = ([str(rng.choice(vocabulary))], [], [word, word])  # replace, drop, double
            words += [word] if edit is None else edited[edit]
        texts.append(" ".join(words))
    return texts
