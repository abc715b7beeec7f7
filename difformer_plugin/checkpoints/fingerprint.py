"""A mark of the dictionaries in every checkpoint, so that weights meet only their own."""

import hashlib

import torch

from difformer_plugin.errors import UserError

KEY = "dictionary_version"  # fairseq's moving averages leave out what is called a version
TABLES = ("encoder.embed_tokens.weight", "denoiser.embed_tokens.weight")
SIDES = ("source", "target")


def fingerprint(dictionary):
    """48 bits of a hash over the symbols in their order.

    48, since averaging checkpoints adds them up in 64 bits before it divides.
    """
    digest = hashlib.blake2b("\n".join(dictionary.symbols).encode(), digest_size=6).digest()
    return int.from_bytes(digest, "little")


def check_dictionaries(model, state):
    """Compare the dictionaries of a state dict with the model's.

    A state without a fingerprint (a converted one) is compared by size only.

    Returns:
        the state with the model's fingerprint where it had none.
    Raises:
        UserError: they differ.
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


def check_table_sizes(state, source_types, target_types):
    """Compare any fairseq model's embedding tables with the data's dictionaries, by size.

    Raises:
        UserError: they differ.
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
