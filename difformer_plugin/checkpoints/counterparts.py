"""Which layers of a teacher the layers of a model are taken from, and whether they fit."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from difformer_plugin.checkpoints.teacher import SIDES, Teacher
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag

# Options of fairseq's Transformers that must agree, with fairseq's defaults.
SIDE_SETTINGS = {"attention_heads": 8, "normalize_before": False, "learned_pos": False}
SETTINGS = {"no_token_positional_embeddings": False, "activation_fn": "relu"}


@dataclass(frozen=True)
class Counterpart:
    """What the layers of a part of a model are taken from.

    Attributes:
        side: of the teacher: "encoder" or "decoder".
        own_side: whose options of the model apply to these layers.
        count: how many layers of the teacher the part needs; a teacher may have more.
        prefixes: of the model's weights -> of the teacher's.
        left_out: prefixes of the teacher's layers, without `decoder.layers.0.`, that the part has
            no use for.
    """

    side: str
    own_side: str
    count: int
    prefixes: dict[str, str]
    left_out: tuple[str, ...] = ()

    @property
    def takes_positions(self) -> bool:
        """Whether it takes the table of learned positions."""
        return any(".embed_positions." in prefix for prefix in self.prefixes)


def counterpart(cfg: Any, part: str) -> Counterpart:
    """What a model with an encoder and a denoiser takes: the same layers, learned positions too.

    Args:
        cfg: a NetworkConfig.
        part: "encoder" or "decoder".
    """
    own = {"encoder": "encoder", "decoder": "denoiser"}[part]
    count = getattr(cfg, f"{part}_layers")
    names = [*(f"layers.{i}" for i in range(count)), "layer_norm", "embed_positions"]
    names += ["layernorm_embedding"] if part == "encoder" else []
    return Counterpart(part, part, count, {f"{own}.{n}.": f"{part}.{n}." for n in names})


def check_embeddings(cfg: Any, teacher: Teacher) -> None:
    """Compare what the embeddings are multiplied by, and their dimension."""
    if _reads_embeddings(cfg):
        raise UserError(
            "the embeddings cannot come from the teacher and from --encoder-embed-path or "
            "--decoder-embed-path as well: omit one of them, or leave embeddings out of "
            "--init-parts"
        )
    scaled = teacher.settings.get("no_scale_embedding", False)
    compared = {"no_scale_embedding": (cfg.no_scale_embedding, scaled)}
    table = teacher.weights.get("encoder.embed_tokens.weight")
    if table is not None:
        compared["latent_dim"] = cfg.latent_dim, table.shape[1]
    _compare(compared, "embeddings", "the teacher")


def check_layers(cfg: Any, teacher: Teacher, part: str, layers: Counterpart) -> None:
    """Compare the options that shapes do not tell, the dimensions, and the number of layers."""
    side, own_side, settings = layers.side, layers.own_side, teacher.settings
    options = {
        **{f"{own_side}_{name}": (f"{side}_{name}", d) for name, d in SIDE_SETTINGS.items()},
        **{name: (name, default) for name, default in SETTINGS.items()},
    }
    if side == "encoder":
        options["layernorm_embedding"] = "layernorm_embedding", False
    lacking = [name for name in options if settings.get(name) and getattr(cfg, name, None) is None]
    if not layers.takes_positions and settings.get(f"{side}_learned_pos"):
        lacking.append(f"{side}_learned_pos")
    if lacking:
        raise UserError(
            f"it was trained with {flag(lacking[0])}, for which this model has no place: leave "
            f"{part} out of --init-parts, or use another teacher"
        )
    compared = {
        name: (getattr(cfg, name), settings.get(theirs, default))
        for name, (theirs, default) in options.items()
        if getattr(cfg, name, None) is not None
    }
    ffn_dim, dim = teacher.weights[f"{side}.layers.0.fc1.weight"].shape
    compared["model_dim"] = cfg.model_dim, dim
    name = f"{own_side}_ffn_embed_dim"
    compared[name] = getattr(cfg, name), ffn_dim
    _compare(compared, part, f"the teacher's {side}")
    name, theirs = f"{own_side}_layers", count_layers(teacher, side)
    if not 0 < layers.count <= theirs:
        raise UserError(
            f"{flag(name)} {getattr(cfg, name)} needs {layers.count} layers of the teacher's "
            f"{side}, which has {theirs}: give another number, or leave {part} out of --init-parts"
        )


def _compare(compared: Mapping[str, tuple[Any, Any]], part: str, where: str) -> None:
    """Raise a UserError that names the options whose values, here and in the teacher, differ."""
    differences = [
        f"{flag(name)} is {_shown(ours)} here and {_shown(theirs)} in {where}"
        for name, (ours, theirs) in compared.items()
        if ours != theirs
    ]
    if differences:
        raise UserError(
            f"{', '.join(differences)}: give the teacher's values, or leave {part} out of "
            "--init-parts"
        )


def _reads_embeddings(cfg: Any) -> bool:
    """Whether a configuration names a file of embeddings, on either side that it has."""
    return any(getattr(cfg, f"{side}_embed_path", None) for side in SIDES)


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)


def count_layers(teacher: Teacher, side: str) -> int:
    """The number of layers that the teacher has on one side."""
    numbers = {n.split(".")[2] for n in teacher.weights if n.startswith(f"{side}.layers.")}
    return len(numbers)
