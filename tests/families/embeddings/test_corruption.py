"""How training corrupts: the laws of times, of what is spared, and of what is predicted ahead."""

import math

import pytest
import torch

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.config import DifformerConfig, check_config
from difformer_plugin.families.embeddings.corruption import corrupt, draw_clean
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig

STEPS = 50


def corrupted(model, z_0, mask=None, seed=3):
    mask = torch.ones(z_0.shape[:2], dtype=torch.bool) if mask is None else mask
    generator = torch.Generator().manual_seed(seed)
    return corrupt(model.cfg, model.process, z_0, mask, generator)


def assert_uniform(counts):
    """By a chi-squared test."""
    counts = counts.double()
    expected, freedom = counts.mean(), len(counts) - 1
    assert ((counts - expected).square() / expected).sum() < freedom + 4 * math.sqrt(2 * freedom)


# times


def test_stratified_times_are_uniform_and_evenly_spread(build):
    model = build(time_sampling="stratified")
    times = torch.stack([corrupted(model, torch.zeros(10, 1, 8), seed=i).t for i in range(1000)])
    for column in times.T[:3]:  # of each sentence alone
        assert_uniform(torch.bincount(column, minlength=STEPS))
    # ten strata of five steps each; a start within them leaves at most a step between
    strata = times.sort(1).values // 5
    off = (strata - torch.arange(10)).abs()
    assert off.max() <= 1
    gaps = times.sort(1).values.diff(dim=1)
    assert gaps.min() >= 4 and gaps.max() <= 6


def test_uniform_times_are_not_evenly_spread(build):
    gaps = corrupted(build(), torch.zeros(10, 1, 8)).t.sort().values.diff()
    assert gaps.max() > 6


# several noises


def test_several_noises_of_a_target_share_a_pass_of_the_encoder(build, task, sentences):
    """The loss of a batch is that of a batch in which each sentence occurs so often."""
    source, target = sentences([5, 3, 7]), sentences([4, 6, 2], "target")
    model = build(noises_per_sentence=3, self_cond=True, dropout=0.0).train()
    plain = build(self_cond=True, dropout=0.0).train()
    encoded, own = [], model.encoder.forward
    model.encoder.forward = lambda tokens: encoded.append(len(tokens)) or own(tokens)
    model._corrupt = lambda source, *of_target: corrupted(model, *of_target)

    def same(source, *of_target):
        drawn = corrupted(plain, *of_target)
        return drawn._replace(conditioned=drawn.conditioned[::3].repeat_interleave(3))

    plain._corrupt = same
    criterion = DifformerLoss(DifformerLossConfig(), task)

    def step(model, source, target):
        sample = {"net_input": {"src_tokens": source}, "target": target}
        loss, size, log = criterion(model, sample)
        loss.backward()
        return loss, size, log, [p.grad for p in model.parameters() if p.grad is not None]

    criterion.cfg.length_loss_factor = 0.0  # a mean over sentences: its share is the same anyway
    loss, size, _, gradients = step(model, source, target)
    again = step(plain, source.repeat_interleave(3, 0), target.repeat_interleave(3, 0))
    assert encoded == [3] and size == again[1] == 3 * (4 + 6 + 2 + 3 * 2)
    torch.testing.assert_close(loss, again[0])
    for own, other in zip(gradients, again[3], strict=True):
        torch.testing.assert_close(own, other, atol=1e-4, rtol=1e-4)


def test_several_noises_differ(build):
    z_0 = torch.zeros(6, 4, 8)  # two sentences, three times each
    drawn = corrupted(build(noises_per_sentence=3, self_cond=True), z_0)
    assert drawn.t.shape == (6,) and drawn.conditioned.shape == (2,)
    assert len({row.sum().item() for row in drawn.z_t}) == 6


# a prediction made ahead


def test_earlier_predictions_are_made_up_to_a_fifth_of_the_steps_ahead(build):
    model = build(self_cond=True, self_cond_ahead=0.2)
    drawn = corrupted(model, torch.zeros(40_000, 1, 8))
    _, s = drawn.earlier
    ahead = (s - drawn.t)[drawn.t < STEPS - 10]
    assert (s >= drawn.t).all() and (s < STEPS).all() and ahead.max() == 9
    counts = torch.bincount(ahead, minlength=10)
    assert_uniform(counts[1:])
    # half of them stay, and a tenth of the others too
    share = counts[0] / counts.sum()
    assert abs(share - 0.55) < 4 * math.sqrt(0.25 / len(ahead))


def test_the_noisier_state_goes_on_from_the_other(build):
    """q(z_s | z_t) and q(z_t | z_0) together: the law of z_s, and its covariance with z_t."""
    process = build(rescaling_factor=3.0).process
    zero, one = torch.zeros(1, 1, 1, dtype=torch.float64), torch.ones(1, 1, 1, dtype=torch.float64)
    for t, s in ((0, 1), (3, 30), (20, 49), (7, 7)):
        t, s = torch.tensor([t]), torch.tensor([s])
        a_t, a_s = (process.alphas_cumprod[i.item()] for i in (t, s))
        mean = process.q_step(process.q_sample(one, t, zero), t, s, zero).item()
        from_t = process.q_step(process.q_sample(zero, t, one), t, s, zero).item()
        from_s = process.q_step(zero, t, s, one).item()
        assert mean == pytest.approx(math.sqrt(a_s))
        assert from_t**2 + from_s**2 == pytest.approx(9 * (1 - a_s))
        assert from_s**2 == pytest.approx(9 * (1 - a_s / a_t))


def test_the_first_of_two_predictions_reads_the_noisier_state(build, sentences):
    model = build(self_cond=True, self_cond_ahead=1.0, dropout=0.0).train()
    calls, denoise = [], model.denoiser.denoise

    def watched(*args):
        calls.append(args)
        return denoise(*args)

    model.denoiser.denoise = watched
    model(sentences([4] * 60), sentences([3] * 60, "target"))
    (z_s, s, *_), (z_t, t, layout, _, previous, _) = calls
    conditioned = previous.view(60, -1).any(1)
    assert (s >= t[conditioned]).all() and (s > t[conditioned]).any()
    of_tokens = z_t[conditioned[layout.rows]]
    same = (z_s == of_tokens).view(len(s), -1).all(1)
    assert same.tolist() == (s == t[conditioned]).tolist()


# tokens that are shown


def test_how_many_tokens_are_shown(build):
    """r is uniform, so that each number is equally likely; but one token is always left."""
    generator = torch.Generator().manual_seed(2)
    mask = (torch.arange(8) < 6).expand(30_000, -1)
    clean = draw_clean(0.5, mask, lambda *shape: torch.rand(*shape, generator=generator))
    assert not clean[:, 6:].any()
    counts = torch.bincount(clean.sum(1), minlength=7)
    assert counts[6] == 0
    # half of the sentences show none; of the others a seventh each, and what would show all, 5
    counts[0] -= 15_000 * 8 // 7
    expected = torch.tensor([0, 1, 1, 1, 1, 2]) * 15_000 / 7
    assert ((counts[:6] - expected).abs() < 5 * math.sqrt(15_000 / 4)).all()
    places = clean[:, :6].sum(0)
    assert_uniform(places)


def test_shown_tokens_are_z_0_and_are_not_predicted(build, task, sentences):
    model = build(clean_tokens=1.0, self_cond=True, self_cond_ahead=0.5, dropout=0.0).train()
    calls, denoise = [], model.denoiser.denoise

    def watched(*args):
        calls.append((*args, denoise(*args)))
        return calls[-1][-1]

    model.denoiser.denoise = watched
    target = sentences([5] * 30, "target")
    output = model(sentences([4] * 30), target)
    (z_s, _, _, _, _, first_clean, _), (z_t, _, layout, _, previous, clean, z_0_hat) = calls
    z_0 = model.denoiser.embed(target).flatten(0, 1)
    assert 0 < clean.sum() < len(clean)
    assert torch.equal(z_t[clean], z_0[clean])
    assert not (z_t[~clean] == z_0[~clean]).all(1).any()
    conditioned = previous.view(30, -1).any(1)[layout.rows]
    assert torch.equal(previous[clean & conditioned], z_0[clean & conditioned])
    assert torch.equal(z_s[first_clean], z_0[clean & conditioned])
    assert torch.equal(output.z_0, z_0[~clean]) and torch.equal(output.z_0_hat, z_0_hat[~clean])
    assert torch.equal(output.tokens, target.flatten()[~clean])
    sample = {"net_input": {"src_tokens": sentences([4] * 30)}, "target": target}
    criterion = DifformerLoss(DifformerLossConfig(), task)
    assert criterion(model, sample)[1] == (~calls[-1][5]).sum()


def test_the_denoiser_reads_time_0_at_shown_tokens(build, sentences):
    model, target = build(clean_tokens=0.5), sentences([4, 2, 6], "target")
    layout = model.layout(target.ne(1))
    conditions = model.conditions(model.encoder(sentences([3, 5, 2])))
    z, previous = torch.randn(2, len(layout.rows), 8)
    t = torch.tensor([30.0, 20.0, 10.0])

    def run(t, clean):
        with torch.no_grad():
            return model.denoiser.denoise(z, t, layout, conditions, previous, clean)

    everywhere = torch.ones(len(z), dtype=torch.bool)
    torch.testing.assert_close(run(t, everywhere), run(torch.zeros(3), None))
    torch.testing.assert_close(run(t, ~everywhere), run(t, None))
    one = everywhere.clone()
    one[2:] = False
    assert not torch.allclose(run(t, one), run(t, None))


# the denoiser's input


def test_normalized_input_has_unit_variance(build, sentences):
    model = build(normalize_input=True, rescaling_factor=5.0, latent_dim=16)
    source, target = sentences([3] * 400), sentences([4] * 400, "target")
    layout = model.layout(target.ne(1))
    z_0 = torch.randn(400, 6, 16)
    for step in (0, 10, 49):
        t = torch.full((400,), step)
        z_t = model.process.q_sample(z_0, t, torch.randn(z_0.shape))
        read = model._read(z_t, t, layout, None)
        assert abs(read.var().item() - 1) < 4 * math.sqrt(2 / read.numel())
        time = torch.tensor([step - 1e-9], dtype=torch.float64)  # decoding has t / T times T
        decoded = model.embed_state(layout.take(z_t), time, model.denoiser)
        torch.testing.assert_close(decoded, read)
    clean = torch.zeros(len(layout.rows), dtype=torch.bool)
    clean[:5] = True
    read = model._read(z_t, t, layout, clean)
    assert torch.equal(read[:5], layout.take(z_t)[:5])
    assert source.shape == (400, 5)


# options


@pytest.mark.parametrize(
    "options, message",
    [
        ({"noises_per_sentence": 0}, "--noises-per-sentence must be at least 1, not 0"),
        ({"clean_tokens": 1.5}, r"--clean-tokens must be in \[0, 1\], not 1.5"),
        ({"self_cond_ahead": -0.1, "self_cond": True}, "--self-cond-ahead must be in"),
        ({"self_cond_ahead": 0.2}, "--self-cond-ahead has no effect without --self-cond"),
    ],
)
def test_values_that_options_cannot_have(options, message):
    with pytest.raises(UserError, match=message):
        check_config(DifformerConfig(max_source_positions=40, max_target_positions=30, **options))


def test_validation_corrupts_as_if_there_were_no_such_options(build, sentences):
    source, target = sentences([5, 2, 9]), sentences([3, 6, 8], "target")
    options = {"self_cond": True, "clean_tokens": 1.0, "noises_per_sentence": 2}
    options |= {"time_sampling": "stratified", "self_cond_ahead": 0.5}
    with torch.no_grad():
        ours, plain = (m(source, target) for m in (build(**options), build(self_cond=True)))
    torch.testing.assert_close(ours.z_0_hat, plain.z_0_hat)


def test_normalized_embeddings_lie_on_a_sphere(build, sentences):
    model, target = build(normalize_embeddings=True), sentences([4, 6], "target")
    z_0 = model.denoiser.embed(target)[target.ne(1)]
    weight = model.denoiser.embed_tokens.weight[target[target.ne(1)]]
    torch.testing.assert_close(z_0.norm(dim=-1), torch.full((len(z_0),), 8**0.5))
    torch.testing.assert_close(z_0, 8**0.5 * weight / weight.norm(dim=-1, keepdim=True))
    assert model.denoiser.embed(torch.tensor([1])).isfinite().all()
    assert (model.denoiser.table().norm(dim=-1) - 8**0.5).abs().max() < 1e-5
