"""Scores by the length of the source, and by the step of the reverse process."""

from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.metrics import corpus_bleu, finite, sentence_bleus


def parse_buckets(text):
    """`5` -> 5, a number of buckets; `10,20,30` -> [10, 20, 30], the longest length of each."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = [0]
    if min(numbers) < 1 or sorted(set(numbers)) != numbers:
        raise UserError(
            f"--buckets '{text}': give a number of buckets, as 5, or their longest lengths in "
            "rising order, as 10,20,30"
        )
    return numbers if len(numbers) > 1 else numbers[0]


def length_buckets(lengths, buckets):
    """Sentences by length: a list of (shortest, longest, indices), none of them empty.

    Args:
        lengths: of each sentence.
        buckets: how many of about equal population, sentences of one length being kept together;
            or a list of the longest length of each, after which one more takes the rest.
    """
    if isinstance(buckets, int):
        ranked = sorted(lengths)
        edges = [ranked[(len(ranked) * (i + 1) - 1) // buckets] for i in range(buckets)]
    else:
        edges = [*buckets, max(lengths)]
    found, below = [], -1
    for edge in sorted(set(edges)):
        inside = [i for i, length in enumerate(lengths) if below < length <= edge]
        if inside:
            own = [lengths[i] for i in inside]
            found.append((min(own), max(own), inside))
        below = edge
    return found


def bleu_by_length(lengths, systems, references, buckets):
    """Tokenised BLEU of each system in each bucket: a list of dicts.

    Args:
        lengths: of the sources, in words.
        references: in tokens.
    """
    return [
        {
            "shortest": shortest,
            "longest": longest,
            "sentences": len(inside),
            "bleu": [
                corpus_bleu([system.tokens[i] for i in inside], [references[i] for i in inside])
                for system in systems
            ],
        }
        for shortest, longest, inside in length_buckets(lengths, buckets)
    ]


def relative_difference(a, b):
    """d_r(a, b) = (a - b) / max(a, b), and 0 where both are 0 (Sec. 4.1 of the thesis, above)."""
    return (a - b) / max(a, b) if max(a, b) > 0 else 0.0


def regression(lengths, differences):
    """Least squares of relative differences on source lengths, and the t-test of its slope.

    t = slope / its standard error, with n - 2 degrees of freedom, against a slope of 0, on both
    sides. A positive slope: the first system does relatively better the longer the source is.

    Source:
        the thesis on diffusion translation of 2023, Sec. 4.2.1 (Table 4.3).
    Args:
        lengths: of the sources, in words.
        differences: of each sentence.
    Returns:
        a dict; None where there are fewer than three sentences, or all of one length.
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
        "t": finite(t),
        "degrees_of_freedom": len(lengths) - 2,
        "p_value": float(fit.pvalue) if finite(t) is not None else None,
        "mean_by_length": _means(lengths, differences),
    }


def _means(lengths, differences):
    """(length, mean difference, sentences), the dots of Fig. 4.2 there."""
    groups = {}
    for length, difference in zip(lengths, differences):
        groups.setdefault(length, []).append(difference)
    return [(length, sum(own) / len(own), len(own)) for length, own in sorted(groups.items())]


def bleu_by_step(system, references):
    """Tokenised BLEU of the output of each step (Fig. 4), first step first; None without steps.

    Where sentences had different numbers of steps, those that ended keep their last output.
    """
    if system.steps is None:
        return None
    count = max(map(len, system.steps))
    return [
        corpus_bleu([steps[min(k, len(steps) - 1)] for steps in system.steps], references)
        for k in range(count)
    ]


def length_errors(system, references):
    """How many tokens too many (or too few) the translations have.

    Returns:
        a dict: `mean`, `exact` (the share with none) and `counts`: error -> sentences.
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


def compare_sentences(test_set, systems):
    """Sentence BLEUs of each system, and of two the relative differences."""
    scores = [
        sentence_bleus(system.texts, test_set.references, test_set.language) for system in systems
    ]
    differences = [relative_difference(a, b) for a, b in zip(*scores)] if len(scores) > 1 else None
    return scores, differences
