"""BLEU, chrF and TER by sacreBLEU, with confidence intervals and paired significance tests."""

import math
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.bootstrap import resample
from difformer_plugin.evaluation.inputs import System, TestSet

if TYPE_CHECKING:
    from sacrebleu.metrics import BLEU

SIGNIFICANCE_LEVEL = 0.05
HYPHENATED = re.compile(r"(\S)-(\S)")


@dataclass(frozen=True)
class Metric:
    """A metric of sacreBLEU and the form of the sentences that it is applied to.

    Attributes:
        key: its name in JSON and on the command line.
        label: its name in tables.
        scorer: the metric object of sacreBLEU.
        on_tokens: apply it to Moses tokens instead of detokenised text.
        split_compounds: split the tokens at hyphens first.
        lower_is_better: a lower score is better.
    """

    key: str
    label: str
    scorer: Any
    on_tokens: bool = False
    split_compounds: bool = False
    lower_is_better: bool = False

    def view(self, texts: Sequence[str], tokens: Sequence[str]) -> Sequence[str]:
        """The sentences in the form that the metric is applied to."""
        if self.split_compounds:
            return [split_compounds(line) for line in tokens]
        return tokens if self.on_tokens else texts


def split_compounds(tokens: str) -> str:
    """Split compounds at hyphens: rock-hard -> rock ##AT##-##AT## hard.

    This is exactly the substitution s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g that is customary for
    scores on WMT14 English-German. In a-b-c it splits the first hyphen only, because the match has
    consumed b; and it splits the token @-@ of a tokeniser that splits hyphens itself.
    """
    return HYPHENATED.sub(r"\1 ##AT##-##AT## \2", tokens)


def metrics(
    language: str | None, skip: Collection[str] = (), lowercase: bool = False
) -> list[Metric]:
    """The metrics for a target language, in the order of the table.

    Args:
        language: German gets another row with compounds split; for Chinese, Japanese and Korean,
            sacreBLEU uses its tokeniser of that language.
        skip: keys of metrics to leave out.
        lowercase: ignore case.
    Raises:
        UserError: see `sacre_bleu`.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    def multi_bleu():
        """BLEU as multi-bleu.perl computes it: tokens between spaces, no smoothing."""
        return BLEU(lowercase, force=True, tokenize="none", smooth_method="none")

    found = [Metric("bleu_tokenised", "BLEU, tokenised", multi_bleu(), on_tokens=True)]
    if language == "de":
        found.append(
            Metric("bleu_compounds", "BLEU, tok., compounds split", multi_bleu(), True, True)
        )
    found += [
        Metric("sacrebleu", "sacreBLEU", sacre_bleu(language, lowercase=lowercase)),
        Metric("chrf", "chrF2", CHRF(lowercase=lowercase)),
        Metric("ter", "TER (less is better)", TER(), lower_is_better=True),
    ]
    return [metric for metric in found if metric.key not in skip]


def sacre_bleu(language: str | None, **options: Any) -> "BLEU":
    """sacreBLEU's BLEU with its default tokeniser for a target language.

    Args:
        options: more arguments of `sacrebleu.metrics.BLEU`.
    Raises:
        UserError: the tokeniser needs a package that is not installed.
    """
    from sacrebleu.metrics import BLEU

    try:
        return BLEU(trg_lang=language or "", **options)
    except RuntimeError as error:
        raise UserError(
            f"sacreBLEU needs another package to split '{language}' into words: "
            f"pip install 'sacrebleu[{language}]'"
        ) from error


def score(
    metric: Metric, test_set: TestSet, systems: Sequence[System], bootstrap_samples: int
) -> dict:
    """Score systems, and compare two of them by paired bootstrap resampling.

    Args:
        systems: one system, or the system and its baseline.
        bootstrap_samples: number of resampled test sets; 0 for no resampling.
    Returns:
        a dictionary: `key`, `label`, `signature`, `scores` (a list) and, with resampling,
        `intervals` (a list of 95 % intervals, (low, high)); for two systems also `better`, which
        of them wins, and `p_value`.
    """
    views = [metric.view(system.texts, system.tokens) for system in systems]
    references = metric.view(test_set.references, test_set.reference_tokens)
    row: dict[str, Any] = {"key": metric.key, "label": metric.label}
    if bootstrap_samples:
        row |= resample(metric.scorer, views, references, bootstrap_samples)
    else:
        row["scores"] = [metric.scorer.corpus_score(view, [references]).score for view in views]
        row["signature"] = metric.scorer.get_signature().format()
    if len(systems) > 1:
        row["better"] = better(row["scores"], row.get("p_value"), metric.lower_is_better)
    return row


def better(
    scores: Sequence[float], p_value: float | None = None, lower_is_better: bool = False
) -> str:
    """Which of two systems a metric prefers, in words; `p_value` is None if it was not tested."""
    if scores[0] == scores[1]:
        return "equal"
    if p_value is not None and p_value >= SIGNIFICANCE_LEVEL:
        return "no significant difference"
    winner = "system" if (scores[0] > scores[1]) != lower_is_better else "baseline"
    return winner if p_value is not None else f"{winner} (not tested)"


def corpus_bleu(hypotheses: Sequence[str], references: Sequence[str]) -> float:
    """Tokenised BLEU as multi-bleu.perl computes it, 0 to 100, of sentences in tokens."""
    (metric,) = (metric for metric in metrics(None) if metric.key == "bleu_tokenised")
    return metric.scorer.corpus_score(hypotheses, [references]).score


def sentence_bleus(
    hypotheses: Sequence[str],
    references: Sequence[str],
    language: str | None = None,
    tokenised: bool = False,
) -> list[float]:
    """sacreBLEU of each sentence, 0 to 100, without n-gram orders longer than the sentence.

    Args:
        language: of the sentences, which selects the tokeniser.
        tokenised: the sentences are in tokens already.
    """
    tokens = {"tokenize": "none"} if tokenised else {}
    bleu = sacre_bleu(language, effective_order=True, **tokens)
    return [
        bleu.sentence_score(hypothesis, [reference]).score
        for hypothesis, reference in zip(hypotheses, references)
    ]


def finite_or_none(number: float) -> float | None:
    """The number, or None for NaN and infinities, which JSON cannot represent."""
    return number if math.isfinite(number) else None
