"""Build the networks of a diffusion model from its configuration and its dictionaries."""

from collections.abc import Callable
from os import PathLike
from typing import Any

import torch
from fairseq import utils
from fairseq.data import Dictionary
from torch import nn

from difformer_plugin.errors import UserError
from difformer_plugin.networks.denoiser import Denoiser
from difformer_plugin.networks.encoder import Encoder, LengthPredictor
from difformer_plugin.networks.layers import init_bert


def build_networks(
    cfg: Any,
    src_dict: Dictionary,
    tgt_dict: Dictionary,
    time_scale: float,
    build_denoiser: Callable[..., Denoiser] = Denoiser,
) -> tuple[Encoder, Denoiser, LengthPredictor]:
    """Build encoder, denoiser and length predictor; they share weights as `cfg` says.

    Args:
        cfg: a NetworkConfig.
        src_dict: the source dictionary.
        tgt_dict: the target dictionary.
        time_scale: the denoiser multiplies times by this number before it embeds them.
        build_denoiser: a subclass of Denoiser, or a function with the arguments of its constructor.
    Raises:
        UserError: weights are to be shared but the dictionaries or paths differ, or a file of
            pre-trained embeddings cannot be used.
    """
    source_table = build_embedding(cfg, src_dict, cfg.encoder_embed_path)
    if cfg.share_all_embeddings:
        if src_dict != tgt_dict:
            raise UserError(
                "--share-all-embeddings needs one dictionary for both languages, but those of "
                f"source ({len(src_dict)} types) and target ({len(tgt_dict)} types) differ: run "
                "fairseq-preprocess with --joined-dictionary, or omit the option (if --arch turns "
                "it on: --no-share-all-embeddings); a model that is already trained needs the "
                "data-bin it was trained on"
            )
        if cfg.decoder_embed_path not in (None, cfg.encoder_embed_path):
            raise UserError(
                "--share-all-embeddings reads its embeddings from --encoder-embed-path: omit "
                "--decoder-embed-path"
            )
        target_table = source_table
    else:
        target_table = build_embedding(cfg, tgt_dict, cfg.decoder_embed_path)

    source_in = build_projection(cfg, cfg.latent_dim, cfg.model_dim)
    target_in = (
        source_in
        if cfg.share_project_in_dim
        else build_projection(cfg, cfg.latent_dim, cfg.model_dim)
    )
    target_out = build_projection(cfg, cfg.model_dim, cfg.latent_dim)
    rounding = nn.Linear(cfg.latent_dim, len(tgt_dict), bias=False)
    tied = cfg.share_all_embeddings or cfg.share_decoder_input_output_embed
    if tied:
        rounding.weight = target_table.weight
    else:
        nn.init.normal_(rounding.weight, std=cfg.latent_dim**-0.5)

    encoder = Encoder(cfg, source_table, source_in)
    denoiser = build_denoiser(cfg, time_scale, target_table, target_in, target_out, rounding)
    length_predictor = LengthPredictor(cfg)
    if cfg.apply_bert_init:
        target_path = cfg.encoder_embed_path if cfg.share_all_embeddings else cfg.decoder_embed_path
        initialise_as_bert(denoiser, bool(target_path))
        init_bert(length_predictor.embed_length)
    return encoder, denoiser, length_predictor


def build_joint_denoiser(
    cfg: Any,
    dictionary: Dictionary,
    time_scale: float,
    build_denoiser: Callable[..., Denoiser],
) -> Denoiser:
    """Build a denoiser that reads the source as well.

    One embedding table serves for source, target and rounding.

    Args:
        cfg: a DenoiserConfig; the others: see `build_networks`.
    Raises:
        UserError: a file of pre-trained embeddings cannot be used.
    """
    table = build_embedding(cfg, dictionary, cfg.decoder_embed_path)
    project_in = build_projection(cfg, cfg.latent_dim, cfg.model_dim)
    project_out = build_projection(cfg, cfg.model_dim, cfg.latent_dim)
    rounding = nn.Linear(cfg.latent_dim, len(dictionary), bias=False)
    rounding.weight = table.weight
    denoiser = build_denoiser(cfg, time_scale, table, project_in, project_out, rounding)
    if cfg.apply_bert_init:
        initialise_as_bert(denoiser, bool(cfg.decoder_embed_path))
    return denoiser


def initialise_as_bert(denoiser: Denoiser, pretrained: bool) -> None:
    """Draw the weights of a denoiser as BERT does.

    Args:
        pretrained: whether the target embeddings were read from a file; they are kept.
    """
    table, rounding = denoiser.embed_tokens, denoiser.output_projection
    # Pre-trained vectors, and the output projection that shares the table's weight, stay.
    excluded = [table] * pretrained + [rounding] * (rounding.weight is table.weight)
    for module in denoiser.modules():
        if not any(module is other for other in excluded):
            init_bert(module)


def build_embedding(cfg: Any, dictionary: Dictionary, path: str | None) -> nn.Embedding:
    """Build an embedding table (V, D) for a dictionary.

    Its entries are normal with standard deviation 1 / sqrt(D), and the row of padding is zero.
    Types that have a vector in the file `path` take that vector instead.

    Raises:
        UserError: the file cannot be parsed, or its vectors do not have D = --latent-dim entries.
    """
    table = nn.Embedding(len(dictionary), cfg.latent_dim, dictionary.pad())
    nn.init.normal_(table.weight, std=cfg.latent_dim**-0.5)
    nn.init.zeros_(table.weight[dictionary.pad()])
    if path:
        vectors = read_vectors(path)
        dims = {len(vector) for vector in vectors.values()}
        if dims != {cfg.latent_dim}:
            raise UserError(
                f"{path}: the vectors have dimension {', '.join(map(str, sorted(dims)))}, but "
                f"--latent-dim is {cfg.latent_dim}"
            )
        utils.load_embedding(vectors, dictionary, table)
        table.weight.requires_grad = not cfg.freeze_embeddings
    return table


def read_vectors(path: str | PathLike) -> dict[str, torch.Tensor]:
    """Read vectors from a text file with lines `symbol x_1 ... x_D`.

    The file may begin with a header line `count D`.

    Returns:
        symbol -> float32 (D,); D may differ between symbols.
    Raises:
        UserError: a value is not a finite number, or the file has no vectors or is not UTF-8.
    """
    vectors, number = {}, 0
    try:
        with open(path, encoding="utf-8") as file:
            for number, line in enumerate(file, 1):
                symbol, *values = line.rstrip().split(" ")
                if number == 1 and len(values) == 1:
                    continue
                vectors[symbol] = torch.tensor([float(value) for value in values])
                if not vectors[symbol].isfinite().all():
                    raise ValueError("a value is not finite")
    except ValueError as error:  # a line is not UTF-8, or has something else than numbers
        raise UserError(f"{path}, line {max(number, 1)}: {error}") from None
    if not vectors:
        raise UserError(f"{path} has no vectors: give a file with one line per token")
    return vectors


def build_projection(cfg: Any, in_dim: int, out_dim: int) -> nn.Module:
    """A linear map without bias, or the identity if latent and model dimension are equal."""
    if cfg.latent_dim == cfg.model_dim:
        return nn.Identity()
    return nn.Linear(in_dim, out_dim, bias=False)
