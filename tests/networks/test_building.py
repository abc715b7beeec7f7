"""Embedding tables and projections: shared, separate, read from files, frozen, initialised."""

import math

import pytest
import torch

from difformer_plugin.errors import UserError
from difformer_plugin.networks.building import build_embedding


def test_tables_of_separate_dictionaries(build, task):
    model = build()
    assert model.encoder.embed_tokens.weight.shape == (len(task.source_dictionary), 8)
    assert model.denoiser.embed_tokens.weight.shape == (len(task.target_dictionary), 8)
    rounding = model.denoiser.output_projection.weight
    assert rounding.shape == (len(task.target_dictionary), 8)
    assert rounding is not model.denoiser.embed_tokens.weight


@pytest.mark.parametrize("bert", [False, True])
def test_shared_tables_stay_shared(build, joined_task, bert):
    tied = build(share_decoder_input_output_embed=True, apply_bert_init=bert)
    assert tied.denoiser.output_projection.weight is tied.denoiser.embed_tokens.weight
    assert tied.encoder.embed_tokens.weight is not tied.denoiser.embed_tokens.weight
    model = build(joined_task, share_all_embeddings=True, apply_bert_init=bert)
    table = model.denoiser.embed_tokens.weight
    assert model.encoder.embed_tokens.weight is table
    assert model.denoiser.output_projection.weight is table
    for built in (tied, model):
        for part in (built.encoder, built.denoiser):
            assert not part.embed_tokens.weight[part.pad].any()
            assert part.embed_tokens.weight.any(1).sum() == len(part.embed_tokens.weight) - 1


def test_sharing_needs_one_dictionary(build):
    with pytest.raises(UserError, match="19 types.*24 types.*--joined-dictionary"):
        build(share_all_embeddings=True)


def test_projections(build):
    separate, shared = build(), build(share_project_in_dim=True)
    assert separate.encoder.project_in_dim is not separate.denoiser.project_in_dim
    assert shared.encoder.project_in_dim is shared.denoiser.project_in_dim
    assert shared.denoiser.project_out_dim.weight.shape == (8, 16)
    equal = build(latent_dim=16)
    assert not [name for name, _ in equal.named_parameters() if "project_" in name]


def test_bert_initialisation(build):
    """The denoiser, the target embeddings and the lengths, but not the encoder."""
    model = build(apply_bert_init=True, latent_dim=64, model_dim=128)
    parts = {
        "denoiser": [p for p in model.denoiser.parameters() if p.dim() == 2],
        "lengths": [model.length_predictor.embed_length.weight],
    }
    for weights in parts.values():
        for weight in weights:
            spread = weight[weight != 0].std().item()
            assert spread == pytest.approx(0.02, rel=6 / math.sqrt(weight.numel()))
    for p in model.encoder.parameters():
        assert p.dim() != 2 or p.std().item() > 0.04


def write_vectors(path, vectors, header=True):
    lines = [f"{len(vectors)} {len(next(iter(vectors.values())))}"] * header
    lines += [f"{word} {' '.join(map(repr, values))}" for word, values in vectors.items()]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def vectors_of(dictionary, dim=8):
    """Vectors for all words but the last."""
    words = dictionary.symbols[dictionary.nspecial : -1]
    return {word: [float(i), *(0.5 * i for _ in range(dim - 1))] for i, word in enumerate(words, 1)}


@pytest.mark.parametrize("header", [True, False])
@pytest.mark.parametrize("bert", [True, False])
def test_pretrained_embeddings_are_those_of_the_file(build, task, tmp_path, header, bert):
    paths = {}
    for side, name in (("source", "encoder"), ("target", "decoder")):
        vectors = vectors_of(getattr(task, f"{side}_dictionary"))
        paths[f"{name}_embed_path"] = write_vectors(tmp_path / side, vectors, header)
    model = build(apply_bert_init=bert, **paths)
    for side, part in (("source", model.encoder), ("target", model.denoiser)):
        dictionary = getattr(task, f"{side}_dictionary")
        table = part.embed_tokens.weight.detach()
        for word, vector in vectors_of(dictionary).items():
            assert table[dictionary.index(word)].tolist() == vector
        assert table[-1].any() and table[-1].abs().max() < 5  # no vector: initialised at random
        assert not table[part.pad].any()


@pytest.mark.parametrize("frozen", [True, False])
def test_frozen_embeddings_do_not_move(build, task, sentences, tmp_path, frozen):
    paths = {
        f"{name}_embed_path": write_vectors(
            tmp_path / name, vectors_of(getattr(task, f"{side}_dictionary"))
        )
        for side, name in (("source", "encoder"), ("target", "decoder"))
    }
    model = build(freeze_embeddings=frozen, share_decoder_input_output_embed=True, **paths)
    tables = [model.encoder.embed_tokens.weight, model.denoiser.embed_tokens.weight]
    before = [table.detach().clone() for table in tables]
    other = model.denoiser.layers[0].fc1.weight.detach().clone()
    optimizer = torch.optim.AdamW(
        [p for p in model.parameters() if p.requires_grad], lr=0.1, weight_decay=0.1
    )
    output = model.train()(sentences([5, 2]), sentences([3, 6], "target"))
    loss = (output.z_0_hat - output.z_0).square().mean()
    (loss + model.denoiser.output_projection(output.z_0_hat).logsumexp(-1).mean()).backward()
    optimizer.step()
    assert [torch.equal(old, new) for old, new in zip(before, tables)] == [frozen, frozen]
    assert not torch.equal(other, model.denoiser.layers[0].fc1.weight)


def test_random_embeddings_are_never_frozen(build, task, tmp_path):
    path = write_vectors(tmp_path / "v", vectors_of(task.target_dictionary))
    model = build(freeze_embeddings=True, decoder_embed_path=path)
    assert not model.denoiser.embed_tokens.weight.requires_grad
    assert model.encoder.embed_tokens.weight.requires_grad
    assert model.denoiser.output_projection.weight.requires_grad


def test_vectors_of_another_dimension(build, task, tmp_path):
    path = write_vectors(tmp_path / "vectors", vectors_of(task.target_dictionary, dim=5))
    with pytest.raises(UserError, match=r"vectors: .*5.*--latent-dim is 8"):
        build(decoder_embed_path=path)


@pytest.mark.parametrize("text", ["", "1 8\n", "t0 1 2 x 4 5 6 7 8\n"])
def test_a_file_that_holds_no_vectors(build, tmp_path, text):
    path = tmp_path / "vectors"
    path.write_text(text)
    with pytest.raises(UserError, match="vectors"):
        build(decoder_embed_path=str(path))


def test_one_table_takes_one_file(build, joined_task, tmp_path):
    path = write_vectors(tmp_path / "v", vectors_of(joined_task.source_dictionary))
    model = build(joined_task, share_all_embeddings=True, encoder_embed_path=path)
    assert model.denoiser.embed_tokens.weight[4].tolist() == [1.0] + [0.5] * 7
    with pytest.raises(UserError, match="--decoder-embed-path"):
        build(joined_task, share_all_embeddings=True, decoder_embed_path=path)


def test_random_embeddings_have_unit_length_on_average(build, task):
    """Their deviation is D^(-1/2), so that z_0, scaled by sqrt(D), has unit variance."""
    cfg = build().cfg
    cfg.latent_dim = 4096
    table = build_embedding(cfg, task.target_dictionary, None).weight
    lengths = table[torch.arange(len(table)) != 1].norm(dim=1)
    assert (lengths - 1).abs().max() < 5 / math.sqrt(2 * 4096)
