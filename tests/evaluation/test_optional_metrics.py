"""ROUGE against hand counts; BERTScore and COMET with missing and with fake packages."""

import importlib.metadata
import importlib.util
import os
import sys
from collections import Counter
from types import SimpleNamespace

import pytest

from difformer_plugin.evaluation import optional_metrics
from difformer_plugin.evaluation.inputs import System, TestSet

HYPOTHESES = ["The cat sat on the mat.", "A dog runs."]
REFERENCES = ["On the mat sat the cat!", "The dog runs fast."]
TEST_SET = TestSet("en", REFERENCES, REFERENCES, ["Katze", "Hund"])
SYSTEMS = [System("a", HYPOTHESES, HYPOTHESES, []), System("b", REFERENCES, REFERENCES, [])]


def f1(matches, hypothesis, reference):
    return 2 * matches / (hypothesis + reference)


def ngram_f1(a, b, n):
    a, b = (Counter(tuple(w[i : i + n]) for i in range(len(w) - n + 1)) for w in (a, b))
    return f1(sum((a & b).values()), sum(a.values()), sum(b.values()))


def longest_common_subsequence(a, b):
    if not a or not b:
        return 0
    if a[-1] == b[-1]:
        return 1 + longest_common_subsequence(a[:-1], b[:-1])
    return max(longest_common_subsequence(a[:-1], b), longest_common_subsequence(a, b[:-1]))


def rouge_by_hand(pairs):
    scores = [
        (ngram_f1(a, b, 1), ngram_f1(a, b, 2), f1(longest_common_subsequence(a, b), len(a), len(b)))
        for a, b in pairs
    ]
    return [pytest.approx(100 * sum(column) / len(scores)) for column in zip(*scores)]


def test_rouge():
    pytest.importorskip("rouge_score")
    rows = optional_metrics.rouge(TEST_SET, SYSTEMS)
    words = [
        [text.lower().rstrip(".!").split() for text in pair] for pair in zip(HYPOTHESES, REFERENCES)
    ]
    assert [row["scores"][0] for row in rows] == rouge_by_hand(words)
    assert [row["scores"][1] for row in rows] == [pytest.approx(100)] * 3
    assert [row["label"] for row in rows] == ["ROUGE-1", "ROUGE-2", "ROUGE-L"]


def test_rouge_keeps_letters_beyond_a_to_z():
    pytest.importorskip("rouge_score")
    hypothesis, reference = "Die Bären hören zu .", "Die Bühren hören weg ."
    test_set = TestSet("de", [], [reference], None)
    rows = optional_metrics.rouge(test_set, [System("a", [], [hypothesis], [])])
    words = [[text.lower().split() for text in (hypothesis, reference)]]
    assert [row["scores"][0] for row in rows] == rouge_by_hand(words)


@pytest.mark.parametrize(
    "compute, package",
    [
        (optional_metrics.rouge, "rouge-score"),
        (optional_metrics.bert_score, "bert-score"),
        (optional_metrics.comet, "unbabel-comet"),
    ],
)
def test_a_missing_package_is_named(monkeypatch, compute, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(optional_metrics.Unavailable, match=f"pip install {package}$"):
        compute(TEST_SET, SYSTEMS)


@pytest.fixture
def fake(monkeypatch):
    """A function that replaces packages by fake modules."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0")
    # a copy, so that changes to the environment are undone
    monkeypatch.setattr(os, "environ", dict(os.environ))

    def fake(**modules):
        for name, module in modules.items():
            monkeypatch.setitem(sys.modules, name, module)

    return fake


class FakeMean(list):
    def mean(self):
        return sum(self) / len(self)


def assert_offline():
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["TRANSFORMERS_OFFLINE"] == "1"
    assert os.environ["TORCH_FORCE_WEIGHTS_ONLY_LOAD"] == "1"


def bert_scorer(model_type, num_layers):
    assert_offline()
    assert (model_type, num_layers) == ("bert-x", 7)
    return SimpleNamespace(
        score=lambda texts, references: (
            None,
            None,
            FakeMean(0.5 + 0.5 * (a == b) for a, b in zip(texts, references)),
        )
    )


def test_bert_score_is_the_mean_f1(fake):
    utils = SimpleNamespace(lang2model={"en": "bert-x"}, model2layers={"bert-x": 7})
    fake(bert_score=SimpleNamespace(utils=utils, BERTScorer=bert_scorer))
    (row,) = optional_metrics.bert_score(TEST_SET, SYSTEMS)
    assert row["scores"] == [50, 100] and "model:bert-x|layer:7" in row["signature"]


def test_a_missing_model_is_named(fake):
    def scorer(**options):
        raise OSError("cannot find bert-x\nin the cache")

    utils = SimpleNamespace(lang2model={"en": "bert-x"}, model2layers={"bert-x": 7})
    fake(bert_score=SimpleNamespace(utils=utils, BERTScorer=scorer))
    said = r"bert-x could not be loaded \(cannot find bert-x\).*hf download.*--bertscore-model"
    with pytest.raises(optional_metrics.Unavailable, match=said) as error:
        optional_metrics.bert_score(TEST_SET, SYSTEMS)
    assert "\n" not in str(error.value)


def test_comet_reads_sources_and_a_local_checkpoint(fake, tmp_path):
    checkpoint = tmp_path / "model.ckpt"
    checkpoint.touch()

    def predict(data, gpus, progress_bar):
        assert_offline()
        assert [row["src"] for row in data] == TEST_SET.sources
        good = sum(row["mt"] == row["ref"] for row in data)
        return SimpleNamespace(system_score=good / len(data))

    loaded = []

    def load_from_checkpoint(path):
        loaded.append(path)
        return SimpleNamespace(predict=predict)

    def snapshot_download(name, local_files_only):
        assert local_files_only
        raise FileNotFoundError(f"{name} is not in the cache")

    fake(
        comet=SimpleNamespace(load_from_checkpoint=load_from_checkpoint),
        huggingface_hub=SimpleNamespace(snapshot_download=snapshot_download),
    )
    (row,) = optional_metrics.comet(TEST_SET, SYSTEMS, str(checkpoint))
    assert row["scores"] == [0, 100] and loaded == [str(checkpoint)]
    with pytest.raises(optional_metrics.Unavailable, match="wmt22-comet-da is not in the cache"):
        optional_metrics.comet(TEST_SET, SYSTEMS)
    tokens = TestSet("en", REFERENCES, REFERENCES, ["x", "y"], raw_sources=False)
    with pytest.raises(optional_metrics.Unavailable, match="--src"):
        optional_metrics.comet(tokens, SYSTEMS)
