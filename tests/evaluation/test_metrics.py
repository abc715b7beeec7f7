"""Scores against their definitions and against other implementations."""

import math
import random
from collections import Counter

import pytest
import sacrebleu
from fairseq.data import Dictionary
from fairseq.scoring import bleu as fairseq_bleu

from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.inputs import System, TestSet
from difformer_plugin.evaluation.metrics import (
    corpus_bleu,
    metrics,
    score,
    sentence_bleus,
    split_compounds,
)

HYPOTHESES = [
    "the cat sat on the the mat .",
    "a well-known state-of-the-art model of diffusion works",
    "he reads a book in the garden every day",
]
REFERENCES = [
    "the cat sat on the red mat .",
    "a well-known state-of-the-art model of diffusion works well",
    "every day he reads a book in the big garden",
]
# Scores of mosesdecoder's multi-bleu.perl, with two more digits than it prints, as is and after
# perl -ple 's{(\S)-(\S)}{$1 ##AT##-##AT## $2}g'
MULTI_BLEU, MULTI_BLEU_COMPOUNDS = 68.6689, 77.9811


def brute_force_bleu(hypotheses, references):
    """BLEU by the definition of Papineni et al. (2002)."""
    log_precision = 0
    for n in range(1, 5):
        matched = total = 0
        for hypothesis, reference in zip(hypotheses, references):
            counts = [
                Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1))
                for w in (hypothesis.split(), reference.split())
            ]
            matched += sum((counts[0] & counts[1]).values())
            total += sum(counts[0].values())
        if matched == 0:
            return 0.0
        log_precision += math.log(matched / total) / 4
    c = sum(len(hypothesis.split()) for hypothesis in hypotheses)
    r = sum(len(reference.split()) for reference in references)
    return 100 * math.exp(log_precision + min(0, 1 - r / c))


def fairseq_score(hypotheses, references):
    """BLEU of fairseq's scorer, as printed by `fairseq-score`."""
    dictionary = Dictionary()
    scorer = fairseq_bleu.Scorer(
        fairseq_bleu.BleuConfig(pad=dictionary.pad(), eos=dictionary.eos(), unk=dictionary.unk())
    )
    for hypothesis, reference in zip(hypotheses, references):
        tokens = [dictionary.encode_line(text) for text in (reference, hypothesis)]
        scorer.add(*tokens)
    return scorer.score()


def random_pairs(seed, count):
    """Random sentences over six words, so that n-grams match by chance; some are empty."""
    draw = random.Random(seed)
    references = [draw.choices("abcdef", k=draw.randint(1, 14)) for _ in range(count)]
    hypotheses = [
        [word if draw.random() < 0.8 else draw.choice("abcdef") for word in words][
            : draw.randint(0, 14)
        ]
        for words in references
    ]
    return [" ".join(words) for words in hypotheses], [" ".join(words) for words in references]


@pytest.mark.parametrize("seed", range(5))
def test_tokenised_bleu_matches_the_definition(seed):
    pairs = random_pairs(seed, 30)
    expected = brute_force_bleu(*pairs)
    assert 0 < expected < 100
    assert corpus_bleu(*pairs) == pytest.approx(expected, abs=1e-9)


def test_tokenised_bleu_matches_multi_bleu_and_fairseq():
    assert corpus_bleu(HYPOTHESES, REFERENCES) == pytest.approx(MULTI_BLEU, abs=1e-4)
    assert fairseq_score(HYPOTHESES, REFERENCES) == pytest.approx(MULTI_BLEU, abs=1e-4)
    # no 4-gram matches: 0 without smoothing
    assert corpus_bleu(["a b c x"], ["a b c d"]) == 0


@pytest.mark.parametrize(
    "text, split",
    [
        ("well-known", "well ##AT##-##AT## known"),
        ("ab-cd-ef", "ab ##AT##-##AT## cd ##AT##-##AT## ef"),
        ("a-b-c", "a ##AT##-##AT## b-c"),  # the first match has consumed b
        ("1990-2000 - now", "1990 ##AT##-##AT## 2000 - now"),
        ("-x x- --", "-x x- --"),
        ("x---y", "x ##AT##-##AT## --y"),
        ("a @-@ b", "a @ ##AT##-##AT## @ b"),
    ],
)
def test_compounds_are_split_like_the_perl_substitution(text, split):
    assert split_compounds(text) == split


def test_german_gets_a_row_with_compounds_split():
    labels = {lang: [metric.key for metric in metrics(lang)] for lang in ("de", "en")}
    assert set(labels["de"]) - set(labels["en"]) == {"bleu_compounds"}
    (compounds,) = (metric for metric in metrics("de") if metric.split_compounds)
    system, test_set = System("s", [], HYPOTHESES, []), TestSet("de", [], REFERENCES, None)
    row = score(compounds, test_set, [system], 0)
    assert row["scores"] == [pytest.approx(MULTI_BLEU_COMPOUNDS, abs=1e-4)]
    assert "tok:none|smooth:none" in row["signature"]


def test_scores_on_text_match_sacrebleu():
    system, test_set = System("s", HYPOTHESES, [], []), TestSet("en", REFERENCES, [], None)
    rows = {m.key: score(m, test_set, [system], 0) for m in metrics("en") if not m.on_tokens}
    expected = {
        "sacrebleu": sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]),
        "chrf": sacrebleu.corpus_chrf(HYPOTHESES, [REFERENCES]),
        "ter": sacrebleu.corpus_ter(HYPOTHESES, [REFERENCES]),
    }
    assert {key: row["scores"][0] for key, row in rows.items()} == {
        key: value.score for key, value in expected.items()
    }
    assert "tok:13a|smooth:exp" in rows["sacrebleu"]["signature"]
    upper = System("s", [text.upper() for text in HYPOTHESES], [], [])
    lowered = [m for m in metrics("en", lowercase=True) if not m.on_tokens]
    for metric in lowered:
        assert score(metric, test_set, [upper], 0)["scores"] == rows[metric.key]["scores"]
    assert {m.key for m in metrics("en", skip=["ter"])} == {"bleu_tokenised", "sacrebleu", "chrf"}


def test_chinese_is_split_into_characters():
    hypotheses, references = ["我喜欢吃苹果。", "他在家。"], ["我喜欢吃梨。", "他在家里。"]
    (found,) = (m for m in metrics("zh") if m.key == "sacrebleu")
    system, test_set = System("s", hypotheses, [], []), TestSet("zh", references, [], None)
    row = score(found, test_set, [system], 0)
    spaced = [[" ".join(text) for text in texts] for texts in (hypotheses, references)]
    expected = sacrebleu.BLEU(tokenize="none", force=True).corpus_score(spaced[0], [spaced[1]])
    assert row["scores"] == [pytest.approx(expected.score)] and "tok:zh" in row["signature"]
    sentence = sacrebleu.BLEU(tokenize="none", effective_order=True)
    assert sentence_bleus(hypotheses, references, "zh") == [
        pytest.approx(sentence.sentence_score(h, [r]).score) for h, r in zip(*spaced)
    ]


@pytest.mark.parametrize("language", ["ja", "ko"])
def test_a_missing_tokeniser_is_named(language, monkeypatch):
    monkeypatch.setattr(f"sacrebleu.tokenizers.tokenizer_{language}_mecab.MeCab", None)
    with pytest.raises(UserError, match=rf"pip install 'sacrebleu\[{language}\]'"):
        metrics(language)


def test_bootstrap_distinguishes_a_better_system_from_an_equal_one():
    worse, references = random_pairs(1, 60)
    better = [r if i % 2 else h for i, (h, r) in enumerate(zip(worse, references))]
    metric, test_set = metrics("en")[0], TestSet("en", [], references, None)

    def compare(a, b):
        return score(metric, test_set, [System("a", [], a, []), System("b", [], b, [])], 200)

    row = compare(better, worse)
    assert row["scores"] == [corpus_bleu(better, references), corpus_bleu(worse, references)]
    assert row["p_value"] < 0.05 and "bs:200|seed:12345" in row["signature"]
    assert row["intervals"][1][1] < row["intervals"][0][0]
    for value, (low, high) in zip(row["scores"], row["intervals"]):
        assert low < value < high
    assert compare(worse, worse)["p_value"] == 1
    assert compare(better, worse) == row


def test_bootstrap_interval_covers_95_percent_of_resamples():
    hypotheses, references = random_pairs(2, 40)
    metric, test_set = metrics("en")[0], TestSet("en", [], references, None)
    row = score(metric, test_set, [System("a", [], hypotheses, [])], 1000)
    draw, resampled = random.Random(0), []
    for _ in range(400):
        chosen = draw.choices(range(40), k=40)
        resampled.append(
            brute_force_bleu([hypotheses[i] for i in chosen], [references[i] for i in chosen])
        )
    low, high = row["intervals"][0]
    inside = sum(low <= value <= high for value in resampled) / len(resampled)
    assert inside == pytest.approx(0.95, abs=0.03)


def test_sentence_bleu_ignores_orders_longer_than_the_sentence():
    assert sentence_bleus(["a b"], ["a b"], tokenised=True) == [pytest.approx(100)]
    # 2 of 3 unigrams, 1 of 2 bigrams, and 0 of 1 trigram, smoothed to 1/2
    expected = 100 * (2 / 3 * 1 / 2 * 1 / 2) ** (1 / 3)
    assert sentence_bleus(["a b x"], ["a b c"], tokenised=True) == [pytest.approx(expected)]
