"""A diffusion model's networks, from its configuration and its dictionaries."""

import torch
from fairseq import utils
from torch import nn

from difformer_plugin.errors import UserError
from difformer_plugin.networks.denoiser import Denoiser
from difformer_plugin.networks.encoder import Encoder, LengthPredictor
from difformer_plugin.networks.layers import init_bert


def build_networks(cfg, src_dict, tgt_dict, time_scale, kind=Denoiser):
    """Encoder, denoiser and length predictor, with the weights that they share.

    Args:
        cfg: NetworkConfig.
        time_scale: of the denoiser; kind: its class.

    Raises:
        UserError: the dictionaries do not allow what the configuration shares, or a file of
            pre-trained embeddings does not fit.
    """
    source_table = build_embedding(cfg, src_dict, cfg.encoder_embed_path)
    if cfg.share_all_embeddings:
        if src_dict != tgt_dict:
            raise UserError(
                "--share-all-embeddings needs one dictionary for both languages, but source "
                f"({len(src_dict)} types) and target ({len(tgt_dict)} types) differ: run "
                "fairseq-preprocess with --joined-dictionary, or leave the option out; a model "
                "that is trained already wants the data-bin that it was trained with"
            )
        if cfg.decoder_embed_path not in (None, cfg.encoder_embed_path):
            raise UserError(
                "--share-all-embeddings takes its embeddings from --encoder-embed-path: leave "
                "--decoder-embed-path out"
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
    denoiser = kind(cfg, time_scale, target_table, target_in, target_out, rounding)
    length_predictor = LengthPredictor(cfg)
    if cfg.apply_bert_init:
        target_path = cfg.encoder_embed_path if cfg.share_all_embeddings else cfg.decoder_embed_path
        kept = [target_table] * bool(target_path) + [rounding] * tied
        for module in denoiser.modules():
            if not any(module is k for k in kept):
                init_bert(module)
        init_bert(length_predictor.embed_length)
    return encoder, denoiser, length_predictor


def build_embedding(cfg, dictionary, path):
    """An embedding table (V, D) for a dictionary, from a file of vectors if `path` names one."""
    table = nn.Embedding(len(dictionary), cfg.latent_dim, dictionary.pad())
    nn.init.normal_(table.weight, std=cfg.latent_dim**-0.5)
    nn.init.zeros_(table.weight[dictionary.pad()])
    if path:
        vectors = read_vectors(path)
        dims = {len(vector) for vector in vectors.values()}
        if dims != {cfg.latent_dim}:
            raise UserError(
                f"{path}: vectors of dimension {', '.join(map(str, sorted(dims)))}, but "
                f"--latent-dim is {cfg.latent_dim}"
            )
        utils.load_embedding(vectors, dictionary, table)
        table.weight.requires_grad = not cfg.freeze_embeddings
    return table


def read_vectors(path):
    """Vectors by symbol, from lines `symbol x_1 ... x_D`; a first line `count D` may head them."""
    vectors = {}
    with open(path, encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            symbol, *values = line.rstrip().split(" ")
            if number == 1 and len(values) == 1:
                continue
            try:
                vectors[symbol] = torch.tensor([float(value) for value in values])
            except ValueError as error:
                raise UserError(f"{path}, line {number}: {error}") from None
    if not vectors:
        raise UserError(f"{path} holds no vectors: give a file with a line a token")
    return vectors


def build_projection(cfg, in_dim, out_dim):
    """A linear map without bias, or nothing where latent and model dimension are one."""
    if cfg.latent_dim == cfg.model_dim:
        return nn.Identity()
    return nn.Linear(in_dim, out_dim, bias=False)
