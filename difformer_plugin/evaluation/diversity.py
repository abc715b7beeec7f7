"""How different are several samples for one source? div-4, self-BLEU, and the best of them."""

from itertools import permutations

from difformer_plugin.evaluation.metrics import corpus_bleu, sentence_bleus

NGRAM = 4


def div_4(samples):
    """Distinct 4-grams of the samples of one source, divided by all of them, in [0, 1].

    The measure of Fig. 3, in the form in which DiffuSeq (Gong et al., 2022), whose scores stand
    there, computes what Deshpande et al. (2019) proposed. 0 where no sample has four tokens.

    Args:
        samples: sentences in tokens.
    """
    ngrams = []
    for sample in samples:
        words = sample.split()
        ngrams += [tuple(words[i : i + NGRAM]) for i in range(len(words) - NGRAM + 1)]
    return len(set(ngrams)) / len(ngrams) if ngrams else 0.0


def self_bleu(samples):
    """Mean sentence BLEU of the samples of one source against each other, 0 to 100.

    As in DiffuSeq (Gong et al., 2022): a mean over pairs, here of both orders since BLEU is not
    symmetric. (Zhu et al., 2018, instead score each against all others as its references.) None
    for a single sample.

    Args:
        samples: sentences in tokens.
    """
    pairs = list(permutations(range(len(samples)), 2))
    if not pairs:
        return None
    distinct = {(samples[i], samples[j]) for i, j in pairs}
    ordered = sorted(distinct)
    scores = dict(zip(ordered, sentence_bleus(*zip(*ordered), tokenised=True)))
    return sum(scores[samples[i], samples[j]] for i, j in pairs) / len(pairs)


def oracle(samples, references):
    """For each sentence the candidate with the highest sentence BLEU: what a perfect choice gives.

    Args:
        samples: for each sentence its candidates in tokens.
        references: in tokens.
    """
    best = []
    for candidates, reference in zip(samples, references):
        scores = sentence_bleus(candidates, [reference] * len(candidates), tokenised=True)
        best.append(candidates[scores.index(max(scores))])
    return best


def diversity(system, references):
    """Means over the sources of the test set, or None where there is one sample a source.

    Args:
        system: a System.
        references: in tokens.
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
        "oracle_bleu": corpus_bleu(oracle(system.samples, references), references),
    }
