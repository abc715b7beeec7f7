"""Options that no decoding can have."""

from dataclasses import replace

import numpy as np
import pytest

from difformer_plugin.decoding import checks
from difformer_plugin.decoding.checks import check_options, unread_options, warn_of_unread_options
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError


@pytest.mark.parametrize(
    "values, said",
    [
        ({"decoding_steps": 0}, "--decoding-steps"),
        ({"decoding_timesteps": "cubic"}, "--decoding-timesteps must be uniform.*not cubic"),
        ({"decoding_timesteps": "300,900"}, "--decoding-timesteps .*falling.*not 300,900"),
        ({"decoding_timesteps": "9,3", "decoding_steps": 4}, "lists 2 times.*steps is 4: leave"),
        ({"decoding_timesteps": "9,3", "decoding_early_stopping": 2}, "early-stopping.*0 and 1"),
        ({"decoding_early_stopping": -1}, "--decoding-early-stopping.*0 and 19"),
        ({"decoding_early_stopping": 20}, "--decoding-early-stopping"),
        ({"decoding_fixed_t": 1.0}, "--decoding-fixed-t"),
        ({"decoding_fixed_t": -0.1}, "--decoding-fixed-t"),
        ({"decoding_fixed_t": float("nan")}, "--decoding-fixed-t"),
        ({"decoding_noise_schedule": "cubic"}, "sqrt.*cubic"),
        ({"decoding_rescaling_factor": 0.0}, "--decoding-rescaling-factor"),
        ({"soft_clamping": -1}, "--soft-clamping must be at least 0, not -1"),
        ({"soft_clamping": 1, "clamping": True}, "--clamping and --soft-clamping exclude"),
        ({"length_beam_size": 0}, "--length-beam-size"),
        ({"length_beam_size": 257}, "--length-beam-size.*256"),
        ({"noise_beam_size": 0}, "--noise-beam-size"),
        ({"bleu_mbr": True, "ppl_mbr": True}, "--bleu-mbr.*--ppl-mbr"),
        ({"force_length": 4, "force_length_ratio": 1.0}, "--force-length.*--force-length-ratio"),
        ({"force_length": 0}, "--force-length"),
        ({"length_scale": 0.4}, "--length-scale must lie between 0.5 and 2, not 0.4"),
        ({"length_scale": float("nan")}, "--length-scale"),
        ({"force_length": 4, "length_scale": 1.1}, "--length-scale has no effect"),
        ({"force_length_ratio": 0.0}, "--force-length-ratio"),
        ({"force_length_ratio": float("nan")}, "--force-length-ratio"),
        ({"force_length": 4, "length_beam_size": 2}, "--length-beam-size 1"),
        ({"force_length_ratio": 1.0, "length_beam_size": 2}, "--length-beam-size 1"),
        ({"block_size": 0, "decoding_autoregressive": True}, "--block-size.*at least 1, not 0"),
        ({"block_size": 4}, "--block-size.*--decoding-autoregressive"),
        ({"race_after": 20, "noise_beam_size": 2}, "--race-after.*between 1 and 19"),
        (
            {"race_after": 15, "decoding_early_stopping": 5, "noise_beam_size": 2},
            "--race-after.*between 1 and 14",
        ),
        ({"race_after": 3}, "--race-keep 1 of 1 candidates"),
        (
            {"race_after": 3, "race_keep": 6, "noise_beam_size": 6},
            "6 of 6 .* drops none",
        ),
        ({"race_after": 3, "race_keep": 0, "noise_beam_size": 2}, "--race-keep"),
        ({"race_keep": 2}, "--race-after"),
        ({"decoding_precision": "int4"}, "int4.*bf16"),
        ({"bleu_mbr": True, "mbr_remove_bpe": "wordpeice"}, "--mbr-remove-bpe 'wordpeice'.*'@@ '"),
        ({"force_length_ratio": float("inf")}, "--force-length-ratio must be a number above 0"),
        ({"decoding_timesteps": "[" * 5000}, "--decoding-timesteps must be"),
        ({"force_length": "3"}, "force_length must be a whole number, not '3'"),
        ({"force_length": 1.5}, "force_length must be a whole number, not 1.5"),
        ({"force_length": True}, "force_length must be a whole number, not True"),
        ({"decoding_timesteps": [900, 300]}, "decoding_timesteps must be text in quotes"),
        ({"decoding_timesteps": None}, "decoding_timesteps must be text in quotes, not None"),
        ({"rerank": 1}, "rerank must be text in quotes, not 1"),
        ({"decoding_fixed_t": "0.5"}, "decoding_fixed_t must be a number, not '0.5'"),
        ({"bleu_mbr": 1}, "bleu_mbr must be true or false, not 1"),
    ],
)
def test_refused(values, said):
    with pytest.raises(UserError, match=said):
        check_options(DecodingOptions(**values))


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"decoding_steps": 1},
        {"decoding_timesteps": "quadratic", "decoding_early_stopping": 19},
        {"decoding_timesteps": "9,3", "decoding_early_stopping": 1},
        {"decoding_timesteps": "[9, 3]", "decoding_steps": 2},
        {"decoding_early_stopping": 19, "decoding_fixed_t": 0.0},
        {"force_length": 4, "noise_beam_size": 3},
        {"decoding_fixed_t": 0, "length_scale": 1, "rerank": None},
        {"length_scale": np.float64(1.1)},
        {"bleu_mbr": True, "mbr_remove_bpe": "sentencepiece"},
        {"length_beam_size": 256, "bleu_mbr": True},
        {"race_after": 14, "decoding_early_stopping": 5, "noise_beam_size": 2},
        {"race_after": 1, "race_keep": 5, "length_beam_size": 3, "noise_beam_size": 2},
    ],
)
def test_accepted(values):
    options = DecodingOptions(**values)
    check_options(options)
    assert options.forces_length == ("force_length" in values)


def test_listed_times_are_counted():
    options = DecodingOptions(decoding_timesteps="2000,900,300")
    assert options.decoding_steps == 3
    assert replace(options, decoding_timesteps="uniform").decoding_steps == 3
    assert DecodingOptions(decoding_timesteps="quadratic").decoding_steps == 20


@pytest.mark.parametrize(
    "alone, missing",
    [
        ({"length_beam_window": True}, {"length_beam_size": 2}),
        ({"mbr_remove_bpe": "sentencepiece"}, {"bleu_mbr": True}),
        ({"mbr_remove_bpe": "@@ "}, {"rerank": "length=0.1,mbr=1"}),
        ({"decoding_vp_rf": True}, {"decoding_rescaling_factor": 2.0}),
        ({"force_precision": True}, {"decoding_precision": "bf16"}),
        ({"retain_z_0_hat": True}, {"retain_history": True}),
    ],
)
def test_options_without_effect_are_named(alone, missing):
    """An option that nothing reads without another one is named until the other one is given."""

    def unread(retain_history=False, **values):
        return [name for name, _ in unread_options(DecodingOptions(**values), retain_history)]

    assert unread(**alone) == list(alone)
    assert unread(**alone, **missing) == []
    assert unread(**missing) == []


def test_a_likelihood_that_joins_no_subwords_does_not_read_their_mark():
    options = DecodingOptions(rerank="own=1,length=0.1", mbr_remove_bpe="@@ ")
    assert [name for name, _ in unread_options(options, False)] == ["mbr_remove_bpe"]


def test_options_without_effect_are_warned_of_once(caplog):
    """`translate` builds a generator for each call."""
    checks._warn.cache_clear()
    options = DecodingOptions(length_beam_window=True, noise_beam_size=3)
    warn_of_unread_options(options, False)
    warn_of_unread_options(options, False)
    said = "--length-beam-window has no effect with --length-beam-size 1: leave it out"
    assert [record.getMessage() for record in caplog.records] == [said]
