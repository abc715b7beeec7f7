"""Training with --store-ema, and decoding with --use-ema."""

import shutil

import pytest
import torch
from harness import DISCRETE, TASK, TRAIN, error_line, load, run, succeed, weights

D = 0.75
EMA = ["--store-ema", "--ema-decay", D, "--ema-start-update", 2]
EVERY = ["--save-interval-updates", 1, "--disable-validation"]
FOLLOWING = ["--max-dgs", 0.3, "--rescaling-update-interval", 1]


def by_hand(folder, updates):
    """The exponential mean of the weights after updates 1 to `updates`, in float64."""
    mean = None
    for update in range(1, updates + 1):
        state = weights(folder / f"checkpoint_1_{update}.pt")
        state = {n: t.double() for n, t in state.items() if torch.is_tensor(t)}
        mean = state if mean is None else {n: D * mean[n] + (1 - D) * t for n, t in state.items()}
    return mean


@pytest.fixture(scope="module")
def averaged(corpus, tmp_path_factory):
    """A training of six updates that has kept the checkpoint of each."""
    folder = tmp_path_factory.mktemp("ema")
    command = [corpus.joined, *TRAIN, "--share-all-embeddings", *FOLLOWING, *EMA, *EVERY]
    succeed(folder, "fairseq-train", *command, "--max-update", 6, "--save-dir", folder)
    return folder


def test_the_average_is_that_by_hand(averaged):
    ema = load(averaged / "checkpoint_last.pt")["extra_state"]["ema"]
    expected = by_hand(averaged, 6)
    own = weights(averaged / "checkpoint_last.pt")
    assert ema.keys() == own.keys()
    for name in expected:
        torch.testing.assert_close(ema[name].double(), expected[name], rtol=1e-4, atol=1e-6)
    assert not torch.allclose(ema["rescaling._extra_state"], own["rescaling._extra_state"])


def test_generation_decodes_with_the_average(averaged, corpus, tmp_path):
    """The same translations as of a checkpoint whose weights are the average."""
    last = averaged / "checkpoint_last.pt"
    state = load(last)
    copy = tmp_path / "copy.pt"
    torch.save({**state, "model": state["extra_state"]["ema"]}, copy)
    written = tmp_path / "written.pt"
    succeed(tmp_path, "difformer", "average", averaged, "--last", 1, "--use-ema", "--out", written)
    command = ["fairseq-generate", corpus.joined, *TASK, "--decoding-steps", 3, "--path"]
    hypotheses = [
        succeed(tmp_path, *command, path, *options).lines("P")
        for path, options in ((last, ["--use-ema"]), (copy, []), (written, []), (last, []))
    ]
    assert hypotheses[0] == hypotheses[1] == hypotheses[2] != hypotheses[3]


def test_fairseq_validate_takes_the_average(averaged, corpus, tmp_path):
    command = ["fairseq-validate", corpus.joined, *TASK, "--max-tokens", 512, "--path"]
    command.append(averaged / "checkpoint_last.pt")
    outputs = [succeed(tmp_path, *command, *more).out for more in ([], ["--use-ema"])]
    losses = [out.split("| loss ")[1].split(" ")[0] for out in outputs]
    assert losses[0] != losses[1]


def test_a_checkpoint_without_an_average_is_refused(trained, corpus, tmp_path):
    command = ["fairseq-generate", corpus.joined, *TASK, "--path", trained.checkpoint]
    line = error_line(run(tmp_path, *command, "--use-ema"))
    assert "has no exponential moving average of the weights" in line


@pytest.mark.slow
def test_training_resumes_with_the_average(averaged, corpus, tmp_path):
    shutil.copy(averaged / "checkpoint_1_3.pt", tmp_path / "checkpoint_last.pt")
    command = [corpus.joined, *TRAIN, "--share-all-embeddings", *FOLLOWING, *EMA, *EVERY]
    succeed(tmp_path, "fairseq-train", *command, "--max-update", 6, "--save-dir", tmp_path)
    states = [load(each / "checkpoint_last.pt") for each in (averaged, tmp_path)]
    for name, tensor in states[0]["extra_state"]["ema"].items():
        torch.testing.assert_close(tensor, states[1]["extra_state"]["ema"][name])


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(TRAIN, id="embeddings"),
        pytest.param(DISCRETE, id="tokens", marks=pytest.mark.slow),
        pytest.param(
            [*DISCRETE, "--process", "nearest", "--neighbour-embeddings"],
            id="process of the data",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_validation_of_a_training_takes_the_average(options, corpus, other_vectors, tmp_path):
    if options[-1] == "--neighbour-embeddings":
        options = [*options, other_vectors, "--objective", "d3pm"]
    command = [corpus.joined, *options, "--share-all-embeddings", "--save-dir", tmp_path]
    command += ["--max-update", 4, "--use-ema", "--eval-bleu"]
    line = error_line(run(tmp_path, "fairseq-train", *command))
    assert "--use-ema has no effect in training without --store-ema" in line
    decay = ["--store-ema", "--ema-decay", 0.999999]  # as after the first update
    succeed(
        tmp_path, "fairseq-train", *command, *decay, "--eval-bleu-args", '{"decoding_steps": 2}'
    )
    loss = load(tmp_path / "checkpoint_last.pt")["extra_state"]["val_loss"]
    validate = ["fairseq-validate", corpus.joined, *TASK, "--max-tokens", 512, "--path"]
    last = tmp_path / "checkpoint_last.pt"
    found = [
        float(succeed(tmp_path, *validate, last, *more).out.split("| loss ")[1].split(" ")[0])
        for more in (["--use-ema"], [])
    ]
    assert found[0] == pytest.approx(loss, abs=2e-3) != found[1]
