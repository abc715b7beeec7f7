"""Load a trained model without its data, to look at its weights."""

import os
from types import SimpleNamespace
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.models import ARCH_MODEL_REGISTRY, MODEL_REGISTRY, BaseFairseqModel, build_model

from difformer_plugin.checkpoints.fingerprint import KEY, TABLES
from difformer_plugin.errors import UserError


def load_without_data(path: str | os.PathLike) -> BaseFairseqModel:
    """Build the model of a checkpoint on the CPU, with placeholder dictionaries of the right sizes.

    Raises:
        UserError: there is no such file, or its model does not diffuse embeddings.
    """
    checkpoint = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    state, cfg = checkpoint["model"], (checkpoint.get("cfg") or {}).get("model")
    models = {**MODEL_REGISTRY, **ARCH_MODEL_REGISTRY}
    model_class = models.get(cfg.get("_name")) if cfg else None
    # the encoder's and the denoiser's; a model of joint sequences has the second alone
    tables = [state[table] for table in TABLES if torch.is_tensor(state.get(table))]
    has_table = torch.is_tensor(state.get(TABLES[-1]))
    if not (cfg and has_table and _diffuses_embeddings(model_class)):
        names = ", ".join(
            name for name in sorted(MODEL_REGISTRY) if _diffuses_embeddings(models[name])
        )
        raise UserError(
            f"{path} is not a checkpoint of a model that diffuses embeddings: give one that was "
            f"trained with --arch {names}, of any size"
        )
    for option in cfg:
        if option.endswith("_embed_path"):
            cfg[option] = None  # the tables are in the checkpoint
    source, target = (_placeholder(len(table)) for table in (tables[0], tables[-1]))
    task = SimpleNamespace(source_dictionary=source, target_dictionary=target)
    model = build_model(cfg, task, from_checkpoint=True)
    state[KEY] = model.get_buffer(KEY)
    model.load_state_dict(state)
    return model.eval()


def _diffuses_embeddings(model_class: Any) -> bool:
    """Whether a class registered with fairseq says so; fairseq's own have no such attribute."""
    return getattr(model_class, "diffuses_embeddings", False)


def _placeholder(size: int) -> Dictionary:
    """A dictionary with `size` symbols, special ones included."""
    dictionary = Dictionary()
    for i in range(size - len(dictionary)):
        dictionary.add_symbol(str(i))
    return dictionary
