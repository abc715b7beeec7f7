"""The joint model: what its positions read, what is predicted, and what is weighted."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from difformer_plugin.diffusion.gaussian.predictions import PREDICTIONS, kl_weights
from difformer_plugin.errors import UserError
from difformer_plugin.families.joint.config import JointDiffusionConfig, check_config
from difformer_plugin.families.joint.objective import JointDiffusionLoss, JointDiffusionLossConfig
from difformer_plugin.networks.layout import Layout

TARGET_LENGTHS = [4, 2, 6]
CONDITIONINGS = {
    "partial": {},
    "blind": {"blind_source": True},
    "full": {"conditioning": "full"},
}


READINGS = [
    {},
    {"blind_source": True},
    {"plain_source": True},
    {"restart_positions": True},
    {"blind_source": True, "plain_source": True, "restart_positions": True},
]


@pytest.fixture
def batch(sentences, joined_task):
    """Sources padded on the left, and targets."""
    source = sentences([3, 7, 5], seed=1)
    target = sentences(TARGET_LENGTHS, "target", seed=2)
    return source, target


@pytest.fixture
def state(build_joint, batch):
    """A function from options to a model, its conditions, and z_t of a layout of its targets."""

    def state(**options):
        model, (source, target) = build_joint(self_cond=True, **options), batch
        with torch.no_grad():
            memory = model.encoder(source)
        layout = Layout.packed(target.ne(1))
        return model, memory, layout, torch.randn(len(layout.rows), 8)

    return state


def predict(model, memory, layout, z_t, time=0.4, previous=None):
    with torch.no_grad():
        return model.predict(z_t, time, layout, model.conditions(memory), previous)


@pytest.mark.parametrize("options", READINGS, ids=" ".join)
def test_a_sentence_is_read_alike_alone_and_in_a_batch(state, options):
    model, memory, layout, z_t = state(**options)
    both = predict(model, memory, layout, z_t).split(layout.lengths.tolist())
    for i, (own, z) in enumerate(zip(both, z_t.split(layout.lengths.tolist()))):
        alone = Layout([len(z)], [0], z.device)
        rows = memory.select(torch.tensor([i]))
        torch.testing.assert_close(predict(model, rows, alone, z), own, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", READINGS, ids=" ".join)
def test_padded_equals_packed(state, options):
    model, memory, layout, z_t = state(**options)
    width = int(layout.lengths.max())
    mask = torch.arange(width) < layout.lengths[:, None]
    padded = torch.zeros(*mask.shape, 8)
    padded[mask] = z_t
    found = predict(model, memory, Layout.dense(mask), padded.flatten(0, 1))
    expected = predict(model, memory, layout, z_t)
    torch.testing.assert_close(found[mask.flatten()], expected, rtol=1e-4, atol=1e-5)


def test_without_any_source_it_is_unconditional_diffusion(state):
    """A joint sequence with an empty source is the target alone."""
    model, memory, layout, z_t = state()
    empty = memory.select(torch.arange(3))
    empty.mask[:] = False
    t = torch.tensor([20.0])
    with torch.no_grad():
        positions = layout.candidates.pack(model.denoiser.embed_positions(layout.mask.long() + 1))
        x = model.denoiser.read(z_t, t, layout, torch.zeros_like(z_t), positions)
        alone = model.denoiser._transform(x, layout)
    found = predict(model, empty, layout, z_t, time=20 / 50)
    torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-5)


def test_the_source_reads_the_target_unless_it_is_blind(state):
    """With two layers, a target token reaches another by way of the source alone."""
    for options, reaches in (({}, True), ({"blind_source": True}, False)):
        model, memory, layout, z_t = state(**options)
        states = []
        handle = model.denoiser.layers[1].self_attn.k_proj.register_forward_pre_hook(
            lambda module, args, states=states: states.append(args[0].detach().clone())
        )
        predict(model, memory, layout, z_t)
        predict(model, memory, layout, z_t + 1)
        handle.remove()
        before, after = [x for x in states if x.dim() == 2]  # of the predictions
        if reaches:
            length = int(memory.lengths()[0])  # the first rows are the first source's
            assert not torch.allclose(before[:length], after[:length])
        else:  # only the targets are projected at each step
            assert len(before) == len(after) == len(z_t)


def test_blind_sources_by_hand(state):
    """One sentence, layer by layer, with the mask that forbids sources to look at the target."""
    model, memory, layout, z_t = state(blind_source=True)
    denoiser, (rows, length) = model.denoiser, (0, int(layout.lengths[0]))
    own, z = memory.select(torch.tensor([rows])), z_t[:length]
    found = predict(model, own, Layout([length], [0], z.device), z)
    n = int(own.lengths()[0])
    with torch.no_grad():
        source = denoiser.embed(own.tokens[0, :n])
        latents = torch.cat([source, z])
        earlier = torch.cat([source, torch.zeros_like(z)])
        times = torch.tensor([0.0] * n + [20.0] * length)
        whole = Layout([1] * (n + length), list(range(n + length)), z.device)
        positions = denoiser.embed_positions(torch.full((1, n + length), 2))[0]
        x = denoiser.read(latents, times, whole, earlier, positions)
        visible = torch.ones(n + length, n + length, dtype=torch.bool)
        visible[:n, n:] = False
        for layer in denoiser.layers:
            q, k, v = (
                p(x).unflatten(-1, (4, 4)).transpose(0, 1)
                for p in (
                    layer.self_attn.q_proj,
                    layer.self_attn.k_proj,
                    layer.self_attn.v_proj,
                )
            )
            weights = (q @ k.transpose(1, 2) / 2).masked_fill(~visible, -torch.inf).softmax(-1)
            mixed = (weights @ v).transpose(0, 1).flatten(1)
            x = layer.self_attn_layer_norm(x + layer.self_attn.out_proj(mixed))
            x = layer.final_layer_norm(x + layer.fc2(F.relu(layer.fc1(x))))
        expected = denoiser.project_out_dim(x)[n:]
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("prediction", ["epsilon", "mean"])
def test_what_is_predicted_is_linear_in_z_0_given_z_t(state, prediction, monkeypatch):
    """A network that says the same in other terms gives the same z_0-hat."""
    model, memory, layout, z_t = state()
    expected = predict(model, memory, layout, z_t, time=0.5)
    other, own = state(prediction=prediction)[0], model.denoiser.denoise
    steps = torch.full((3,), 25)
    a, b = (x.float() for x in PREDICTIONS[prediction](other.process, steps, layout))
    monkeypatch.setattr(
        other.denoiser, "denoise", lambda z, *rest: (a * own(z, *rest) + b * z).float()
    )
    torch.testing.assert_close(
        predict(other, memory, layout, z_t, time=0.5), expected, rtol=1e-3, atol=1e-4
    )


def test_coefficients_are_those_of_the_noise_and_of_the_posterior_mean(build_joint):
    process = build_joint(rescaling_factor="3.0").process
    z_0, noise = torch.randn(2, 1, 6, 8, dtype=torch.float64)
    for t in (1, 17, 49):
        z_t = process.q_sample(z_0, torch.tensor([t]), noise)
        step, layout = torch.tensor([t]), Layout([6], [0], z_0.device)
        a, b = PREDICTIONS["epsilon"](process, step, layout)
        torch.testing.assert_close(a * z_0 + b * z_t, noise)
        alpha = process.alphas_cumprod
        beta = 1 - alpha[t] / alpha[t - 1]
        mean = (
            np.sqrt(alpha[t - 1]) * beta * z_0 + np.sqrt(1 - beta) * (1 - alpha[t - 1]) * z_t
        ) / (1 - alpha[t])
        a, b = PREDICTIONS["mean"](process, step, layout)
        torch.testing.assert_close(a * z_0 + b * z_t, mean)


def test_with_noise_by_position_they_are_those_of_each_position(build_joint):
    process = build_joint(noise_schedule="positional", rescaling_factor="3.0").process
    layout = Layout([6, 3], [0, 1], torch.device("cpu"))
    z_0, noise = torch.randn(2, 9, 8, dtype=torch.float64)
    steps = torch.tensor([20, 35])
    z_t = process.q_sample(z_0, steps, noise, layout)
    a, b = PREDICTIONS["epsilon"](process, steps, layout)
    torch.testing.assert_close(a * z_0 + b * z_t, noise)
    a, b = PREDICTIONS["mean"](process, steps, layout)
    for row, step in enumerate(steps.tolist()):
        here = layout.rows == row
        xi, lam, _ = process.posterior(step, layout)
        torch.testing.assert_close((a * z_0 + b * z_t)[here], (xi * z_0 + lam * z_t)[here])


def test_the_weighted_loss_is_the_divergence_of_two_posteriors(build_joint):
    process, dim = build_joint(rescaling_factor="3.0").process, 8
    z_0, z_0_hat, z_t = torch.randn(3, dim, dtype=torch.float64)
    for t in (1, 17, 49):
        xi, lam, log_variance = (series[t] for series in process.posterior_coefficients)
        deviation = float(np.exp(0.5 * log_variance)) * 3
        true, guess = (
            torch.distributions.Normal(xi * z + lam * z_t, deviation) for z in (z_0, z_0_hat)
        )
        divergence = torch.distributions.kl_divergence(true, guess).sum()
        squares = (z_0 - z_0_hat).square().sum()
        (weight,) = kl_weights(process, torch.tensor([t]), Layout([1], [0], z_0.device))
        torch.testing.assert_close(weight[0] * squares, divergence)


def test_a_simple_loss_is_the_squared_error_of_what_is_predicted(build_joint, batch, joined_task):
    source, target = batch
    model = build_joint(prediction="epsilon")
    output = model(source, target)
    loss = JointDiffusionLoss(JointDiffusionLossConfig(), joined_task)
    terms = loss.terms(
        model.denoiser.output_projection,
        output,
        weights=loss.squared_error_weights(model, output),
    )
    alpha = torch.from_numpy(model.process.alphas_cumprod)[output.t][output.rows][:, None]
    # of the same z_t, the noise that belongs to z_0, and to z_0-hat
    errors = (alpha / (1 - alpha)).sqrt() * (output.z_0_hat - output.z_0)
    assert terms["mse"].item() == pytest.approx(errors.square().mean().item(), rel=1e-5)


def test_the_expected_embedding_is_the_mean_over_the_vocabulary(state):
    model, memory, layout, z_t = state(prediction="expected_embedding")
    output, own = [], model.denoiser.denoise
    model.denoiser.denoise = lambda *args: output.append(own(*args)) or output[-1]
    found = predict(model, memory, layout, z_t)
    table = model.denoiser.embed(torch.arange(len(model.denoiser.embed_tokens.weight)))
    probabilities = model.denoiser.output_projection(output[0]).softmax(-1)
    for row, own in zip(probabilities, found):
        expected = sum(p * e for p, e in zip(row, table))
        torch.testing.assert_close(own[: len(expected)], expected, rtol=1e-4, atol=1e-5)
    assert torch.equal(found[:, table.shape[1] :], output[0])


def test_the_anchor_loss_of_expected_embeddings_is_of_the_networks_own_logits(
    build_joint, batch, joined_task
):
    model, outputs = build_joint(prediction="expected_embedding", self_cond=True), []
    own = model.denoiser.denoise
    model.denoiser.denoise = lambda *args: outputs.append(own(*args)) or outputs[-1]
    output = model(*batch)
    loss = JointDiffusionLoss(JointDiffusionLossConfig(), joined_task)
    terms = loss.terms(model.denoiser.output_projection, output)
    logits = model.denoiser.output_projection(outputs[-1])  # the earlier is for self-conditioning
    nll = torch.nn.functional.cross_entropy(logits, output.tokens).item()
    assert terms["anchor_nll"].item() == pytest.approx(nll, rel=1e-5)
    errors = model.denoiser.expected(outputs[-1]) - output.z_0
    assert terms["mse"].item() == pytest.approx(errors.square().mean().item(), rel=1e-5)


def test_full_conditioning_noises_and_predicts_the_source_as_well(build_joint, batch):
    source, target = batch
    counts = source.ne(1).sum(), target.ne(1).sum()
    partial, full = (build_joint(**CONDITIONINGS[name]) for name in ("partial", "full"))
    assert len(partial(source, target).tokens) == counts[1]
    output = full(source, target)
    assert len(output.tokens) == sum(counts)
    row = torch.cat([source[0, source[0] != 1], target[0, target[0] != 1]])
    assert output.tokens[: len(row)].tolist() == row.tolist()
    # places are the targets', and those of the source are a BOS, which soft labels leave out
    places = output.places[: len(row)].tolist()
    assert places == [0] * int(source[0].ne(1).sum()) + list(range(int(target[0].ne(1).sum())))


@pytest.mark.parametrize("options", CONDITIONINGS.values(), ids=CONDITIONINGS)
def test_all_parameters_learn(build_joint, batch, joined_task, options):
    model = build_joint(self_cond=True, source_dropout=0.5, **options).train()
    loss = JointDiffusionLoss(JointDiffusionLossConfig(), joined_task)
    source, target = batch
    for _ in range(3):
        sample = {"net_input": {"src_tokens": source}, "target": target}
        loss(model, sample)[0].backward()
    still = [name for name, p in model.named_parameters() if p.grad is None]
    assert not still


def test_one_dictionary_is_needed(build_joint, task):
    with pytest.raises(UserError, match="one dictionary for both languages"):
        build_joint(task)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"blind_source": True, "conditioning": "full"}, "--blind-source needs"),
        ({"plain_source": True, "conditioning": "full"}, "--plain-source needs"),
        ({"normalize_input": True, "prediction": "epsilon"}, "omit --normalize-input"),
    ],
)
def test_contradictions(options, message):
    with pytest.raises(UserError, match=message):
        check_config(JointDiffusionConfig(**options))
