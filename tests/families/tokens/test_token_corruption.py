"""What training corrupts: as often as the forward process says, and never the frame."""

import numpy as np
import pytest
import torch
from token_cases import PAD, SOURCES, TARGETS, UNK, batch_of, fits, fixed

from difformer_plugin.bench.training_speedups import PLAIN, training_with


@fixed
@pytest.mark.parametrize("training", [True, False], ids=["training", "validation"])
def test_corruption_follows_the_process(few, build_discrete, options, training):
    """At each of T = 4 times the transitions from x_0 to x_t are as frequent as Q-bar says."""
    options = options | {"diffusion_steps": 4, "noise_schedule": "log_linear"}
    model = build_discrete(few, **options, decoder_layers=1, encoder_layers=1).train(training)
    if not training:
        model.eval()
    tokens = []
    with torch.no_grad():
        for seed in range(8):
            source = batch_of(64, 12, few.source_dictionary, seed)
            target = batch_of(64, 12, few.target_dictionary, 100 + seed)
            output = model(src_tokens=source, target=target, part=(seed % 4, 4))
            assert output.x_0.tolist() == (target[:, 1:-1].flatten() - UNK).tolist()
            tokens.append(torch.stack([output.x_0.double(), output.x_t.double(), output.t], 1))
    x_0, x_t, t = torch.cat(tokens).T
    n, states = model.vocabulary.types, model.process.states
    assert n == 4 and set(x_t.int().tolist()) == set(range(states))  # <unk> comes and goes
    continuous = options["objective"] == "sedd" or options.get("continuous_time")
    for i in range(4):
        here = (t > i / 4) & (t <= (i + 1) / 4)
        assert 0.15 < here.double().mean() < 0.35
        for x in range(n):
            own = here & (x_0 == x)
            counts = np.bincount(x_t[own].long(), minlength=states)
            times = t[own] if continuous else torch.full((1,), (i + 1) / 4, dtype=torch.float64)
            row = model.process.row(torch.full(times.shape, x), torch.zeros_like(times), times)
            probs = row.double().mean(0).numpy()
            if options["process"] == "absorbing":
                np.testing.assert_allclose(probs[n], times.mean(), atol=1e-6)
            assert fits(counts, probs)


@fixed
def test_frames_and_padding_are_never_corrupted(build_discrete, sentences, options, read):
    model = build_discrete(**options).train()
    source, target = sentences(SOURCES), sentences(TARGETS, "target")
    special, changed = target < UNK, 0
    for _ in range(6):
        with training_with(PLAIN, model):
            output, tokens = read(model, source, target)
        tokens = tokens.view(target.shape)
        assert tokens[special].equal(target[special])
        assert (tokens[~special] >= UNK).all() and tokens.max() <= model.vocabulary.mask
        assert tokens[~special].equal(output.x_t + UNK) and target[~special].equal(output.x_0 + UNK)
        changed += (tokens != target).sum()
        packed = read(model, source, target)[1]
        assert (packed < UNK).sum() == 2 * len(TARGETS) and not (packed == PAD).any()
    assert changed > 0
