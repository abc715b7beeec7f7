"""Recorded values of the authors' implementation, and how differences are reported."""

from pathlib import Path

import pytest
import torch

from difformer_plugin.errors import UserError
from difformer_plugin.interop.reference import FILES, compare, load_reference, recompute

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference"
FOLDERS = ["difformer_a", "difformer_c"]
recorded = pytest.mark.skipif(
    not REFERENCE.is_dir(), reason="no recorded reference beside the repository"
)
INPUTS = {"src_tokens", "src_lengths", "target", "sample_ids", "t", "noise"} | {
    "decode_z_T",
    "decode_noise",
}


@recorded
@pytest.mark.parametrize("name", FOLDERS)
def test_recorded_values(name):
    """Every recorded array that is not an input is recomputed, and agrees."""
    *ours, expected = load_reference(REFERENCE / name)
    rows = compare(recompute(*ours, expected), expected)
    assert {row[0] for row in rows} == set(expected) - INPUTS
    assert [row for row in rows if not row[-1]] == []


# weight -> (an array that does not depend on it, an array that does)
PERTURBED = {
    "encoder.layers.0.fc1.weight": ("z_0", "encoder_out"),
    "denoiser.layers.1.fc2.weight": ("encoder_out", "z_0_hat_no_selfcond"),
    "denoiser.output_projection.weight": ("length_logits", "logits"),
    "length_predictor.embed_length.weight": ("decode_z", "length_logits"),
    "denoiser.embed_time.0.bias": ("z_t", "decode_z_0_hat"),
}


@recorded
@pytest.mark.parametrize("weight", PERTURBED)
def test_a_perturbed_weight_changes_only_what_depends_on_it(weight):
    *ours, expected = load_reference(REFERENCE / "difformer_a")
    with torch.no_grad():
        parameter = ours[0].get_parameter(weight)
        parameter.add_(0.1 * torch.randn_like(parameter))
    passed = {row[0]: row[-1] for row in compare(recompute(*ours, expected), expected)}
    before, after = PERTURBED[weight]
    assert not passed[after]
    assert (
        passed[before] or weight == "denoiser.output_projection.weight"
    )  # which is shared with the embeddings


@recorded
@pytest.mark.parametrize("missing", FILES)
def test_a_missing_file_is_named(tmp_path, missing):
    for name in FILES:
        if name != missing:
            (tmp_path / name).symlink_to(REFERENCE / "difformer_a" / name)
    with pytest.raises(UserError, match=missing):
        load_reference(tmp_path)


@recorded
def test_settings_that_contradict_the_checkpoint_are_refused(tmp_path):
    for name in FILES:
        (tmp_path / name).symlink_to((REFERENCE / "difformer_a" / name).resolve())
    settings = tmp_path / "settings.json"
    text = settings.read_text(encoding="utf-8")
    settings.unlink()
    settings.write_text(text.replace('"latent_dim": 32', '"latent_dim": 33'), encoding="utf-8")
    with pytest.raises(UserError, match="latent_dim 33.*32"):
        load_reference(tmp_path)


@pytest.mark.parametrize(
    "ours, theirs, difference, passed",
    [
        ([1.0, 2.0], [1.0, 2.00005], 5e-5, True),
        ([1.0, 2.0], [1.0, 2.001], 1e-3, False),
        ([1.0, float("nan")], [1.0, 2.0], float("nan"), False),
        ([1, 2], [1, 2], 0, True),
        ([1, 2], [1, 3], 1, False),
        ([True, False], [True, True], 1, False),
        ([1.0], [1.0, 2.0], float("inf"), False),
    ],
)
def test_compare(ours, theirs, difference, passed):
    (row,) = compare({"x": torch.tensor(ours)}, {"x": torch.tensor(theirs)})
    assert row[:2] == ("x", (len(theirs),)) and row[3] == passed
    assert row[2] == pytest.approx(difference, rel=1e-2, nan_ok=True)
