"""`difformer convert` and `difformer check-reference` on checkpoints of the authors' code."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from harness import MODEL, OPTIMISER, TASK, error_line, load, run, succeed, weights

import difformer_plugin

REFERENCE = Path(__file__).parents[3] / "shared" / "reference" / "difformer_a"

pytestmark = pytest.mark.skipif(
    not (REFERENCE / "checkpoint.pt").is_file(), reason="no reference folder beside the repository"
)


@pytest.fixture(scope="module")
def converted(tmp_path_factory):
    """The reference checkpoint, converted."""
    folder = tmp_path_factory.mktemp("converted")
    original = REFERENCE / "checkpoint.pt"
    outcome = succeed(folder, "difformer", "convert", original, folder / "ours.pt")
    assert "weights converted" in outcome.out
    assert not list(folder.glob("*.tmp"))
    return folder / "ours.pt"


def test_a_converted_checkpoint_translates(converted, tmp_path):
    command = ["fairseq-generate", REFERENCE / "data-bin", *TASK, "--path", converted]
    command += ["--gen-subset", "valid", "--seed", 2, "--decoding-steps", 3]
    outcome = succeed(tmp_path, *command)
    sources, translations = dict(outcome.lines("S")), outcome.translations()
    assert sorted(translations) == list(range(len(sources))) and len(sources) > 8
    difformer_plugin.register()
    from difformer_plugin.families.embeddings.model import Difformer

    hub = Difformer.from_pretrained(
        str(converted.parent), converted.name, str(REFERENCE / "data-bin"), seed=2, decoding_steps=3
    )
    order = range(len(sources))
    assert hub.translate([sources[i] for i in order]) == [translations[i] for i in order]


def test_training_starts_from_a_converted_checkpoint(converted, tmp_path):
    config = load(converted)["cfg"]["model"]
    sizes = []
    for name in ("model_dim", "latent_dim", "max_source_positions", "max_target_positions"):
        sizes += [f"--{name.replace('_', '-')}", config[name]]
    for side in ("encoder", "decoder"):
        for name in ("layers", "attention_heads", "ffn_embed_dim"):
            sizes += [f"--{side}-{name.replace('_', '-')}", config[f"{side}_{name}"]]
    flags = ["share_all_embeddings", "embed_norm_affine", "apply_bert_init", "rescale_timesteps"]
    model = [*MODEL.split(), *(f"--{name.replace('_', '-')}" for name in flags if config[name])]
    losses = {}
    for name, start in (("converted", ["--finetune-from-model", converted]), ("scratch", [])):
        outcome = succeed(
            tmp_path,
            *(
                "fairseq-train",
                REFERENCE / "data-bin",
                *TASK,
                *model,
                *sizes,
                *OPTIMISER.split(),
                *start,
            ),
            *("--train-subset", "valid", "--lr", 1e-9, "--max-update", 1),
            *("--log-interval", 1, "--save-dir", tmp_path / name),
        )
        line = next(line for line in outcome.out.splitlines() if "| train_inner |" in line)
        losses[name] = float(line.split("loss=")[1].split(",")[0])
    ours, saved = weights(converted), weights(tmp_path / "converted" / "checkpoint_last.pt")
    for key, tensor in ours.items():
        torch.testing.assert_close(saved[key], tensor, atol=1e-6, rtol=0)
    assert losses["converted"] < losses["scratch"] - 0.3


@pytest.fixture
def reference(tmp_path):
    """A copy of the reference folder, for tests that modify it."""
    return shutil.copytree(REFERENCE, tmp_path / "reference")


def test_check_reference_passes(tmp_path):
    outcome = succeed(tmp_path, "difformer", "check-reference", REFERENCE)
    rows = outcome.out.splitlines()[1:-1]
    inputs = {"src_tokens", "src_lengths", "target", "sample_ids", "t", "noise"}
    inputs |= {"decode_z_T", "decode_noise"}
    with np.load(REFERENCE / "expected.npz") as arrays:
        assert {row.split()[0] for row in rows} == set(arrays.files) - inputs
    assert all(row.endswith("ok") for row in rows)


def test_check_reference_names_what_differs(reference, tmp_path):
    with np.load(reference / "expected.npz") as arrays:
        expected = dict(arrays)
    expected["z_0_hat_selfcond"] = expected["z_0_hat_selfcond"] + 1e-3
    np.savez(reference / "expected.npz", **expected)
    outcome = run(tmp_path, "difformer", "check-reference", reference)
    assert outcome.code == 1
    differs = [row.split()[0] for row in outcome.out.splitlines() if row.endswith("DIFFERS")]
    assert differs == ["z_0_hat_selfcond"]


@pytest.mark.parametrize("missing", ["checkpoint.pt", "settings.json", "expected.npz", "data-bin"])
def test_check_reference_names_a_missing_file(reference, tmp_path, missing):
    shutil.move(reference / missing, reference / "elsewhere")
    outcome = run(tmp_path, "difformer", "check-reference", reference)
    assert outcome.code == 2
    assert missing in error_line(outcome)


def test_convert_on_a_full_disk_leaves_no_file(tmp_path):
    target = tmp_path / "out" / "ours.pt"
    target.parent.mkdir()
    original = REFERENCE / "checkpoint.pt"
    outcome = run(tmp_path, "difformer", "convert", original, target, file_limit=20_000)
    assert outcome.code == 2 and "File too large" in error_line(outcome)
    assert list(target.parent.iterdir()) == []


def test_convert_into_a_missing_folder(tmp_path):
    target = tmp_path / "nowhere" / "ours.pt"
    outcome = run(tmp_path, "difformer", "convert", REFERENCE / "checkpoint.pt", target)
    assert outcome.code == 2 and "nowhere" in error_line(outcome)
