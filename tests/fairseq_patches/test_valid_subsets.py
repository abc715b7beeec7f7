"""fairseq-train with several validation sets in the data-bin."""

from types import SimpleNamespace

import pytest
from fairseq.data import data_utils

import difformer_plugin
from difformer_plugin.errors import UserError

difformer_plugin.register()


@pytest.fixture
def configure(tmp_path):
    """A function from --valid-subset to fairseq's configuration, of a data-bin with three sets."""
    for name in ("valid", "valid1", "valid2"):
        for language in ("de", "en"):
            for end in ("bin", "idx"):
                (tmp_path / f"{name}.de-en.{language}.{end}").touch()

    def build(named, task="diffusion_translation", **more):
        plain = ("ignore_unused_valid_subsets", "combine_valid_subsets", "disable_validation")
        values = dict.fromkeys(plain, False) | {"valid_subset": named} | more
        task = SimpleNamespace(data=str(tmp_path), _name=task)
        return SimpleNamespace(dataset=SimpleNamespace(**values), task=task)

    return build


def check(cfg):
    data_utils.raise_if_valid_subsets_unintentionally_ignored(cfg)


def test_sets_that_are_named_are_not_left_out(configure):
    check(configure("valid,valid1,valid2"))
    check(configure("valid2,valid,valid1", task="translation"))


@pytest.mark.parametrize("option", ["ignore_unused_valid_subsets", "combine_valid_subsets"])
def test_others_may_be_ignored_or_combined(configure, option):
    check(configure("valid", **{option: True}))


def test_others_are_refused_by_name(configure):
    said = "--valid-subset valid,valid2 leaves out valid1 of the data.*--combine-valid-subsets"
    with pytest.raises(UserError, match=said):
        check(configure("valid,valid2"))
    with pytest.raises(ValueError, match="will be ignored"):
        check(configure("valid", task="translation"))
