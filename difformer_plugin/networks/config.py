"""The network configuration that families share, its checks, and the named sizes."""

from dataclasses import dataclass, fields
from typing import Any, Optional

from fairseq.dataclass import ChoiceEnum, FairseqDataclass
from omegaconf import II, DictConfig, OmegaConf

from difformer_plugin.checkpoints.warm_start import PARTS, parse_parts
from difformer_plugin.errors import UserError
from difformer_plugin.options import flag, option

ACTIVATIONS = ChoiceEnum(["relu", "gelu"])


@dataclass
class DenoiserConfig(FairseqDataclass):
    """The configuration of denoiser and length predictor, for a network with or without encoder."""

    # network
    model_dim: int = option(512, "dimension of the Transformer's hidden states")
    latent_dim: int = option(128, "dimension of the embeddings that are diffused (z_t)")
    decoder_layers: int = option(6, "number of denoiser layers")
    decoder_attention_heads: int = option(8, "number of attention heads per denoiser layer")
    decoder_ffn_embed_dim: int = option(
        2048, "inner dimension of the denoiser's feed-forward networks"
    )
    decoder_normalize_before: bool = option(False, "apply layer norm before each denoiser block")
    decoder_learned_pos: bool = option(False, "use learned instead of sinusoidal target positions")
    activation_fn: ACTIVATIONS = option(  # type: ignore[valid-type]
        "relu", "activation function: relu or gelu"
    )
    dropout: float = option(0.1, "dropout probability")
    attention_dropout: float = option(0.0, "dropout probability for attention weights")
    activation_dropout: float = option(0.0, "dropout probability after the activation function")
    apply_bert_init: bool = option(
        False, "initialise the denoiser and its embeddings as BERT does: N(0, 0.02^2)"
    )
    # embeddings
    no_scale_embedding: bool = option(False, "do not multiply embeddings by sqrt(latent dim)")
    decoder_embed_path: Optional[str] = option(
        None,
        "file of pre-trained target embeddings: text, one line per token with symbol and vector "
        "(App. C.3)",
    )
    freeze_embeddings: bool = option(
        False, "do not train embedding tables that are read from a file (App. C.3)"
    )
    embed_norm: bool = option(False, "apply layer norm to the denoiser's input")
    embed_norm_affine: bool = option(
        False, "give the layer norm of --embed-norm a learned scale and shift"
    )
    embed_norm_before_proj: bool = option(
        False,
        "apply --embed-norm to the embeddings z_0, not after the projection to the model dimension",
    )
    # initial weights
    init_from_teacher: Optional[str] = option(
        None,
        "start training from the weights of this checkpoint: a Transformer of fairseq's, or a "
        "diffusion model, with the same dictionaries",
    )
    init_parts: str = option(
        ",".join(PARTS),
        "the parts that --init-from-teacher takes, separated by commas: the encoder's layers, the "
        "embedding tables (the output projection included), the decoder's layers",
    )
    normalize_embeddings: bool = option(
        False,
        "scale each embedding z_0 to the norm sqrt(latent dim); the table that rounds stays as it "
        "is",
    )
    # self-conditioning
    self_cond: bool = option(
        False, "use self-conditioning: the denoiser also reads its previous prediction"
    )
    self_cond_before_proj: bool = option(
        False, "join the previous prediction to z_t before the projection to the model dimension"
    )
    # guidance
    source_dropout: float = option(
        0.0,
        "probability of training a sentence without its source; classifier-free guidance "
        "(--guidance-scale) needs a value above 0",
    )
    # length
    sg_length_pred: bool = option(False, "stop the length predictor's gradient to the encoder")
    pred_length_offset: bool = option(
        False, "predict the difference of target and source length instead of the target length"
    )
    max_source_positions: int = II("task.max_source_positions")
    max_target_positions: int = II("task.max_target_positions")


@dataclass
class NetworkConfig(DenoiserConfig):
    """The configuration of encoder, denoiser and length predictor."""

    encoder_layers: int = option(6, "number of encoder layers")
    encoder_attention_heads: int = option(8, "number of attention heads per encoder layer")
    encoder_ffn_embed_dim: int = option(
        2048, "inner dimension of the encoder's feed-forward networks"
    )
    encoder_normalize_before: bool = option(False, "apply layer norm before each encoder block")
    encoder_learned_pos: bool = option(False, "use learned instead of sinusoidal source positions")
    layernorm_embedding: bool = option(False, "apply layer norm to the encoder's input")
    share_all_embeddings: bool = option(
        False, "use one embedding table for source, target and rounding (needs a joined dictionary)"
    )
    share_decoder_input_output_embed: bool = option(
        False, "share the target embeddings with the output projection that rounds to tokens"
    )
    share_project_in_dim: bool = option(
        False, "share the projection from latent to model dimension between encoder and denoiser"
    )
    encoder_embed_path: Optional[str] = option(
        None, "file of pre-trained source embeddings, in the same format"
    )
    freeze_encoder_updates: int = option(
        0,
        "keep the layers of the teacher's encoder as they are for this many updates at the start",
    )


# Defaults of the named architectures (App. E, Table 21); options that the user gives win.
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


def with_defaults(cfg: Any, configuration: type[DenoiserConfig]) -> Any:
    """Add defaults for options that are newer than a checkpoint to its configuration.

    fairseq adds them if the configuration names the model, but not if it names an architecture.

    Args:
        cfg: a configuration from a checkpoint (DictConfig) or from the command line.
        configuration: the dataclass that has all options.
    """
    if not isinstance(cfg, DictConfig):
        return cfg
    missing = {f.name: f.default for f in fields(configuration) if f.name not in cfg}
    return OmegaConf.merge(OmegaConf.create(missing), cfg) if missing else cfg


def check_network(cfg: Any) -> None:
    """Raise a UserError if values are out of range or contradict each other.

    Args:
        cfg: a NetworkConfig.
    """
    if cfg.encoder_layers < 1:
        raise UserError(f"--encoder-layers must be at least 1, not {cfg.encoder_layers}")
    check_heads(cfg, "encoder")
    check_freezing(cfg)
    check_denoiser(cfg, bool(cfg.encoder_embed_path or cfg.decoder_embed_path))


def check_heads(cfg: Any, side: str) -> None:
    """Raise a UserError unless the heads of a side, "encoder" or "decoder", divide the states."""
    heads = getattr(cfg, f"{side}_attention_heads")
    if heads < 1 or cfg.model_dim % heads:
        raise UserError(
            f"--{side}-attention-heads must divide --model-dim ({cfg.model_dim}), but it is {heads}"
        )


def check_denoiser(cfg: Any, pretrained: bool) -> None:
    """Raise a UserError if values are out of range or contradict each other.

    Args:
        cfg: a DenoiserConfig.
        pretrained: whether embeddings are read from a file.
    """
    for name, least in (("model_dim", 1), ("latent_dim", 2), ("decoder_layers", 1)):
        if getattr(cfg, name) < least:
            raise UserError(f"{flag(name)} must be at least {least}, not {getattr(cfg, name)}")
    check_heads(cfg, "decoder")
    if cfg.init_from_teacher is None and parse_parts(cfg.init_parts) != PARTS:
        raise UserError("--init-parts has no effect without --init-from-teacher: give both")
    for name in ("dropout", "attention_dropout", "activation_dropout", "source_dropout"):
        if not 0 <= getattr(cfg, name) < 1:
            raise UserError(f"{flag(name)} must be in [0, 1), not {getattr(cfg, name):g}")
    for name, needed in (
        ("embed_norm_affine", "embed_norm"),
        ("embed_norm_before_proj", "embed_norm"),
        ("self_cond_before_proj", "self_cond"),
    ):
        if getattr(cfg, name) and not getattr(cfg, needed):
            raise UserError(
                f"{flag(name)} has no effect without {flag(needed)}: give both or neither"
            )
    if cfg.normalize_embeddings and cfg.embed_norm_before_proj:
        raise UserError(
            "--normalize-embeddings and --embed-norm-before-proj both normalise embeddings z_0: "
            "choose one"
        )
    if cfg.freeze_embeddings and not pretrained:
        raise UserError(
            "--freeze-embeddings would freeze random embeddings: give pre-trained ones with "
            "--encoder-embed-path and --decoder-embed-path"
        )


def check_freezing(cfg: Any) -> None:
    """Raise a UserError if there is no encoder of a teacher to freeze."""
    if cfg.freeze_encoder_updates < 0:
        raise UserError(
            f"--freeze-encoder-updates must be at least 0, not {cfg.freeze_encoder_updates}"
        )
    unknown = cfg.init_from_teacher is None or "encoder" not in parse_parts(cfg.init_parts)
    if cfg.freeze_encoder_updates and unknown:
        raise UserError(
            "--freeze-encoder-updates would freeze a random encoder: take it from a teacher with "
            "--init-from-teacher and --init-parts"
        )
