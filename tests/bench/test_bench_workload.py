import numpy as np
import pytest

from difformer_plugin.bench.scaling import variations
from difformer_plugin.bench.workload import (
    around_quantiles,
    choose_sentences,
    in_batches,
    parse_beams,
    random_edits,
)
from difformer_plugin.errors import UserError


def test_beams_are_lengths_times_noises():
    assert parse_beams("7x3") == (7, 3) and parse_beams("2x1") == (2, 1)
    for total in (1, 10, 21):
        assert np.prod(parse_beams(str(total))) == total


def test_without_predicted_lengths_candidates_differ_in_noise_alone():
    assert [parse_beams(text, False) for text in ("1", "10", "1x4")] == [(1, 1), (1, 10), (1, 4)]
    with pytest.raises(UserError, match="--beams 7x3: .* give 1x21"):
        parse_beams("7x3", False)


@pytest.mark.parametrize("text", ["7", "x3", "7x", "0x3", "7*3", "7x3x1", "-1x2", ""])
def test_malformed_beams_are_refused(text):
    with pytest.raises(UserError, match="--beams .*7x3"):
        parse_beams(text)


def test_sentences_are_drawn_without_replacement():
    numbers = choose_sentences(30, 40, seed=5)
    assert len(set(numbers.tolist())) == 30 and set(numbers) <= set(range(40))
    assert (choose_sentences(30, 40, seed=5) == numbers).all()
    assert set(choose_sentences(40, 40, seed=1)) == set(range(40))
    with pytest.raises(UserError, match="only 40, not 41"):
        choose_sentences(41, 40, seed=1)


def test_batches_hold_all_sentences_sorted_by_length():
    lengths = np.array([5, 9, 2, 7, 4, 9, 1])
    numbers = np.array([0, 1, 3, 4, 6])
    batches = in_batches(numbers, lengths, 2)
    assert [len(batch) for batch in batches] == [2, 2, 1]
    flat = np.concatenate(batches)
    assert sorted(flat) == sorted(numbers)
    assert lengths[flat].tolist() == sorted(lengths[numbers].tolist())


def test_sentences_around_a_quantile_are_near_its_length():
    lengths = np.random.default_rng(0).permutation(np.arange(100))
    for quantile, numbers in zip((0.1, 0.5, 0.9), around_quantiles(lengths, 9)):
        assert len(set(numbers.tolist())) == 9
        assert abs(lengths[numbers] - 99 * quantile).max() <= 4.9


def test_the_rate_of_edits():
    rng = np.random.default_rng(0)
    sentence = [f"w{i}" for i in range(1000)]
    (same,) = random_edits(sentence, ["x"], 1, rng, rate=0)
    assert same.split() == sentence
    (text,) = random_edits(sentence, ["x"], 1, rng, rate=0.3)
    words = text.split()
    kept = len(set(words) & set(sentence)) / 1000  # doubled words are kept
    assert kept == pytest.approx(1 - 0.3 * 2 / 3, abs=0.04)
    assert words.count("x") == pytest.approx(100, abs=40)
    assert len(words) == pytest.approx(1000, abs=50)  # drops and doublings balance
    (all_edited,) = random_edits(sentence, ["x"], 1, rng, rate=1)
    assert "x" in all_edited.split()


def test_one_factor_is_varied_at_a_time():
    plans = variations([1, 5], [(1, 1), (7, 3)], [2, 8])
    base = plans[0][2]
    assert (base.steps, base.beams, base.batch_size) == (1, (1, 1), 8)
    for factor, value, setting in plans:
        changed = [a != b for a, b in zip(base, setting)]
        assert sum(changed) <= 1
        named = {
            "K": setting.steps,
            "candidates": setting.beams[0] * setting.beams[1],
            "batch": setting.batch_size,
        }
        assert named[factor] == value
    assert [plan[1] for plan in plans] == [1, 5, 1, 21, 2, 8]
