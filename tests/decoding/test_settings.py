"""The file of --decoding-settings, read, written and weighed against other wishes."""

import tomllib
from argparse import Namespace
from dataclasses import asdict

import pytest

from difformer_plugin.decoding.checks import check_options
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.settings import (
    mention_settings_file,
    merge,
    read_settings,
    write_settings,
)
from difformer_plugin.errors import UserError

VALUES = {
    "decoding_steps": 7,
    "bleu_mbr": True,
    "clamping": False,
    "decoding_rescaling_factor": 1.5,
    "decoding_precision": "bf16",
    "mbr_remove_bpe": 'a "quoted" \\ sign, ▁ and 𝄞',
}


def merged(given=None, path=None, **configured):
    return merge(DecodingOptions(**configured), Namespace(**(given or {})), path)


@pytest.fixture
def file(tmp_path):
    """A function that makes a settings file of some text."""

    def file(text):
        path = tmp_path / "settings.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return file


def test_a_written_file_reads_back(tmp_path):
    path = tmp_path / "new" / "settings.toml"
    write_settings(path, VALUES | {"force_length": None}, ["tuned: 10 times", "", "as fast"])
    assert read_settings(path) == VALUES
    text = path.read_text("utf-8")
    assert text.startswith("# tuned: 10 times\n#\n# as fast\ndecoding_steps = 7\n")
    assert tomllib.loads(text) == VALUES
    assert [entry.name for entry in path.parent.iterdir()] == ["settings.toml"]


def test_an_option_that_is_gone_may_be_set_to_what_did_nothing(file):
    assert read_settings(file("decoding_steps = 3\nhalt_after = 0")) == {"decoding_steps": 3}
    with pytest.raises(UserError, match="no such option as halt_after"):
        read_settings(file("halt_after = 1"))


def test_a_whole_number_is_a_number(file):
    assert read_settings(file("force_length_ratio = 1")) == {"force_length_ratio": 1}


@pytest.mark.parametrize(
    "text, said",
    [
        ("decoding_stesp = 3", "no such option as decoding_stesp; there are .*decoding_steps"),
        ("_name = 'x'", "no such option as _name"),
        ("[decoding]\nsteps = 3", "no such option as decoding;"),
        ("decoding_steps = 3.0", "decoding_steps must be a whole number, not 3.0"),
        ("decoding_steps = true", "decoding_steps must be a whole number, not true"),
        ("decoding_steps = '3'", 'decoding_steps must be a whole number, not "3"'),
        ("bleu_mbr = 1", "bleu_mbr must be true or false, not 1"),
        ("decoding_fixed_t = false", "decoding_fixed_t must be a number, not false"),
        ("decoding_precision = 16", "decoding_precision must be text in quotes, not 16"),
        ("decoding_steps = 2026-01-02", "decoding_steps must be a whole number"),
        ("decoding_steps", "is not a TOML file .*decoding_steps = 10"),
        ("bleu_mbr = yes", "is not a TOML file"),
        ("race_keep = 1\nrace_keep = 2", "is not a TOML file"),
        (b"\x80\x02PK", "is not a TOML file"),
    ],
)
def test_invalid_files(file, text, said):
    path = file(text)
    with pytest.raises(UserError, match=said) as error:
        read_settings(path)
    assert str(path) in str(error.value) and "\n" not in str(error.value)


def test_a_missing_file(tmp_path):
    with pytest.raises(UserError, match="settings.toml: No such file.*difformer tune"):
        read_settings(tmp_path / "settings.toml")
    with pytest.raises(UserError, match="Is a directory"):
        read_settings(tmp_path)


def test_the_file_overrides_defaults_and_a_call_overrides_the_file(file):
    path = file("decoding_steps = 7\nlength_beam_size = 3\nbleu_mbr = true")
    expected = asdict(DecodingOptions(decoding_steps=7, length_beam_size=3, bleu_mbr=True))
    assert asdict(merged(path=path)) == expected
    assert asdict(merged(path=path, decoding_steps=7)) == expected
    own = merged({"decoding_steps": 20, "bleu_mbr": False, "unknown": 1}, path, noise_beam_size=2)
    assert (own.decoding_steps, own.length_beam_size, own.noise_beam_size) == (20, 3, 2)
    assert own.bleu_mbr is False
    assert asdict(merged(decoding_steps=4)) == asdict(DecodingOptions(decoding_steps=4))


def test_an_option_given_twice_with_different_values(file):
    path = file("decoding_steps = 7\nbleu_mbr = false")
    said = (
        r"both --decoding-steps 9 and --decoding-settings .*\(decoding_steps = 7\).*leave one out"
    )
    with pytest.raises(UserError, match=said):
        merged(path=path, decoding_steps=9)
    with pytest.raises(UserError, match=r"both --bleu-mbr and .*\(bleu_mbr = false\)"):
        merged(path=path, bleu_mbr=True)
    assert merged({"decoding_steps": 8}, path, decoding_steps=9).decoding_steps == 8


def test_contradicting_options_name_the_file(file):
    path = file("race_after = 3")
    said = f"drops none.*with the options that {path} sets"
    with pytest.raises(UserError, match=said), mention_settings_file(path):
        check_options(merged(path=path))
    with mention_settings_file(path):
        check_options(merged(path=path, noise_beam_size=2))
    with pytest.raises(UserError, match="candidates$"), mention_settings_file(None):
        raise UserError("too many candidates")
