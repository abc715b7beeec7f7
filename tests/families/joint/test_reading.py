"""What the first layer reads of source and target: positions, time and earlier predictions."""

from types import SimpleNamespace

import pytest
import torch

from difformer_plugin.networks.layout import Layout

SOURCE_LENGTHS, TARGET_LENGTHS = [3, 7, 5], [4, 2, 6]


@pytest.fixture
def setting(build_joint, sentences):
    """A function from options to a model, the memory of its sources and a layout of targets."""

    def setting(**options):
        model = build_joint(self_cond=True, **options)
        target = sentences(TARGET_LENGTHS, "target", seed=2)
        with torch.no_grad():
            memory = model.encoder(sentences(SOURCE_LENGTHS, seed=1))
        return model, memory, Layout.packed(target.ne(1))

    return setting


def expected_positions(denoiser, memory, layout):
    """By hand: each half counts from its own first token, and the target's half is marked."""
    table = denoiser.embed_positions(torch.full((1, 30), 2))[0]
    rows = []
    for source, target in zip(memory.lengths().tolist(), layout.lengths.tolist()):
        rows += [table[:source], table[:target] + denoiser.target_half]
    return torch.cat(rows)


@pytest.mark.parametrize("conditioning", ["partial", "full"])
def test_positions_begin_anew_in_the_target(setting, conditioning):
    model, memory, layout = setting(restart_positions=True, conditioning=conditioning)
    denoiser, conditions = model.denoiser, model.conditions(memory)
    with torch.no_grad():
        expected = expected_positions(denoiser, memory, layout)
        joined = conditions.join(layout)
        if conditioning == "partial":
            found = joined.layout.take(denoiser._positions(joined))
        else:
            rows = denoiser._positions_of_both(joined.layout, conditions)
            found = joined.layout.candidates.pack(rows)
    assert torch.equal(found, expected)


def first_inputs(model, memory, layout, time):
    """What the first layer reads of the joint sequences."""
    read = []
    handle = model.denoiser.layers[0].register_forward_pre_hook(
        lambda module, args: read.append(args[0].clone())
    )
    z_t = torch.randn(len(layout.rows), 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        model.predict(z_t, time, layout, model.conditions(memory), z_t)
    handle.remove()
    return read[-1]


def test_positions_of_the_longest_sentence_are_learned_ones(build_joint):
    """Padding beyond the last position, as where widths are rounded up, needs none."""
    options = {"max_source_positions": 9, "max_target_positions": 5, "decoder_learned_pos": True}
    model = build_joint(conditioning="full", restart_positions=True, **options)
    mask = (torch.arange(24) < 14)[None]
    lengths = torch.ones(1, 9, dtype=torch.bool)
    conditions = SimpleNamespace(mask=lengths)
    with torch.no_grad():
        found = model.denoiser._positions_of_both(Layout.dense(mask), conditions)[0, :14]
        table = model.denoiser.embed_positions(torch.full((1, 9), 2))[0]
    assert torch.equal(found[:9], table)
    assert torch.equal(found[9:], table[:5] + model.denoiser.target_half)


@pytest.mark.parametrize("norm", ["embed_norm_before_proj", "normalize_embeddings"])
def test_a_plain_source_is_not_normalised(setting, norm):
    options = {norm: True, "embed_norm": norm == "embed_norm_before_proj"}
    model, memory, layout = setting(plain_source=True, **options)
    found = model.denoiser.source_latents(memory.tokens, memory.absent)
    denoiser = model.denoiser
    assert torch.equal(found, denoiser.embed_scale * denoiser.embed_tokens(memory.tokens))
    assert not torch.allclose(found, denoiser.embed(memory.tokens), atol=0.1)


@pytest.mark.parametrize("plain", [True, False])
def test_a_plain_source_does_not_know_the_time(setting, plain):
    model, memory, layout = setting(plain_source=plain, embed_norm=True)
    early, late = (first_inputs(model, memory, layout, time) for time in (0.2, 0.8))
    same = (early == late).all(1)
    in_source = []
    for source, target in zip(memory.lengths().tolist(), layout.lengths.tolist()):
        in_source += [True] * source + [False] * target
    assert same.tolist() == [plain and here for here in in_source]
    if plain:
        denoiser = model.denoiser
        latents = denoiser.source_latents(memory.tokens, memory.absent)
        positions = denoiser.embed_positions(memory.mask.long() + 1)
        with torch.no_grad():
            expected = (denoiser.project_in_dim(latents) + positions)[memory.mask]
        assert torch.equal(early[torch.tensor(in_source)], expected)
