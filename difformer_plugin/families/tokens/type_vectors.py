"""Embeddings for the nearest-neighbour graph of token types, from a checkpoint or a text file."""

from typing import Any

import torch
from fairseq.data import Dictionary

from difformer_plugin.checkpoints.loading import load_weights_only, looks_like_a_checkpoint
from difformer_plugin.errors import UserError
from difformer_plugin.networks.building import read_vectors
from difformer_plugin.options import flag

# keys of the target embeddings in checkpoints of fairseq's models and of ours
TABLES = ("decoder.embed_tokens.weight", "denoiser.embed_tokens.weight")


def type_vectors(cfg: Any, dictionary: Dictionary) -> torch.Tensor:
    """Load a vector for each type of a dictionary.

    Args:
        cfg: a DiscreteDiffusionConfig: --neighbour-embeddings names the file, or else
            --decoder-embed-path.
        dictionary: the target dictionary.
    Returns:
        float32 (V, D).
    Raises:
        UserError: no file is given, it cannot be read, or a type has no vector in it.
    """
    name = "neighbour_embeddings" if cfg.neighbour_embeddings else "decoder_embed_path"
    path = getattr(cfg, name)
    if path is None:
        raise UserError(
            "--process nearest needs embeddings: give --neighbour-embeddings a checkpoint, such as "
            "a teacher's, or a text file of vectors"
        )
    try:
        is_checkpoint = looks_like_a_checkpoint(path)
    except OSError as error:
        raise UserError(f"{flag(name)} {path}: {error.strerror}") from error
    load = _from_checkpoint if is_checkpoint else _from_text
    return load(path, dictionary, f"{flag(name)} {path}")


def _from_checkpoint(path: str, dictionary: Dictionary, given: str) -> torch.Tensor:
    """The target embeddings of a checkpoint; messages call it what was `given`."""
    state = load_weights_only(path).get("model", {})
    tables = [state[name] for name in TABLES if name in state]
    if not tables or len(tables[0]) != len(dictionary):
        found = f"a table of {len(tables[0])} types" if tables else "no table of the target's types"
        raise UserError(
            f"{given} has {found}, but the target dictionary has "
            f"{len(dictionary)}: give a model with the same dictionaries"
        )
    return tables[0].float()


def _from_text(path: str, dictionary: Dictionary, given: str) -> torch.Tensor:
    """The vectors of a text file; BOS, padding and EOS may be missing and are zero then."""
    vectors = read_vectors(path)
    special = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
    missing = [s for i, s in enumerate(dictionary.symbols) if s not in vectors and i not in special]
    if missing or len({len(vector) for vector in vectors.values()}) != 1:
        fault = f"no vector for {missing[0]!r}" if missing else "vectors of several dimensions"
        others = f" and {len(missing) - 1} other types" if len(missing) > 1 else ""
        raise UserError(
            f"{given} has {fault}{others}: give a file with a vector of the "
            "same dimension for each type, or a checkpoint"
        )
    zero = torch.zeros(len(next(iter(vectors.values()))))
    return torch.stack([vectors.get(symbol, zero) for symbol in dictionary.symbols])
