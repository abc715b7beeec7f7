"""The search of `difformer tune` on made-up functions whose optimum is known, and its trials."""

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from difformer_plugin.decoding.options import DecodingOptions, check_options
from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.config import PAIRS, DiscreteDiffusionConfig
from difformer_plugin.families.tokens.model import DiscreteDiffusion
from difformer_plugin.families.tokens.samplers import known
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning.search import Measured, Process, Search
from difformer_plugin.tuning.space import SAMPLERS, Settings, space
from difformer_plugin.tuning.trials import Trials, bleu, losses

REFERENCE = DecodingOptions(
    decoding_steps=12,
    length_beam_size=5,
    noise_beam_size=2,
    bleu_mbr=True,
    decoding_precision="fp32",
)
WORLDS = {  # BLEU lost for fewer steps, fewer lengths, fewer noises, halting and racing
    "steps matter": (8, 0.5, 0.3, 0.3, 0.3),
    "little matters": (3, 0.1, 0.05, 0.05, 0.1),
    "all matters": (20, 1, 0.5, 1, 0.1),
    "shortcuts are free": (8, 1, 1, 0.02, 0.02),
}


def check_model(options):
    """A model's refusals, if it has no choice of samplers."""
    if options.decoding_sampler or options.decoding_remasking:
        raise UserError("there are none")


@pytest.fixture(scope="module")
def candidates():
    """About 8,000 settings."""
    return space(REFERENCE, ["fp32", "bf16"], check_model)


def truth(settings, world):
    """(loss, seconds): monotone in each option, with bf16 twice as fast."""
    steps, lengths, noises, halting, racing = WORLDS[world]
    taken = settings.taken
    loss = steps * (taken**-1.3 - 12**-1.3)
    loss += 3 * settings.decoding_early_stopping / settings.decoding_steps**2
    loss += lengths * np.log(5 / settings.length_beam_size)
    loss += noises * np.log(2 / settings.noise_beam_size)
    work = settings.passes()
    if settings.halt_after:
        loss += halting / settings.halt_after**2
        work *= 0.5 + 0.5 * min(1, (settings.halt_after + 3) / taken)
    if settings.race_after:
        loss += racing * np.log(settings.candidates / settings.race_keep) / settings.race_after
    seconds = 1 + 0.05 * taken + 0.2 * work
    if settings.decoding_precision == "bf16":
        return loss + 0.02, seconds / 2
    return loss, seconds


class Machine:
    """Measures a made-up world, with noise that depends on the settings alone."""

    def __init__(self, world, noise=0.0):
        self.world, self.noise, self.calls = world, noise, []

    def __call__(self, settings, whole):
        self.calls.append((settings, whole))
        loss, seconds = truth(settings, self.world)
        if not self.noise or settings == Settings.of(REFERENCE):
            return Measured(loss, 0.0, seconds, whole)
        seed = [int(whole), *str(settings).encode()]
        random = np.random.default_rng(seed)
        error = self.noise / (2 if whole else 1)
        seconds *= np.exp(0.05 * random.normal())
        return Measured(loss + error * random.normal(), error, seconds, whole)

    def used(self, most):
        return lambda: len(self.calls) / most


@pytest.mark.parametrize("world", WORLDS)
def test_the_search_finds_the_fastest_settings(candidates, world):
    machine = Machine(world)
    search = Search(candidates, 0.2, machine)
    search.run(machine.used(60))
    best = search.best()
    fastest = min(
        seconds for loss, seconds in (truth(each, world) for each in candidates) if loss <= 0.2
    )
    loss, seconds = truth(best, world)
    assert loss <= 0.2 and (best, True) in machine.calls
    assert fastest <= seconds < 1.15 * fastest  # of thousands, of which it has seen 60
    assert len(machine.calls) <= 60 and len(set(machine.calls)) == len(machine.calls)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_what_noise_has_flattered_is_not_chosen(candidates, world):
    machine = Machine(world, noise=0.15)
    search = Search(candidates, 0.2, machine)
    search.run(machine.used(60))
    best = search.best()
    assert machine(best, True).loss <= 0.2
    reference = machine(candidates[0], True)
    assert reference.seconds > 3 * machine(best, True).seconds


def test_a_small_budget_ends_with_what_was_confirmed(candidates):
    for most in (1, 2, 3, 6, 10):
        machine = Machine("all matters", noise=0.1)
        search = Search(candidates, 0.2, machine)
        search.run(machine.used(most))
        assert len(machine.calls) <= most
        found = search.found[search.best()]
        assert found.whole and found.loss <= 0.2


def test_no_loss_at_all(candidates):
    machine = Machine("all matters")
    search = Search(candidates, 0.0, machine)
    search.run(machine.used(25))
    assert truth(search.best(), "all matters")[0] <= 0


def test_the_same_measurements_lead_the_same_way(candidates):
    """So that a journal is all that an interrupted search needs."""
    whole = Machine("steps matter", noise=0.1)
    search = Search(candidates, 0.2, whole)
    search.run(whole.used(30))
    again = Machine("steps matter", noise=0.1)
    other = Search(candidates, 0.2, again)
    other.run(again.used(30))
    assert again.calls == whole.calls and other.best() == search.best()


def test_the_front(candidates):
    machine = Machine("steps matter")
    search = Search(candidates, 0.2, machine)
    search.run(machine.used(30))
    for whole in (False, True):
        front = search.front(whole)
        pool = [found for found in search.found.values() if found.whole or not whole]
        expected = [
            one
            for one in pool
            if not any(
                other.loss <= one.loss
                and other.seconds < one.seconds
                or other.loss < one.loss
                and other.seconds <= one.seconds
                for other in pool
            )
        ]
        assert sorted(search.found[each] for each in front) == sorted(expected)
        assert [search.found[each].loss for each in front] == sorted(e.loss for e in expected)


@pytest.mark.parametrize(
    "options, precisions",
    [
        (replace(REFERENCE, decoding_steps=6), ["fp32", "bf16"]),
        (DecodingOptions(decoding_steps=4, decoding_early_stopping=2), ["bf16"]),
        (DecodingOptions(force_length_ratio=1.0, noise_beam_size=6), ["fp32"]),
    ],
)
def test_the_space_holds_what_can_be_and_no_more_than_the_reference(options, precisions):
    found = space(options, precisions, check_model)
    reference = found[0]
    assert reference == Settings.of(options) and len(set(found)) == len(found)
    for settings in found:
        check_options(replace(options, **settings._asdict()))
        assert settings.decoding_steps <= reference.decoding_steps
        assert settings.length_beam_size <= reference.length_beam_size
        assert settings.noise_beam_size <= reference.noise_beam_size
        assert settings.decoding_precision in precisions or settings == reference
    assert len({str(settings) for settings in found}) == len(found)


def test_of_a_vast_space_there_is_a_part(monkeypatch):
    monkeypatch.setattr("difformer_plugin.tuning.space.MOST", 500)
    reference = replace(REFERENCE, decoding_sampler="ancestral")
    part, again = (space(REFERENCE, ["fp32", "bf16"], lambda options: None) for _ in range(2))
    assert part == again and len(set(part)) == len(part) == 500
    assert part[0] == Settings.of(reference)
    for name, values in zip(Settings._fields, zip(*part)):
        assert len(set(values)) > 1, name


@pytest.mark.parametrize(
    "objective, process", [(name, process) for name, own in PAIRS.items() for process in own]
)
def test_a_discrete_model_is_offered_what_it_accepts_and_nothing_else(
    joined_task, objective, process
):
    """By asking it for every setting of a small grid."""
    cfg = DiscreteDiffusionConfig(
        **{"objective": objective, "process": process, "noise_schedule": "cosine"},
        **{"max_source_positions": 20, "max_target_positions": 20, "model_dim": 8},
        **{"latent_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2},
        **{"encoder_layers": 1, "decoder_layers": 1},
    )
    model = DiscreteDiffusion.build_model(cfg, joined_task)
    if process == "nearest":  # made of data and embeddings, which samplers do not look at
        model.chain._process = SimpleNamespace(types=0, states=0)
    grows = objective == "flexible"
    options = DecodingOptions(
        decoding_steps=3, length_beam_size=1 if grows else 2, noise_beam_size=2, bleu_mbr=True
    )
    found = space(options, ["fp32"], model.decoding_process)
    own = known(process, objective)
    assert found[0].decoding_sampler == own[0]  # its default, by another name
    model.decoding_process(replace(options, decoding_sampler=None))
    assert {settings.decoding_sampler for settings in found} == set(own)
    grid = {
        Settings(k, e, b1, b2, halt, *race, "fp32", *sampler)
        for k in (1, 2, 3)
        for e in {0, k // 2}
        for b1 in {1, options.length_beam_size}
        for b2 in (1, 2)
        for halt in (0, 1, 2)
        for race in ((0, 1), (1, 1), (2, 1), (1, 2), (2, 2))
        for sampler in SAMPLERS
    }

    def possible(settings):
        every = replace(options, **settings._asdict())
        try:
            check_options(every)
            model.decoding_process(every)
        except UserError:
            return False
        return settings.halt_after < settings.taken and 2 * settings.race_keep <= max(
            settings.candidates, 2
        )

    offered = set(found[1:]) | {found[0]._replace(decoding_precision="fp32")}
    assert offered == {settings for settings in grid if possible(settings)}
    assert any(settings.race_after for settings in offered) == (not grows)


def test_a_reference_that_the_model_refuses_is_no_reference(joined_task):
    sizes = {"model_dim": 8, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    cfg = DiscreteDiffusionConfig(max_source_positions=20, max_target_positions=20, **sizes)
    model = DiscreteDiffusion.build_model(cfg, joined_task)
    with pytest.raises(UserError, match="--clamping means nothing to discrete diffusion"):
        space(DecodingOptions(clamping=True), ["fp32"], model.decoding_process)
    with pytest.raises(UserError, match="--decoding-sampler tweedie is not for a model"):
        space(DecodingOptions(decoding_sampler="tweedie"), ["fp32"], model.decoding_process)


def test_passes_of_a_race():
    settings = Settings(20, 5, 7, 3, 0, 4, 2, None)
    assert settings.passes() == sum(21 if step < 4 else 2 for step in range(15))
    assert settings._replace(race_after=0).passes() == 15 * 21


def test_a_process_passes_through_what_is_known_and_doubts_the_rest():
    points = np.linspace(0, 4, 41)[:, None] * [1.0, 0.5]
    rows = [0, 20, 40, 10]
    values = np.sin(points[rows, 0])
    process = Process(points)
    process.predict(rows[:2], values[:2], np.zeros(2))
    means, deviations = process.predict(rows, values, np.full(4, 1e-3))
    assert means[rows] == pytest.approx(values, abs=0.01)
    assert deviations[rows].max() < 0.01 < deviations[[5, 15, 30]].min()
    # the same by the textbook's formulas, Rasmussen and Williams (2006), Eqs. 2.23 and 2.24
    squares = (points[:, None] - points[None]) ** 2 / 2
    kernel = np.exp(-squares).sum(-1) + np.exp(-squares.sum(-1) / 4)
    scales = []
    for scale in (0.1, 0.3, 1.0):
        gram = scale**2 * kernel[np.ix_(rows, rows)] + np.eye(4) * 2e-6
        likelihood = -0.5 * values @ np.linalg.solve(gram, values)
        scales.append((likelihood - 0.5 * np.linalg.slogdet(gram)[1], scale, gram))
    _, scale, gram = max(scales, key=lambda each: each[0])
    cross = scale**2 * kernel[:, rows]
    assert means == pytest.approx(cross @ np.linalg.solve(gram, values), abs=1e-6)
    variances = np.diag(scale**2 * kernel - cross @ np.linalg.solve(gram, cross.T))
    assert deviations**2 == pytest.approx(np.maximum(variances, 1e-8), abs=1e-6)


class Generator:
    """Translates as the targets say, but for every `wrong`-th word; counts what it was given."""

    def __init__(self, decoded, dictionary, settings):
        self.decoded, self.dictionary, self.settings = decoded, dictionary, settings

    def generate(self, models, sample):
        self.decoded.append((self.settings.decoding_steps, sample["id"].tolist()))
        outputs = []
        for target in sample["target"]:
            tokens = target[target != self.dictionary.pad()].clone()
            tokens[1 : -1 : self.settings.decoding_steps] = self.dictionary.unk()
            outputs.append([{"tokens": tokens}])
        return outputs


@pytest.fixture
def trials(task, sentences, tmp_path):
    """A function that makes Trials of 7 batches of 50; and what they decode."""
    batches = []
    for number in range(7):
        lengths = torch.randint(4, 12, (50,), generator=torch.Generator().manual_seed(number))
        target = sentences(lengths.tolist(), side="target", seed=number)
        ids = torch.arange(50) + 50 * number
        batches.append({"id": ids, "target": target, "net_input": {"src_tokens": target}})
    decoded = []

    def build(models, options):
        assert options.fixed == "as it is"
        return Generator(decoded, task.target_dictionary, options)

    def trials(journal):
        made = Trials(
            *(build, [], task.target_dictionary, batches, settings(20), "@@ ", journal),
            options={"fixed": "as it is"},
        )
        return SimpleNamespace(trials=made, decoded=decoded, batches=batches)

    with Journal(tmp_path / "journal") as journal:
        journal.begin({})
        trials.journal = journal
        yield trials


def settings(steps):
    return Settings(steps, 0, 1, 1, 0, 0, 1, None)


def text(task, tokens):
    return task.target_dictionary.string(tokens, "@@ ", extra_symbols_to_ignore={1})


def test_trials_score_as_sacrebleu_does(trials, task):
    own = trials(trials.journal)
    trials_, batches = own.trials, own.batches
    trials_.measure(settings(20), True)
    measured = trials_.measure(settings(3), True)
    references = [text(task, target) for batch in batches for target in batch["target"]]
    scores = {}
    for steps in (20, 3):
        generator = Generator([], task.target_dictionary, settings(steps))
        hypotheses = [
            text(task, found[0]["tokens"])
            for batch in batches
            for found in generator.generate([], batch)
        ]
        metric = BLEU(tokenize="none", force=True)
        scores[steps] = metric.corpus_score(hypotheses, [references]).score
        assert trials_.signature() == str(metric.get_signature())
    assert measured.loss == pytest.approx(scores[20] - scores[3]) and measured.loss > 5
    score, (low, high) = trials_.score(settings(3))
    assert score == pytest.approx(scores[3])
    assert low < measured.loss < high and measured.error == pytest.approx((high - low) / 4, rel=0.1)
    assert measured.whole and measured.seconds > 0


def test_a_part_holds_sentences_of_all_lengths_and_is_not_decoded_twice(trials):
    own = trials(trials.journal)
    own.trials.measure(settings(20), True)
    warm_up, *whole = own.decoded
    assert [ids for _, ids in whole] == [batch["id"].tolist() for batch in own.batches]
    del own.decoded[:]
    part = own.trials.measure(settings(3), False)
    assert not part.whole and part.error > 0
    assert [ids[0] // 50 for _, ids in own.decoded] == own.trials.part == [0, 2, 4, 6]
    assert own.trials.measure(settings(3), True).whole
    assert [ids[0] // 50 for _, ids in own.decoded] == [0, 2, 4, 6, 1, 3, 5]
    assert own.trials.measure(settings(20), False).loss == 0


def test_speeds_are_taken_in_alternation(trials):
    own = trials(trials.journal)
    speeds = own.trials.speeds([settings(20), settings(3)], 2)
    steps = [steps for steps, _ in own.decoded[1:]]
    assert steps == [3, 20] * 4 + [20, 3] * 4
    seconds = {(r["settings"], r["batch"]): [] for r in trials.journal.records()}
    for record in trials.journal.records():
        seconds[record["settings"], record["batch"]].append(record["seconds"])
    for each, speed in speeds.items():
        spent = sum(np.median(seconds[str(each), batch]) for batch in (0, 2, 4, 6))
        assert speed == pytest.approx(200 / spent)


def test_what_the_journal_has_is_not_decoded_again(trials):
    own = trials(trials.journal)
    first = [own.trials.measure(settings(20), True), own.trials.measure(settings(3), False)]
    first.append(own.trials.speeds([settings(20), settings(3)], 1))
    del own.decoded[:]
    again = trials(trials.journal)
    second = [again.trials.measure(settings(20), True), again.trials.measure(settings(3), False)]
    second.append(again.trials.speeds([settings(20), settings(3)], 1))
    assert second == first and again.decoded == []
    assert (again.trials.count, again.trials.seconds) == (own.trials.count, own.trials.seconds)
    for record in trials.journal.records():
        json.dumps(record, allow_nan=False)


def test_resampled_losses_are_centred_on_the_loss():
    random = np.random.default_rng(0)
    totals = random.integers(5, 20, (400, 1)) - np.arange(4)
    base, found = (
        np.hstack([np.floor(totals * share), totals, totals[:, :1], totals[:, :1]]).astype(int)
        for share in (random.uniform(0.5, 0.9, (400, 4)), random.uniform(0.4, 0.8, (400, 4)))
    )
    loss = bleu(base.sum(0)) - bleu(found.sum(0))
    drawn = losses(base, found)
    assert abs(drawn.mean() - loss) < 0.2 * drawn.std() < loss
    assert not losses(base, base).any()
