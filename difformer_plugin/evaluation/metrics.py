"""BLEU as multi-bleu counts it and sacreBLEU, chrF and TER, with the paired bootstrap."""

import math
import re
from dataclasses import dataclass
from typing import Any

from difformer_plugin.errors import UserError

COMPOUND = re.compile(r"(\S)-(\S)")


@dataclass(frozen=True)
class Metric:
    """A metric of sacrebleu and what it is applied to: Moses tokens, or detokenised text."""

    key: str
    label: str
    scorer: Any
    on_tokens: bool = False
    split_compounds: bool = False

    def view(self, texts, tokens):
        """The sentences as this metric wants them."""
        if self.split_compounds:
            return [split_compounds(line) for line in tokens]
        return tokens if self.on_tokens else texts


def split_compounds(tokens):
    """Tokens with compounds split at hyphens: rock-hard -> rock ##AT##-##AT## hard.

    It is the substitution s{(\\S)-(\\S)}{$1 ##AT##-##AT## $2}g with which scores on WMT14
    English-German are computed, to the letter: the middle of a-b-c is one letter that two hyphens
    would have to share, so only the first is split; and the token @-@ of a tokeniser that has
    split at hyphens itself becomes three.
    """
    return COMPOUND.sub(r"\1 ##AT##-##AT## \2", tokens)


def metrics(language, skip=(), lowercase=False):
    """The metrics for a target language, in the order of the table.

    Args:
        language: German has compounds split in one more row, and sacreBLEU splits Chinese,
            Japanese and Korean in its own ways.
        skip: keys to leave out.
        lowercase: ignore case.
    Raises:
        UserError: as of `sacre_bleu`.
    """
    from sacrebleu.metrics import BLEU, CHRF, TER

    def multi_bleu():
        """No smoothing, and words between spaces, as multi-bleu.perl."""
        return BLEU(lowercase, force=True, tokenize="none", smooth_method="none")

    found = [Metric("bleu_tokenised", "BLEU, tokenised", multi_bleu(), on_tokens=True)]
    if language == "de":
        found.append(
            Metric("bleu_compounds", "BLEU, tok., compounds split", multi_bleu(), True, True)
        )
    found += [
        Metric("sacrebleu", "sacreBLEU", sacre_bleu(language, lowercase=lowercase)),
        Metric("chrf", "chrF2", CHRF(lowercase=lowercase)),
        Metric("ter", "TER (less is better)", TER()),
    ]
    return [metric for metric in found if metric.key not in skip]


def sacre_bleu(language, **options):
    """sacrebleu's BLEU with the tokeniser that it has for a target language.

    Raises:
        UserError: the tokeniser is a package that is not there.
    """
    from sacrebleu.metrics import BLEU

    try:
        return BLEU(trg_lang=language or "", **options)
    except RuntimeError as error:
        raise UserError(
            f"sacreBLEU needs another package to split '{language}' into words: "
            f"pip install 'sacrebleu[{language}]'"
        ) from error


def score(metric, test_set, systems, bootstrap_samples):
    """Score systems by a metric and compare two by paired bootstrap resampling.

    Koehn (2004), Statistical Significance Tests for Machine Translation Evaluation, as sacrebleu
    has it: p is the probability that resampled test sets give a difference so great although the
    systems are equally good.

    Args:
        systems: one System, or the system and its baseline.
        bootstrap_samples: resampled test sets; 0 for none.
    Returns:
        a dict of `key`, `label`, `signature`, `scores` (a list) and, if resampled, `intervals`
        (95 %: a list of (low, high)) and, of two systems, `p_value`.
    """
    views = [metric.view(system.texts, system.tokens) for system in systems]
    references = [metric.view(test_set.references, test_set.reference_tokens)]
    row = {"key": metric.key, "label": metric.label}
    if bootstrap_samples:
        from sacrebleu.significance import PairedTest

        named = [(str(i), view) for i, view in enumerate(reversed(views))]  # the baseline first
        test = PairedTest(named, {"": metric.scorer}, references, "bs", bootstrap_samples)
        signatures, results = test()
        ((name, signature),) = signatures.items()
        found = list(reversed(results[name]))
        row |= {
            "scores": [float(result.score) for result in found],
            "intervals": [
                (float(result.mean - result.ci), float(result.mean + result.ci)) for result in found
            ],
            "signature": signature.format(),
        }
        if len(found) > 1:
            # sacrebleu counts differences greater than that observed: of equal outputs, none
            row["p_value"] = 1.0 if views[0] == views[1] else float(found[0].p_value)
    else:
        row["scores"] = [metric.scorer.corpus_score(view, references).score for view in views]
        row["signature"] = metric.scorer.get_signature().format()
    return row


def corpus_bleu(hypotheses, references):
    """BLEU as multi-bleu counts it, of lists of sentences in tokens."""
    (metric,) = (metric for metric in metrics(None) if metric.key == "bleu_tokenised")
    return metric.scorer.corpus_score(hypotheses, [references]).score


def sentence_bleus(hypotheses, references, language=None, tokenised=False):
    """sacreBLEU of each sentence, 0 to 100, without the n-grams that it is too short for."""
    tokens = {"tokenize": "none"} if tokenised else {}
    bleu = sacre_bleu(language, effective_order=True, **tokens)
    return [
        bleu.sentence_score(hypothesis, [reference]).score
        for hypothesis, reference in zip(hypotheses, references)
    ]


def finite(number):
    """A number, or None where JSON has none: NaN and the infinities."""
    return number if math.isfinite(number) else None
