"""Vectors of the target's types, from a checkpoint or a text file, whose neighbours are wanted."""

import torch

from difformer_plugin.checkpoints.loading import load_weights_only, looks_like_a_checkpoint
from difformer_plugin.errors import UserError
from difformer_plugin.networks.building import read_vectors

# where fairseq's models and ours keep the target's table
TABLES = ("decoder.embed_tokens.weight", "denoiser.embed_tokens.weight")


def type_vectors(cfg, dictionary):
    """A vector for each type of a dictionary, float32 (V, D).

    Args:
        cfg: DiscreteDiffusionConfig, of which --neighbour-embeddings and --decoder-embed-path are
            read.
    Raises:
        UserError: there is no file, or it has not a vector for each type.
    """
    path = cfg.neighbour_embeddings or cfg.decoder_embed_path
    if path is None:
        raise UserError(
            "--process nearest needs embeddings: name a checkpoint (a teacher's) or a text file of "
            "vectors with --neighbour-embeddings"
        )
    try:
        found = looks_like_a_checkpoint(path)
    except OSError as error:
        raise UserError(f"--neighbour-embeddings {path}: {error.strerror}") from error
    return _of_checkpoint(path, dictionary) if found else _of_text(path, dictionary)


def _of_checkpoint(path, dictionary):
    state = load_weights_only(path).get("model", {})
    tables = [state[name] for name in TABLES if name in state]
    if not tables or len(tables[0]) != len(dictionary):
        found = f"a table of {len(tables[0])} types" if tables else "no table of the target's types"
        raise UserError(
            f"--neighbour-embeddings {path} has {found}, but the target dictionary has "
            f"{len(dictionary)}: give a model of the same dictionaries"
        )
    return tables[0].float()


def _of_text(path, dictionary):
    vectors = read_vectors(path)
    special = {dictionary.bos(), dictionary.pad(), dictionary.eos()}
    missing = [s for i, s in enumerate(dictionary.symbols) if s not in vectors and i not in special]
    if missing or len({len(vector) for vector in vectors.values()}) != 1:
        what = f"no vector of {missing[0]!r}" if missing else "vectors of several dimensions"
        raise UserError(
            f"--neighbour-embeddings {path}: {what}"
            + (f" and {len(missing) - 1} other types" if len(missing) > 1 else "")
            + ": give one of each type, or a checkpoint"
        )
    nothing = torch.zeros(len(next(iter(vectors.values()))))
    return torch.stack([vectors.get(symbol, nothing) for symbol in dictionary.symbols])
