"""What training and validation draw, and which sentences are self-conditioned."""

import copy

import numpy as np
import pytest
import torch
from discrete_kinds import KINDS
from token_cases import PAD, SOURCES, TARGETS, UNK, fixed, kinds

from difformer_plugin.networks.layout import Layout

# times and noise


@pytest.mark.parametrize("name", ["mdlm continuous", "sedd uniform", "flexible"])
def test_times_of_a_batch_are_evenly_spread(build_discrete, sentences, name):
    model = build_discrete(**KINDS[name]).train()
    target = sentences([4] * 10, "target")
    starts = set()
    for _ in range(3):
        output = model(src_tokens=sentences([3] * 10), target=target)
        t = output.gaps.t if output.gaps is not None else output.t
        t = t.unique().double().sort().values
        assert len(t) == 10 and (t > 0).all() and (t <= 1).all()
        np.testing.assert_allclose(t.diff().numpy(), 0.1, atol=1e-6)
        starts.add(t[0].item())
    assert len(starts) == 3


def test_times_of_steps_are_evenly_spread(build_discrete, sentences):
    model = build_discrete(**KINDS["mdlm"]).train()
    for _ in range(3):
        output = model(src_tokens=sentences([3] * 16), target=sentences([4] * 16, "target"))
        assert sorted((output.t[::4] * 8).tolist()) == [k for k in range(1, 9) for _ in range(2)]
        assert output.s.equal(output.t - 1 / 8)


def per_sentence(output, lengths):
    """What an output says of each sentence."""
    if output.gaps is not None:
        ends = (output.gaps.t.diff() != 0).nonzero()[:, 0] + 1
        return [x.tolist() for x in output.gaps.missing.tensor_split(ends.tolist())]
    columns = zip(*(x.split(lengths) for x in (output.x_0, output.x_t, output.t)))
    return [[x.tolist() for x in column] for column in columns]


@kinds
def test_validation_depends_on_the_sentence_and_the_part_alone(build_discrete, sentences, options):
    model = build_discrete(self_cond=options["objective"] != "flexible", **options)
    source, target = sentences(SOURCES), sentences(TARGETS, "target")

    def run(rows, part=(0, 1)):
        with torch.no_grad():
            longest = max(TARGETS[i] for i in rows) + 2
            return model(src_tokens=source[rows], target=target[rows, :longest], part=part)

    everything = list(range(6))
    whole = run(everything)
    said = per_sentence(whole, TARGETS)
    for rows in ([3], [2, 0], [5, 4, 1]):
        torch.manual_seed(sum(rows))
        part = run(rows)
        assert per_sentence(part, [TARGETS[i] for i in rows]) == [said[i] for i in rows]
        if options["objective"] != "flexible":
            pieces = whole.predictions.split(TARGETS)
            expected = torch.cat([pieces[i] for i in rows])
            torch.testing.assert_close(part.predictions, expected, rtol=1e-4, atol=1e-5)
    others = [per_sentence(run(everything, (i, 4)), TARGETS) for i in range(4)]
    assert others[0] == said and len({str(own) for own in others}) == 4
    # padding of the source, on either side, is no part of the sentence
    assert model(src_tokens=sentences(SOURCES, left=False), target=target).x_t.equal(whole.x_t)


def test_parts_are_evenly_spaced_times(build_discrete, sentences):
    model = build_discrete(**KINDS["sedd absorbing"])
    times = []
    for i in range(4):
        output = model(
            src_tokens=sentences(SOURCES), target=sentences(TARGETS, "target"), part=(i, 4)
        )
        times.append([own[0].item() for own in output.t.split(TARGETS)])
    ordered = np.sort(np.array(times), axis=0)
    np.testing.assert_allclose(np.diff(ordered, axis=0), 0.25, atol=1e-6)


# self-conditioning


@fixed
def test_self_conditioning_is_used_only_where_it_was_drawn(
    build_discrete, sentences, options, monkeypatch
):
    """The sentences that were drawn read the first prediction, the others zeros."""
    model = build_discrete(self_cond=True, dropout=0.0, **options).train()
    source, target = sentences(SOURCES), sentences(TARGETS, "target")
    own = model.draw

    def run(conditioned):
        def draw(*arguments):
            torch.manual_seed(5)
            return *own(*arguments)[:2], torch.tensor(conditioned)

        monkeypatch.setattr(model, "draw", draw)
        return model(src_tokens=source, target=target)

    nobody, everybody = run([False] * 6), run([True] * 6)
    some = [True, False, False, True, True, False]
    mixed = run(some)
    assert nobody.x_t.equal(everybody.x_t)
    rows = torch.tensor(some).repeat_interleave(torch.tensor(TARGETS))
    expected = torch.where(rows[:, None], everybody.predictions, nobody.predictions)
    torch.testing.assert_close(mixed.predictions, expected, rtol=1e-4, atol=1e-5)
    assert (nobody.predictions - everybody.predictions).abs().max() > 1e-3

    # The first prediction is that of the pass without a condition, and has no gradient.
    corruptible = target >= UNK
    tokens = target.masked_scatter(corruptible, nobody.x_t + UNK)[target != PAD]
    layout, memory = Layout.packed(target != PAD), model.encoder(source)
    z_t, conditions = model.denoiser.embed(tokens), model.denoiser.conditions(memory)
    t = torch.stack([own[0] for own in nobody.t.split(TARGETS)]).float()
    zeros = torch.zeros_like(z_t)
    first = model.denoiser.denoise(z_t, t, layout, conditions, zeros).detach()
    second = model.denoiser.denoise(z_t, t, layout, conditions, first)
    here = tokens >= UNK
    torch.testing.assert_close(nobody.predictions.detach(), first[here], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(everybody.predictions, second[here], rtol=1e-4, atol=1e-5)


def test_half_of_the_sentences_are_conditioned(build_discrete, sentences):
    model = build_discrete(self_cond=True).train()
    drawn = [model.draw(sentences([3] * 50), 6, (0, 1))[2] for _ in range(20)]
    assert 440 < torch.cat(drawn).sum() < 560


# precision


@kinds
def test_halves_leave_the_process_alone(build_discrete, sentences, options):
    """Weights of 16 bits; times and probabilities are what they were."""
    model = build_discrete(**options)
    t = torch.tensor([0.125, 0.5, 0.875], dtype=torch.float64)
    before = model.process.schedule.alpha_bar(t), model.process.prior_probs("cpu")
    whole = model(src_tokens=sentences(SOURCES), target=sentences(TARGETS, "target"))
    for half in (copy.deepcopy(model).half(), copy.deepcopy(model).bfloat16()):
        after = half.process.schedule.alpha_bar(t), half.process.prior_probs("cpu")
        assert all(x.equal(y) and x.dtype == y.dtype for x, y in zip(before, after))
        output = half(src_tokens=sentences(SOURCES), target=sentences(TARGETS, "target"))
        assert output.x_t.equal(whole.x_t) and output.t.equal(whole.t)
        assert output.t.dtype == torch.float64
