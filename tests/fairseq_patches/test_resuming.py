"""From which files a training may begin."""

from argparse import Namespace

import pytest
from fairseq.dataclass.configs import CheckpointConfig
from omegaconf import OmegaConf

from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.resuming import _mismatch, check_files, other_options


@pytest.fixture
def check(tmp_path):
    """A function that checks options for checkpoints; `there.pt` and `last` are files."""
    (tmp_path / "there.pt").touch()

    def check(last=False, **options):
        if last:
            (tmp_path / "checkpoint_last.pt").touch()
        named = {k: str(tmp_path / v) if str(v).endswith(".pt") else v for k, v in options.items()}
        check_files(OmegaConf.structured(CheckpointConfig(save_dir=str(tmp_path), **named)))

    return check


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reset_optimizer": True},
        {"finetune_from_model": "there.pt"},
        {"restore_file": "there.pt"},
        {"continue_once": "there.pt"},
        {"finetune_from_model": "gone.pt", "last": True},  # the training resumes by itself
        {"continue_once": "gone.pt", "last": True},
    ],
)
def test_files_that_are_there(check, options):
    check(**options)


@pytest.mark.parametrize(
    "options, said",
    [
        ({"finetune_from_model": "gone.pt"}, "--finetune-from-model .*gone.pt: no such checkpoint"),
        ({"restore_file": "gone.pt"}, "--restore-file .*gone.pt: no such checkpoint"),
        ({"continue_once": "gone.pt"}, "--continue-once .*gone.pt: no such checkpoint"),
        (
            {"finetune_from_model": "there.pt", "restore_file": "there.pt"},
            "both say where the weights come from: omit one",
        ),
        (
            {"finetune_from_model": "there.pt", "reset_meters": True, "reset_dataloader": True},
            "resets all that --reset-meters, --reset-dataloader would: omit them",
        ),
    ],
)
def test_files_that_cannot_be_begun_with(check, options, said):
    with pytest.raises(UserError, match=said):
        check(**options)


@pytest.mark.parametrize("what", ["Optimizer", "Criterion"])
def test_another_optimizer_or_criterion_is_named_with_the_remedy(what):
    text = f"{what} does not match; please reset the optimizer (--reset-optimizer). Old vs New"
    error = _mismatch("x.pt", AssertionError(text))
    assert isinstance(error, UserError)
    assert f"the {what.lower()} Old, and this is New" in str(error)
    assert "--reset-optimizer" in str(error)


def test_other_assertions_keep_their_traceback():
    error = AssertionError("a bug")
    assert _mismatch("x.pt", error) is error


@pytest.mark.parametrize("kind", [OmegaConf.create, dict, lambda own: Namespace(**own)])
def test_other_options_of_the_model_are_named(kind):
    before = {"_name": "tiny", "prediction": "z_0", "dropout": 0.1, "layers": 2, "gone": 1}
    now = {"_name": "base", "prediction": "epsilon", "dropout": 0.2, "layers": 2, "new": 3}
    assert other_options(kind(before), kind(now)) == [
        *("--dropout 0.2 (was 0.1)", "--prediction epsilon (was z_0)")
    ]
    assert other_options(kind(before), kind(before)) == []
