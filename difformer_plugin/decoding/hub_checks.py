"""Checks of what `from_pretrained` and `translate` are called with."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from fairseq.registry import REGISTRIES
from omegaconf import OmegaConf, open_dict

from difformer_plugin.decoding.settings import OPTIONS
from difformer_plugin.errors import UserError

# Names that `translate` takes beside the options of decoding. The task refuses those in the second
# row with the reason.
CALL_OPTIONS = (
    *("seed", "decoding_settings", "nbest", "retain_iter_history"),
    *("score_reference", "print_alignment"),
)
# Names that fairseq's `from_pretrained` reads, but that are in no configuration.
LOADING_OPTIONS = ("user_dir", "generation_args", "decoding_settings", "use_ema", "seed")


def check_call(beam: Any, options: Mapping[str, Any]) -> None:
    """Check the names of the options of a call.

    Raises:
        UserError: one is unknown, or without effect here.
    """
    if beam is not None:
        raise UserError(
            "beam: diffusion decoding has no beam search; leave it out, and give "
            "length_beam_size and noise_beam_size for several candidates"
        )
    if "constraints" in options:
        raise UserError("constraints: write the words to a file, and give constraints_file")
    check_names("translate", options, [*OPTIONS, *CALL_OPTIONS])
    seed = options.get("seed", 0)
    if type(seed) is not int or seed < 0:
        raise UserError(f"seed must be a whole number from 0 on, not {seed!r}")


def check_sentences(sentences: Any) -> list[str]:
    """The sentences of a call as a list.

    Raises:
        UserError: one of them is no str, such as the None of a table's empty cell.
    """
    if not isinstance(sentences, Iterable) or isinstance(sentences, bytes):
        raise UserError(f"translate: give a str or a list of them, not {sentences!r}"[:200])
    sentences = list(sentences)
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise UserError(
                f"translate: sentence {number} (counted from 0) is no str, but {sentence!r}"[:200]
            )
    return sentences


def check_names(function: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Check names of keyword arguments.

    Raises:
        UserError: one is unknown; the message has the names that resemble it.
    """
    known = sorted(set(known))
    for name in given:
        if name not in known:
            similar = difflib.get_close_matches(name, known, 3)
            hint = f"did you mean {' or '.join(similar)}?" if similar else "see docs/options.md"
            raise UserError(f"{function}: no such option as {name}; {hint}")


def check_loading(cfg: Any, task: Any, given: Mapping[str, Any]) -> None:
    """Check the keyword arguments of `from_pretrained`, and apply those that fairseq left out.

    fairseq replaces what a checkpoint's configuration holds and ignores all other names. Options
    of decoding that are newer than the checkpoint are set here.

    Args:
        cfg: the configuration that fairseq has loaded.
        given: the keyword arguments.
    Raises:
        UserError: a name is unknown.
    """
    known = {*LOADING_OPTIONS, *OPTIONS, *REGISTRIES}
    for each in (cfg, task.cfg):
        known |= _names(OmegaConf.to_container(each))
    check_names("from_pretrained", given, known)
    with open_dict(task.cfg):
        for name in given.keys() & {*OPTIONS, "decoding_settings"}:
            task.cfg[name] = given[name]


def _names(table: Any) -> set[str]:
    """The keys of a dictionary and of the dictionaries in it."""
    if not isinstance(table, dict):
        return set()
    return set(table).union(*map(_names, table.values()))
