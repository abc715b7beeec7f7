"""The model's configuration, its checks, and the named sizes."""

from dataclasses import dataclass, field, fields
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, DictConfig, OmegaConf

from difformer_plugin.diffusion.rescaling import check_factor
from difformer_plugin.diffusion.schedules import SCHEDULES, get_schedule
from difformer_plugin.errors import UserError

ACTIVATIONS = ChoiceEnum(["relu", "gelu"])


def option(default, text):
    """A field of a configuration with its help text."""
    return field(default=default, metadata={"help": text})


@dataclass
class NetworkConfig(FairseqDataclass):
    """Of encoder, denoiser and length predictor, whatever is diffused."""

    # network
    model_dim: int = option(512, "dimension of the Transformer's states")
    latent_dim: int = option(128, "dimension of the embeddings that are diffused (z_t)")
    encoder_layers: int = option(6, "number of encoder layers")
    encoder_attention_heads: int = option(8, "attention heads of an encoder layer")
    encoder_ffn_embed_dim: int = option(2048, "inner dimension of the encoder's feed-forward nets")
    encoder_normalize_before: bool = option(False, "layer norm before each encoder block")
    encoder_learned_pos: bool = option(False, "learned instead of sinusoidal source positions")
    decoder_layers: int = option(6, "number of denoiser layers")
    decoder_attention_heads: int = option(8, "attention heads of a denoiser layer")
    decoder_ffn_embed_dim: int = option(2048, "inner dimension of the denoiser's feed-forward nets")
    decoder_normalize_before: bool = option(False, "layer norm before each denoiser block")
    decoder_learned_pos: bool = option(False, "learned instead of sinusoidal target positions")
    activation_fn: ACTIVATIONS = option("relu", "activation function: relu or gelu")
    dropout: float = option(0.1, "dropout probability")
    attention_dropout: float = option(0.0, "dropout probability for attention weights")
    activation_dropout: float = option(0.0, "dropout probability after the activation function")
    apply_bert_init: bool = option(
        False, "initialise the denoiser and its embeddings as BERT does (normal, deviation 0.02)"
    )
    # embeddings
    share_all_embeddings: bool = option(
        False, "one embedding table for source, target and rounding (needs a joined dictionary)"
    )
    share_decoder_input_output_embed: bool = option(
        False, "round with the target embeddings themselves"
    )
    share_project_in_dim: bool = option(
        False, "one projection from latent to model dimension for encoder and denoiser"
    )
    no_scale_embedding: bool = option(False, "do not multiply embeddings by sqrt(latent dim)")
    layernorm_embedding: bool = option(False, "layer norm on the encoder's input")
    encoder_embed_path: Optional[str] = option(
        None, "pre-trained source embeddings (text: a line a token, its symbol and its vector)"
    )
    decoder_embed_path: Optional[str] = option(
        None, "pre-trained target embeddings, in the same format (App. C.3)"
    )
    freeze_embeddings: bool = option(
        False, "do not train the embedding tables that come from such a file (App. C.3)"
    )
    embed_norm: bool = option(False, "layer norm on what the denoiser reads")
    embed_norm_affine: bool = option(
        False, "give that layer norm (--embed-norm) a learned scale and shift"
    )
    embed_norm_before_proj: bool = option(
        False,
        "apply --embed-norm to the embeddings z_0 instead of after the projection to the model dim",
    )
    # self-conditioning
    self_cond: bool = option(
        False, "self-conditioning: the denoiser also reads its last prediction"
    )
    self_cond_before_proj: bool = option(
        False, "join that prediction before the projection to the model dimension, not after it"
    )
    # length
    sg_length_pred: bool = option(False, "no gradient from the length predictor to the encoder")
    pred_length_offset: bool = option(
        False, "predict the difference of target and source length, not the target length"
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


@dataclass
class DifformerConfig(NetworkConfig):
    # diffusion
    diffusion_steps: int = option(2000, "T, the number of diffusion steps in training")
    noise_schedule: str = option("sqrt", f"noise schedule in training: {', '.join(SCHEDULES)}")
    rescaling_factor: str = option(
        "1.0",
        "F, the factor of noise rescaling in training (Eq. 3); auto: the least F = 1, 1.5, 2, ... "
        "that keeps the degeneration score of normal embeddings within --max-dgs",
    )
    max_dgs: Optional[float] = option(
        None,
        "DGS_MAX, the threshold of --rescaling-factor auto and of --rescaling-update-interval "
        "(the paper: 0.15)",
    )
    rescaling_update_interval: int = option(
        0, "every so many updates, set F anew for the embeddings as they are by then; 0: never"
    )
    rescaling_max_change: float = option(
        0.1, "by what part of itself F changes at most when it is set anew"
    )
    min_rescaling_factor: float = option(1.0, "least F that it is set to")
    max_rescaling_factor: float = option(100.0, "greatest F that it is set to")
    vp_rf: bool = option(False, "apply F in its variance-preserving form (Eq. 8)")
    rescale_timesteps: bool = option(
        False, "feed the denoiser with time steps scaled to the range from 0 to 1000"
    )


# What a named architecture sets where the user does not (App. E, Table 21).
SIZES = {
    "": {},
    "_base": {
        "model_dim": 768,
        "encoder_ffn_embed_dim": 3072,
        "encoder_attention_heads": 12,
        "decoder_ffn_embed_dim": 3072,
        "decoder_attention_heads": 12,
    },
    "_iwslt_de_en": {
        "encoder_ffn_embed_dim": 1024,
        "encoder_attention_heads": 4,
        "decoder_ffn_embed_dim": 1024,
        "decoder_attention_heads": 4,
    },
    "_tiny": {
        "model_dim": 128,
        "latent_dim": 64,
        "encoder_layers": 2,
        "encoder_ffn_embed_dim": 256,
        "encoder_attention_heads": 4,
        "decoder_layers": 2,
        "decoder_ffn_embed_dim": 256,
        "decoder_attention_heads": 4,
    },
}
ARCHITECTURES = {f"difformer{suffix}": sizes for suffix, sizes in SIZES.items()}


def with_defaults(cfg, configuration):
    """A checkpoint's configuration, with defaults for the options that came after it.

    fairseq fills them in where the model's name stands in it, but not where an architecture's does.
    """
    if not isinstance(cfg, DictConfig):
        return cfg
    later = {f.name: f.default for f in fields(configuration) if f.name not in cfg}
    return OmegaConf.merge(OmegaConf.create(later), cfg) if later else cfg


AUTO = "auto"


def given_factor(cfg):
    """F as a number, or None where it is to be chosen."""
    if cfg.rescaling_factor == AUTO:
        return None
    try:
        factor = float(cfg.rescaling_factor)
    except ValueError:
        raise UserError(
            f"--rescaling-factor must be a number above 0 or '{AUTO}', not '{cfg.rescaling_factor}'"
        ) from None
    check_factor(factor)
    return factor


def check_rescaling(cfg):
    """Raise a UserError for options of noise rescaling that cannot go together."""
    interval, max_dgs = cfg.rescaling_update_interval, cfg.max_dgs
    if interval < 0:
        raise UserError(f"--rescaling-update-interval must be at least 0, not {interval}")
    needed = given_factor(cfg) is None or interval > 0
    if needed and max_dgs is None:
        raise UserError(
            "--rescaling-factor auto and --rescaling-update-interval need --max-dgs, the threshold "
            "of the degeneration score (the paper: 0.15)"
        )
    if max_dgs is not None and not needed:
        raise UserError(
            f"--max-dgs does nothing with --rescaling-factor {cfg.rescaling_factor}: give "
            "--rescaling-factor auto or --rescaling-update-interval"
        )
    if max_dgs is not None and not 0 < max_dgs <= 1:
        raise UserError(f"--max-dgs must lie in (0, 1], not {max_dgs:g}")
    if not cfg.rescaling_max_change > 0:
        raise UserError(f"--rescaling-max-change must be above 0, not {cfg.rescaling_max_change:g}")
    least, greatest = cfg.min_rescaling_factor, cfg.max_rescaling_factor
    if not 0 < least <= greatest < float("inf"):
        raise UserError(
            "--min-rescaling-factor must be above 0 and at most --max-rescaling-factor, not "
            f"{least:g} and {greatest:g}"
        )
    factor = given_factor(cfg)
    if interval > 0 and factor is not None and not least <= factor <= greatest:
        raise UserError(
            f"--rescaling-factor {factor:g}, from which it is to follow the embeddings, must lie "
            f"between --min-rescaling-factor {least:g} and --max-rescaling-factor {greatest:g}"
        )


def check_config(cfg):
    """Raise a UserError for values that no Difformer can have."""
    get_schedule(cfg.noise_schedule)
    check_rescaling(cfg)
    if cfg.diffusion_steps < 2:
        raise UserError(f"--diffusion-steps must be at least 2, not {cfg.diffusion_steps}")
    check_network(cfg)


def check_network(cfg):
    """Raise a UserError for values that no network can have."""
    for name, least in (
        ("model_dim", 1),
        ("latent_dim", 2),
        ("encoder_layers", 1),
        ("decoder_layers", 1),
    ):
        if getattr(cfg, name) < least:
            raise UserError(f"--{name.replace('_', '-')} must be at least {least}")
    for side in ("encoder", "decoder"):
        heads = getattr(cfg, f"{side}_attention_heads")
        if heads < 1 or cfg.model_dim % heads:
            raise UserError(
                f"--{side}-attention-heads must divide --model-dim ({cfg.model_dim}), "
                f"which {heads} does not"
            )
    for name in ("dropout", "attention_dropout", "activation_dropout"):
        if not 0 <= getattr(cfg, name) < 1:
            raise UserError(
                f"--{name.replace('_', '-')} must be in [0, 1), not {getattr(cfg, name):g}"
            )
    for name, needed in (
        ("embed_norm_affine", "embed_norm"),
        ("embed_norm_before_proj", "embed_norm"),
        ("self_cond_before_proj", "self_cond"),
    ):
        if getattr(cfg, name) and not getattr(cfg, needed):
            raise UserError(
                f"--{name.replace('_', '-')} does nothing without --{needed.replace('_', '-')}: "
                "give both or neither"
            )
    if cfg.freeze_embeddings and not (cfg.encoder_embed_path or cfg.decoder_embed_path):
        raise UserError(
            "--freeze-embeddings would freeze random embeddings: give pre-trained ones with "
            "--encoder-embed-path and --decoder-embed-path"
        )
