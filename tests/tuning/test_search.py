"""The search of `difformer tune` on made-up functions whose optimum is known."""

import numpy as np
import pytest
from tuning_cases import REFERENCE, one_sampler_space

from difformer_plugin.tuning.search import Measured, Search
from difformer_plugin.tuning.space import starts_in

WORLDS = {  # BLEU lost by fewer steps, fewer lengths, fewer noises, and racing
    "steps matter": (8, 0.5, 0.3, 0.3),
    "little matters": (3, 0.1, 0.05, 0.1),
    "all matters": (20, 1, 0.5, 0.1),
    "shortcuts are free": (8, 1, 1, 0.02),
}


@pytest.fixture(scope="module")
def space():
    """20,000 settings."""
    return one_sampler_space(REFERENCE, ["fp32", "bf16"])


def truth(settings, world):
    """(loss, seconds): monotone in each option, with bf16 twice as fast, and a best variant."""
    steps, lengths, noises, racing = WORLDS[world]
    num_steps = settings.num_steps
    loss = steps * (num_steps**-1.3 - 12**-1.3)
    loss += 3 * settings.decoding_early_stopping / settings.decoding_steps**2
    loss += lengths * np.log(5 / settings.length_beam_size)
    loss += noises * np.log(2 / settings.noise_beam_size)
    loss -= {"uniform": 0, "quadratic": 0.05, "square_root": -0.05}[settings.decoding_timesteps]
    loss -= 0.05 * bool(settings.soft_clamping) + 0.05 * settings.collapse_repeats
    loss += 0.2 * np.log(settings.decoding_rescaling_factor) ** 2
    loss -= (settings.length_scale - 1) * (1.1 - settings.length_scale)  # best at 1.05
    work = settings.denoiser_passes() + 0.5 * settings.soft_clamping * settings.num_candidates
    if settings.race_after:
        loss += racing * np.log(settings.num_candidates / settings.race_keep) / settings.race_after
    seconds = 1 + 0.05 * num_steps + 0.2 * work
    if settings.decoding_precision == "bf16":
        return loss + 0.02, seconds / 2
    return loss, seconds


class Machine:
    """Measures a made-up world, with noise that depends on the settings alone.

    The first settings that it measures are the reference, whose loss is 0 without noise.
    """

    def __init__(self, world, noise=0.0):
        self.world, self.noise, self.calls = world, noise, []

    def __call__(self, settings, whole):
        self.calls.append((settings, whole))
        loss, seconds = truth(settings, self.world)
        if not self.noise or settings == self.calls[0][0]:
            return Measured(loss, 0.0, seconds, whole)
        seed = [int(whole), *str(settings).encode()]
        random = np.random.default_rng(seed)
        error = self.noise / (2 if whole else 1)
        seconds *= np.exp(0.05 * random.normal())
        return Measured(loss + error * random.normal(), error, seconds, whole)

    def used(self, most):
        return lambda: len(self.calls) / most


@pytest.mark.parametrize("world", WORLDS)
def test_search_finds_the_fastest_settings(space, world):
    machine = Machine(world)
    search = Search(space, 0.2, machine)
    search.run(machine.used(60), starts=starts_in(space))
    best = search.best()
    fastest = min(
        seconds for loss, seconds in (truth(each, world) for each in space) if loss <= 0.2
    )
    loss, seconds = truth(best, world)
    assert loss <= 0.2 and (best, True) in machine.calls
    assert fastest <= seconds < 1.15 * fastest  # of thousands, of which it has seen 60
    assert len(machine.calls) <= 60 and len(set(machine.calls)) == len(machine.calls)


@pytest.mark.slow
@pytest.mark.parametrize("world", WORLDS)
def test_settings_flattered_by_noise_are_not_chosen(space, world):
    machine = Machine(world, noise=0.15)
    search = Search(space, 0.2, machine)
    search.run(machine.used(60))
    best = search.best()
    assert machine(best, True).loss <= 0.2
    reference = machine(space[0], True)
    assert reference.seconds > 3 * machine(best, True).seconds


def test_small_budget_ends_with_settings_measured_on_all_sentences(space):
    for most in (1, 2, 3, 6, 10):
        machine = Machine("all matters", noise=0.1)
        search = Search(space, 0.2, machine)
        search.run(machine.used(most))
        assert len(machine.calls) <= most
        found = search.found[search.best()]
        assert found.whole and found.loss <= 0.2


def test_good_starts_are_measured_first(space):
    machine, starts = Machine("all matters"), starts_in(space)
    assert len(starts) == len(set(starts)) == 8
    for each in starts:
        assert each.decoding_steps < 12 and each.soft_clamping and each.collapse_repeats
        assert not each.race_after and each.length_beam_size == 5
    Search(space, 0.2, machine).run(machine.used(12), starts=[*starts, starts[0]])
    assert machine.calls[:9] == [(space[0], True), *((each, False) for each in starts)]
    few = Machine("all matters")
    Search(space, 0.2, few).run(few.used(4), starts=starts)
    assert [each for each, whole in few.calls if not whole] == starts[:2]


def test_no_loss_is_allowed(space):
    machine = Machine("all matters")
    search = Search(space, 0.0, machine)
    search.run(machine.used(25))
    assert truth(search.best(), "all matters")[0] <= 0


def test_search_depends_on_the_measurements_alone(space):
    """A journal is all that an interrupted search needs to resume."""
    whole = Machine("steps matter", noise=0.1)
    search = Search(space, 0.2, whole)
    search.run(whole.used(30))
    again = Machine("steps matter", noise=0.1)
    other = Search(space, 0.2, again)
    other.run(again.used(30))
    assert again.calls == whole.calls and other.best() == search.best()


def test_pareto_front(space):
    machine = Machine("steps matter")
    search = Search(space, 0.2, machine)
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
