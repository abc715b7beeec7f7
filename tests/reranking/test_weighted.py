"""Weighted sums of rerankers, and the length model, against sums and tables worked out by hand."""

from types import SimpleNamespace

import pytest
import torch

from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError
from difformer_plugin.networks.layers import Memory
from difformer_plugin.reranking.length import LengthProbability
from difformer_plugin.reranking.mbr import MinimumBayesRisk
from difformer_plugin.reranking.options import build_reranker
from difformer_plugin.reranking.own import OwnProbability
from difformer_plugin.reranking.reranker import Batch, Candidate
from difformer_plugin.reranking.teacher import TeacherProbability


def candidate(length, seed):
    random = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 24, (length,), generator=random)
    tokens[0], tokens[-1] = 0, 2
    return Candidate(tokens, -torch.rand(length, generator=random))


@pytest.fixture
def batch(build, teacher, sentences):
    """Two sentences with three candidates each."""
    model = build(pred_length_offset=True)
    src_tokens = sentences([4, 6])
    with torch.no_grad():
        memory = model.encoder(src_tokens)
    candidates = [
        [candidate(5, 0), candidate(6, 1), candidate(5, 2)],
        [candidate(8, 3), candidate(9, 4), candidate(7, 5)],
    ]
    return Batch([model, teacher], src_tokens, memory, candidates)


@torch.no_grad()
def test_a_sum_of_what_the_parts_say(batch, task):
    options = DecodingOptions(rerank="mbr=2, teacher=0.5,length=0.1,own=-1")
    dictionary = task.target_dictionary
    ours = build_reranker(options, dictionary)
    ours.check(batch.models)
    parts = (MinimumBayesRisk, TeacherProbability, LengthProbability, OwnProbability)
    for method in ("scores", "race_scores"):
        own = [getattr(kind(options, dictionary), method)(batch) for kind in parts]
        for s, found in enumerate(getattr(ours, method)(batch)):
            mbr, teacher, length, probability = (torch.tensor(scores[s]) for scores in own)
            expected = 2 * mbr / 100 + 0.5 * teacher + 0.1 * length - probability
            assert found == pytest.approx(expected.tolist(), rel=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name, flag", [("mbr", "bleu_mbr"), ("teacher", "ppl_mbr")])
def test_one_part_alone_ranks_as_its_own_option_does(batch, task, name, flag):
    options = [DecodingOptions(rerank=name), DecodingOptions(**{flag: True})]
    ours, expected = (build_reranker(o, task.target_dictionary).scores(batch) for o in options)
    for a, b in zip(ours, expected):
        assert sorted(range(3), key=a.__getitem__) == sorted(range(3), key=b.__getitem__)


@torch.no_grad()
def test_the_length_model(batch, task):
    """log softmax of the predictor's logits, class by class; offsets count from the source."""
    model = batch.models[0]
    logits = model.length_predictor(batch.memory).double()
    expected = []
    for s, (source, candidates) in enumerate(zip((6, 8), batch.candidates)):
        log_probs = logits[s] - logits[s].logsumexp(0)
        expected.append([log_probs[128 + len(c.tokens) - source].item() for c in candidates])
    ours = LengthProbability(None, task.target_dictionary).scores(batch)
    for found, wanted in zip(ours, expected):
        assert found == pytest.approx(wanted, rel=1e-5)


def test_a_length_without_a_class_is_the_last_choice(task):
    model = SimpleNamespace(
        length_predictor=type(
            "Predictor",
            (),
            {
                "__call__": lambda self, memory: torch.zeros(1, 2),
                "lengths": lambda self, memory: torch.tensor([[3, 4]]),
            },
        )()
    )
    memory = Memory(torch.zeros(1, 1, 1), torch.ones(1, 1).bool())
    batch = Batch([model], torch.zeros(1, 1), memory, [[candidate(3, 0), candidate(9, 0)]])
    (near, far), *_ = LengthProbability(None, task.target_dictionary).scores(batch)
    assert near == pytest.approx(-0.6931, abs=1e-4) and far == -1e4


@pytest.mark.parametrize(
    "given, said",
    [
        ({"rerank": "bleu=1"}, "--rerank bleu=1: no such reranker as 'bleu'; there are .*mbr"),
        ({"rerank": ""}, "--rerank : no such reranker"),
        ({"rerank": "mbr=1,mbr=2"}, "mbr is there twice"),
        ({"rerank": "mbr=many"}, "the weight of mbr must be a number, not 'many'"),
        ({"rerank": "mbr=inf"}, "the weight of mbr must be finite"),
        ({"rerank": "mbr=1", "bleu_mbr": True}, "--rerank chooses instead of --bleu-mbr"),
    ],
)
def test_values_that_cannot_be(given, said):
    with pytest.raises(UserError, match=said) as error:
        check_options(DecodingOptions(**given))
    assert "\n" not in str(error.value)


def test_models_that_a_part_needs(build, build_discrete, teacher, task):
    def check(text, *models):
        build_reranker(DecodingOptions(rerank=text), task.target_dictionary).check(models)

    check("mbr,length", build())
    check("teacher", build(), teacher)
    with pytest.raises(UserError, match="--rerank teacher needs a teacher"):
        check("mbr,teacher", build())
    with pytest.raises(UserError, match="--rerank length: .* predicts no length"):
        check("length", build_discrete(objective="flexible"))
