"""Export a model: a folder that holds all that translation needs, and a model card."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fairseq.dataclass.configs import FairseqConfig
from omegaconf import OmegaConf

from difformer_plugin import __version__
from difformer_plugin.checkpoints.exported import CONFIG, WEIGHTS, write_weights
from difformer_plugin.checkpoints.model_folder import DECODING
from difformer_plugin.data import pipeline
from difformer_plugin.decoding.settings import OPTIONS, read_settings
from difformer_plugin.errors import UserError
from difformer_plugin.networks.config import NetworkConfig
from difformer_plugin.translation.card import CARD, Card, read_scores, render_card
from difformer_plugin.translation.settings import Settings
from difformer_plugin.translation.translator import Loaded, load_model

# Options of a training that mean nothing to its model, and may name files of the user's machine.
# The first are fairseq's options for checkpoints, which the task knows too.
TASK_PATHS = ("save_dir", "restore_file", "continue_once", "finetune_from_model")
MODEL_PATHS = (
    *("init_from_teacher", "encoder_embed_path", "decoder_embed_path"),
    "neighbour_embeddings",  # what was computed of them is among the weights
)
UNSET = {
    "freeze_embeddings": False,
    "init_parts": NetworkConfig.init_parts,
    "freeze_encoder_updates": NetworkConfig.freeze_encoder_updates,
}


def export(settings: Settings, out: Path, scores: Path | None = None) -> list[str]:
    """Write weights, configuration, dictionaries, pipeline and model card to a new folder.

    The folder appears when it is complete.

    Args:
        settings: the model; `decoding_settings` is written as its default settings of decoding.
        scores: what `difformer evaluate --json` printed, for the card.
    Returns:
        the names of the files.
    Raises:
        UserError: the model cannot be loaded, `out` exists, or a file is unusable.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out} exists: give a folder that is new or empty")
    found = read_scores(scores) if scores else None
    decoding = read_settings(settings.decoding_settings) if settings.decoding_settings else None
    loaded = load_model(settings)
    model, codec = loaded.models[0], loaded.codec
    with _new_folder(out) as folder:
        write_weights(model.state_dict(), folder / WEIGHTS)
        config = configuration(loaded, decoding is not None)
        (folder / CONFIG).write_text(json.dumps(config, indent=1) + "\n", "utf-8")
        for lang in (codec.pipeline.source_lang, codec.pipeline.target_lang):
            shutil.copyfile(loaded.folder / f"dict.{lang}.txt", folder / f"dict.{lang}.txt")
        pipeline.save(codec.pipeline, folder, codec.file)
        if settings.decoding_settings:
            shutil.copyfile(settings.decoding_settings, folder / DECODING)
        card = Card(
            out.name,
            model.title,
            sum(parameter.numel() for parameter in model.parameters()),
            config["training"]["num_updates"],
            codec.pipeline,
            decoding or {},
            found,
        )
        (folder / CARD).write_text(render_card(card), "utf-8")
        return sorted(path.name for path in folder.iterdir())


@contextmanager
def _new_folder(out: Path) -> Iterator[Path]:
    """Yield a folder to write to, which becomes `out` when the block succeeds."""
    out.absolute().parent.mkdir(parents=True, exist_ok=True)
    folder = out.absolute().parent / f".{os.getpid()}.tmp.{out.name}"
    folder.mkdir()
    try:
        yield folder
        os.replace(folder, out)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def configuration(loaded: Loaded, own_decoding: bool) -> dict[str, Any]:
    """What `config.json` holds: fairseq's configuration without the paths of the training.

    Args:
        own_decoding: whether settings of decoding are exported; those of the checkpoint then are
            set back to the defaults.
    """
    trained = OmegaConf.to_container(loaded.cfg, enum_to_str=True)
    cfg: Any = OmegaConf.to_container(OmegaConf.structured(FairseqConfig()), enum_to_str=True)
    cfg["common"]["seed"] = trained["common"]["seed"]
    for name in ("max_tokens", "batch_size"):
        cfg["dataset"][name] = trained["dataset"][name]
    cfg["model"], cfg["task"] = trained["model"], trained["task"]
    cfg["task"] |= {name: cfg["checkpoint"][name] for name in TASK_PATHS}
    unset = dict.fromkeys(("decoding_settings", "history_file", "constraints_file"))
    cfg["task"] |= {"data": ".", "use_ema": False, **unset}
    cfg["model"] |= dict.fromkeys(set(MODEL_PATHS) & cfg["model"].keys())
    # What refines an option that is unset now would have no effect, and be refused.
    cfg["model"] |= {name: UNSET[name] for name in UNSET.keys() & cfg["model"].keys()}
    if own_decoding:
        cfg["task"] |= {name: field.default for name, field in OPTIONS.items()}
    training = {"num_updates": loaded.num_updates, "criterion": loaded.models[0].criterion}
    return {"format": 1, "difformer_plugin": __version__, "cfg": cfg, "training": training}
