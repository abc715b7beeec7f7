"""fairseq-train, fairseq-hydra-train and fairseq-validate."""

import math
import shutil
from functools import partial
from pathlib import Path

import pytest
import torch
from harness import (
    BIN,
    MODEL,
    OPTIMISER,
    SENTENCES,
    TASK,
    TRAIN,
    USER_DIR,
    error_line,
    lines,
    load,
    logged,
    run,
    shell,
    succeed,
    weights,
)

from difformer_plugin.checkpoints.fingerprint import KEY
from difformer_plugin.families.embeddings.importance import KEY as LOSSES

TERMS = ["mse", "anchor", "anchor_nll", "length"]
HERE = Path(__file__).parent


def numbers(row, names):
    """Some of a logged row as floats, all of them finite."""
    values = [float(row[name]) for name in names]
    assert all(map(math.isfinite, values))
    return values


def validation_size(corpus):
    """The numbers of sentences and of target tokens with BOS and EOS in the validation set."""
    return SENTENCES, sum(len(line.split()) + 2 for line in lines(corpus.text / "valid.en"))


def test_the_log_names_every_term_of_the_loss(trained):
    training, validation = logged(trained.log, "train_inner"), logged(trained.log, "valid")
    assert len(training) == 12 and len(validation) >= 3
    for row in [*training, *validation]:
        loss, mse, anchor, nll, length = numbers(row, ["loss", *TERMS])
        assert loss == pytest.approx(mse + anchor + 0.1 * length, abs=1e-3)  # the default factor
        assert anchor == nll  # no label smoothing here
    for row in training:
        assert numbers(row, ["gnorm"])[0] > 0
    for row in validation:
        assert -1 <= numbers(row, ["ani"])[0] <= 1
    assert float(training[-1]["loss"]) < float(training[0]["loss"]) - 0.5


def test_tensorboard_shows_what_the_log_says(trained):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for split, names in (("train_inner", [*TERMS, "loss", "gnorm"]), ("valid", [*TERMS, "ani"])):
        events = EventAccumulator(str(trained.folder / "board" / split)).Reload()
        for row in logged(trained.log, split):
            for name in names:
                step = int(row["num_updates"])
                shown = [e.value for e in events.Scalars(name) if e.step == step]
                assert shown and shown[0] == pytest.approx(float(row[name]), rel=1e-3)


def test_bleu_of_real_decoding_chooses_the_best_checkpoint(trained, corpus, tmp_path):
    found = {int(row["num_updates"]): row["bleu"] for row in logged(trained.log, "valid")}
    assert float(max(found.values(), key=float)) > 0
    best = load(trained.folder / "checkpoint_best.pt")
    assert best["extra_state"]["best"] == max(map(float, found.values()))
    steps = best["optimizer_history"][-1]["num_updates"]
    assert float(found[steps]) == best["extra_state"]["best"]
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, *TASK, "--gen-subset", "valid", "--seed", 3),
        *("--path", trained.folder / "checkpoint_best.pt", "--decoding-steps", 3),
        *("--scoring", "sacrebleu", "--remove-bpe"),
    )
    assert f"BLEU = {found[steps]} " in outcome.out.replace("BLEU4", "BLEU")


@pytest.fixture(scope="module")
def half(corpus, tmp_path_factory):
    """A folder with the checkpoint after 10 updates."""
    folder = tmp_path_factory.mktemp("half")
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"]
    succeed(folder, *command, "--max-update", 10, "--save-dir", folder)
    return folder


@pytest.mark.slow  # the quick tests have it in test_stopping.py
def test_resumed_training_is_as_if_it_had_not_stopped(corpus, half, tmp_path):
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"]
    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    shutil.copytree(half, resumed)
    for folder in (whole, resumed):
        succeed(tmp_path, *command, "--max-update", 20, "--save-dir", folder)
    before, after, expected = (
        weights(folder / "checkpoint_last.pt") for folder in (half, resumed, whole)
    )
    assert after.keys() == expected.keys()
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, expected[name], rtol=1e-5, atol=1e-6)
    assert any(not torch.equal(before[name], after[name]) for name in after)


@pytest.mark.slow
def test_two_processes_train_one_model_and_resume(corpus, half, tmp_path):
    """torchrun --nproc_per_node 2 fairseq-train ... --cpu: gloo is chosen where there is no GPU.

    With another number of processes an epoch has another number of updates, so that fairseq wants
    --reset-dataloader to go on from the middle of one.
    """
    shutil.copy(half / "checkpoint_last.pt", tmp_path)
    outcome = shell(
        *("torchrun", "--nproc_per_node", 2, HERE / "keep_weights.py", tmp_path, corpus.joined),
        *(*TRAIN, "--share-all-embeddings", "--max-update", 40, "--log-interval", 1),
        *("--save-dir", tmp_path, "--reset-dataloader", "--batch-size-valid", 8),
        *("--time-sampling", "importance"),  # whose losses each rank has of both
    )
    assert outcome.code == 0, outcome.err[-3000:]
    assert "training on 2 devices" in outcome.out
    ranks = [torch.load(tmp_path / f"weights.{rank}.pt") for rank in range(2)]
    saved, start = (
        weights(tmp_path / "checkpoint_last.pt"),
        weights(half / "checkpoint_last.pt"),
    )
    assert saved[LOSSES].isfinite().any()
    for name, tensor in saved.items():
        assert torch.equal(ranks[0][name], ranks[1][name]), name
        assert torch.equal(ranks[0][name], tensor), name
    assert any(not torch.equal(start[name], saved[name]) for name in start)
    rows = logged(outcome.out, "train_inner")
    assert int(rows[0]["num_updates"]) == 11 and int(rows[-1]["num_updates"]) == 40
    losses = [float(row["loss"]) for row in rows]
    assert sum(losses[-5:]) < sum(losses[:5])
    validation = logged(outcome.out, "valid")[-1]
    # batches of 8, 8 and 5 sentences are two steps of two processes, the last half empty
    assert (2 * float(validation["bsz"]), 2 * float(validation["wpb"])) == validation_size(corpus)
    outcome = succeed(
        tmp_path,
        *("fairseq-validate", corpus.joined, *TASK, "--path", tmp_path / "checkpoint_last.pt"),
        *("--log-format", "simple", "--batch-size", 8),
    )
    alone = logged(outcome.out + outcome.err, "valid")[-1]
    names = [*TERMS, "loss", "ani"]
    assert numbers(validation, names) == pytest.approx(numbers(alone, names), abs=2e-4)


def test_bf16_trains_on_the_cpu(corpus, tmp_path):
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings", "--bf16"]
    outcome = succeed(tmp_path, *command, "--max-update", 30, "--save-dir", tmp_path)
    rows = logged(outcome.out, "train_inner")
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) - 0.3
    for name, tensor in weights(tmp_path / "checkpoint_last.pt").items():
        no_weight = name == KEY or name.endswith("_extra_state")
        assert no_weight or torch.equal(tensor, tensor.bfloat16().to(tensor)), name
    path = tmp_path / "checkpoint_last.pt"
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, *TASK, "--path", path, "--decoding-steps", 3),
    )
    assert sorted(outcome.translations()) == list(range(SENTENCES))


@pytest.mark.parametrize("option", ["--fp16", "--memory-efficient-fp16"])
def test_fp16_wants_a_gpu(corpus, tmp_path, option):
    command = ["fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings", option]
    outcome = run(tmp_path, *command, "--max-update", 3, "--save-dir", tmp_path)
    assert "--bf16" in error_line(outcome)
    assert not list(tmp_path.glob("*.pt"))


def test_validation_counts_every_sentence_once_in_any_batches(corpus, trained, tmp_path):
    losses = []
    for options in (["--batch-size", 50], ["--batch-size", 8]):
        outcome = succeed(
            tmp_path,
            *("fairseq-validate", corpus.joined, *TASK, "--path", trained.checkpoint),
            *("--log-format", "simple", *options),
        )
        row = logged(outcome.out + outcome.err, "valid")[-1]
        assert (float(row["bsz"]), float(row["wpb"])) == validation_size(corpus)
        losses.append(numbers(row, [*TERMS, "loss"]))
    assert losses[0] == pytest.approx(losses[1], abs=2e-4)


@pytest.fixture(scope="module")
def hydra(corpus, tmp_path_factory):
    """fairseq-hydra-train with the example's configuration, at a tiny size."""

    def call(*overrides, program=run):
        folder = tmp_path_factory.mktemp("hydra")
        sizes = {"model_dim": 32, "latent_dim": 16, "encoder_layers": 1, "decoder_layers": 1}
        command = [
            *("--config-dir", HERE.parents[1] / "examples" / "hydra"),
            *("--config-name", "difformer", f"hydra.run.dir={folder}", "common.cpu=true"),
            *(f"task.data={corpus.joined}", f"common.user_dir={USER_DIR}"),
            *(f"+model.{name}={value}" for name, value in sizes.items()),
            *("optimization.max_update=12", "lr_scheduler.warmup_updates=1"),
            *("dataset.max_tokens=512", "common.log_interval=4"),
            *("checkpoint.save_dir=" + str(folder), *overrides),
        ]
        return folder, program(folder, "fairseq-hydra-train", *command)

    return call


def test_the_example_of_hydra_trains(hydra, corpus, tmp_path):
    folder, outcome = hydra("optimization.lr=[0.005]", program=succeed)
    state = load(folder / "checkpoint_last.pt")
    assert state["optimizer_history"][-1]["num_updates"] == 12
    model = state["cfg"]["model"]
    assert (model["rescaling_factor"], model["latent_dim"], model["self_cond"]) == ("4.0", 16, True)
    assert state["cfg"]["criterion"]["label_smoothing"] == 0.1
    rows = [line for line in outcome.out.splitlines() if "[train_inner]" in line]
    losses = [float(line.split("loss=")[1].split(",")[0]) for line in rows]
    assert len(losses) == 3 and losses[-1] < losses[0]
    assert "| bleu " in outcome.out
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, *TASK, "--decoding-steps", 3),
        *("--path", folder / "checkpoint_best.pt"),
    )
    assert sorted(outcome.translations()) == list(range(SENTENCES))


def test_a_mistake_in_hydra_is_one_line(hydra):
    _, outcome = hydra("++model.noise_schedule=nonsense")
    assert "nonsense" in error_line(outcome)


def test_hydra_does_not_train_twice_under_torchrun(hydra):
    """Where there is no GPU, hydra's processes would not find each other."""
    environment = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    environment |= {"MASTER_ADDR": "localhost", "MASTER_PORT": "29511"}
    folder, outcome = hydra(program=partial(run, **environment))
    assert "torchrun" in error_line(outcome)
    assert not list(folder.rglob("*.pt"))


def test_a_named_architecture_has_its_sizes(corpus, tmp_path):
    """The table of named sizes reaches the model through --arch, and gives way to options."""
    model = MODEL.replace("difformer_tiny", "difformer_iwslt_de_en").split()
    outcome = succeed(
        tmp_path,
        *("fairseq-train", corpus.joined, *TASK, *model, *OPTIMISER.split()),
        *("--share-all-embeddings", "--encoder-layers", 1, "--decoder-layers", 1),
        *("--max-update", 1, "--save-dir", tmp_path, "--no-save", "--disable-validation"),
    )
    fc1 = [line for line in outcome.out.splitlines() if "(fc1)" in line]
    assert len(fc1) == 2
    assert all("in_features=512, out_features=1024" in line for line in fc1)


def test_the_console_script_reports_a_mistake(corpus, tmp_path):
    """What the other tests do by a fork, in a process of its own; tests/demo trains like that."""
    command = [BIN / "fairseq-train", corpus.joined, *TRAIN, "--share-all-embeddings"]
    outcome = shell(*command, "--rescaling-factor", 0, "--save-dir", tmp_path / "other")
    assert error_line(outcome) == (
        "error: --rescaling-factor must be above 0 and at most 1e+06, not 0"
    )
