"""Diversity of several samples for one source: div-4, self-BLEU, and the oracle's choice."""

from collections.abc import Sequence
from itertools import permutations

from difformer_plugin.evaluation.inputs import System
from difformer_plugin.evaluation.metrics import corpus_bleu, sentence_bleus

NGRAM_ORDER = 4


def div_4(samples: Sequence[str]) -> float:
    """Distinct 4-grams among the samples of one source divided by all their 4-grams, in [0, 1].

    This is the diversity of Fig. 3. It was proposed by Deshpande et al. (2019) and is computed as
    in DiffuSeq (Gong et al., 2022), whose scores the figure compares with. If no sample has four
    tokens, the result is 0.

    Args:
        samples: sentences in Moses tokens.
    """
    ngrams = []
    for sample in samples:
        words = sample.split()
        ngrams += [tuple(words[i : i + NGRAM_ORDER]) for i in range(len(words) - NGRAM_ORDER + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def self_bleu(samples: Sequence[str]) -> float | None:
    """Mean sentence BLEU of the samples of one source against each other, 0 to 100.

    The mean over pairs, as in DiffuSeq (Gong et al., 2022); since BLEU is not symmetric, both
    orders of each pair count. (Zhu et al., 2018, score each sample against all others as its
    references instead.)

    Args:
        samples: sentences in Moses tokens.
    Returns:
        the mean, or None for a single sample.
    """
    pairs = list(permutations(range(len(samples)), 2))
    if not pairs:
        return None
    distinct = sorted({(samples[i], samples[j]) for i, j in pairs})
    hypotheses, references = zip(*distinct)
    scores = dict(zip(distinct, sentence_bleus(hypotheses, references, tokenised=True)))
    return sum(scores[samples[i], samples[j]] for i, j in pairs) / len(pairs)


def oracle_choice(samples: Sequence[Sequence[str]], references: Sequence[str]) -> list[str]:
    """For each sentence, the candidate with the highest sentence BLEU against the reference.

    Args:
        samples: the candidates of each sentence, in Moses tokens.
        references: in Moses tokens.
    """
    best = []
    for candidates, reference in zip(samples, references):
        scores = sentence_bleus(candidates, [reference] * len(candidates), tokenised=True)
        best.append(candidates[scores.index(max(scores))])
    return best


def diversity(system: System, references: Sequence[str]) -> dict | None:
    """Mean diversity over the sources that have several samples, and the oracle's BLEU.

    Args:
        references: in Moses tokens.
    Returns:
        a dictionary: `samples` (the most of any source), `sources` (those with several samples),
        `div_4`, `self_bleu` and `oracle_bleu`; None if every source has a single sample.
    """
    sizes = {len(candidates) for candidates in system.samples}
    if max(sizes) < 2:
        return None
    several = [candidates for candidates in system.samples if len(candidates) > 1]
    return {
        "samples": max(sizes),
        "sources": len(several),
        "div_4": sum(map(div_4, several)) / len(several),
        "self_bleu": sum(map(self_bleu, several)) / len(several),
        "oracle_bleu": corpus_bleu(oracle_choice(system.samples, references), references),
    }
