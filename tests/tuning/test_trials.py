"""Measurements of `difformer tune`: BLEU, time, and what the journal keeps of them."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sacrebleu.metrics import BLEU

from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning.space import Settings
from difformer_plugin.tuning.trials import Trials, bleu, bootstrap_losses, evenly_first


class Generator:
    """Translates as the targets say, except every K-th word; records what it decodes."""

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
    """A function that makes Trials of 7 batches of 50 sentences, and records what they decode."""
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
    return Settings(steps, 0, 1, 1, 0, 1, None)


def text(task, tokens):
    return task.target_dictionary.string(tokens, "@@ ", extra_symbols_to_ignore={1})


def test_scores_are_sacrebleus(trials, task):
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


def test_screening_batches_are_evenly_spread_and_decoded_once(trials):
    own = trials(trials.journal)
    own.trials.measure(settings(20), True)
    warm_up, *whole = own.decoded
    assert [ids for _, ids in whole] == [batch["id"].tolist() for batch in own.batches]
    del own.decoded[:]
    part = own.trials.measure(settings(3), False)
    assert not part.whole and part.error > 0
    assert [ids[0] // 50 for _, ids in own.decoded] == own.trials.screening_batches == [0, 2, 4, 6]
    assert own.trials.measure(settings(3), True).whole
    assert [ids[0] // 50 for _, ids in own.decoded] == [0, 2, 4, 6, 1, 3, 5]
    assert own.trials.measure(settings(20), False).loss == 0


def test_speeds_are_measured_in_alternation(trials):
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


def test_journaled_batches_are_not_decoded_again(trials):
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


def test_bootstrap_losses_are_centred_on_the_loss():
    random = np.random.default_rng(0)
    totals = random.integers(5, 20, (400, 1)) - np.arange(4)
    base, found = (
        np.hstack([np.floor(totals * share), totals, totals[:, :1], totals[:, :1]]).astype(int)
        for share in (random.uniform(0.5, 0.9, (400, 4)), random.uniform(0.4, 0.8, (400, 4)))
    )
    loss = bleu(base.sum(0)) - bleu(found.sum(0))
    drawn = bootstrap_losses(base, found)
    assert abs(drawn.mean() - loss) < 0.2 * drawn.std() < loss
    assert not bootstrap_losses(base, base).any()


def test_the_reference_is_measured_on_what_it_has_time_for(trials, monkeypatch):
    """Batches of 2 s each: those of screening, then more until the time is up; resuming as well."""
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr("difformer_plugin.tuning.trials.time.perf_counter", lambda: next(clock))
    for seconds, count in [(1, 4), (9, 5), (11, 6), (1000, 7)]:
        trials.journal.begin({})
        for _ in range(2):  # the second reads the journal
            own = trials(trials.journal).trials
            own.seconds_of_reference = seconds
            found = own.measure(settings(20), True)
            assert found.whole and len(own.whole) == count == len(set(own.whole))
            assert set(own.screening_batches) <= set(own.whole) and own.whole == sorted(own.whole)
            assert own.measure(settings(5), True).whole
            assert not own.measure(settings(5), False).whole or count == 4
        assert own.seconds == 2 * 2 * count


@pytest.mark.parametrize("count", range(12))
def test_every_beginning_is_spread(count):
    order = evenly_first(list(range(count)))
    assert sorted(order) == list(range(count))
    for taken in range(1, count):
        gaps = np.diff([-1, *sorted(order[:taken]), count])
        assert gaps.max() <= 2 * (count + 1) / (taken + 1) + 2


def test_the_last_timing_takes_no_longer_than_it_may(trials, monkeypatch):
    clock = iter(range(0, 10**6, 2))
    monkeypatch.setattr("difformer_plugin.tuning.trials.time.perf_counter", lambda: next(clock))
    for most, batches in [(1, 1), (24, 2), (36, 3), (1e9, 4)]:
        own = trials(trials.journal)
        own.trials.speeds([settings(20), settings(3)], 3, most)
        assert len({key[1] for key in own.trials._records if key[2]}) == batches
