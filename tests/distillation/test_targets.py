"""Choice of targets: what becomes of failures, and which raw pairs are added."""

import numpy as np
import pytest
from fake_teacher import choose, hypotheses, reference, words

from difformer_plugin.distillation.failures import EMPTY, LONG_SOURCE, NO_SOURCE
from difformer_plugin.distillation.journaled_decoding import decode
from difformer_plugin.distillation.plan import make_plan
from difformer_plugin.distillation.targets import DROPPED, OUTPUT, RAW, Targets, draw_pairs
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal


@pytest.mark.parametrize("on_failure", ["keep", "drop", "replace"])
def test_failures_are_kept_dropped_or_replaced(tmp_path, on_failure):
    lengths = np.full(30, 5)
    causes = {4: NO_SOURCE, 11: LONG_SOURCE}
    work = make_plan(lengths, causes, 40, 4)
    with Journal(tmp_path / "journal") as journal:
        journal.begin({})
        decode(journal, work.batches, choose, reference, words, lambda *unused: None)
        targets = Targets(work, journal, on_failure)
    failed, replaceable = {0, 4, 10, 11, 20}, {0, 20}
    assert [(i, cause) for i, cause, _, _ in targets.failures] == [
        (0, EMPTY),
        (4, NO_SOURCE),
        (10, EMPTY),
        (11, LONG_SOURCE),
        (20, EMPTY),
    ]
    replaced = replaceable if on_failure == "replace" else set()
    kind = DROPPED if on_failure == "drop" else RAW
    assert targets.replaced == len(replaced)
    rows = targets.rows().tolist()
    assert rows == sorted(set(range(30)) - (failed if on_failure == "drop" else set()))
    for i in range(30):
        if i in failed - replaced:
            assert targets.kinds[i] == kind
            continue
        assert targets.kinds[i] == OUTPUT
        expected = hypotheses(i)[1 if i in replaced else 0]
        assert targets.output(i).tolist() == expected
    if on_failure != "drop":
        assert all(targets.output(i) is None for i in failed - replaced)


def test_a_missing_sentence_is_an_error(tmp_path):
    work = make_plan(np.full(8, 5), {}, 40, 4)
    with Journal(tmp_path / "journal") as journal:
        journal.begin({})
        decode(journal, {0: work.batches[0]}, choose, reference, words, lambda *unused: None)
        with pytest.raises(UserError, match="lacks sentences"):
            Targets(work, journal, "keep")


def test_raw_pairs_are_drawn_by_sentence():
    assert draw_pairs(1000, 1.0, 1).all() and not draw_pairs(1000, 0.0, 1).any()
    some, more = draw_pairs(10000, 0.3, 1), draw_pairs(10000, 0.6, 1)
    assert abs(some.mean() - 0.3) < 5 * (0.3 * 0.7 / 10000) ** 0.5
    assert not (some & ~more).any()  # a greater share only adds pairs
    assert (some != draw_pairs(10000, 0.3, 2)).any()
