"""Scores by source length and by decoding step, length errors, and paired sentence scores."""

from collections.abc import Sequence

from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.inputs import System, TestSet
from difformer_plugin.evaluation.metrics import corpus_bleu, finite_or_none, sentence_bleus


def parse_buckets(text: str) -> int | list[int]:
    """Parse --buckets: `5` is a number of buckets, `10,20,30` are their longest lengths.

    Raises:
        UserError: the text is neither.
    """
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1 or sorted(set(numbers)) != numbers:
        raise UserError(
            f"--buckets '{text}': give a number of buckets such as 5, or the longest length of "
            "each bucket in rising order, such as 10,20,30"
        )
    return numbers if len(numbers) > 1 else numbers[0]


def length_buckets(
    lengths: Sequence[int], buckets: int | Sequence[int]
) -> list[tuple[int, int, list[int]]]:
    """Group sentences by length.

    Args:
        lengths: the length of each sentence.
        buckets: the number of buckets of about equal population, where sentences of the same
            length stay together; or the longest length of each bucket, after which one more
            bucket takes all longer sentences.
    Returns:
        (shortest length, longest length, sentence indices) of each bucket that is not empty.
    """
    if isinstance(buckets, int):
        ranked = sorted(lengths)
        edges = [ranked[(len(ranked) * (i + 1) - 1) // buckets] for i in range(buckets)]
    else:
        edges = [*buckets, max(lengths)]
    found, below = [], -1
    for edge in sorted(set(edges)):
        indices = [i for i, length in enumerate(lengths) if below < length <= edge]
        if indices:
            own = [lengths[i] for i in indices]
            found.append((min(own), max(own), indices))
        below = edge
    return found


def bleu_by_length(
    lengths: Sequence[int],
    systems: Sequence[System],
    references: Sequence[str],
    buckets: int | Sequence[int],
) -> list[dict]:
    """Tokenised BLEU of each system in each bucket of source lengths.

    Args:
        lengths: source lengths in words.
        references: in Moses tokens.
        buckets: see `length_buckets`.
    Returns:
        a dictionary for each bucket: `shortest`, `longest`, `sentences` (their number) and `bleu`
        (a list with the score of each system).
    """
    return [
        {
            "shortest": shortest,
            "longest": longest,
            "sentences": len(indices),
            "bleu": [
                corpus_bleu([system.tokens[i] for i in indices], [references[i] for i in indices])
                for system in systems
            ],
        }
        for shortest, longest, indices in length_buckets(lengths, buckets)
    ]


def relative_difference(a: float, b: float) -> float:
    """d_r(a, b) = (a - b) / max(a, b), and 0 if both are 0 (Sec. 4.1 of the thesis cited below)."""
    return (a - b) / max(a, b) if max(a, b) > 0 else 0.0


def regression(lengths: Sequence[int], differences: Sequence[float]) -> dict | None:
    """Regress relative score differences on source length, and test the slope against 0.

    Ordinary least squares with a two-sided t-test: t is the slope divided by its standard error,
    with n - 2 degrees of freedom. A positive slope means that the first system does relatively
    better on longer sources.

    Source:
        the thesis on diffusion translation of 2023, Sec. 4.2.1 (Table 4.3).
    Args:
        lengths: source lengths in words.
        differences: the relative difference of each sentence, see `relative_difference`.
    Returns:
        the fit as a dictionary, in which `t` and `p_value` are None if the line fits exactly;
        None if there are fewer than three sentences or all sources have the same length.
    """
    if len(lengths) < 3 or len(set(lengths)) < 2:
        return None
    from scipy.stats import linregress

    fit = linregress(lengths, differences)
    t = float(fit.slope / fit.stderr) if fit.stderr > 0 else float("nan")
    return {
        "slope": float(fit.slope),
        "intercept": float(fit.intercept),
        "standard_error": float(fit.stderr),
        "t": finite_or_none(t),
        "degrees_of_freedom": len(lengths) - 2,
        "p_value": float(fit.pvalue) if finite_or_none(t) is not None else None,
        "mean_by_length": _mean_by_length(lengths, differences),
    }


def _mean_by_length(lengths, differences):
    """(length, mean difference, number of sentences) by length: the points of Fig. 4.2 there."""
    groups = {}
    for length, difference in zip(lengths, differences):
        groups.setdefault(length, []).append(difference)
    return [(length, sum(own) / len(own), len(own)) for length, own in sorted(groups.items())]


def bleu_by_step(system: System, references: Sequence[str]) -> list[float] | None:
    """Tokenised BLEU of the output after each decoding step (Fig. 4 of the Difformer paper).

    A sentence that took fewer steps than others keeps its last output in the remaining steps.

    Returns:
        the scores, first step first; None if the system has no recorded steps.
    """
    if system.steps is None:
        return None
    num_steps = max(map(len, system.steps))
    return [
        corpus_bleu([steps[min(k, len(steps) - 1)] for steps in system.steps], references)
        for k in range(num_steps)
    ]


def length_errors(system: System, references: Sequence[str]) -> dict:
    """Differences between translation length and reference length, in Moses tokens.

    Returns:
        a dictionary: `mean`, `exact` (the share of sentences without an error) and `counts`
        (error -> number of sentences; an error is positive if the translation is too long).
    """
    errors = [
        len(tokens.split()) - len(reference.split())
        for tokens, reference in zip(system.tokens, references)
    ]
    return {
        "mean": sum(errors) / len(errors),
        "exact": errors.count(0) / len(errors),
        "counts": {error: errors.count(error) for error in sorted(set(errors))},
    }


def compare_sentences(
    test_set: TestSet, systems: Sequence[System]
) -> tuple[list[list[float]], list[float] | None]:
    """Sentence BLEU of each system and, for two systems, the relative difference by sentence."""
    scores = [
        sentence_bleus(system.texts, test_set.references, test_set.language) for system in systems
    ]
    differences = [relative_difference(a, b) for a, b in zip(*scores)] if len(scores) > 1 else None
    return scores, differences
