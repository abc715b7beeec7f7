"""The configuration of joint diffusion, its checks, and the named sizes."""

from dataclasses import dataclass
from typing import Any

from fairseq.dataclass import ChoiceEnum

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.config import GaussianConfig, check_gaussian
from difformer_plugin.families.embeddings.corruption import check_corruption
from difformer_plugin.networks.config import SIZES, DenoiserConfig, check_denoiser
from difformer_plugin.options import flag, option

PARTIAL, FULL = "partial", "full"
CONDITIONING = ChoiceEnum([PARTIAL, FULL])


@dataclass
class JointDiffusionConfig(GaussianConfig, DenoiserConfig):
    """The options of --arch joint_diffusion."""

    decoder_layers: int = option(12, "number of layers of the joint Transformer")
    conditioning: CONDITIONING = option(  # type: ignore[valid-type]
        PARTIAL,
        "partial: only the target is noised (DiffuSeq); full: source and target are, and a "
        "translation fills in what is missing (Diffusion-LM)",
    )
    blind_source: bool = option(
        False,
        "with --conditioning partial, source positions do not attend to the target, so that "
        "decoding computes them once and not at every step",
    )
    plain_source: bool = option(
        False,
        "with --conditioning partial, read the source as an encoder does: embeddings and positions "
        "without time, self-conditioning and the normalisation of --embed-norm or "
        "--normalize-embeddings",
    )
    restart_positions: bool = option(
        False,
        "count the target's positions from its own first token and add a learned embedding to "
        "them, so that a word and its translation have similar positions",
    )
    generate_words: bool = option(
        False,
        "train on single words of the target, each after the source and the words before it; "
        "decoding then goes word by word",
    )
    length_by_padding: bool = option(
        False,
        "do not predict lengths: pad each target with EOS to the length of its source plus "
        "--padding-margin, and end what is generated at its first EOS",
    )
    padding_margin: int = option(
        10, "with --length-by-padding, positions that a target has beyond its source's length"
    )


# Half of Difformer's layers are its encoder's: a joint Transformer has as many in all.
ARCHITECTURES = {
    f"joint_diffusion{suffix}": {
        name: value for name, value in sizes.items() if not name.startswith("encoder_")
    }
    | ({"decoder_layers": 2 * sizes["decoder_layers"]} if "decoder_layers" in sizes else {})
    for suffix, sizes in SIZES.items()
}


def check_config(cfg: Any) -> None:
    """Raise a UserError if values are out of range or contradict each other."""
    check_gaussian(cfg)
    check_denoiser(cfg, bool(cfg.decoder_embed_path))
    check_corruption(cfg)
    for name in ("blind_source", "plain_source"):
        if getattr(cfg, name) and cfg.conditioning != PARTIAL:
            raise UserError(
                f"{flag(name)} needs sources without noise: omit it, or give --conditioning "
                f"{PARTIAL}"
            )
    check_words(cfg)
    default = JointDiffusionConfig.padding_margin
    if cfg.padding_margin != default and not cfg.length_by_padding:
        raise UserError("--padding-margin does nothing without --length-by-padding: give both")
    if cfg.padding_margin < 0:
        raise UserError(f"--padding-margin must be at least 0, not {cfg.padding_margin}")
    for name in ("sg_length_pred", "pred_length_offset"):
        if getattr(cfg, name) and cfg.length_by_padding:
            raise UserError(f"{flag(name)} does nothing with --length-by-padding: leave it out")


def check_words(cfg: Any) -> None:
    """Raise a UserError if options contradict word generation."""
    if not cfg.generate_words:
        return
    if cfg.conditioning != PARTIAL:
        raise UserError(
            "--generate-words needs sources without noise, which the words so far are part of: "
            f"give --conditioning {PARTIAL}"
        )
    if cfg.source_dropout > 0:
        raise UserError(
            "--generate-words reads the words so far with the source, and --source-dropout would "
            "hide both: leave one out"
        )
    if cfg.restart_positions:
        raise UserError(
            "--generate-words counts positions through the words so far, and --restart-positions "
            "would restart with each word: leave one out"
        )
    for name in ("length_by_padding", "pred_length_offset"):
        if getattr(cfg, name):
            raise UserError(
                f"--generate-words predicts the number of a word's tokens: leave {flag(name)} out"
            )
