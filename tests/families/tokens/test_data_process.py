"""What a forward process takes from the data: computed once, kept in checkpoints."""

import numpy as np
import pytest
import torch
from discrete_kinds import KINDS

from difformer_plugin.diffusion.categorical.graph import neighbour_graph
from difformer_plugin.diffusion.categorical.process import Absorbing, Uniform
from difformer_plugin.diffusion.schedules import Floored
from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.data_process import FLOOR
from difformer_plugin.families.tokens.model import DiscreteDiffusion

FIRST_TYPE = 3
INFORMED = {"objective": "d3pm", "process": "uniform", "noise_schedule": "mutual_information"}
NEAREST = KINDS["d3pm nearest"]
NEEDING_DATA = {"uniform": INFORMED, "nearest": NEAREST}
needing_data = pytest.mark.parametrize("options", NEEDING_DATA.values(), ids=NEEDING_DATA)


def without_data(model, task):
    """The model as it is built before a checkpoint is loaded: nothing is computed from data."""
    return DiscreteDiffusion.build_model(model.cfg, task).eval()


def test_the_schedule_has_the_information_of_the_tasks_counts(build_discrete, task):
    """I(x_t; x_0) = (1 - t) H(x_0), by the joint distribution; the special symbols do not count."""
    process = build_discrete(**INFORMED).process
    p = task.target_counts().numpy()[FIRST_TYPE:]
    p, n = p / p.sum(), len(p)
    entropy = -(p * np.log(p)).sum()
    for t in (0.0, 0.125, 0.5, 0.875, 1.0):
        alpha = process.schedule.alpha_bar(torch.tensor([t], dtype=torch.float64)).item()
        joint = p[:, None] * (alpha * np.eye(n) + (1 - alpha) / n)
        ratios = joint / (p[:, None] * joint.sum(0))
        information = (joint * np.log(np.where(joint > 0, ratios, 1))).sum()
        assert information == pytest.approx((1 - t) * entropy, abs=2e-5)


def test_the_absorbing_one_needs_no_data(build_discrete, task):
    """It is log-linear whatever the data are (D3PM, Sec. 3.2), and so is the default."""
    for name in (None, "mutual_information"):
        model = without_data(build_discrete(noise_schedule=name), task)
        assert isinstance(model.process, Absorbing)
        t = torch.linspace(0, 1, 9, dtype=torch.float64)
        torch.testing.assert_close(model.process.schedule.alpha_bar(t), 1 - t)
        assert not model.chain.needs_data


@pytest.mark.parametrize("name", ["linear", "cosine", "mutual_information"])
def test_score_based_uniform_diffusion_ends_above_zero(build_discrete, name):
    """Its rate is finite then."""
    process = build_discrete(**KINDS["sedd uniform"], noise_schedule=name).process
    assert isinstance(process, Uniform) and isinstance(process.schedule, Floored)
    ends = process.schedule.alpha_bar(torch.tensor([0.0, 1.0], dtype=torch.float64))
    assert ends.tolist() == pytest.approx([1, FLOOR])


def test_the_graph_is_that_of_the_vectors(build_discrete, task, tmp_path):
    model = build_discrete(**NEAREST)
    lines = (tmp_path / "vectors.txt").read_text().splitlines()
    rows = [[float(x) for x in line.split()[1:]] for line in lines]
    expected, _ = neighbour_graph(torch.tensor(rows[FIRST_TYPE:]), 2)
    own = {tuple(sorted(edge)) for edge in model.chain.get_extra_state()["edges"].tolist()}
    assert own == {tuple(sorted(edge)) for edge in expected.tolist()}
    types = len(task.target_dictionary) - FIRST_TYPE
    assert max(max(edge) for edge in own) == types - 1 == model.process.types - 1


@needing_data
def test_tables_are_computed_once(build_discrete, task, options):
    model = build_discrete(**options)
    table = model.chain.get_extra_state()["table"].clone()
    task.target_counts = lambda: torch.ones(len(task.target_dictionary)).double()
    model.prepare_training(task)
    assert model.chain.get_extra_state()["table"].equal(table)


@needing_data
def test_without_data_there_is_no_process(build_discrete, task, options):
    model = without_data(build_discrete(**options), task)
    with pytest.raises(UserError, match="train the model, or load a checkpoint") as error:
        model.process  # noqa: B018
    assert "\n" not in str(error.value)


def test_types_that_never_occur(build_discrete, task):
    model = without_data(build_discrete(**INFORMED), task)
    task.target_counts = lambda: torch.cat([torch.zeros(10), torch.ones(14)]).double()
    model.prepare_training(task)
    values = model.chain.get_extra_state()["table"]
    assert values.isfinite().all() and (values.diff() < 0).all()
    assert values[0] == 1 and values[-1] == 0


# checkpoints


@needing_data
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_checkpoints_keep_tables_exactly(build_discrete, task, tmp_path, options, dtype):
    """With weights only; whatever precision the model has, its process is not rounded."""
    model = build_discrete(**options)
    path = tmp_path / "model.pt"
    torch.save(model.to(dtype).state_dict(), path)
    other = without_data(model, task).to(dtype)
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


@needing_data
def test_a_checkpoint_goes_before_what_was_computed_anew(build_discrete, task, options):
    """So a training that goes on keeps its process, even with other data."""
    model = build_discrete(**options)
    state, table = model.state_dict(), model.chain.get_extra_state()["table"].clone()
    other = without_data(model, task)
    task.target_counts = lambda: (torch.arange(len(task.target_dictionary)) ** 3 + 1).double()
    other.prepare_training(task)
    assert not other.chain.get_extra_state()["table"].equal(table)
    other.load_state_dict(state)
    assert other.chain.get_extra_state()["table"].equal(table)
    assert other.process.schedule.values.equal(table)


@pytest.mark.parametrize("theirs", ["uniform", "nearest", "cosine"])
@pytest.mark.parametrize("ours", ["uniform", "nearest", "cosine"])
def test_checkpoints_of_another_process(build_discrete, ours, theirs):
    every = NEEDING_DATA | {"cosine": KINDS["d3pm uniform"]}
    state = build_discrete(**every[theirs]).state_dict()
    model = build_discrete(**every[ours])
    if ours == theirs:
        model.load_state_dict(state)
    else:
        with pytest.raises(UserError, match="diffusion process is another one") as error:
            model.load_state_dict(state)
        assert "\n" not in str(error.value) and "--noise-schedule" in str(error.value)


def test_a_checkpoint_without_a_mask_does_not_fit_the_absorbing_process(build_discrete):
    state = build_discrete(**KINDS["d3pm uniform"]).state_dict()
    with pytest.raises(UserError, match="do not fit this model") as error:
        build_discrete(**KINDS["d3pm absorbing"]).load_state_dict(state)
    assert "\n" not in str(error.value)


def test_moving_averages_of_fairseqs(build_discrete):
    """They average the weights and keep the process."""
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
