"""Minimum Bayes risk: the loop over pairs against sacrebleu, and the reranker of a batch."""

import pytest
import sacrebleu
import torch
from tiny import make_dictionary

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.reranking.mbr import MinimumBayesRisk, bleu_scores, looped_scores
from difformer_plugin.reranking.reranker import Batch, Candidate

SENTENCES = [
    "the cat sat on the mat .",
    "the cat sat on a mat .",
    "a dog ran over the big green lawn",
    "the cat sat on the mat .",
    "",
    "the",
    "Über 3.5 % , isn't it ?",
]


def brute_force(candidates, evidence=()):
    """The mean sentence BLEU of each candidate with all others and the evidence."""
    means = []
    for i, hypothesis in enumerate(candidates):
        others = [
            sacrebleu.sentence_bleu(hypothesis, [reference]).score
            for j, reference in enumerate([*candidates, *evidence])
            if j != i
        ]
        means.append(sum(others) / len(others))
    return means


@pytest.mark.parametrize(
    "candidates", [SENTENCES, SENTENCES[:2], SENTENCES[:1] * 3, SENTENCES[::-1], ["", "", "a"]]
)
def test_bleu_scores(candidates):
    assert bleu_scores(candidates) == pytest.approx(brute_force(candidates))


def test_equal_candidates_have_100_and_a_single_one_has_0():
    assert bleu_scores(["a b c d e"] * 3) == pytest.approx([100] * 3)
    assert bleu_scores(["a b c d e"]) == [0]


def test_looped_scores_of_several_sentences():
    sentences, evidence = [SENTENCES[:3], SENTENCES[3:4]], [SENTENCES[3:5], SENTENCES[:2]]
    found = looped_scores(sentences, evidence)
    for scores, own, more in zip(found, sentences, evidence, strict=True):
        assert scores == pytest.approx(brute_force(own, more))
    assert looped_scores(sentences[:1])[0] == pytest.approx(brute_force(sentences[0]))


# the reranker


@pytest.fixture
def reranker(task):
    return MinimumBayesRisk(DecodingOptions(bleu_mbr=True), task.target_dictionary)


@pytest.mark.parametrize("pieces", [["\u2581the", "\u2581hou", "se"], ["the", "hou@@", "se"]])
def test_words_are_joined_as_the_dictionary_tells(pieces):
    """SentencePiece's subwords as well as subword-nmt's, unless --mbr-remove-bpe says otherwise."""
    dictionary = make_dictionary(pieces)
    own = [dictionary.index(piece) for piece in pieces]
    candidate = Candidate(torch.tensor([0, *own, 2]), torch.zeros(5))
    for name, expected in ((None, "the house"), ("none", " ".join(pieces))):
        options = DecodingOptions(bleu_mbr=True, mbr_remove_bpe=name)
        assert MinimumBayesRisk(options, dictionary)._words(candidate) == expected


@pytest.fixture
def candidates(task):
    """Framed candidates of three sentences, 4, 1 and 3 of them, with equal ones."""
    dictionary, random = task.target_dictionary, torch.Generator().manual_seed(2)

    def candidate(length):
        tokens = torch.randint(dictionary.nspecial, 12, (length,), generator=random)
        frame = torch.tensor([dictionary.bos()]), torch.tensor([dictionary.eos()])
        return Candidate(torch.cat([frame[0], tokens, frame[1]]), torch.zeros(length + 2))

    groups = [[candidate(length) for length in own] for own in ([5, 6, 4, 0], [3], [7, 7, 2])]
    groups[0].append(groups[0][0])
    return groups


def words_of(candidate, dictionary):
    """The candidate's words: subwords joined, without the frame."""
    symbols = [dictionary[t] for t in candidate.tokens.tolist()[1:-1]]
    return (" ".join(symbols) + " ").replace("@@ ", "").strip()


def test_finished_candidates_are_compared_as_words(reranker, candidates, task):
    """What was dropped from a race is evidence: a reference, but no candidate."""
    kept = [own[:3] for own in candidates]
    evidence = [own[3:] for own in candidates]
    texts, more = (
        [[words_of(c, task.target_dictionary) for c in own] for own in lot]
        for lot in (kept, evidence)
    )
    found = reranker.scores(Batch((), None, None, kept, evidence))
    for scores, own, others in zip(found, texts, more, strict=True):
        expected = brute_force(own, others) if len(own) + len(others) > 1 else [0]
        assert scores == pytest.approx(expected)


def test_a_race_compares_subwords(reranker, candidates):
    """BOS and EOS, which all candidates share, do not count."""
    found = reranker.race_scores(Batch((), None, None, candidates))
    for scores, own in zip(found, candidates, strict=True):
        # Numbers are words that sacrebleu leaves whole.
        texts = [" ".join(map(str, c.tokens[1:-1].tolist())) for c in own]
        assert scores == pytest.approx(brute_force(texts) if len(own) > 1 else [0])
