"""Recorded predictions, on a CPU with recordings that compute anew, on a GPU with the real ones."""

import pytest
import torch
from discrete_kinds import FIXED
from torch.utils._python_dispatch import TorchDispatchMode

from difformer_plugin.decoding import engine, graphs
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.graphs import Recordings
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.speedups import PLAIN, Speedups

PADDED = Speedups(share=True, pack=False, chunk=True, count=True)
OPTIONS = {"decoding_steps": 4, "length_beam_size": 2, "noise_beam_size": 2}


def record_here(function):
    """A stand-in for CUDA graphs: each replay recomputes the output from the input tensors."""
    output = function().clone()
    return lambda: output.copy_(function()), output


class NoHostData(TorchDispatchMode):
    """Refuses tensors of data that is not in a tensor yet, as CUDA does while it records."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function._schema.name == "aten::lift_fresh":  # what torch.tensor ends with
            raise RuntimeError("a tensor is made of host data")
        return function(*args, **(kwargs or {}))


def record_strictly(function):
    """As `record_here`, with the warm-up and the refusals of real recordings."""
    function()
    with pytest.MonkeyPatch.context() as patch, NoHostData():
        patch.setattr(torch, "from_numpy", refuse)  # it is not dispatched
        function()
    return record_here(function)


def refuse(function):
    raise RuntimeError("no recording today")


@pytest.fixture
def model(build):
    return build(self_cond=True, pred_length_offset=True, decoder_learned_pos=True)


@pytest.fixture
def translate(model, task):
    def translate(source, speedups=PADDED, **options):
        options = DecodingOptions(**(OPTIONS | options))
        own = DiffusionGenerator(task.target_dictionary, options, 1, speedups=speedups)
        drawn = own.generate([model], {"net_input": {"src_tokens": source}})
        return [[h["tokens"].tolist() for h in candidates] for candidates in drawn]

    return translate


@pytest.fixture
def recordings(model, monkeypatch):
    """A function that makes decoding on the CPU replay what another function records."""

    def recordings(record, model=model):
        monkeypatch.setattr(engine, "REPLAYING", {"cpu"})
        model.derived["graphs", 0] = Recordings(record)
        return model.derived["graphs", 0]

    return recordings


def test_replayed_predictions_are_those_of_the_model(translate, sentences, recordings):
    batches = [sentences(lengths, seed=i) for i, lengths in enumerate([[5, 3], [5, 4], [5, 2]] * 2)]
    expected = [translate(batch, PLAIN) for batch in batches]
    kept = recordings(record_here)
    assert [translate(batch) for batch in batches] == expected
    # shapes that came twice were recorded
    assert kept.by_shape and len(kept.by_shape) < len(batches)
    assert translate(batches[0], decoding_precision="bf16", force_precision=True)
    assert {shape[-1] for shape in kept.seen} == {torch.float32, torch.bfloat16}


@pytest.mark.parametrize("options", [{}, {"clamping": True}], ids=str)
def test_replayed_predictions_know_given_tokens_as_the_model_does(
    build, task, sentences, recordings, options
):
    """The first prediction reads nothing of an earlier one, at given tokens either."""
    model = build(self_cond=True, clean_tokens=0.5)
    source, dictionary = sentences([5, 3]), task.target_dictionary
    own = DecodingOptions(**OPTIONS, decoding_sampler="confidence", **options)

    def translate(speedups):
        generator = DiffusionGenerator(dictionary, own, 1, speedups=speedups)
        drawn = generator.generate([model], {"net_input": {"src_tokens": source}}, prefix)
        tokens = [[h["tokens"].tolist() for h in candidates] for candidates in drawn]
        return tokens, [float(h["score"]) for candidates in drawn for h in candidates]

    prefix = torch.tensor([[5, 6], [7, 8]])
    expected = translate(PLAIN)
    kept = recordings(record_here, model)
    for _ in range(3):
        tokens, scores = translate(PADDED)
        assert tokens == expected[0] and scores == pytest.approx(expected[1], rel=1e-4)
    assert kept.by_shape


def assert_recorded(model, dictionary, source, recordings):
    kept = recordings(record_strictly, model)
    options = DecodingOptions(decoding_steps=3, noise_beam_size=2)
    generator = DiffusionGenerator(dictionary, options, 1, speedups=PADDED)
    for _ in range(2):
        generator.generate([model], {"net_input": {"src_tokens": source}})
    assert kept.enabled and kept.by_shape


@pytest.mark.parametrize(
    "options", [{}, {"normalize_input": True}, {"noise_schedule": "positional"}], ids=str
)
def test_no_step_makes_a_tensor_of_host_data(build, task, sentences, recordings, options):
    model = build(self_cond=True, **options)
    assert_recorded(model, task.target_dictionary, sentences([5, 3]), recordings)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blind_source": True},
        {"plain_source": True, "restart_positions": True},
        {"blind_source": True, "plain_source": True, "restart_positions": True},
        {"conditioning": "full"},
        {"conditioning": "full", "restart_positions": True},
        {"conditioning": "full", "prediction": "epsilon"},
        {"prediction": "epsilon"},
        {"prediction": "mean"},
        {"prediction": "expected_embedding"},
        {"normalize_input": True},
    ],
    ids=str,
)
def test_nor_of_joint_models(build_joint, joined_task, sentences, recordings, options):
    model = build_joint(**options)
    assert_recorded(model, joined_task.target_dictionary, sentences([5, 3]), recordings)


@pytest.mark.parametrize("kind", FIXED)
def test_nor_of_models_of_tokens(build_discrete, task, sentences, recordings, kind):
    model = build_discrete(**FIXED[kind])
    assert_recorded(model, task.target_dictionary, sentences([5, 3]), recordings)


def test_candidates_that_finish_early_are_left_out(translate, sentences, recordings):
    source = sentences([5, 3, 8])
    shortcuts = {"race_after": 2, "decoding_steps": 8}
    expected = translate(source, **shortcuts)
    recordings(record_here)
    for _ in range(3):
        assert translate(source, **shortcuts) == expected


def test_without_recordings_decoding_goes_on(translate, sentences, recordings, caplog):
    source = sentences([5, 3])
    expected = translate(source)
    kept = recordings(refuse)
    assert [translate(source) for _ in range(4)] == [expected] * 4
    said = [r.message for r in caplog.records if "without CUDA graphs" in r.message]
    assert len(said) == 1 and "no recording today" in said[0] and not kept.by_shape


def test_only_the_latest_recordings_are_kept(translate, sentences, recordings, monkeypatch):
    monkeypatch.setattr(graphs, "MAX_RECORDINGS", 2)
    kept = recordings(record_here)
    for length in (5, 5, 12, 12, 20, 20):
        translate(sentences([length]), force_length=length, length_beam_size=1)
    assert [shape[1] for shape in kept.by_shape] == [16, 24]


def test_recordings_are_dropped_when_weights_change(model, recordings):
    for change in (model.train, model.double, lambda: model.load_state_dict(model.state_dict())):
        recordings(record_here)
        change()
        assert not model.derived
    model.eval()
    recordings(record_here)
    model.eval()  # as fairseq calls before each batch of a validation
    assert model.derived


def test_graphs_on_a_gpu(translate, model, sentences, cuda):
    sources = [sentences([5, 3], seed=i).to(cuda) for i in range(4)]
    model.to(cuda)
    expected = [translate(source, PLAIN) for source in sources]
    assert [translate(source) for source in sources] == expected
    recordings = model.derived["graphs", 0]
    assert recordings.enabled and recordings.by_shape
