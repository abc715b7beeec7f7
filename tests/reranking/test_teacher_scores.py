"""The teacher's log-probabilities, each source encoded once, against those with one each."""

from argparse import Namespace

import pytest
import torch
from fairseq.models.fconv import FConvModel
from fairseq.models.fconv import base_architecture as fconv_base
from fairseq.models.lstm import LSTMModel
from fairseq.models.lstm import base_architecture as lstm_base

from difformer_plugin.reranking import teacher_scores as module
from difformer_plugin.reranking.choice import teacher_scores
from difformer_plugin.reranking.teacher_scores import candidate_log_probs

PAD = 1
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


def with_sources_of_their_own(teacher, sources, candidates, dictionary):
    rows = [row for row, texts in enumerate(candidates) for _ in texts]
    flat = [tokens for texts in candidates for tokens in texts]
    return teacher_scores(teacher, sources[rows], flat, dictionary).tolist()


def joined(lists):
    return [value for values in lists for value in values]


@pytest.mark.parametrize("left", [True, False])
@pytest.mark.parametrize("tokens", [1, 15, 4096])
def test_equal_to_one_source_each(teacher, task, sentences, monkeypatch, left, tokens):
    monkeypatch.setattr(module, "TOKENS", tokens)
    sources = sentences([3, 6, 1, 0, 2], left=left)
    candidates = ragged(sentences, [4, 1, 2, 1, 0], [5, 2, 7, 1, 3])
    ours = candidate_log_probs(teacher, sources, candidates, task.target_dictionary)
    assert [len(row) for row in ours] == [4, 1, 2, 1, 0]
    expected = with_sources_of_their_own(teacher, sources, candidates, task.target_dictionary)
    assert joined(ours) == pytest.approx(expected, abs=1e-5)
    assert ours[0][0] != pytest.approx(ours[2][0], abs=1e-3)  # another source, another score


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
        source = row[row.ne(PAD)][None]
        expected = [
            teacher_scores(teacher, source, [tokens], task.target_dictionary).item()
            for tokens in texts
        ]
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
