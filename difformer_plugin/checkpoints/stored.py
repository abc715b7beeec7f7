"""A trained Difformer without its data: only its weights can be looked at."""

from types import SimpleNamespace

import torch
from fairseq import checkpoint_utils
from fairseq.data import Dictionary
from fairseq.models import build_model

from difformer_plugin.checkpoints.fingerprint import KEY, TABLES
from difformer_plugin.errors import UserError

RESCALED = "rescaling_factor"  # an option of a Difformer, and of no other model


def load_without_data(path):
    """The model of a checkpoint on the CPU, with dictionaries that have only the right sizes.

    Raises:
        UserError: no file, or no Difformer in it.
    """
    checkpoint = checkpoint_utils.load_checkpoint_to_cpu(str(path))
    state, cfg = checkpoint.get("model", {}), (checkpoint.get("cfg") or {}).get("model")
    tables = all(torch.is_tensor(state.get(table)) for table in TABLES)
    if cfg is None or not tables or RESCALED not in cfg:
        raise UserError(
            f"{path} is not a checkpoint of a Difformer: give one, since no other model has "
            "embeddings that are diffused"
        )
    cfg.encoder_embed_path = cfg.decoder_embed_path = None  # they have done their work
    source, target = (_dictionary(len(state[table])) for table in TABLES)
    task = SimpleNamespace(source_dictionary=source, target_dictionary=target)
    model = build_model(cfg, task, from_checkpoint=True)
    state[KEY] = model.get_buffer(KEY)
    model.load_state_dict(state)
    return model.eval()


def _dictionary(size):
    dictionary = Dictionary()
    for i in range(size - len(dictionary)):
        dictionary.add_symbol(str(i))
    return dictionary
