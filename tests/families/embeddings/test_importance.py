"""Times drawn by importance: their law, their weights, and the losses that they come from."""

import copy
import math

import pytest
import torch
from scipy import stats

from difformer_plugin.errors import UserError
from difformer_plugin.families.embeddings.corruption import Corruption, corrupt
from difformer_plugin.families.embeddings.importance import (
    BUCKETS,
    KEY,
    LOSSES,
    UNIFORM_SHARE,
    ImportanceTimes,
)
from difformer_plugin.families.embeddings.objective import DifformerLoss, DifformerLossConfig

IMPORTANCE = {"time_sampling": "importance"}


def fill(importance, losses):
    """Record (BUCKETS, count) losses, those of all buckets in turn."""
    for column in losses.T:
        importance.record(torch.arange(BUCKETS), column)
    return importance


def uneven(seed=0):
    """A law of times with large differences."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.linspace(0, 3, BUCKETS, dtype=torch.float64)[:, None].exp()
    noise = torch.rand(BUCKETS, LOSSES, dtype=torch.float64, generator=generator) + 0.5
    return fill(ImportanceTimes(), scale * noise)


def centres(p):
    """Uniform numbers (BUCKETS,), one for the middle of each bucket."""
    return p.cumsum(0) - p / 2


# the law


def test_p_is_the_root_of_the_mean_of_squares_of_the_last_ten():
    random = torch.Generator().manual_seed(1)
    losses = 5 * torch.rand(BUCKETS, LOSSES + 3, dtype=torch.float64, generator=random)
    found = fill(ImportanceTimes(), losses).probabilities().tolist()
    roots = [math.sqrt(sum(x * x for x in row[3:]) / 10) for row in losses.tolist()]
    expected = [0.999 * root / sum(roots) + 0.001 / 100 for root in roots]
    assert (BUCKETS, LOSSES, UNIFORM_SHARE) == (100, 10, 0.001)
    assert found == pytest.approx(expected, rel=1e-12)


def test_times_are_distributed_by_p():
    """Between buckets by p, and evenly within each; the weights are what the uniform law needs."""
    importance, random = uneven(), torch.Generator().manual_seed(2)
    p = importance.probabilities()
    times, drawn = importance.draw(torch.rand(200_000, generator=random))
    assert times.min() >= 0 and times.max() < 1
    assert torch.equal((times * BUCKETS).long(), drawn.buckets)
    counts = torch.bincount(drawn.buckets, minlength=BUCKETS)
    assert stats.chisquare(counts, p * len(times)).pvalue > 1e-3
    within = torch.bincount((times * BUCKETS % 1 * 20).long(), minlength=20)
    assert stats.chisquare(within).pvalue > 1e-3
    torch.testing.assert_close(drawn.weights, (1 / (p * BUCKETS)).float()[drawn.buckets])


@pytest.mark.parametrize("missing", ["one loss", "all"])
def test_times_are_uniform_until_all_losses_are_there(missing):
    importance = uneven() if missing == "one loss" else ImportanceTimes()
    if missing == "one loss":
        importance.losses[7].pop()
    u = torch.rand(1000)
    times, drawn = importance.draw(u)
    assert torch.equal(times, u) and (drawn.weights == 1).all()
    assert torch.equal(drawn.buckets, (u * BUCKETS).long())
    importance.record(torch.tensor([7]), torch.tensor([3.0]))
    assert importance.known == (missing == "one loss")


@pytest.mark.parametrize("loss", [2.5, 0.0])
def test_equal_losses_make_times_uniform(loss):
    importance = fill(ImportanceTimes(), torch.full((BUCKETS, LOSSES), loss))
    u = torch.rand(1000)
    times, drawn = importance.draw(u)
    torch.testing.assert_close(times, u.double(), atol=1e-9, rtol=0)
    torch.testing.assert_close(drawn.weights, torch.ones(1000))


def test_the_ends_of_the_uniform_numbers():
    importance = uneven()
    times, drawn = importance.draw(torch.tensor([0.0, 1 - 2**-24]))
    assert drawn.buckets.tolist() == [0, BUCKETS - 1]
    assert times[0] == 0 and 1 - 1e-5 < times[1] < 1
    assert int(times[1] * 10**6) < 10**6


def test_weights_are_bounded():
    losses = torch.zeros(BUCKETS, LOSSES)
    losses[0] = 1e9
    _, drawn = fill(ImportanceTimes(), losses).draw(torch.tensor([1 - 1e-6]))
    assert drawn.weights[0] == pytest.approx(1 / UNIFORM_SHARE)


# in training


def batch(sentences, count=1):
    source, target = sentences([5] * count), sentences([4] * count, "target")
    return {"net_input": {"src_tokens": source}, "target": target}


@pytest.mark.parametrize(
    "options, model_options",
    [
        ({"label_smoothing": 0.1}, {}),
        pytest.param({"mse_loss_only": True, "mse_factor": 2.0}, {}, marks=pytest.mark.slow),
        pytest.param(
            {"rounding_loss": True},
            {"share_decoder_input_output_embed": True},
            marks=pytest.mark.slow,
        ),
    ],
)
def test_the_mean_of_weighted_losses_is_that_of_uniform_times(
    build, task, sentences, options, model_options
):
    """The exact expectation over p, gradients included, by a pass for each bucket."""
    model = build(**IMPORTANCE, dropout=0.0, **model_options)  # with T = 50: half a step a bucket
    criterion, sample = DifformerLoss(DifformerLossConfig(**options), task), batch(sentences)
    noise = torch.randn(1, 6, 8)
    law = uneven()
    p = law.probabilities()

    def expectation(u, probabilities, importance):
        model.zero_grad()
        total = 0.0
        for number, probability in zip(u, probabilities):
            model.importance = copy.deepcopy(importance)
            times, drawn = model.importance.draw(number[None])

            def at_that_time(source, z_0, mask, times=times, drawn=drawn):
                t = (times * 50).long()
                z_t, nobody = model.process.q_sample(z_0, t, noise), torch.tensor([False])
                return Corruption(z_t, t, nobody, drawn=drawn)

            model._corrupt = at_that_time
            loss, size, _ = criterion(model.train(), sample)
            (probability * loss / size).backward()
            total += (probability * loss / size).item()
        return total, [p.grad.clone() for p in model.parameters() if p.grad is not None]

    uniform = torch.full_like(p, 1 / BUCKETS)
    ours = expectation(centres(p), p, law)
    expected = expectation(centres(uniform), uniform, ImportanceTimes())
    assert ours[0] == pytest.approx(expected[0], rel=1e-5)
    for own, other in zip(ours[1], expected[1], strict=True):
        torch.testing.assert_close(own, other, rtol=1e-3, atol=1e-5)


def test_losses_of_sentences_are_recorded_without_weights(build, task, sentences):
    """Each is what the criterion says of that sentence alone."""
    model = build(**IMPORTANCE, noises_per_sentence=2, clean_tokens=0.5, dropout=0.0).train()
    model.importance = uneven()
    cfg = DifformerLossConfig(label_smoothing=0.1, mse_factor=3.0)
    criterion = DifformerLoss(cfg, task)
    sample = {
        "net_input": {"src_tokens": sentences([5, 2, 9])},
        "target": sentences([3, 6, 8], "target"),
    }
    recorded = []
    model.importance.record = lambda *of_batch: recorded.append(of_batch)
    outputs, forward = [], model.forward
    model.forward = lambda **inputs: outputs.append(forward(**inputs)) or outputs[-1]
    criterion(model, sample)
    ((buckets, losses),), (output,) = recorded, outputs
    assert buckets.shape == losses.shape == (6,) and not losses.requires_grad
    assert output.drawn.weights.unique().numel() > 1
    for row in range(6):
        own = output.rows == row
        alone = output._replace(
            **{name: getattr(output, name)[own] for name in ("z_0", "z_0_hat", "tokens", "places")},
            rows=None,
            drawn=None,
        )
        terms = criterion.terms(model.denoiser.output_projection, alone)
        assert losses[row].item() == pytest.approx((terms["_mse_loss"] + terms["anchor"]).item())


def test_corruption_uses_the_law(build):
    model = build(**IMPORTANCE)
    model.importance = uneven()
    z_0, mask = torch.ones(4000, 1, 8), torch.ones(4000, 1, dtype=torch.bool)
    generator = torch.Generator().manual_seed(3)
    drawn = corrupt(model.cfg, model.process, z_0, mask, generator, model.importance)
    assert torch.equal(drawn.t, drawn.drawn.buckets // 2)
    p = model.importance.probabilities().view(50, 2).sum(1)
    assert stats.chisquare(torch.bincount(drawn.t, minlength=50), p * 4000).pvalue > 1e-3
    spread = drawn.z_t.std((1, 2))
    assert spread[drawn.t > 40].mean() > 2 * spread[drawn.t < 5].mean()  # z_t is of these times


def test_validation_knows_no_importance(build, task, sentences):
    sample = batch(sentences, 5)
    criterion = DifformerLoss(DifformerLossConfig(), task)
    model, plain = build(**IMPORTANCE), build()
    model.importance = uneven()
    before = model.importance.get_extra_state()
    with torch.no_grad():
        assert torch.equal(criterion(model, sample)[0], criterion(plain, sample)[0])
    assert torch.equal(model.importance.get_extra_state(), before)


@pytest.mark.parametrize("bad", [math.inf, math.nan])
def test_losses_of_an_overflow_are_left_out(bad):
    importance = ImportanceTimes()
    importance.record(torch.tensor([3, 3, 5]), torch.tensor([1.0, bad, 2.0]))
    assert [list(importance.losses[i]) for i in (3, 5)] == [[1.0], [2.0]]


def test_ranks_record_the_losses_of_all(monkeypatch):
    """In the order of the ranks."""
    of_ranks = [[(4, 1.0), (4, 2.0)], [(4, 3.0), (6, 5.0)]]
    found = []
    for rank in range(2):
        importance = ImportanceTimes()

        def gather(target, own, rank=rank):
            assert own == of_ranks[rank]
            target[:] = of_ranks

        monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
        monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
        monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
        buckets, losses = zip(*of_ranks[rank])
        importance.record(torch.tensor(buckets), torch.tensor(losses))
        found.append([list(own) for own in importance.losses])
    assert found[0] == found[1] and found[0][4] == [1.0, 2.0, 3.0] and found[0][6] == [5.0]


# checkpoints


def train(model, criterion, sample, updates):
    """Updates from first to last, each with the random numbers that fairseq seeds it with."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for update in updates:
        torch.manual_seed(update)
        optimizer.zero_grad()
        loss, size, _ = criterion(model.train(), sample)
        (loss / size).backward()
        optimizer.step()
    return model.state_dict()


def test_a_training_that_resumes_is_one_that_did_not_stop(build, task, sentences):
    """Stopped while losses are still missing, and stopped with a law of its own."""
    criterion, sample = DifformerLoss(DifformerLossConfig(), task), batch(sentences, 200)
    whole, filled = build(**IMPORTANCE), []
    for stop in (4, 14):
        half = copy.deepcopy(whole)
        state = copy.deepcopy(train(half, criterion, sample, range(stop)))
        filled.append(half.importance.known)
        resumed = build(**IMPORTANCE, dropout=whole.cfg.dropout)
        resumed.load_state_dict(state)
        assert torch.equal(resumed.importance.get_extra_state(), state[KEY])
        ours = train(resumed, criterion, sample, range(stop, stop + 2))
        expected = train(half, criterion, sample, range(stop, stop + 2))
        for name, value in expected.items():
            assert torch.equal(ours[name], value), name
    assert filled == [False, True]


def test_only_these_models_store_losses(build):
    plain, model = build(), build(**IMPORTANCE)
    model.importance = uneven()
    assert model.state_dict().keys() - plain.state_dict().keys() == {KEY}
    plain.load_state_dict(model.state_dict())  # to train on with uniform times
    assert KEY not in plain.state_dict()
    again = build(**IMPORTANCE)
    again.load_state_dict(plain.state_dict())  # and the other way round
    assert not again.importance.known


@pytest.mark.parametrize("damage", [torch.zeros(3), [], None])
def test_damaged_losses_are_refused(build, damage):
    model = build(**IMPORTANCE)
    with pytest.raises(UserError, match="losses by time.* use another checkpoint"):
        model.load_state_dict(model.state_dict() | {KEY: damage})


@pytest.mark.parametrize("decay", [0.0, 0.5])
def test_moving_averages_of_these_models(build, decay):
    """fairseq averages key by key, in place."""
    from fairseq.dataclass.configs import EMAConfig
    from fairseq.models.ema.ema import EMA

    model = build(**IMPORTANCE)
    ema = EMA(model, EMAConfig(ema_decay=decay, ema_start_update=0))
    model.importance = uneven()
    ema.step(model, updates=1)
    assert ema.get_model().state_dict()[KEY].shape == (BUCKETS, LOSSES)
