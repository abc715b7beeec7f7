"""What a process knows of the data: made once, kept in checkpoints; and the vectors it reads."""

import numpy as np
import pytest
import torch
from discrete_kinds import KINDS

from difformer_plugin.diffusion.categorical.graph import neighbour_graph
from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform
from difformer_plugin.diffusion.categorical.schedules import Floored, LogLinear
from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.config import DiscreteDiffusionConfig
from difformer_plugin.families.tokens.model import DiscreteDiffusion
from difformer_plugin.families.tokens.process import FLOOR
from difformer_plugin.families.tokens.type_vectors import type_vectors

FIRST = 3
INFORMED = {"objective": "d3pm", "process": "uniform", "noise_schedule": "mutual_information"}
NEAREST = KINDS["d3pm nearest"]
LEARNED = {"uniform": INFORMED, "nearest": NEAREST}
learned = pytest.mark.parametrize("options", LEARNED.values(), ids=LEARNED)


def untaught(model, task):
    """The model as it is built for a checkpoint: nothing is known of the data."""
    return DiscreteDiffusion.build_model(model.cfg, task).eval()


# what is learned


def test_the_schedule_has_the_information_of_the_tasks_counts(build_discrete, task):
    """I(x_t; x_0) = (1 - t) H(x_0), by the joint distribution; the special symbols do not count."""
    process = build_discrete(**INFORMED).process
    p = task.target_counts().numpy()[FIRST:]
    p, n = p / p.sum(), len(p)
    entropy = -(p * np.log(p)).sum()
    for t in (0.0, 0.125, 0.5, 0.875, 1.0):
        alpha = process.schedule.alpha(torch.tensor([t], dtype=torch.float64)).item()
        joint = p[:, None] * (alpha * np.eye(n) + (1 - alpha) / n)
        ratios = joint / (p[:, None] * joint.sum(0))
        information = (joint * np.log(np.where(joint > 0, ratios, 1))).sum()
        assert information == pytest.approx((1 - t) * entropy, abs=2e-5)


def test_the_absorbing_one_needs_no_data(build_discrete, task):
    """It is log-linear whatever the data are (D3PM, Sec. 3.2), and so is the default."""
    for name in (None, "mutual_information"):
        model = untaught(build_discrete(noise_schedule=name), task)
        assert isinstance(model.process, Absorbing)
        assert isinstance(model.process.schedule, LogLinear)


@pytest.mark.parametrize("name", ["linear", "cosine", "mutual_information"])
def test_score_based_uniform_diffusion_ends_above_zero(build_discrete, name):
    """Its rate is finite then."""
    process = build_discrete(**KINDS["sedd uniform"], noise_schedule=name).process
    assert isinstance(process, Uniform) and isinstance(process.schedule, Floored)
    ends = process.schedule.alpha(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([1, FLOOR])


def test_the_graph_is_that_of_the_vectors(build_discrete, task, tmp_path):
    model = build_discrete(**NEAREST)
    lines = (tmp_path / "vectors.txt").read_text().splitlines()
    rows = [[float(x) for x in line.split()[1:]] for line in lines]
    expected, _ = neighbour_graph(torch.tensor(rows[FIRST:]), 2)
    own = {tuple(sorted(edge)) for edge in model.chain.get_extra_state()["edges"].tolist()}
    assert own == {tuple(sorted(edge)) for edge in expected.tolist()}
    types = len(task.target_dictionary) - FIRST
    assert max(max(edge) for edge in own) == types - 1 == model.process.types - 1


@learned
def test_what_is_there_is_not_learned_again(build_discrete, task, options):
    model = build_discrete(**options)
    table = model.chain.get_extra_state()["table"].clone()
    task.target_counts = lambda: torch.ones(len(task.target_dictionary)).double()
    model.prepare_training(task)
    assert model.chain.get_extra_state()["table"].equal(table)


@learned
def test_without_data_there_is_no_process(build_discrete, task, options):
    model = untaught(build_discrete(**options), task)
    with pytest.raises(UserError, match="train the model, or load a checkpoint") as error:
        model.process  # noqa: B018
    assert "\n" not in str(error.value)


# checkpoints


@learned
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_checkpoints_keep_it_exactly(build_discrete, task, tmp_path, options, dtype):
    """Weights only; in whatever precision the model is, its process is not rounded."""
    model = build_discrete(**options)
    path = tmp_path / "model.pt"
    torch.save(model.to(dtype).state_dict(), path)
    other = untaught(model, task).to(dtype)
    other.load_state_dict(torch.load(path, weights_only=True))
    assert set(other.chain.get_extra_state()) == set(model.chain.get_extra_state())
    for name, tensor in model.chain.get_extra_state().items():
        assert (
            other.chain.get_extra_state()[name].equal(tensor)
            and other.chain.get_extra_state()[name].dtype == tensor.dtype
        )
    x, t = torch.arange(4), torch.full((4,), 0.4, dtype=torch.float64)
    ours, theirs = (m.process.row(x, 0 * t, t) for m in (other, model))
    assert ours.equal(theirs) and ours.dtype == torch.float32


@learned
def test_a_checkpoint_overrules_what_was_learned_anew(build_discrete, task, options):
    """As a training that goes on: its data may be others."""
    model = build_discrete(**options)
    state, table = model.state_dict(), model.chain.get_extra_state()["table"].clone()
    other = untaught(model, task)
    task.target_counts = lambda: (torch.arange(len(task.target_dictionary)) ** 3 + 1).double()
    other.prepare_training(task)
    assert not other.chain.get_extra_state()["table"].equal(table)
    other.load_state_dict(state)
    assert other.chain.get_extra_state()["table"].equal(table)
    assert other.process.schedule.values.equal(table)


@pytest.mark.parametrize("theirs", ["uniform", "nearest", "cosine"])
@pytest.mark.parametrize("ours", ["uniform", "nearest", "cosine"])
def test_checkpoints_of_another_process(build_discrete, ours, theirs):
    every = LEARNED | {"cosine": KINDS["d3pm uniform"]}
    state = build_discrete(**every[theirs]).state_dict()
    model = build_discrete(**every[ours])
    if ours == theirs:
        model.load_state_dict(state)
    else:
        with pytest.raises(UserError, match="diffusion process is another one") as error:
            model.load_state_dict(state)
        assert "\n" not in str(error.value) and "--noise-schedule" in str(error.value)


def test_a_checkpoint_without_a_mask_is_none_of_the_absorbing_process(build_discrete):
    state = build_discrete(**KINDS["d3pm uniform"]).state_dict()
    with pytest.raises(UserError, match="do not fit this model") as error:
        build_discrete(**KINDS["d3pm absorbing"]).load_state_dict(state)
    assert "\n" not in str(error.value)


def test_moving_averages_of_fairseqs(build_discrete):
    """They are made of the weights, and keep the process."""
    from fairseq.dataclass.configs import EMAConfig
    from fairseq.models.ema.ema import EMA

    model = build_discrete(**NEAREST)
    average = EMA(model, EMAConfig(ema_decay=0.5, ema_start_update=0))
    with torch.no_grad():
        model.denoiser.output_projection.weight.add_(1)
    before = average.model.denoiser.output_projection.weight.clone()
    average.step(model, updates=1)
    after = average.model.denoiser.output_projection.weight
    torch.testing.assert_close(after, before + 0.5)
    assert average.model.chain.get_extra_state()["table"].equal(
        model.chain.get_extra_state()["table"]
    )


# vectors


def cfg(**options):
    return DiscreteDiffusionConfig(process="nearest", objective="d3pm", **options)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content)
        else:
            torch.save(content, path)
        return str(path)

    return write


def text_of(symbols, dim=2):
    return "\n".join(f"{symbol} " + " ".join([str(i + 0.5)] * dim) for i, symbol in symbols)


def test_vectors_of_a_text(task, write):
    """Special symbols need none, a heading line is none, and other symbols do no harm."""
    symbols = list(enumerate(task.target_dictionary.symbols))
    text = "22 2\n" + text_of(symbols[FIRST:]) + "\nelsewhere 7 7"
    for option in ("neighbour_embeddings", "decoder_embed_path"):
        vectors = type_vectors(cfg(**{option: write("v.txt", text)}), task.target_dictionary)
        assert vectors.tolist() == [[0, 0]] * FIRST + [[i + 0.5] * 2 for i, _ in symbols[FIRST:]]


@pytest.mark.parametrize("table", ["decoder.embed_tokens.weight", "denoiser.embed_tokens.weight"])
def test_vectors_of_a_checkpoint(task, write, table):
    weights = torch.randn(len(task.target_dictionary), 3)
    path = write("c.pt", {"model": {table: weights.half(), "encoder.x": torch.zeros(1)}})
    vectors = type_vectors(cfg(neighbour_embeddings=path), task.target_dictionary)
    assert vectors.dtype == torch.float32 and vectors.equal(weights.half().float())


def test_vectors_of_models_of_ours_and_fairseqs(task, teacher, build_discrete, write):
    for model in (teacher, build_discrete()):
        path = write("model.pt", {"model": model.state_dict()})
        vectors = type_vectors(cfg(neighbour_embeddings=path), task.target_dictionary)
        part = model.decoder if model is teacher else model.denoiser
        assert vectors.equal(part.embed_tokens.weight)


@pytest.mark.parametrize("case", ["none", "missing", "size", "empty", "text", "dims", "lines"])
def test_vectors_that_cannot_be(task, write, tmp_path, case):
    symbols = list(enumerate(task.target_dictionary.symbols))
    whole = text_of(symbols)
    table = {"model": {"decoder.embed_tokens.weight": torch.zeros(7, 3)}}
    path, said = {
        "none": (None, "--process nearest needs embeddings"),
        "missing": (str(tmp_path / "no.txt"), "no.txt: No such file"),
        "size": (write("s.pt", table), "a table of 7 types, but.*24"),
        "empty": (write("e.pt", {"model": {}}), "no table"),
        "text": (write("t.txt", text_of(symbols[:-2])), "no vector of 't18@@' and 1 other types"),
        "dims": (write("d.txt", whole + "\nmore 1 2 3"), "several dimensions"),
        "lines": (write("l.txt", whole + "\nmore 1 x"), "line 25"),
    }[case]
    with pytest.raises(UserError, match=said) as error:
        type_vectors(cfg(neighbour_embeddings=path), task.target_dictionary)
    assert "\n" not in str(error.value)


def test_types_that_never_occur(build_discrete, task):
    model = untaught(build_discrete(**INFORMED), task)
    task.target_counts = lambda: torch.cat([torch.zeros(10), torch.ones(14)]).double()
    model.prepare_training(task)
    values = model.chain.get_extra_state()["table"]
    assert values.isfinite().all() and (values.diff() < 0).all()
    assert values[0] == 1 and values[-1] == 0
