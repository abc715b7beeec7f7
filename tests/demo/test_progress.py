"""The time that is left, from real lines of fairseq's logs."""

import pytest

from difformer_plugin.demo.progress import Progress

TRAIN = "INFO | train_inner | epoch 001:     {0} / 281 mse=1.17, num_updates={0}, lr=0.00075"
GENERATE = "INFO:fairseq.logging.progress_bar::      {} / 5 wps=136"


@pytest.mark.parametrize(
    "command, line, total",
    [
        (["fairseq-train", "data", "--max-update", "1600"], TRAIN, 1600),
        (["fairseq-generate", "data", "--batch-size", "100"], GENERATE, 5),
    ],
)
def test_shares_are_read_from_the_logs(command, line, total):
    progress = Progress(command)
    for count in (1, 2, total):
        assert progress.share(line.format(count)) == count / total
    assert progress.share("S-0\tnothing of 3 / 5 this kind") is None


def test_the_estimate_does_not_count_what_an_earlier_run_did():
    """1,000 of 1,600 updates were done before; the others take 2 s each."""
    clock = iter([100.0, 200.0, 1180.0, 1300.0])
    progress = Progress(["fairseq-train", "--max-update", "1600"], lambda: next(clock))
    lines = [TRAIN.format(count) for count in (1000, 1050, 1540, 1600)]
    assert [progress.note(line) for line in lines] == [
        None,
        "66 % done, about 18 min left",
        "96 % done, about 2 min left",
        None,
    ]
    assert progress.note("no count here") is None
