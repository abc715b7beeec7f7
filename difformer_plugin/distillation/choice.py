"""Choice of a sentence's new target among the hypotheses of its teacher (`--choose`)."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from sacrebleu.metrics import BLEU

from difformer_plugin.distillation.failures import failure
from difformer_plugin.distillation.settings import BEST_BLEU, LIKELIEST

# Sums of scores are kept in integers, in this unit: so shards add up to the same bytes.
SCORE_UNIT = 1e-6

Tokens = list[int]
Words = Callable[[Tokens, bool], str]  # (target tokens, whether to escape <unk>) -> words


class Choice(NamedTuple):
    """The new target of a sentence.

    Attributes:
        output: tokens without BOS and EOS.
        failure: (cause, next hypothesis that is not a failure, if any) where `output` is a failure.
        counts: what the report sums over all sentences, by name.
    """

    output: Tokens
    failure: tuple[str, Tokens | None] | None
    counts: dict[str, int]


ChooseOne = Callable[[Sequence[Tokens], Tokens, Tokens, int | None, Words], Choice]

_metric = BLEU(tokenize="none", effective_order=True)


def sentence_bleu(output: str, reference: str) -> float:
    """Smoothed sentence BLEU of words as they are, 0 to 100.

    Orders without a match are smoothed by `exp` (Chen and Cherry, 2014), and orders longer than
    the output are omitted, as sacrebleu does by default for sentences.
    """
    return _metric.sentence_score(output, [reference]).score


def units(score: float) -> int:
    """A score in whole SCORE_UNITs."""
    return round(score / SCORE_UNIT)


def likeliest(
    hypotheses: Sequence[Tokens], source: Tokens, target: Tokens, limit: int | None, words: Words
) -> Choice:
    """The hypothesis that the teacher's search ranks first.

    Args:
        hypotheses: the likeliest first, without BOS and EOS.
        source, target: tokens of the raw pair, without BOS and EOS.
        limit: number of tokens at which the search cuts outputs off, if known.
        words: from (target tokens, whether to escape <unk>) to text with subwords joined.
    """
    cause = failure(hypotheses[0], source, target, limit)
    if cause is None:
        return Choice(hypotheses[0], None, {})
    good = (h for h in hypotheses[1:] if failure(h, source, target, limit) is None)
    return Choice(hypotheses[0], (cause, next(good, None)), {})


def best_bleu(
    hypotheses: Sequence[Tokens], source: Tokens, target: Tokens, limit: int | None, words: Words
) -> Choice:
    """The hypothesis nearest to the raw target by sentence BLEU, failures excluded.

    Of equal ones, the likeliest is taken. If all are failures, it is the likeliest, as a failure.
    Arguments as for `likeliest`.
    """
    reference = words(target, True)
    scores = [sentence_bleu(words(tokens, False), reference) for tokens in hypotheses]
    good = [
        i for i, tokens in enumerate(hypotheses) if failure(tokens, source, target, limit) is None
    ]
    best = max(good, key=scores.__getitem__, default=0)  # `max` returns the first of equals
    counts = {
        "changed": int(hypotheses[best] != hypotheses[0]),
        "likeliest_bleu": units(scores[0]),
        "chosen_bleu": units(scores[best]),
    }
    if not good:
        return likeliest(hypotheses, source, target, limit, words)._replace(counts=counts)
    return Choice(hypotheses[best], None, counts)


CHOOSERS: dict[str, ChooseOne] = {LIKELIEST: likeliest, BEST_BLEU: best_bleu}
