"""The configuration of the networks that all families share, its checks, and the named sizes."""

from dataclasses import dataclass, fields
from typing import Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, DictConfig, OmegaConf

from difformer_plugin.errors import UserError
from difformer_plugin.options import option

ACTIVATIONS = ChoiceEnum(["relu", "gelu"])


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
    # guidance
    source_dropout: float = option(
        0.0,
        "probability that a training sentence is denoised without its source, which "
        "classifier-free guidance (--guidance-scale) needs",
    )
    # length
    sg_length_pred: bool = option(False, "no gradient from the length predictor to the encoder")
    pred_length_offset: bool = option(
        False, "predict the difference of target and source length, not the target length"
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


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


def with_defaults(cfg, configuration):
    """A checkpoint's configuration, with defaults for the options that came after it.

    fairseq fills them in where the model's name stands in it, but not where an architecture's does.
    """
    if not isinstance(cfg, DictConfig):
        return cfg
    later = {f.name: f.default for f in fields(configuration) if f.name not in cfg}
    return OmegaConf.merge(OmegaConf.create(later), cfg) if later else cfg


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
    for name in ("dropout", "attention_dropout", "activation_dropout", "source_dropout"):
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
