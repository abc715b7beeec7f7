"""Words that translations have to contain: in all families, with all samplers and short cuts."""

from itertools import permutations, product

import numpy as np
import pytest
import torch
from discrete_kinds import DECODINGS
from hypothesis import given as examples
from hypothesis import settings
from hypothesis import strategies as st

from difformer_plugin.decoding import placement
from difformer_plugin.decoding.candidates import Drawn, until_eos
from difformer_plugin.decoding.constraints import Constraint
from difformer_plugin.decoding.generator import DiffusionGenerator
from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.decoding.placement import likeliest_places
from difformer_plugin.decoding.speedups import ENGINE, PLAIN
from difformer_plugin.errors import UserError

BOS, PAD, EOS = 0, 1, 2
LENGTHS = [5, 2, 0, 4, 7]
CONSTRAINTS = [
    Constraint(prefix=(5, 6)),
    Constraint(prefix=(9,), anywhere=((7, 8), (7,)), suffix=(11, 12)),
    Constraint(prefix=(9,), anywhere=((7, 8), (6,)), suffix=(11,)),
    Constraint(),
    Constraint(suffix=(4, 4), anywhere=((13,), (9, 9)), ordered=True),
]
SHORT_CUTS = {
    "plain": {},
    "beams": {"length_beam_size": 2, "noise_beam_size": 2, "bleu_mbr": True},
    "window": {"length_beam_size": 3, "length_beam_window": True},
    "racing": {"race_after": 2, "race_keep": 2, "noise_beam_size": 3},
    "early": {"decoding_early_stopping": 2},
    "forced": {"force_length": 8},
    "blocks": {"decoding_autoregressive": True, "block_size": 2},
    "z_0-hat": {"retain_z_0_hat": True},
}


def meets(tokens, constraint):
    """By trying all places of the phrases."""
    words = [t for t in tokens if t not in (BOS, EOS)]
    if constraint.complete:
        return words == list(constraint.prefix)
    end = len(words) - len(constraint.suffix)
    if words[: len(constraint.prefix)] != list(constraint.prefix):
        return False
    if words[end:] != list(constraint.suffix):
        return False
    inner = words[len(constraint.prefix) : end]
    for starts in product(range(len(inner) + 1), repeat=len(constraint.anywhere)):
        places = [
            range(i, i + len(phrase)) for i, phrase in zip(starts, constraint.anywhere, strict=True)
        ]
        covered = [i for own in places for i in own]
        if len(set(covered)) < len(covered) or max([*covered, -1]) >= len(inner):
            continue
        if constraint.ordered and list(starts) != sorted(starts):
            continue
        if all(
            [inner[i] for i in own] == list(p)
            for own, p in zip(places, constraint.anywhere, strict=True)
        ):
            return True
    return False


@pytest.fixture
def translate(task, joined_task, sentences):
    def translate(
        model, constraints=CONSTRAINTS, rows=None, speedups=ENGINE, history=False, **options
    ):
        options = DecodingOptions(**({"decoding_steps": 4} | options))
        dictionary = joined_task.target_dictionary if "joint" in model.title else None
        dictionary = dictionary or task.target_dictionary
        generator = DiffusionGenerator(dictionary, options, 1, history, speedups)
        generator.check_models([model])
        rows = list(range(5)) if rows is None else rows
        sample = {"net_input": {"src_tokens": sentences(LENGTHS)[rows]}}
        return generator.generate([model], sample, constraints=[constraints[i] for i in rows])

    return translate


def all_meet(hypotheses, constraints=CONSTRAINTS):
    for own, constraint in zip(hypotheses, constraints, strict=True):
        for hypothesis in own:
            tokens = hypothesis["tokens"].tolist()
            assert meets(tokens, constraint), (tokens, constraint)
            for step in hypothesis["history"]:
                inside = step["tokens"].tolist()
                assert inside[1 : 1 + len(constraint.prefix)] == list(constraint.prefix)
    return True


def tokens_of(hypotheses):
    return [[h["tokens"].tolist() for h in own] for own in hypotheses]


def test_the_check_is_not_met_by_accident(build, translate):
    free = translate(build(), [Constraint()] * 5)
    assert sum(meets(h["tokens"].tolist(), c) for (h,), c in zip(free, CONSTRAINTS)) <= 1
    assert not meets([BOS, 7, 8, EOS], Constraint(anywhere=((7, 8), (7,))))
    assert meets([BOS, 7, 7, 8, EOS], Constraint(anywhere=((7, 8), (7,))))


@pytest.mark.parametrize("options", SHORT_CUTS.values(), ids=SHORT_CUTS)
def test_embeddings(build, translate, options):
    model = build(self_cond=True)
    assert all_meet(translate(model, history=True, **options))


@pytest.mark.parametrize("infill", ["z_0", "z_t", "noised"])
@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm_solver", "confidence"])
def test_samplers_of_embeddings(build, translate, sampler, infill):
    model = build(clean_tokens=0.3)
    assert all_meet(translate(model, history=True, decoding_sampler=sampler, infill=infill))


@pytest.mark.parametrize("name, options, temperature", DECODINGS)
def test_tokens(build_loud, translate, name, options, temperature):
    model, options = build_loud(name), options | {"decoding_temperature": temperature}
    assert all_meet(translate(model, history=True, **options))
    shuffled = [3, 0, 4, 1]
    whole = tokens_of(translate(model, **options))
    assert tokens_of(translate(model, rows=shuffled, **options)) == [whole[i] for i in shuffled]
    assert tokens_of(translate(model, speedups=PLAIN, **options)) == whole


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"blind_source": True},
        {"conditioning": "full"},
        {"length_by_padding": True},
        {"conditioning": "full", "clean_tokens": 0.3},
    ],
    ids=["partial", "blind", "full", "padded", "confidence"],
)
def test_joint_sequences(build_joint, sentences, translate, options):
    model = build_joint(**options)
    chosen = {"decoding_sampler": "confidence"} if "clean_tokens" in options else {}
    whole = translate(model, **chosen)
    assert all_meet(whole)
    assert tokens_of(translate(model, rows=[4, 1], **chosen)) == [
        tokens_of(whole)[i] for i in (4, 1)
    ]
    assert tokens_of(translate(model, speedups=PLAIN, **chosen)) == tokens_of(whole)


def test_a_translation_does_not_depend_on_its_batch(build, translate):
    model = build(self_cond=True)
    options = {"noise_beam_size": 2, "length_beam_size": 2}
    whole = tokens_of(translate(model, **options))
    for i in range(5):
        assert tokens_of(translate(model, rows=[i], **options)) == [whole[i]]
    assert tokens_of(translate(model, speedups=PLAIN, **options)) == whole


def test_with_guidance(build, translate):
    model = build(source_dropout=0.2)
    torch.nn.init.normal_(model.no_source)
    assert all_meet(translate(model, guidance_scale=2.0))


def test_complete_prefixes_are_the_output(build, build_loud, translate):
    constraints = [Constraint(tuple(range(4, 4 + n)), complete=True) for n in (3, 0, 2, 6, 1)]
    for model in (build(), build_loud("mdlm"), build_loud("flexible")):
        drawn = tokens_of(translate(model, constraints, decoding_temperature=0.0))
        assert drawn == [[[BOS, *c.prefix, EOS]] for c in constraints]


def test_what_grows_leaves_prefixes_phrases_and_suffixes_together(build_loud, translate):
    """With as many insertions as there is room for."""
    model = build_loud("flexible")
    torch.nn.init.constant_(model.denoiser.insertions.bias, 9.0)
    drawn = translate(model, history=True)
    assert all_meet(drawn)
    assert {len(h["tokens"]) for own in (drawn[:2] + drawn[3:]) for h in own} == {30}


# lengths


def test_lengths_have_room(build, translate):
    """The likeliest lengths among those that are long enough."""
    model = build(pred_length_offset=True)
    long = [Constraint(prefix=tuple([5] * 20))] * 5
    drawn = translate(model, long, length_beam_size=3)
    assert len({tuple(h["tokens"].tolist()) for h in drawn.pop(2)}) == 1  # an empty source
    for own in drawn:
        assert len({len(h["tokens"]) for h in own}) == 3
        assert all(22 <= len(h["tokens"]) <= 30 for h in own)
    with pytest.raises(UserError, match="line 7.*29 subwords.*at most 28"):
        translate(model, [Constraint(prefix=tuple([5] * 29), name="line 7")] * 5)


def test_forced_lengths_that_contradict(build, translate):
    for options, said in (
        ({"force_length": 3}, "--force-length asks for 3 subwords.*need 4"),
        ({"force_length_ratio": 0.1}, "--force-length-ratio"),
    ):
        with pytest.raises(UserError, match=said):
            translate(build(), [Constraint(prefix=(4, 5, 6, 7), name="x")] * 5, **options)
    with pytest.raises(UserError, match="exactly 2"):
        translate(build(), [Constraint((4, 5), complete=True, name="x")] * 5, force_length=3)


def test_given_tokens_after_an_eos_stay():
    tokens = torch.tensor([BOS, 5, EOS, 7, 8, EOS, 9])
    drawn = Drawn(tokens, -torch.arange(7.0), 1, [])
    assert until_eos(drawn, EOS).tokens.tolist() == [BOS, 5, EOS]
    given = torch.tensor([-1, -1, -1, -1, 8, EOS, -1, -1])
    found = until_eos(drawn, EOS, given)
    assert found.tokens.tolist() == [BOS, 5, 8, EOS]
    assert found.log_probs.tolist() == [0, -1, -4, -2]


# places


@examples(st.data())
@settings(max_examples=60)
def test_places_against_all_places(data):
    sizes = data.draw(st.lists(st.integers(1, 3), min_size=1, max_size=3))
    free, ordered = sum(sizes) + data.draw(st.integers(0, 3)), data.draw(st.booleans())
    seed = data.draw(st.integers(0, 999))
    random = np.random.default_rng(seed)
    scores = [random.integers(-9, 0, free - size + 1).astype(float) for size in sizes]
    found = likeliest_places(scores, sizes, free, ordered)

    def allowed(starts):
        order = sorted(range(len(sizes)), key=starts.__getitem__)
        apart = all(starts[a] + sizes[a] <= starts[b] for a, b in zip(order, order[1:]))
        return apart and (not ordered or order == sorted(order))

    def total(starts):
        return sum(own[i] for own, i in zip(scores, starts, strict=True))

    every = product(*(range(free - size + 1) for size in sizes))
    assert allowed(found)
    assert total(found) == max(total(starts) for starts in every if allowed(starts))


@pytest.mark.parametrize("name", ["difformer", "mdlm", "d3pm uniform", "sedd uniform", "full"])
def test_phrases_stand_where_the_first_prediction_wants_them(
    build, build_loud, build_joint, translate, monkeypatch, name
):
    """One candidate at a time: the first prediction of decoding itself, with nothing placed."""
    builders = {"difformer": build, "full": lambda: build_joint(conditioning="full")}
    model = builders[name]() if name in builders else build_loud(name)
    phrases = ((7, 8), (10,))
    seen, own_predict = [], model.predict

    def predict(z, *rest):
        prediction = own_predict(z, *rest)
        seen.append((z, prediction))
        return prediction

    monkeypatch.setattr(model, "predict", predict)
    constraint = Constraint(prefix=(5,), anywhere=phrases)
    ((hypothesis,),) = translate(model, [constraint] * 5, rows=[4], force_length=8)
    placed = hypothesis["tokens"].tolist()
    monkeypatch.setattr(
        placement, "_insert", lambda row, constraint, log_probs: None
    )  # the phrases are free
    seen.clear()
    translate(model, [constraint] * 5, rows=[4], force_length=8)
    _, (z, prediction) = seen[:2]  # that of the first step, which has the prefix only

    def log_prob(token, place):
        tokens = torch.full((len(prediction),), token)
        return model.log_probs(tokens, z, prediction)[len(prediction) - 10 + place].item()

    best = max(
        (sum(log_prob(t, i + j) for j, t in enumerate((7, 8))) + log_prob(10, k), i, k)
        for i, k in permutations(range(2, 9), 2)
        if i < 8 and k not in (i, i + 1)
    )
    assert placed[best[1] : best[1] + 2] == [7, 8] and placed[best[2]] == 10


@pytest.mark.parametrize("options", [{}, {"conditioning": "full"}], ids=["difformer", "full"])
def test_places_are_found_for_a_few_tokens_at_a_time(
    build, build_joint, translate, monkeypatch, options
):
    model = build_joint(**options) if options else build()
    constraints = [Constraint(anywhere=((7, 8), (10,)))] * 5
    beams = {"noise_beam_size": 3, "length_beam_size": 2}
    expected = tokens_of(translate(model, constraints, **beams))
    sizes, layout = [], placement.Layout
    monkeypatch.setattr(placement, "CHUNK", 40)
    monkeypatch.setattr(
        placement, "Layout", lambda n, *rest: sizes.append(sum(n)) or layout(n, *rest)
    )
    assert tokens_of(translate(model, constraints, **beams)) == expected
    assert len(sizes) > 5 and max(sizes) <= 40


def test_nothing_given_changes_nothing(build, translate):
    model = build()
    assert (
        tokens_of(translate(model, [Constraint()] * 5))
        == tokens_of(translate(model, [Constraint()] * 3 + [CONSTRAINTS[0]] + [Constraint()]))[:3]
        + tokens_of(translate(model, [Constraint()] * 5))[3:]
    )


# confidence samplers


@pytest.mark.parametrize("remasking", [False, True])
def test_confidence_decides_free_tokens_evenly(build_loud, translate, remasking):
    """mdlm's schedule is linear: of 12 free tokens, 3 more are decided at each of four steps."""
    model, mask = build_loud("mdlm"), len(build_loud("mdlm").denoiser.embed_tokens.weight)
    options = {
        "decoding_sampler": "confidence",
        "decoding_remasking": remasking,
        "force_length": 22,
    }
    constraint = Constraint(prefix=tuple(range(4, 14)))
    ((hypothesis,),) = translate(model, [constraint] * 5, rows=[4], history=True, **options)
    found = [(step["tokens"] == mask).sum().item() for step in hypothesis["history"]]
    assert found == [9, 6, 3, 0]


def test_confidence_of_embeddings_decides_free_tokens_evenly(build, translate, monkeypatch):
    """Of 12 free tokens (BOS is given, EOS is not), 3 more are decided at each of four steps."""
    model = build(clean_tokens=0.3)
    noisy, own_predict = [], model.predict

    def predict(z, *rest):
        noisy.append((~z.clean).sum().item())
        return own_predict(z, *rest)

    monkeypatch.setattr(model, "predict", predict)
    constraint = Constraint(prefix=tuple(range(4, 13)))
    options = {"decoding_sampler": "confidence", "force_length": 20}
    translate(model, [constraint] * 5, rows=[4], **options)
    assert noisy == [12, 9, 6, 3]
