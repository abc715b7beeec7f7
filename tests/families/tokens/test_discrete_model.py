"""Discrete diffusion models: what training corrupts and predicts, what decoding asks of them."""

import copy
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from discrete_kinds import FIXED, KINDS
from scipy import stats
from tiny import SIZES, make_dictionary

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.diffusion.categorical.draft import Draft
from difformer_plugin.diffusion.categorical.samplers import Ancestral, Confident, Scored
from difformer_plugin.diffusion.insertion.sampler import Growing
from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.config import (
    ARCHITECTURES,
    PAIRS,
    DiscreteDiffusionConfig,
    check_config,
)
from difformer_plugin.networks.layout import Layout
from difformer_plugin.networks.speedups import PLAIN, training_by

BOS, PAD, EOS, UNK = 0, 1, 2, 3
SOURCES, TARGETS = [5, 2, 9, 4, 7, 1], [3, 6, 8, 1, 2, 2]
kinds = pytest.mark.parametrize("options", KINDS.values(), ids=KINDS)
fixed = pytest.mark.parametrize("options", FIXED.values(), ids=FIXED)


# configuration


def test_pairs_that_are_defined():
    for objective, processes in PAIRS.items():
        for process in ("uniform", "absorbing", "nearest"):
            cfg = DiscreteDiffusionConfig(objective=objective, process=process)
            if process in processes:
                check_config(cfg)
            else:
                with pytest.raises(UserError, match=f"--objective {objective} is not defined"):
                    check_config(cfg)
    check_config(DiscreteDiffusionConfig())
    cfg = DiscreteDiffusionConfig()
    assert (cfg.process, cfg.objective) == ("absorbing", "mdlm")


@pytest.mark.parametrize(
    "options, said",
    [
        ({"objective": "bert"}, "--objective bert: no such.*mdlm"),
        ({"process": "gaussian"}, "--process gaussian: no such.*uniform"),
        ({"noise_schedule": "sqrt"}, "--noise-schedule sqrt.*cosine"),
        ({"continuous_time": True, "objective": "sedd"}, "--continuous-time.*is always"),
        ({"continuous_time": True, "objective": "d3pm"}, "--continuous-time.*cannot be"),
        ({"diffusion_steps": 0}, "--diffusion-steps must be at least 1"),
        ({"neighbours": 0}, "--neighbours must be at least 1"),
        ({"neighbour_embeddings": "x.pt"}, "--neighbour-embeddings does nothing"),
        ({"self_cond": True, "objective": "flexible"}, "--self-cond cannot go with"),
        ({"latent_dim": 1}, "--latent-dim"),
    ],
)
def test_configurations_that_cannot_be(task, options, said, build_discrete):
    with pytest.raises(UserError, match=said) as error:
        build_discrete(**options)
    assert "\n" not in str(error.value)


def test_architectures_have_embeddings_as_wide_as_their_states():
    assert {"discrete_diffusion", "discrete_diffusion_base"} & set(ARCHITECTURES)
    for sizes in ARCHITECTURES.values():
        assert sizes["latent_dim"] == sizes.get("model_dim", DiscreteDiffusionConfig().model_dim)
        check_config(DiscreteDiffusionConfig(**sizes))


# corruption


@pytest.fixture
def few():
    """A task of a few types, <unk> the first: enough of each for statistics."""
    dictionaries = (make_dictionary([f"{side}{i}" for i in range(3)]) for side in "st")
    return SimpleNamespace(
        **dict(zip(("source_dictionary", "target_dictionary"), dictionaries, strict=True))
    )


def batch_of(count, length, dictionary, seed):
    random = torch.Generator().manual_seed(seed)
    words = torch.randint(UNK, len(dictionary), (count, length), generator=random)
    ends = [torch.full((count, 1), end) for end in (BOS, EOS)]
    return torch.cat([ends[0], words, ends[1]], dim=1)


def fits(counts, probs):
    counts, never = np.asarray(counts), np.asarray(probs) < 1e-9
    expected = np.asarray(probs)[~never] / np.sum(np.asarray(probs)[~never]) * counts.sum()
    possible = len(expected) == 1 or stats.chisquare(counts[~never], expected).pvalue > 1e-3
    return possible and not counts[never].any()


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


def test_flexible_corruption_follows_its_process(few, build_discrete):
    """How many tokens are absent, masks and themselves at their times, by the integral."""
    model = build_discrete(few, objective="flexible", noise_schedule="log_linear").train()
    left = masks = expected_left = expected_masks = words = spread = 0
    with torch.no_grad():
        for seed in range(6):
            source = batch_of(64, 12, few.source_dictionary, seed)
            target = batch_of(64, 12, few.target_dictionary, 100 + seed)
            output = model(src_tokens=source, target=target)
            missing = output.gaps.missing.sum().item()
            assert output.words.tolist() == [12] * 64
            # gaps are one more than what is left
            assert len(output.gaps.missing) == 64 * 12 - missing + 64
            starts = output.gaps.t.unique_consecutive()
            absent, masked = starts, -(starts * starts.log())
            left, expected_left = left + 64 * 12 - missing, expected_left + 12 * (1 - absent).sum()
            masks, expected_masks = masks + len(output.x_0), expected_masks + 12 * masked.sum()
            words, spread = words + 64 * 12, spread + 12 * (absent * (1 - absent)).sum()
    assert abs(left - expected_left) < 4 * spread**0.5
    assert abs(masks - expected_masks) < 4 * expected_masks**0.5
    assert 0 < masks < left < words


@pytest.fixture
def read(monkeypatch):
    """A function that runs a model and gives the tokens that its denoiser reads."""

    def read(model, source, target, **options):
        seen, own = [], model.denoiser.embed

        def embed(tokens):
            seen.append(tokens)
            return own(tokens)

        monkeypatch.setattr(model.denoiser, "embed", embed)
        with torch.no_grad():
            output = model(src_tokens=source, target=target, **options)
        monkeypatch.setattr(model.denoiser, "embed", own)
        (tokens,) = seen
        return output, tokens

    return read


@fixed
def test_frames_and_padding_are_never_corrupted(build_discrete, sentences, options, read):
    model = build_discrete(**options).train()
    source, target = sentences(SOURCES), sentences(TARGETS, "target")
    special, changed = target < UNK, 0
    for _ in range(6):
        with training_by(PLAIN, model):
            output, tokens = read(model, source, target)
        tokens = tokens.view(target.shape)
        assert tokens[special].equal(target[special])
        assert (tokens[~special] >= UNK).all() and tokens.max() <= model.vocabulary.mask
        assert tokens[~special].equal(output.x_t + UNK) and target[~special].equal(output.x_0 + UNK)
        changed += (tokens != target).sum()
        packed = read(model, source, target)[1]
        assert (packed < UNK).sum() == 2 * len(TARGETS) and not (packed == PAD).any()
    assert changed > 0


def test_flexible_frames_stay(build_discrete, sentences, read):
    model = build_discrete(**KINDS["flexible"]).train()
    target = sentences(TARGETS, "target")
    for _ in range(8):
        output, tokens = read(model, sentences(SOURCES), target)
        ends = (tokens == EOS).nonzero()[:, 0].tolist()
        pieces = [p.tolist() for p in tokens.tensor_split([e + 1 for e in ends])[:-1]]
        assert len(pieces) == len(TARGETS)
        gaps, masks = iter(output.gaps.missing.tolist()), iter(output.x_0.tolist())
        for piece, row in zip(pieces, target):
            assert piece[0] == BOS and min(piece[1:-1], default=UNK) >= UNK
            whole = row[1 : row.tolist().index(EOS)].tolist()
            # with what its masks were and what is missing in its gaps it is the whole again
            rebuilt, known = 0, []
            for token in piece[:-1]:
                if token != BOS:
                    known.append(next(masks) + UNK if token == model.vocabulary.mask else token)
                rebuilt += next(gaps)
            rest = iter(whole)
            assert all(token in rest for token in known)
            assert rebuilt + len(known) == len(whole)


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


def per_sentence(output, words):
    """What an output says of each sentence."""
    if output.gaps is not None:
        ends = (output.gaps.t.diff() != 0).nonzero()[:, 0] + 1
        return [x.tolist() for x in output.gaps.missing.tensor_split(ends.tolist())]
    columns = zip(*(x.split(words) for x in (output.x_0, output.x_t, output.t)))
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
    """Of six sentences those that were drawn see the first prediction, the others zeros."""
    model = build_discrete(self_cond=True, dropout=0.0, **options).train()
    source, target = sentences(SOURCES), sentences(TARGETS, "target")
    own = model._draw

    def run(conditioned):
        def draw(*arguments):
            torch.manual_seed(5)
            return *own(*arguments)[:2], torch.tensor(conditioned)

        monkeypatch.setattr(model, "_draw", draw)
        return model(src_tokens=source, target=target)

    nobody, everybody = run([False] * 6), run([True] * 6)
    some = [True, False, False, True, True, False]
    mixed = run(some)
    assert nobody.x_t.equal(everybody.x_t)
    rows = torch.tensor(some).repeat_interleave(torch.tensor(TARGETS))
    expected = torch.where(rows[:, None], everybody.predictions, nobody.predictions)
    torch.testing.assert_close(mixed.predictions, expected, rtol=1e-4, atol=1e-5)
    assert (nobody.predictions - everybody.predictions).abs().max() > 1e-3

    # and the first prediction is what the other pass has, by hand and without gradients
    words = target >= UNK
    tokens = target.masked_scatter(words, nobody.x_t + UNK)[target != PAD]
    layout, memory = Layout.packed(target != PAD), model.encoder(source)
    z_t, context = model.denoiser.embed(tokens), model.denoiser.context(memory)
    t = torch.stack([own[0] for own in nobody.t.split(TARGETS)]).float()
    zeros = torch.zeros_like(z_t)
    first = model.denoiser.denoise(z_t, t, layout, context, zeros).detach()
    second = model.denoiser.denoise(z_t, t, layout, context, first)
    here = tokens >= UNK
    torch.testing.assert_close(nobody.predictions.detach(), first[here], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(everybody.predictions, second[here], rtol=1e-4, atol=1e-5)


def test_half_of_the_sentences_are_conditioned(build_discrete, sentences):
    model = build_discrete(self_cond=True).train()
    drawn = [model._draw(sentences([3] * 50), 6, (0, 1))[2] for _ in range(20)]
    assert 440 < torch.cat(drawn).sum() < 560


# what decoding asks


@pytest.mark.parametrize("name", KINDS)
def test_samplers(build_discrete, name):
    model = build_discrete(**KINDS[name])
    kind = {"sedd": Scored, "flexible": Growing}.get(KINDS[name]["objective"], Ancestral)
    own = model.decoding_process(DecodingOptions(decoding_steps=4))
    assert type(own) is kind and own.temperature == 0
    assert own.times.tolist() == [0, 0.25, 0.5, 0.75, 1]
    if name in ("mdlm", "mdlm continuous", "d3pm absorbing"):
        options = DecodingOptions(
            decoding_steps=4, decoding_sampler="confidence", decoding_remasking=True
        )
        own = model.decoding_process(options)
        assert type(own) is Confident and own.remasking


@pytest.mark.parametrize(
    "name, options, said",
    [
        ("mdlm", {"decoding_sampler": "tweedie"}, "--decoding-sampler tweedie.*ancestral or conf"),
        ("d3pm uniform", {"decoding_sampler": "confidence"}, "--decoding-sampler confidence"),
        ("sedd uniform", {"decoding_sampler": "ancestral"}, "tweedie or tau_leaping"),
        ("flexible", {"decoding_sampler": "confidence"}, "use ancestral"),
        ("mdlm", {"decoding_temperature": -1.0}, "--decoding-temperature must be at least 0"),
        ("mdlm", {"decoding_temperature": float("nan")}, "--decoding-temperature"),
        ("mdlm", {"decoding_temperature": float("inf")}, "--decoding-temperature"),
        ("mdlm", {"decoding_remasking": True}, "--decoding-remasking needs"),
        ("mdlm", {"decoding_sampler": "confidence", "noise_beam_size": 2}, "--noise-beam-size"),
        ("mdlm", {"decoding_steps": 9}, "--decoding-steps must lie between 1 and the model's 8"),
        ("mdlm", {"clamping": True}, "--clamping means nothing"),
        ("mdlm", {"decoding_vp_rf": True}, "--decoding-vp-rf means nothing"),
        ("mdlm", {"decoding_rescaling_factor": 2.0}, "--decoding-rescaling-factor means nothing"),
        ("mdlm", {"decoding_noise_schedule": "sqrt"}, "--decoding-noise-schedule means nothing"),
        ("flexible", {"length_beam_size": 2}, "--length-beam-size means nothing"),
        ("flexible", {"length_beam_window": True}, "--length-beam-window means nothing"),
        ("flexible", {"force_length": 5}, "--force-length means nothing"),
        ("flexible", {"force_length_ratio": 1.0}, "--force-length-ratio means nothing"),
        ("flexible", {"decoding_early_stopping": 1}, "--decoding-early-stopping means nothing"),
        ("flexible", {"halt_after": 1}, "--halt-after means nothing"),
        ("flexible", {"retain_z_0_hat": True}, "--retain-z-0-hat means nothing"),
        ("flexible", {"race_after": 1}, "--race-after means nothing"),
    ],
)
def test_decoding_that_cannot_be(build_discrete, name, options, said):
    model = build_discrete(**KINDS[name])
    with pytest.raises(UserError, match=said) as error:
        model.decoding_process(DecodingOptions(**({"decoding_steps": 4} | options)))
    assert "\n" not in str(error.value)


@kinds
def test_what_a_prediction_says(build_discrete, options):
    """The likeliest type at masks, or at all words; nothing of ratios without masks."""
    model = build_discrete(**options)
    mask, table = model.vocabulary.mask, model.denoiser.output_projection.weight
    tokens = torch.tensor([BOS, 5, mask, mask, UNK, EOS])
    if options["process"] != "absorbing":
        tokens[tokens == mask] = 7
    z, prediction = Draft(tokens, -torch.arange(6.0)), torch.randn(6, SIZES["latent_dim"])
    with torch.no_grad():
        guess, log_probs = model.guess(z, prediction)
        log_p = (prediction @ table[UNK:].T).log_softmax(-1)
    open_ = tokens == mask if options["process"] == "absorbing" else tokens >= UNK
    if options == KINDS["sedd uniform"]:
        open_ = torch.zeros_like(open_)
    assert guess.equal(torch.where(open_, log_p.argmax(-1) + UNK, tokens))
    torch.testing.assert_close(log_probs, torch.where(open_, log_p.amax(-1), -torch.arange(6.0)))
    assert model.round(z)[0] is z.tokens
    for dtype in (torch.float32, torch.bfloat16):
        context = SimpleNamespace(dtype=dtype)
        with torch.no_grad():
            assert (model.likeliest(z, prediction, context) == guess).float().mean() > 0.6


def test_the_mask_is_the_index_after_the_last(build_discrete, task):
    model = build_discrete(embed_norm=False)
    assert model.vocabulary == (BOS, EOS, UNK, len(task.target_dictionary))
    assert len(model.denoiser.embed_tokens.weight) == len(task.target_dictionary)
    embedded = model.denoiser.embed(torch.tensor([4, model.vocabulary.mask]))
    scale = SIZES["latent_dim"] ** 0.5
    torch.testing.assert_close(embedded[0], scale * model.denoiser.embed_tokens.weight[4])
    torch.testing.assert_close(embedded[1], scale * model.denoiser.embed_mask.weight[0])
    assert build_discrete(process="uniform", objective="d3pm").denoiser.embed_mask is None
    assert build_discrete(objective="flexible").length_predictor is None


# precision


@kinds
def test_halves_leave_the_process_alone(build_discrete, sentences, options):
    """Weights of 16 bits; times and probabilities are what they were."""
    model = build_discrete(**options)
    t = torch.tensor([0.125, 0.5, 0.875], dtype=torch.float64)
    before = model.process.schedule.alpha(t), model.process.prior_probs("cpu")
    whole = model(src_tokens=sentences(SOURCES), target=sentences(TARGETS, "target"))
    for half in (copy.deepcopy(model).half(), copy.deepcopy(model).bfloat16()):
        after = half.process.schedule.alpha(t), half.process.prior_probs("cpu")
        assert all(x.equal(y) and x.dtype == y.dtype for x, y in zip(before, after))
        output = half(src_tokens=sentences(SOURCES), target=sentences(TARGETS, "target"))
        assert output.x_t.equal(whole.x_t) and output.t.equal(whole.t)
        assert output.t.dtype == torch.float64


@kinds
def test_predictions_in_another_precision_are_near(build_discrete, sentences, options):
    model = build_discrete(**options)
    target = sentences(TARGETS, "target")
    layout = Layout.packed(target != PAD)
    z = Draft(target[target != PAD], torch.zeros(layout.candidates.total))
    with torch.no_grad():
        memory = model.encoder(sentences(SOURCES))
        exact, half = (
            model.predict(z, 0.5, layout, model.context(memory, dtype), None)
            for dtype in (None, torch.bfloat16)
        )
    assert exact.dtype == half.dtype == torch.float32
    assert 0 < (exact - half).norm() < 0.05 * exact.norm()
