"""MBR in tensors against sacrebleu's loop, and against n-grams counted one by one."""

import math
import random
from collections import Counter
from itertools import chain

import pytest
import torch
from sacrebleu.metrics import BLEU
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

from difformer_plugin.reranking import ngram_bleu
from difformer_plugin.reranking.mbr import bleu_scores
from difformer_plugin.reranking.ngram_bleu import mbr_scores, mbr_scores_of_ids

AWKWARD = [
    "",
    " ",
    "a",
    "a a",
    "the cat .",
    "the cat.",
    "the cat , the cat , the cat",
    "a a a a a a a a a a",
    "1,000.5 men -- and 3-4 dogs , in 1990-91 .",
    "1, 000.5 men -- and 3 - 4 dogs , in 1990 - 91.",
    "&quot;R&amp;D&quot; &lt;b&gt; &amp;lt; &amp;quot;",
    '"R & D" <b> &lt; &quot;',
    "a<skipped>b <skipped> <skip<skipped>ped>",
    "ab <skipped>",
    "Über 3.5 % , isn't it ?",
    "Äpfel\u00a0und\u3000Birnen , 中文。 １２．５ 😀",
    "tabs\tand\x1cothers\u2028too , .",
    "a line-\nbroken word\nand another .\n",
    "a linebroken word and another .",
    "....,,,,.. -1 1- 1.- .5 5. ,5 5,",
]
PIECES = [
    *"ab09.,-&;:!'[~/ \t\n\u00a0é中１",
    "&quot;",
    "&amp;",
    "&lt;",
    "<skipped>",
    "<skip",
    "-\n",
    " . ",
]


def close(scores):
    return [pytest.approx(row, abs=1e-9) for row in scores]


def random_texts(dice, number, vocabulary, longest):
    return [
        " ".join(dice.choices(vocabulary, k=dice.randint(0, longest)))
        for _ in range(dice.choice([1, 2, 3, number]))
    ]


@pytest.mark.parametrize("elements", [1, 300, 2**22])
def test_equal_to_the_loop(monkeypatch, elements):
    """Random texts of few words, with repeated n-grams and equal texts; ragged sentences."""
    monkeypatch.setattr(ngram_bleu, "ELEMENTS", elements)
    dice = random.Random(elements)
    sentences = [
        random_texts(dice, 9, ["a", "b", "c.", ","][: dice.randint(1, 4)], dice.choice([3, 12]))
        for _ in range(20)
    ]
    assert any(len(set(candidates)) < len(candidates) for candidates in sentences)
    assert mbr_scores(sentences) == close([bleu_scores(texts) for texts in sentences])


def test_awkward_texts():
    sentences = [AWKWARD, AWKWARD[::-3], AWKWARD[:2], AWKWARD[:1], [], AWKWARD[4:6] * 2]
    assert mbr_scores(sentences) == close([bleu_scores(texts) for texts in sentences])


def test_nothing_to_score():
    assert mbr_scores([]) == []
    assert mbr_scores([[], ["a b"], ["", ""]]) == [[], [0], [0, 0]]
    assert mbr_scores([[]], evidence=[["a"]]) == [[]]


def test_words_are_tokenised_one_by_one_as_lines_are():
    dice, tokenise = random.Random(4), Tokenizer13a()
    texts = ["".join(dice.choices(PIECES, k=dice.randint(0, 12))) for _ in range(8000)]
    ids, lengths = ngram_bleu._word_ids(texts)
    expected = [tokenise(text.rstrip()).split() for text in texts]
    assert lengths.tolist() == [len(words) for words in expected]
    first_seen = {word: i for i, word in enumerate(dict.fromkeys(chain.from_iterable(expected)))}
    assert ids.tolist() == [first_seen[word] for words in expected for word in words]


def test_evidence():
    dice = random.Random(5)
    sentences = [random_texts(dice, 6, ["a", "b", "c"], 8) for _ in range(12)]
    evidence = [random_texts(dice, 5, ["a", "b", "d"], 8) + texts[:1] for texts in sentences]
    evidence[0] = []
    evidence[1] += evidence[1]
    bleu = BLEU(effective_order=True)
    for row, texts, further in zip(mbr_scores(sentences, evidence=evidence), sentences, evidence):
        for i, (score, text) in enumerate(zip(row, texts)):
            references = [*texts[:i], *texts[i + 1 :], *further]
            expected = [bleu.sentence_score(text, [reference]).score for reference in references]
            assert score == pytest.approx(sum(expected) / max(len(expected), 1), abs=1e-9)


def test_evidence_is_for_each_sentence():
    with pytest.raises(ValueError):
        mbr_scores([["a"], ["b"]], evidence=[["a"]])


def counted_bleu(hypothesis, reference):
    """Sentence BLEU, from counters of n-grams, in logarithms."""
    log_precisions, missed = [], 0
    for n in range(1, min(4, len(hypothesis)) + 1):
        grams, others = (
            Counter(tuple(ids[i : i + n]) for i in range(len(ids) - n + 1))
            for ids in (hypothesis, reference)
        )
        matches = (grams & others).total()
        if n == 1 and not matches:
            return 0
        missed += not matches
        log_precisions.append(math.log((matches or 2**-missed) / grams.total()))
    if not log_precisions:
        return 0
    brevity = min(0, 1 - len(reference) / len(hypothesis))
    return 100 * math.exp(brevity + sum(log_precisions) / len(log_precisions))


@pytest.mark.parametrize("elements", [1, 2**22])
def test_ids(monkeypatch, elements, device="cpu"):
    monkeypatch.setattr(ngram_bleu, "ELEMENTS", elements)
    ids = torch.randint(0, 4, (40, 11)) * 7001  # sparse ids; what pads is left random
    lengths = torch.randint(0, 12, (40,))
    sentence = torch.randint(0, 8, (40,)) * 3 + 5  # in no order, with gaps
    sentence[17] = 100  # one alone
    texts = [row[:length].tolist() for row, length in zip(ids, lengths)]
    ours = mbr_scores_of_ids(ids.to(device), lengths.to(device), sentence.to(device))
    assert ours.dtype == torch.float64 and ours.device.type == device
    for i, score in enumerate(ours.tolist()):
        others = [j for j in range(40) if j != i and sentence[j] == sentence[i]]
        expected = sum(counted_bleu(texts[i], texts[j]) for j in others) / max(len(others), 1)
        assert score == pytest.approx(expected, abs=1e-9)
    assert ours[17] == 0


def test_autocast_does_not_round_counts():
    """bfloat16 cannot tell 257 matches from 256."""
    texts = [" ".join(["a"] * n) for n in (257, 258, 300)]
    with torch.autocast("cpu", torch.bfloat16):
        assert mbr_scores([texts]) == close([bleu_scores(texts)])


def test_on_a_gpu(monkeypatch, cuda):
    test_ids(monkeypatch, 2**22, cuda.type)
    sentences = [AWKWARD, AWKWARD[:3], []]
    assert mbr_scores(sentences, cuda) == close(mbr_scores(sentences))
