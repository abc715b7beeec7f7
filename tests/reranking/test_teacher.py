"""A teacher's log-probabilities in batches against brute force, one candidate at a time."""

from argparse import Namespace

import pytest
import torch
from fairseq.models.fconv import FConvModel
from fairseq.models.fconv import base_architecture as fconv_base
from fairseq.models.lstm import LSTMModel
from fairseq.models.lstm import base_architecture as lstm_base
from teacher_by_hand import one_by_one

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.reranking import teacher as module
from difformer_plugin.reranking.reranker import Batch, Candidate
from difformer_plugin.reranking.teacher import (
    TeacherProbability,
    candidate_log_probs,
    without_bos,
)

PAD, BOS = 1, 0
POSITIONS = {"max_source_positions": 40, "max_target_positions": 40}


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def ragged(sentences, sizes, lengths, seed=0):
    """Candidates of each sentence; some are framed, some empty, some equal."""
    framed = sentences(
        [length for length in lengths for _ in range(max(sizes))], "target", seed=seed
    )
    rows = iter(row[row.ne(PAD)] for row in framed)
    candidates = [[next(rows) for _ in range(size)] for size in sizes]
    candidates[0][1] = candidates[0][0]
    candidates[0][2] = candidates[0][0][1:-1]  # the same without its frame
    candidates[2][0] = candidates[0][0]  # the same of another sentence
    candidates[3][0] = candidates[3][0][[0, -1]]  # nothing but its frame
    return candidates


def brute_force(teacher, sources, candidates):
    """The scores of all candidates in one list."""
    rows = [row for row, texts in enumerate(candidates) for _ in texts]
    flat = [tokens for texts in candidates for tokens in texts]
    return one_by_one(teacher, sources[rows], flat)


def joined(lists):
    return [value for values in lists for value in values]


@pytest.mark.parametrize("left", [True, False])
def test_sources_lose_their_bos(sentences, left):
    batch = sentences([3, 5, 1], left=left)
    stripped = without_bos(batch, BOS, PAD)
    for row, shorter in zip(batch, stripped):
        tokens = [token for token in row.tolist() if token not in (PAD, BOS)]
        assert [token for token in shorter.tolist() if token != PAD] == tokens


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("tokens", [1, 15, 4096])
def test_batches_give_what_brute_force_gives(teacher, task, sentences, monkeypatch, left, tokens):
    monkeypatch.setattr(module, "TOKENS", tokens)
    sources = sentences([3, 6, 1, 0, 2], left=left)
    candidates = ragged(sentences, [4, 1, 2, 1, 0], [5, 2, 7, 1, 3])
    ours = candidate_log_probs(teacher, sources, candidates, task.target_dictionary)
    assert [len(row) for row in ours] == [4, 1, 2, 1, 0]
    expected = brute_force(teacher, sources, candidates)
    assert joined(ours) == pytest.approx(expected, abs=1e-5)
    assert ours[0][0] != pytest.approx(ours[2][0], abs=1e-3)  # another source, another score


def test_the_reranker_asks_the_second_model(teacher, task, sentences):
    """At the end and in a race; candidates are framed."""
    sources, framed = sentences([3, 6]), sentences([5, 2, 7, 1, 3], "target")
    rows = [Candidate(row[row.ne(PAD)], None) for row in framed]
    candidates = [rows[:3], rows[3:]]
    reranker = TeacherProbability(DecodingOptions(ppl_mbr=True), task.target_dictionary)
    assert reranker.needs_teacher
    batch = Batch((None, teacher), sources, None, candidates)
    expected = brute_force(teacher, sources, [[c.tokens for c in own] for own in candidates])
    for scores in (reranker.scores(batch), reranker.race_scores(batch)):
        assert [len(own) for own in scores] == [3, 2]
        assert joined(scores) == pytest.approx(expected, abs=1e-5)


def lstm(task):
    sizes = dict.fromkeys(["encoder_embed_dim", "decoder_embed_dim", "decoder_out_embed_dim"], 12)
    args = Namespace(**sizes, **POSITIONS, criterion="cross_entropy")
    lstm_base(args)
    return LSTMModel.build_model(args, task)


def convolutions(task):
    layers = {"encoder_layers": "[(12, 3)] * 2", "decoder_layers": "[(12, 3)] * 2"}
    args = Namespace(encoder_embed_dim=12, decoder_embed_dim=12, **layers, **POSITIONS)
    fconv_base(args)
    return FConvModel.build_model(args, task)


@pytest.mark.parametrize("build", [lstm, convolutions])
def test_other_architectures(task, sentences, monkeypatch, build):
    """Sources out of order, which an LSTM refuses; outputs that reordering overwrites."""
    monkeypatch.setattr(module, "TOKENS", 12)  # several chunks
    teacher = build(task).eval()
    sources = sentences([3, 6, 1, 4])
    candidates = ragged(sentences, [4, 1, 2, 1], [5, 2, 7, 1])
    ours = candidate_log_probs(teacher, sources, candidates, task.target_dictionary)
    for row, texts, scores in zip(sources, candidates, ours):
        expected = one_by_one(teacher, row.expand(len(texts), -1), texts)
        assert scores == pytest.approx(expected, abs=1e-5)


def test_what_the_teacher_reads(teacher, task, sentences, monkeypatch):
    """Every source once; equal candidates once, in chunks within the budget."""
    encoded, decoded = [], []
    teacher.encoder.register_forward_pre_hook(lambda _, inputs: encoded.append(inputs[0]))
    teacher.decoder.register_forward_pre_hook(lambda _, inputs: decoded.append(inputs[0]))
    monkeypatch.setattr(module, "TOKENS", 20)
    sources = sentences([3, 6, 1, 4, 2])
    candidates = ragged(sentences, [4, 1, 2, 1, 1], [5, 2, 7, 1, 3])
    candidate_log_probs(teacher, sources, candidates, task.target_dictionary)
    assert [len(batch) for batch in encoded] == [5]
    distinct = [
        tokens
        for texts in candidates
        for tokens in {tuple(t for t in row.tolist() if t > 2) for row in texts}
    ]
    assert sum(len(batch) for batch in decoded) == len(distinct)
    assert all(batch.numel() <= 20 for batch in decoded)
    real = sum(batch.ne(PAD).sum().item() for batch in decoded)
    assert real == sum(len(tokens) + 1 for tokens in distinct)


def test_on_a_gpu_with_candidates_on_the_cpu(teacher, task, sentences, cuda):
    sources, candidates = sentences([3, 6, 1, 4]), ragged(sentences, [4, 1, 2, 1], [5, 2, 7, 1])
    expected = candidate_log_probs(teacher, sources, candidates, task.target_dictionary)
    teacher.to(cuda)
    ours = candidate_log_probs(teacher, sources.to(cuda), candidates, task.target_dictionary)
    assert joined(ours) == pytest.approx(joined(expected), abs=1e-3)
