"""F of a model: given, chosen, or following its embeddings."""

import logging
import math

import pytest
import torch
from omegaconf import OmegaConf

import difformer_plugin
from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs, search_factor
from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.config import DifformerConfig, check_config
from difformer_plugin.families.embeddings.model import Difformer
from difformer_plugin.families.embeddings.rescaling import KEY
from difformer_plugin.networks.config import with_defaults

AUTO = {"rescaling_factor": "auto", "max_dgs": 0.3, "latent_dim": 64}
FOLLOW = {"rescaling_factor": 2.0, "rescaling_update_interval": 10, "max_dgs": 0.3}


def score(model, factor=None):
    return model.rescaling.score(model.denoiser.table(), factor, seed=5)


def start(model):
    """The model at the first update of a training."""
    model.prepare_training(None)
    model.begin_training()
    return model


# given


@pytest.mark.parametrize("value", [4, 4.0, "4", "4.0"])
def test_a_number_is_taken_as_it_is(build, value):
    model = build(rescaling_factor=value)
    assert model.rescaling.factor == 4.0 and model.process.noise_scale == 4.0


@pytest.mark.parametrize(
    "options, message",
    [
        ({"rescaling_factor": "best"}, "above 0 or 'auto', not 'best'"),
        ({"rescaling_factor": "-2"}, "--rescaling-factor must be above 0 .*, not -2"),
        ({"rescaling_factor": "nan"}, "--rescaling-factor must be above 0 .*, not nan"),
        ({"rescaling_factor": "auto"}, "need --max-dgs"),
        ({"rescaling_update_interval": 5}, "need --max-dgs"),
        ({"max_dgs": 0.2}, "--max-dgs has no effect with --rescaling-factor 1.0"),
        (AUTO | {"max_dgs": 0.0}, r"--max-dgs must lie in \(0, 1\], not 0"),
        (AUTO | {"max_dgs": 1.5}, r"--max-dgs must lie in \(0, 1\], not 1.5"),
        (FOLLOW | {"rescaling_update_interval": -1}, "interval must be at least 0, not -1"),
        (FOLLOW | {"rescaling_max_change": 0.0}, "--rescaling-max-change must be above 0, not 0"),
        (FOLLOW | {"min_rescaling_factor": 0.0}, "--min-rescaling-factor must be above 0"),
        (FOLLOW | {"rescaling_factor": 200}, "--rescaling-factor 200 must lie between"),
        (FOLLOW | {"min_rescaling_factor": 9.0, "max_rescaling_factor": 8.0}, "not 9 and 8"),
    ],
)
def test_options_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        check_config(DifformerConfig(**options))


# chosen


@pytest.mark.parametrize("vp_rf", [False, True])
def test_auto_is_the_search_for_this_dictionary_and_dimension(build, task, vp_rf):
    model = build(**AUTO, vp_rf=vp_rf, noise_schedule="cosine")
    series = NoiseSeries("cosine", model.diffusion_steps, vp_rf)
    types = len(task.target_dictionary)
    expected, _ = search_factor(lambda f: dgs(series, f, types, 64), 0.3)
    assert model.rescaling.factor == expected > 1
    assert model.process.noise_scale == (1.0 if vp_rf else expected)


def test_a_threshold_below_a_guess_is_an_error(build, task):
    with pytest.raises(UserError, match="--max-dgs must be at least 0.[0-9]+, .*, not 0.02"):
        build(**AUTO | {"max_dgs": 0.5 / len(task.target_dictionary)}).prepare_training(None)


def test_the_number_is_printed(build, caplog):
    caplog.set_level(logging.INFO)
    model = build(**AUTO)
    start(model)
    assert f"rescaling factor {model.rescaling.factor:g}: degeneration score 0." in caplog.text
    assert "start with" not in caplog.text
    start(build(**AUTO, apply_bert_init=True))
    assert f"start with sigma_e = {0.02 * math.sqrt(64):.2g}" in caplog.text


# checkpoints


@pytest.mark.parametrize("options", [AUTO, FOLLOW])
def test_training_goes_on_with_the_factor_of_the_checkpoint(build, options):
    model = build(**options)
    state = model.state_dict()
    assert state[KEY][:2].tolist() == [model.rescaling.factor, 0.3]
    state[KEY][0] = 6.125
    model.load_state_dict(state)
    assert model.rescaling.factor == model.process.noise_scale == 6.125
    assert float(model.state_dict()[KEY][0]) == 6.125


def test_a_number_on_the_command_line_overrides_the_checkpoint(build):
    state = build(rescaling_factor=4).state_dict()
    model = build(rescaling_factor=2)
    model.load_state_dict(state)
    assert model.rescaling.factor == model.process.noise_scale == 2.0


def test_a_factor_for_another_threshold_is_chosen_anew(build):
    """So is one that was never chosen; an F that follows goes on from its last value."""
    chosen, given = (
        build(**AUTO).state_dict(),
        build(rescaling_factor=1, latent_dim=64).state_dict(),
    )
    model = build(**AUTO | {"max_dgs": 0.2})
    factor = model.rescaling.factor
    for state in (chosen, given):
        model.load_state_dict(state)
        assert model.rescaling.factor == factor > chosen[KEY][0]
    following = build(**AUTO | {"max_dgs": 0.2, "rescaling_update_interval": 10})
    following.load_state_dict(chosen)
    assert following.rescaling.factor == chosen[KEY][0]


@pytest.mark.parametrize(
    "other", [{"noise_schedule": "cosine"}, {"diffusion_steps": 500}, {"vp_rf": True}]
)
def test_a_factor_for_another_process_is_chosen_anew(build, other):
    chosen, model = build(**AUTO).state_dict(), build(**AUTO | other)
    factor = model.rescaling.factor
    chosen[KEY][0] = factor + 1
    model.load_state_dict(chosen)
    assert model.rescaling.factor == factor


def test_factors_of_older_checkpoints_are_for_the_same_process(build):
    model, given = build(**AUTO), build(**AUTO).state_dict()
    model.load_state_dict(given | {KEY: torch.tensor([7.5, 0.3], dtype=torch.float64)})
    assert model.rescaling.factor == 7.5


@pytest.mark.parametrize("damage", [torch.zeros(4), torch.tensor([math.nan, 0.3]), None])
def test_damaged_factors_are_refused(build, damage):
    model = build(**FOLLOW)
    with pytest.raises(UserError, match="rescaling factor"):
        model.load_state_dict(model.state_dict() | {KEY: damage})


def test_loading_a_model_to_translate_with_it_chooses_and_follows_nothing(build, monkeypatch):
    """fairseq sets the number of updates before it loads the weights."""
    state = build(**AUTO, rescaling_update_interval=10).state_dict()
    model = build(**AUTO, rescaling_update_interval=10)
    monkeypatch.setattr(model.rescaling, "score", None)
    monkeypatch.setattr(model.rescaling, "_expected_score", None)
    model.set_num_updates(10)
    model.load_state_dict(state)
    assert model.rescaling.factor == state[KEY][0]


def test_the_checkpoints_factor_is_printed_once(build, caplog):
    caplog.set_level(logging.INFO)
    model = build(**FOLLOW)
    model.prepare_training(None)
    state = model.state_dict()
    state[KEY][0] = 3.5
    model.load_state_dict(state)
    assert "rescaling factor" not in caplog.text
    model.begin_training()
    for updates in range(1, 5):
        model.set_num_updates(updates)
        model.load_state_dict(model.state_dict())
        model.begin_training()
    assert caplog.text.count("rescaling factor 3.5: from the checkpoint") == 1
    assert caplog.text.count("rescaling factor") == 1


def test_older_checkpoints_have_no_factor(build):
    model = build(**AUTO)
    factor = model.rescaling.factor
    state = model.state_dict()
    del state[KEY]
    model.load_state_dict(state)
    assert model.rescaling.factor == factor


def test_older_configurations_lack_the_later_options(build, task):
    cfg = OmegaConf.structured(build(rescaling_factor="3").cfg)
    older = OmegaConf.create(OmegaConf.to_container(cfg))
    for name in ("max_dgs", "rescaling_update_interval", "rescaling_max_change"):
        del older[name]
    older.rescaling_factor = 3.0  # it was a float
    OmegaConf.set_struct(older, True)
    assert Difformer.build_model(older, task).rescaling.factor == 3.0
    assert with_defaults(cfg, DifformerConfig) is cfg


def test_half_precision_leaves_the_factor_alone(build):
    model = build(**FOLLOW)
    model.rescaling._set(3.14159265)
    assert float(model.half().state_dict()[KEY][0]) == 3.14159265


def test_checkpoints_with_a_factor_can_be_averaged(build):
    """As fairseq's moving averages do: in place, key by key."""
    from fairseq.dataclass.configs import EMAConfig
    from fairseq.models.ema.ema import EMA

    model = build(**FOLLOW)
    ema = EMA(model, EMAConfig(ema_decay=0.5, ema_start_update=0))
    model.rescaling._set(4.0)
    ema.step(model, updates=1)
    assert ema.get_model().rescaling.factor == pytest.approx(3.0)


def test_an_average_in_float32_resumes_from_an_older_checkpoint(build):
    """Which has F and its threshold alone."""
    from fairseq.dataclass.configs import EMAConfig
    from fairseq.models.ema import EMA

    difformer_plugin.register()
    model = build(**FOLLOW)
    ema = EMA(model, EMAConfig(store_ema=True, ema_fp32=True))
    old = model.state_dict() | {KEY: torch.tensor([4.0, 0.3], dtype=torch.float64)}
    ema.restore(old, build_fp32_params=True)
    assert ema.get_model().rescaling.factor == 4.0
    assert ema.fp32_params[KEY].shape == (3,)


# following


@pytest.fixture
def following(build):
    """A function that builds a model which is about to be trained."""

    def following(**options):
        return start(build(**FOLLOW | options))

    return following


def test_the_factor_that_follows_meets_the_threshold(following):
    model = following(rescaling_max_change=1000.0)
    with torch.no_grad():
        model.denoiser.embed_tokens.weight.mul_(2)
    model.set_num_updates(10)
    factor = model.rescaling.factor
    assert factor > 2.0 and model.process.noise_scale == factor
    exact = model.rescaling.score(model.denoiser.table(), seed=10)
    assert exact <= 0.3 and score(model) == pytest.approx(0.3, abs=0.02)
    assert model.rescaling.score(model.denoiser.table(), factor / 1.01, seed=10) > exact


@pytest.mark.parametrize("scale, towards", [(20.0, 2 * 1.1), (0.05, 2 / 1.1)])
def test_a_step_is_bounded(following, scale, towards):
    model = following()
    with torch.no_grad():
        model.denoiser.embed_tokens.weight.mul_(scale)
    model.set_num_updates(10)
    assert model.rescaling.factor == pytest.approx(towards)


@pytest.mark.parametrize("scale, bound", [(100.0, 5.0), (0.01, 1.5)])
def test_the_factor_stays_in_its_range(following, scale, bound):
    model = following(min_rescaling_factor=1.5, max_rescaling_factor=5.0, rescaling_max_change=1.0)
    with torch.no_grad():
        model.denoiser.embed_tokens.weight.mul_(scale)
    for updates in range(10, 60, 10):
        model.set_num_updates(updates)
    assert model.rescaling.factor == bound


def test_the_factor_follows_once_in_every_interval(following, monkeypatch):
    model = following()
    followed = []
    monkeypatch.setattr(model.rescaling, "follow", lambda table, n: followed.append(n))
    for updates in range(35):
        model.set_num_updates(updates)
    assert followed == [10, 20, 30]
    monkeypatch.undo()
    model.set_num_updates(40)
    factor = model.rescaling.factor
    with torch.no_grad():
        model.denoiser.embed_tokens.weight.mul_(3)
    model.set_num_updates(40)  # the second batch of an update
    assert model.rescaling.factor == factor
    still = following(rescaling_update_interval=0, max_dgs=None)
    still.set_num_updates(1000)
    assert still.rescaling.factor == 2.0


def loaded(model, state, updates):
    """A model at the start of a training from a checkpoint, after all that fairseq does first."""
    model.prepare_training(None)
    model.set_num_updates(updates)  # before the weights are there
    model.load_state_dict(state)
    model.begin_training()
    return model


@pytest.mark.parametrize("updates", [10, 15, 20])
def test_a_training_that_resumes_follows_as_one_that_did_not_stop(build, following, updates):
    whole = following()
    for update in range(updates):
        whole.set_num_updates(update)
    torch.manual_seed(5)
    resumed = loaded(build(**FOLLOW), whole.state_dict(), updates)
    assert resumed.rescaling.factor == whole.rescaling.factor
    for update in range(updates, 21):
        for model in (whole, resumed):
            model.set_num_updates(update)
    assert resumed.rescaling.factor == whole.rescaling.factor != 2.0


def test_updates_that_are_reset_count_anew(build, following, monkeypatch):
    """As --finetune-from-model and --reset-optimizer do, from a checkpoint of 20 updates."""
    model = loaded(build(**FOLLOW), following().state_dict(), 20)
    followed = []
    monkeypatch.setattr(model.rescaling, "follow", lambda table, n: followed.append(n))
    for updates in range(25):
        model.set_num_updates(updates)
    assert followed == [10, 20]


def test_following_does_not_touch_the_random_numbers_of_training(following):
    model = following()
    state = torch.random.get_rng_state()
    model.set_num_updates(10)
    assert torch.equal(state, torch.random.get_rng_state())


# measures


def test_measures_are_kept_until_the_table_or_the_factor_changes(build, monkeypatch):
    model = build(**FOLLOW)
    first = model.measures()
    assert first["dgs"] == model.rescaling.score(model.denoiser.table())
    assert first["rescaling_factor"] == 2.0
    asked = []
    original = model.rescaling.score
    monkeypatch.setattr(
        model.rescaling, "score", lambda *args, **kw: asked.append(1) or original(*args, **kw)
    )
    assert model.measures() == first and not asked
    model.denoiser.embed_tokens.weight.data.mul_(0.5)  # as fairseq's optimisers do
    halved = model.measures()
    assert asked == [1] and halved["dgs"] < first["dgs"]
    assert halved["ani"] == pytest.approx(first["ani"], abs=1e-6)
    model.rescaling._set(1.0)
    assert model.measures()["dgs"] > halved["dgs"] and len(asked) == 2


def test_the_table_is_what_is_diffused(build, task):
    """Scaled and normalised as targets are, without padding."""
    model = build(embed_norm=True, embed_norm_before_proj=True, no_scale_embedding=False)
    types = torch.tensor([i for i in range(len(task.target_dictionary)) if i != 1])
    torch.testing.assert_close(model.denoiser.table(), model.denoiser.embed(types))
    assert len(model.denoiser.table()) == len(task.target_dictionary) - 1
