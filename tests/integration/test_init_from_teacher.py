"""fairseq-train --init-from-teacher: interrupted while frozen, resumed without the teacher."""

import shutil

import pytest
import torch
from harness import SIZES, TASK, error_line, load, run, succeed, weights

MODEL = """
    --arch difformer_tiny --criterion difformer_loss --rescaling-factor auto --max-dgs 0.3
    --self-cond --pred-length-offset --latent-dim 16 --model-dim 16
    --encoder-ffn-embed-dim 16 --decoder-ffn-embed-dim 16
    --optimizer adam --lr 5e-3 --weight-decay 0.1 --clip-norm 1.0 --max-tokens 512 --seed 3
    --num-workers 0 --log-format simple --log-interval 1 --no-epoch-checkpoints
    --disable-validation
"""
TRAIN = [*TASK, *SIZES.split(), *MODEL.split()]


@pytest.fixture
def own_teacher(teacher, tmp_path):
    """A copy of the teacher that a test may remove."""
    return shutil.copy(teacher, tmp_path / "teacher.pt")


def test_a_training_begins_as_its_teacher_and_goes_on_without_it(corpus, own_teacher, tmp_path):
    theirs = weights(own_teacher)
    options = ["--init-from-teacher", own_teacher, "--freeze-encoder-updates", 3]
    train = ["fairseq-train", corpus.joined, *TRAIN, *options, "--save-dir", tmp_path / "save"]
    begun = succeed(tmp_path, *train, "--max-update", 2)
    assert "encoder 16 tensors, embeddings 3 tensors, decoder 26 tensors" in begun.out
    assert "of the teacher's" in begun.out and "not initialised" not in begun.out
    checkpoint = tmp_path / "save" / "checkpoint_last.pt"
    first = weights(checkpoint)
    frozen = [name for name in first if name.startswith("encoder.layers.")]
    assert len(frozen) == 16
    assert all(torch.equal(first[name], theirs[name]) for name in frozen)
    name = "layers.0.fc1.weight"
    moved = (first[f"denoiser.{name}"] - theirs[f"decoder.{name}"]).abs().max()
    assert 0 < moved < 0.05  # two updates of at most 5e-3 away from the teacher
    own_teacher.unlink()

    resumed = succeed(tmp_path, *train, "--max-update", 4)
    assert "checkpoint_last.pt exists: not initialised from" in resumed.out
    second = weights(checkpoint)
    assert not any(torch.equal(second[name], theirs[name]) for name in frozen)
    assert all((second[name] - theirs[name]).abs().max() < 0.02 for name in frozen)
    state = load(checkpoint)
    assert state["cfg"]["model"]["init_from_teacher"] == str(own_teacher)
    assert state["task_state"]["initialised_from"]["parts"] == ["encoder", "embeddings", "decoder"]
    factors = [s["rescaling._extra_state"][0] for s in (first, second)]
    assert factors[0] == factors[1]

    succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, *TASK, "--path", checkpoint, "--decoding-steps", 2),
    )
    begun_again = train[:-1] + [tmp_path / "other"]
    line = error_line(run(tmp_path, *begun_again, "--max-update", 1))
    assert line == f"error: --init-from-teacher: {own_teacher}: no such checkpoint"


@pytest.mark.parametrize(
    "options, message",
    [
        (["--model-dim", 32], "--model-dim is 32 here and 16 in the teacher"),
        (["--finetune-from-model", "x.pt"], "both say where the weights come from"),
        (["--init-parts", "encoder,head"], "give one or more of encoder, embeddings, decoder"),
    ],
)
def test_mistakes_are_one_line(corpus, teacher, tmp_path, options, message):
    outcome = run(
        tmp_path,
        *("fairseq-train", corpus.joined, *TRAIN, "--init-from-teacher", teacher, *options),
        *("--save-dir", tmp_path / "save", "--max-update", 1),
    )
    assert message in error_line(outcome)


def test_another_dictionary_of_another_size(corpus, other_teacher, tmp_path):
    outcome = run(
        tmp_path,
        *("fairseq-train", corpus.joined, *TRAIN, "--init-from-teacher", other_teacher),
        *("--save-dir", tmp_path / "save", "--max-update", 1),
    )
    assert "source dictionary of" in error_line(outcome)
