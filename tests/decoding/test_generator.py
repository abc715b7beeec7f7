"""The generator on a tiny random model: what a translation depends on, and what is returned."""

import re
from dataclasses import replace

import pytest
import sacrebleu
import torch
from teacher_by_hand import one_by_one

from difformer_plugin.decoding.candidates import repeats_something
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.errors import UserError
from difformer_plugin.reranking import mbr
from difformer_plugin.reranking import teacher as teacher_module
from difformer_plugin.reranking.own import OwnProbability

LENGTHS = [5, 2, 9, 4, 7]
BOS, PAD, EOS = 0, 1, 2


@pytest.fixture
def model(build):
    """Random weights, those that read z_t so large that every step's noise shows in the tokens."""
    model = build(self_cond=True, pred_length_offset=True, share_decoder_input_output_embed=True)
    with torch.no_grad():
        for part in (model.denoiser.project_in_dim, model.denoiser.self_cond_proj):
            for weight in part.parameters():
                weight.mul_(6)
    return model


@pytest.fixture
def translate(model, task, teacher):
    """A function from a batch of sources to the generator's hypotheses."""

    def translate(
        src_tokens, given=None, seed=1, history=False, generator=DiffusionGenerator, **options
    ):
        options = DecodingOptions(**({"decoding_steps": 4} | options))
        own = generator(task.target_dictionary, options, seed, history)
        models = [model, teacher][: 1 + options.ppl_mbr]
        own.check_models(models)
        return own.generate(models, {"net_input": {"src_tokens": src_tokens}}, given)

    return translate


class Indifferent:
    """A reranker to which all candidates are equal."""

    def __init__(self, needs_teacher):
        self.needs_teacher = needs_teacher

    def check(self, models):
        pass

    def scores(self, batch):
        return [[0.0] * len(candidates) for candidates in batch.candidates]


class Unranked(DiffusionGenerator):
    """Leaves candidates in the order in which they were drawn."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.reranker = Indifferent(self.reranker.needs_teacher)


def tokens_of(hypotheses):
    return [[h["tokens"].tolist() for h in candidates] for candidates in hypotheses]


BEAMS = {
    "single": {},
    "noise beam": {"noise_beam_size": 3},
    "length beam": {"length_beam_size": 3, "bleu_mbr": True},
    "both": {"length_beam_size": 2, "noise_beam_size": 2, "ppl_mbr": True},
    "clamped": {"clamping": True, "decoding_early_stopping": 1},
    "few steps": {"soft_clamping": 1, "collapse_repeats": True, "decoding_timesteps": "50,19,9,3"},
    "window": {"length_beam_size": 3, "length_beam_window": True},
    "racing": {"race_after": 2, "race_keep": 2, "length_beam_size": 3, "bleu_mbr": True},
    "racing by its own score": {"race_after": 1, "noise_beam_size": 3},
}


@pytest.mark.parametrize("options", BEAMS.values(), ids=BEAMS)
def test_a_translation_does_not_depend_on_its_batch(translate, sentences, options):
    source = sentences(LENGTHS)
    whole = translate(source, **options)
    order = torch.tensor([3, 0, 4, 2, 1])
    shuffled = translate(source[order], **options)
    assert tokens_of(shuffled) == [tokens_of(whole)[i] for i in order]
    for row in range(len(LENGTHS)):
        alone = translate(source[row : row + 1, source[row].ne(PAD)], **options)
        assert tokens_of(alone) == [tokens_of(whole)[row]]
        for a, b in zip(alone[0], whole[row]):
            torch.testing.assert_close(a["score"], b["score"], rtol=1e-3, atol=1e-3)
            # Round-off of float32 depends on the width of the batch: 3e-5 with AVX2.
            torch.testing.assert_close(
                a["positional_scores"], b["positional_scores"], rtol=1e-4, atol=1e-4
            )
    right_padded = translate(sentences(LENGTHS, left=False), **options)
    assert tokens_of(right_padded) == tokens_of(whole)


def test_the_seed_decides(translate, sentences):
    source = sentences(LENGTHS)
    first = tokens_of(translate(source))
    assert tokens_of(translate(source)) == first
    assert all(a != b for a, b in zip(tokens_of(translate(source, seed=2)), first))


@pytest.mark.parametrize("options", [BEAMS["noise beam"], BEAMS["length beam"], BEAMS["both"]])
def test_the_first_candidate_is_the_single_output(translate, sentences, options):
    source = sentences(LENGTHS)
    single = translate(source)
    drawn = translate(source, generator=Unranked, **options)
    assert [[candidates[0]] for candidates in tokens_of(drawn)] == tokens_of(single)
    for candidates in tokens_of(drawn):
        assert len({tuple(tokens) for tokens in candidates}) > 1


def test_repeats_are_collapsed_unless_the_source_has_some(translate, sentences):
    """Each run of equal tokens becomes one, before candidates are scored."""
    source = sentences(LENGTHS)
    pairs = [any(a == b != PAD for a, b in zip(row, row[1:])) for row in source.tolist()]
    source[0, -3:-1] = source[0, -3]  # two equal tokens before EOS
    assert not all(pairs[1:])
    drawn = translate(source, generator=Unranked, noise_beam_size=3)
    found = translate(source, generator=Unranked, noise_beam_size=3, collapse_repeats=True)
    shorter = 0
    for row, (before, after) in enumerate(zip(drawn, found, strict=True)):
        for a, b in zip(before, after, strict=True):
            tokens = a["tokens"].tolist()
            kept = [i for i in range(len(tokens)) if i == 0 or tokens[i] != tokens[i - 1]]
            if row == 0 or pairs[row]:
                kept = list(range(len(tokens)))
            assert b["tokens"].tolist() == [tokens[i] for i in kept]
            assert b["positional_scores"].equal(a["positional_scores"][kept])
            shorter += len(kept) < len(tokens)
    assert shorter
    given = torch.full((len(LENGTHS), 1), 5)
    fixed = translate(source, given, noise_beam_size=3, collapse_repeats=True)
    assert tokens_of(fixed) == tokens_of(translate(source, given, noise_beam_size=3))


def test_padding_repeats_nothing():
    rows = torch.tensor([[1, 1, 4, 5, 4, 2], [4, 5, 4, 2, 1, 1], [1, 4, 5, 5, 2, 1]])
    assert repeats_something(rows, PAD) == [False, False, True]


def test_a_race_scores_what_is_chosen_from(translate, sentences, monkeypatch):
    """Candidates race without their repeats, if these are dropped in the end."""
    scores, found = OwnProbability.race_scores, {False: 0, True: 0}

    def repeats(row):
        return any(a == b != PAD for a, b in zip(row, row[1:]))

    def watched(self, batch):
        for source, own in zip(batch.src_tokens.tolist(), batch.candidates, strict=True):
            if not repeats(source):
                found[collapse] += sum(repeats(candidate.tokens.tolist()) for candidate in own)
        return scores(self, batch)

    monkeypatch.setattr(OwnProbability, "race_scores", watched)
    options = {"noise_beam_size": 4, "race_after": 1, "decoding_steps": 3}
    for collapse in (False, True):
        translate(sentences(LENGTHS), **options, collapse_repeats=collapse)
    assert found[False] > 0 and found[True] == 0


def test_lengths_are_scaled(translate, sentences):
    source = sentences(LENGTHS)
    beams = {"generator": Unranked, "length_beam_size": 2}
    plain, scaled = (
        [[len(tokens) - 2 for tokens in own] for own in tokens_of(translate(source, **each))]
        for each in (beams, beams | {"length_scale": 0.75})
    )
    assert scaled == [[round(0.75 * subwords) for subwords in own] for own in plain] != plain


def test_lengths_are_scaled_where_repeats_are_collapsed(translate, sentences):
    """The scale is room for what is dropped: without --collapse-repeats it counts everywhere."""
    source = sentences(LENGTHS)
    source[0, -3:-1] = source[0, -3]  # two equal tokens before EOS
    beams = {"generator": Unranked, "length_beam_size": 2}
    given = torch.full((len(LENGTHS), 1), 5)
    steps = [
        [[c["tokens"] for c in own] for own in translate(source, prefix, **beams, **more)]
        for prefix in (None, given)
        for more in ({}, {"length_scale": 1.5}, {"length_scale": 1.5, "collapse_repeats": True})
    ]
    lengths = [[[len(c) for c in own] for own in found] for found in steps]
    assert all(map(torch.equal, steps[2][0], steps[0][0]))  # its source repeats something
    assert lengths[0][0] != lengths[1][0]
    assert lengths[5] == lengths[3] != lengths[4]  # words are given


def test_an_empty_source_is_not_collapsed(translate, sentences):
    source = sentences(LENGTHS)
    source[0] = torch.tensor([PAD] * (source.shape[1] - 2) + [0, 2])
    drawn, *_ = translate(source, generator=Unranked, noise_beam_size=8, collapse_repeats=True)
    assert all(len(c["positional_scores"]) == len(c["tokens"]) == 2 for c in drawn)


def test_candidates_are_lengths_times_noises(translate, model, sentences):
    source = sentences(LENGTHS)
    drawn = translate(source, generator=Unranked, length_beam_size=3, noise_beam_size=2)
    memory = model.encoder(source)
    order = model.length_predictor(memory).argsort(dim=1, descending=True)
    for row, candidates in enumerate(drawn):
        lengths = (order[row] - 128 + LENGTHS[row] + 2).tolist()
        best = [length for length in lengths if 2 <= length <= 30][:3]
        assert [len(h["tokens"]) for h in candidates] == [n for n in best for _ in range(2)]


def test_without_mbr_candidates_are_ranked_by_the_model(translate, sentences):
    for candidates in translate(sentences(LENGTHS), length_beam_size=2, noise_beam_size=2):
        means = [h["positional_scores"].mean().item() for h in candidates]
        assert means == sorted(means, reverse=True)
        assert [h["score"].item() for h in candidates] == pytest.approx(means)


def test_bleu_mbr_ranks_by_mean_bleu_of_words(translate, task, sentences):
    beam = {"length_beam_size": 2, "noise_beam_size": 3, "bleu_mbr": True}
    for candidates in translate(sentences(LENGTHS), **beam):
        symbols = task.target_dictionary.symbols
        texts = [
            re.sub(
                "@@( |$)",
                "",
                " ".join(symbols[t] for t in h["tokens"].tolist() if t not in (BOS, EOS)),
            )
            for h in candidates
        ]
        scores = [
            sum(sacrebleu.sentence_bleu(text, [o]).score for j, o in enumerate(texts) if j != i) / 5
            for i, text in enumerate(texts)
        ]
        assert [h["score"].item() for h in candidates] == pytest.approx(scores, rel=1e-4)
        assert scores == sorted(scores, reverse=True)


def test_ppl_mbr_ranks_by_the_teacher(translate, teacher, sentences):
    source = sentences(LENGTHS)
    hypotheses = translate(source, length_beam_size=2, noise_beam_size=2, ppl_mbr=True)
    for row, candidates in enumerate(hypotheses):
        tokens = [h["tokens"] for h in candidates]
        scores = one_by_one(teacher, source[row].expand(4, -1), tokens)
        assert [h["score"].item() for h in candidates] == pytest.approx(scores, rel=1e-4)
        assert scores == sorted(scores, reverse=True)


@pytest.mark.parametrize("option", ["bleu_mbr", "ppl_mbr"])
def test_a_single_candidate_is_not_scored(translate, sentences, monkeypatch, option):
    def never(*args, **kwargs):
        raise AssertionError("called for a single candidate")

    source = sentences(LENGTHS)
    plain = tokens_of(translate(source))
    monkeypatch.setattr(mbr.MinimumBayesRisk, "text_scores", never)
    monkeypatch.setattr(teacher_module, "candidate_log_probs", never)
    assert tokens_of(translate(source, **{option: True})) == plain
    with pytest.raises(AssertionError, match="called"):
        translate(source, noise_beam_size=2, **{option: True})


@pytest.mark.parametrize("options", BEAMS.values(), ids=BEAMS)
def test_an_empty_source_gives_an_empty_target(translate, sentences, options):
    with_empty = translate(sentences([5, 0, 9]), **options)
    assert all(tokens == [BOS, EOS] for tokens in tokens_of(with_empty)[1])
    assert tokens_of(translate(sentences([0]), **options))[0] == tokens_of(with_empty)[1]


def test_forced_lengths(translate, sentences):
    source = sentences(LENGTHS)
    for candidates in tokens_of(translate(source, force_length=6, noise_beam_size=2)):
        assert [len(tokens) for tokens in candidates] == [8, 8]
    doubled = tokens_of(translate(source, force_length_ratio=2.0))
    assert [len(tokens) - 2 for (tokens,) in doubled] == [2 * n for n in LENGTHS]
    longest = tokens_of(translate(source, force_length_ratio=1000.0))
    assert {len(tokens) for (tokens,) in longest} == {30}


@pytest.mark.parametrize("early", [0, 2, 5])
def test_history_has_a_state_for_each_step(translate, sentences, early):
    source = sentences(LENGTHS)
    options = {"decoding_steps": 6, "decoding_early_stopping": early}
    plain = translate(source, **options)
    latents = translate(source, history=True, **options)
    predictions = translate(source, history=True, retain_z_0_hat=True, **options)
    assert tokens_of(plain) == tokens_of(latents) == tokens_of(predictions)
    for (a,), (b,), (c,) in zip(plain, latents, predictions):
        assert a["history"] == [] and len(b["history"]) == len(c["history"]) == 6 - early
        assert a["steps"] == 6 - early
        assert torch.equal(c["history"][-1]["tokens"], c["tokens"])
        assert {len(step["tokens"]) for step in b["history"]} == {len(b["tokens"])}
        # the first state is mostly noise, and no rounding of what was predicted from it
        assert not torch.equal(b["history"][0]["tokens"], c["history"][0]["tokens"])


def test_early_stopping_returns_the_prediction_of_that_step(translate, sentences):
    source = sentences(LENGTHS)
    whole = translate(source, history=True, retain_z_0_hat=True, decoding_steps=6)
    stopped = translate(source, decoding_steps=6, decoding_early_stopping=2)
    for (a,), (b,) in zip(whole, stopped):
        assert torch.equal(a["history"][3]["tokens"], b["tokens"])


def test_hypotheses_are_as_fairseq_expects(translate, sentences):
    for (hypothesis,) in translate(sentences(LENGTHS)):
        assert hypothesis["tokens"].dtype == torch.int64
        assert hypothesis["tokens"].shape == hypothesis["positional_scores"].shape
        assert (hypothesis["positional_scores"] <= 0).all()
        torch.testing.assert_close(hypothesis["score"], hypothesis["positional_scores"].mean())


def test_a_window_tries_neighbouring_lengths(translate, sentences):
    source = sentences(LENGTHS)
    single = tokens_of(translate(source))
    window = tokens_of(translate(source, generator=Unranked, **BEAMS["window"]))
    for (best,), candidates in zip(single, window):
        expected = [min(max(len(best) + i, 2), 30) for i in (-1, 0, 1)]
        assert [len(tokens) for tokens in candidates] == expected


@pytest.mark.parametrize("options", BEAMS.values(), ids=BEAMS)
def test_a_gpu_gives_hypotheses_on_the_cpu(translate, model, teacher, sentences, cuda, options):
    source = sentences([*LENGTHS, 0])
    model.to(cuda), teacher.to(cuda)
    hypotheses = translate(source.to(cuda), history=True, **options)
    for candidates in hypotheses:
        found = [h["score"].item() for h in candidates]
        assert found == sorted(found, reverse=True)
        for h in candidates:
            tensors = [h["tokens"], h["positional_scores"], h["score"]]
            tensors += [step["tokens"] for step in h["history"]]
            assert {tensor.device.type for tensor in tensors} == {"cpu"}
    assert all(tokens == [BOS, EOS] for tokens in tokens_of(hypotheses)[-1])


# checks


def test_options_are_checked(task):
    with pytest.raises(UserError, match="--noise-beam-size"):
        DiffusionGenerator(task.target_dictionary, DecodingOptions(noise_beam_size=0), 1)


@pytest.mark.parametrize(
    "names, options, said",
    [
        (["teacher"], {}, "TransformerModel.*diffusion model first"),
        (["teacher", "model"], {"ppl_mbr": True}, "TransformerModel.*diffusion model first"),
        (["model"], {"ppl_mbr": True}, "--ppl-mbr needs a teacher"),
        (["model", "model"], {"ppl_mbr": True}, "autoregressive.*Difformer"),
        (["model", "model"], {}, "names 2 models.*ensembles"),
        (["model", "teacher", "teacher"], {"ppl_mbr": True}, "names 3 models"),
        (["model"], {"decoding_steps": 51}, "--decoding-steps.*50"),
    ],
)
def test_models_that_do_not_fit_the_options(model, teacher, task, names, options, said):
    known = {"model": model, "teacher": teacher}
    options = replace(DecodingOptions(), **options)
    own = DiffusionGenerator(task.target_dictionary, options, 1)
    with pytest.raises(UserError, match=said):
        own.check_models([known[name] for name in names])


def test_a_forced_length_must_fit_the_position_table(build, task):
    model = build()
    longest = model.max_positions()[1]
    dictionary = task.target_dictionary
    DiffusionGenerator(dictionary, DecodingOptions(force_length=longest - 2), 1).check_models(
        [model]
    )
    generator = DiffusionGenerator(dictionary, DecodingOptions(force_length=longest - 1), 1)
    with pytest.raises(UserError, match=f"at most {longest - 2}"):
        generator.check_models([model])
