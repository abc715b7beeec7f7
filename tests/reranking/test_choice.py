"""Scores of candidates against brute force: sacrebleu pair by pair, a teacher one by one."""

import pytest
import sacrebleu
import torch

from difformer_plugin.reranking import choice
from difformer_plugin.reranking.choice import bleu_scores, teacher_scores, without_bos

PAD, BOS, EOS = 1, 0, 2
SENTENCES = [
    "the cat sat on the mat .",
    "the cat sat on a mat .",
    "a dog ran over the big green lawn",
    "the cat sat on the mat .",
    "",
    "the",
    "Über 3.5 % , isn't it ?",
]


def brute_force(candidates):
    means = []
    for i, hypothesis in enumerate(candidates):
        others = [
            sacrebleu.sentence_bleu(hypothesis, [reference]).score
            for j, reference in enumerate(candidates)
            if j != i
        ]
        means.append(sum(others) / len(others))
    return means


@pytest.mark.parametrize(
    "candidates", [SENTENCES, SENTENCES[:2], SENTENCES[:1] * 3, SENTENCES[::-1], ["", "", "a"]]
)
def test_bleu_scores(candidates):
    assert bleu_scores(candidates) == pytest.approx(brute_force(candidates))


def test_bleu_of_equals_is_100_and_of_one_alone_0():
    assert bleu_scores(["a b c d e"] * 3) == pytest.approx([100] * 3)
    assert bleu_scores(["a b c d e"]) == [0]


# the teacher


@pytest.mark.parametrize("left", [True, False])
def test_sources_lose_their_bos(sentences, left):
    batch = sentences([3, 5, 1], left=left)
    stripped = without_bos(batch, BOS, PAD)
    for row, shorter in zip(batch, stripped):
        words = [token for token in row.tolist() if token not in (PAD, BOS)]
        assert [token for token in shorter.tolist() if token != PAD] == words


@torch.no_grad()
def one_by_one(teacher, src_tokens, candidates):
    """Mean log p(y_i | y_<i, x) with EOS, from a softmax of the logits, without any padding."""
    means = []
    for source, candidate in zip(src_tokens.tolist(), candidates):
        words = [token for token in candidate.tolist() if token not in (PAD, BOS, EOS)]
        source = torch.tensor([[token for token in source if token not in (PAD, BOS)]])
        total = 0.0
        for i, token in enumerate([*words, EOS]):
            prefix = torch.tensor([[EOS, *words[:i]]])
            logits = teacher(source, torch.tensor([source.shape[1]]), prefix)[0][0, -1]
            total += (logits[token] - logits.logsumexp(0)).item()
        means.append(total / (len(words) + 1))
    return means


@torch.no_grad()
@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("at_a_time", [1, 15, 4096])
def test_teacher_scores(teacher, task, sentences, monkeypatch, left, at_a_time):
    monkeypatch.setattr(choice, "TEACHER_TOKENS", at_a_time)
    sources = sentences([3, 6, 1, 4, 2], left=left)
    framed = sentences([5, 2, 7, 1, 3], "target")
    candidates = [row[row.ne(PAD)] for row in framed]
    candidates[1] = candidates[1][1:-1]  # without its frame
    candidates[3] = candidates[3][[0, 2]]  # nothing but its frame
    ours = teacher_scores(teacher, sources, candidates, task.target_dictionary)
    assert ours.dtype == torch.float32
    assert ours.tolist() == pytest.approx(one_by_one(teacher, sources, candidates), rel=1e-4)


@torch.no_grad()
def test_teacher_scores_takes_candidates_from_the_cpu(teacher, task, sentences, cuda):
    """Hypotheses are on the CPU, wherever the models are."""
    sources, framed = sentences([3, 6, 1]), sentences([5, 2, 7], "target")
    candidates = [row[row.ne(PAD)] for row in framed]
    expected = teacher_scores(teacher, sources, candidates, task.target_dictionary)
    ours = teacher_scores(teacher.to(cuda), sources.to(cuda), candidates, task.target_dictionary)
    torch.testing.assert_close(ours.cpu(), expected, rtol=1e-3, atol=1e-3)
