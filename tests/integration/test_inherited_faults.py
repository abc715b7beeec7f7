"""What fairseq itself ends in a traceback for: it works, or it is one line."""

import shutil
import sys

import pytest
from harness import (
    DISCRETE,
    SENTENCES,
    TASK,
    TRAIN,
    error_line,
    lines,
    logged,
    run,
    shell,
    succeed,
)

SHARED = "--share-all-embeddings"


@pytest.fixture
def train(corpus, tmp_path):
    """fairseq-train, for two updates."""

    def call(*options, data=corpus.joined, start=TRAIN):
        save = ["--max-update", 2, "--save-dir", tmp_path / "save"]
        return run(tmp_path, "fairseq-train", data, *start, SHARED, *save, *options)

    return call


def test_a_batch_smaller_than_a_sentence(train, tmp_path, corpus, model):
    """Some sentences are longer than a batch may be, but not all."""
    texts = [lines(corpus.text / f"valid.{side}") for side in ("de", "en")]
    longest = sorted(max(len(line.split()) + 2 for line in pair) for pair in zip(*texts))
    most = longest[len(longest) // 2]
    line = error_line(train("--max-tokens", most))
    assert f"more than a batch may have, --max-tokens {most}" in line
    outcome = succeed_of(train("--max-tokens", most, "--skip-invalid-size-inputs-valid-test"))
    assert "more tokens than a batch may have" in outcome.out
    generate = ["fairseq-generate", corpus.joined, *TASK, "--path", model, "--max-tokens", most]
    assert f"--max-tokens {most}" in error_line(run(tmp_path, *generate))


def test_several_training_splits(train, corpus, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(corpus.joined, data)
    for path in corpus.joined.glob("valid.*"):
        shutil.copy(path, data / path.name.replace("valid", "train1"))
    log = succeed_of(train(data=data)).out
    assert "train1" in log
    for options in ([], ["--process", "uniform", "--objective", "d3pm"]):
        shutil.rmtree(tmp_path / "save")
        succeed_of(train(*options, data=data, start=DISCRETE))


def succeed_of(outcome):
    assert outcome.code == 0, outcome.err[-3000:]
    return outcome


def test_buckets_do_not_change_what_validation_measures(train, tmp_path):
    """Times and noise of validation are functions of the sentences."""
    losses = []
    for options in (["--num-batch-buckets", 3], []):
        outcome = succeed_of(train(*options, "--lr", 0))
        shutil.rmtree(tmp_path / "save")
        losses.append(float(logged(outcome.out, "valid")[-1]["loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=2e-3)


def test_a_metric_that_is_not_measured(train):
    metric = ["--best-checkpoint-metric", "bleu", "--maximize-best-checkpoint-metric"]
    assert "bleu needs --eval-bleu" in error_line(train(*metric))


@pytest.mark.slow
def test_data_in_the_older_format(corpus, train, model, teacher, tmp_path):
    assert "omit the option" in error_line(train("--dataset-impl", "lazy"))
    data = tmp_path / "lazy"
    splits = [part for s in ("train", "valid", "test") for part in (f"--{s}pref", corpus.text / s)]
    known = ["--srcdict", corpus.joined / "dict.de.txt", "--joined-dictionary"]
    command = ["-s", "de", "-t", "en", "--destdir", data, "--dataset-impl", "lazy", *splits, *known]
    succeed(tmp_path, "fairseq-preprocess", *command)
    for options in ([], ["--dataset-impl", "lazy"], ["--dataset-impl", "cached"]):
        succeed_of(train(*options, data=data))
    generate = ["fairseq-generate", data, *TASK, "--decoding-steps", 2, "--path", model]
    old = succeed(tmp_path, *generate).translations()
    generate[1] = corpus.joined
    assert len(old) == SENTENCES and old == succeed(tmp_path, *generate).translations()
    outcomes = []
    for name, folder in (("old", data), ("new", corpus.joined)):
        command = ["difformer", "distill", folder, "--teacher", teacher, "--split", "test", "--cpu"]
        succeed(tmp_path, *command, "--out", tmp_path / name)
        outcomes.append((tmp_path / name / "test.de-en.en.bin").read_bytes())
    assert outcomes[0] == outcomes[1]


def test_a_command_begins_with_its_own_output(train):
    assert "Warning" not in succeed_of(train()).err


READS_AHEAD = """
import torch
from fairseq.data.iterators import BufferedIterator
import difformer_plugin

class Batches:
    def __len__(self):
        return 10**6

    def __iter__(self):
        while True:
            yield torch.randn(300, 300).sort().values[0, 0]

difformer_plugin.register()
next(BufferedIterator(10**6, Batches()))
raise SystemExit(3)
"""


def test_an_error_does_not_abort_the_process(tmp_path):
    """Its thread is in torch's code when Python shuts down, as with --num-workers 0."""
    outcome = shell(sys.executable, "-W", "ignore", "-c", READS_AHEAD, cwd=tmp_path)
    assert outcome.code == 3
    assert "terminate called" not in outcome.err
