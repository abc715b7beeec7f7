"""Fingerprints of the dictionaries in every checkpoint, so that weights meet only their own."""

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from fairseq.data import Dictionary
from torch import nn

from difformer_plugin.errors import UserError

KEY = "dictionary_version"  # of the state dict; fairseq's moving averages skip names with "version"
TABLES = ("encoder.embed_tokens.weight", "denoiser.embed_tokens.weight")
SIDES = ("source", "target")


def fingerprint(dictionary: Dictionary) -> int:
    """A 48-bit hash of the symbols in their order.

    48 bits, since a script that averages checkpoints sums them in 64 bits before it divides.
    """
    digest = hashlib.blake2b("\n".join(dictionary.symbols).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little")


def check_dictionaries(model: nn.Module, state: dict[str, Any]) -> dict[str, Any]:
    """Check that a state dict was trained with the model's dictionaries.

    A state without fingerprints (of a converted checkpoint) is compared by size only.

    Returns:
        the state, with the model's fingerprints if it had none.
    Raises:
        UserError: the dictionaries differ.
    """
    own_state = dict(model.named_parameters(remove_duplicate=False)) | dict(model.named_buffers())
    marks = state.get(KEY)
    for i, (side, table) in enumerate(zip(SIDES, TABLES)):
        if table not in state:
            continue  # another architecture: loading names the keys that do not fit
        theirs, ours = len(state[table]), len(own_state[table])
        same_mark = marks is None or torch.equal(marks[i].cpu(), own_state[KEY][i].cpu())
        if theirs == ours and same_mark:
            continue
        detail = "" if marks is None else f" (fingerprint {int(marks[i]):012x})"
        own_detail = "" if marks is None else f" (fingerprint {int(own_state[KEY][i]):012x})"
        raise UserError(
            f"the checkpoint's {side} dictionary of {theirs} types{detail} is not the data's of "
            f"{ours} types{own_detail}: use the data-bin whose dict.*.txt the model was trained "
            "with, or binarise the data with these (fairseq-preprocess --srcdict/--tgtdict)"
        )
    return state if marks is not None else {**state, KEY: own_state[KEY]}


def check_table_sizes(state: Mapping[str, Any], source_types: int, target_types: int) -> None:
    """Check that any fairseq model's embedding tables have the sizes of the data's dictionaries.

    Raises:
        UserError: a size differs.
    """
    sides = (
        ("source", "encoder.embed_tokens.weight", source_types),
        ("target", "decoder.embed_tokens.weight", target_types),
    )
    for side, key, types in sides:
        if key in state and len(state[key]) != types:
            raise UserError(
                f"the checkpoint's {side} dictionary of {len(state[key])} types is not the data's "
                f"of {types} types: use the data-bin whose dict.*.txt the model was trained with "
                "(a teacher needs the same dictionaries as the model that it scores)"
            )
