"""The exponential moving average (EMA) of the weights that `fairseq-train --store-ema` keeps."""

import os
from typing import Any

from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError


def ema_weights(checkpoint: dict[str, Any], path: str | os.PathLike) -> dict[str, Any]:
    """The state dict of the averaged model in a checkpoint.

    fairseq averages after every --ema-update-freq updates, with d = --ema-decay:
    ema <- d ema + (1 - d) weights.

    Args:
        checkpoint: what `load_weights_only` returned for `path`.
    Raises:
        UserError: the training did not store it.
    """
    weights = (checkpoint.get("extra_state") or {}).get("ema")
    if not weights:
        raise UserError(
            f"{path} has no exponential moving average of the weights: omit --use-ema, or train "
            "with --store-ema"
        )
    return weights


def load_ema(model: Any, path: str | os.PathLike) -> None:
    """Load the averaged weights of a checkpoint into a model that was built from it.

    Raises:
        UserError: the checkpoint has none, or cannot be read.
    """
    model.load_state_dict(ema_weights(load_weights_only(path, memory_map=True), path))
