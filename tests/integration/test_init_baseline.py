"""scripts/init_baseline.py: CMLM begins as a teacher, and trains."""

import importlib.util
from pathlib import Path

import pytest
import torch
from harness import succeed

from difformer_plugin.checkpoints.loading import load_weights_only
from difformer_plugin.errors import UserError

SCRIPT = Path(__file__).parents[2] / "scripts/init_baseline.py"
OPTIONS = (
    *("--user-dir", Path(__file__).parents[2] / "difformer_plugin", "--task", "translation_lev"),
    *("--arch", "cmlm_transformer", "--criterion", "nat_loss", "--noise", "random_mask"),
    *("--encoder-embed-dim", 16, "--encoder-ffn-embed-dim", 16, "--encoder-layers", 1),
    *("--decoder-embed-dim", 16, "--decoder-ffn-embed-dim", 16, "--decoder-layers", 1),
    *("--encoder-attention-heads", 2, "--decoder-attention-heads", 2, "--pred-length-offset"),
    *("--optimizer", "adam", "--lr", "0.001", "--max-tokens", 200, "--max-update", 2, "--cpu"),
    *("--required-batch-size-multiple", 1, "--disable-validation", "--seed", 1),
)


def start_from(teacher, folder, corpus, *more):
    """A CMLM that starts as the teacher."""
    spec = importlib.util.spec_from_file_location("init_baseline", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    start = folder / "start.pt"
    script.main([str(x) for x in (teacher, start, corpus.joined, *OPTIONS, *more)])
    return start


def test_a_cmlm_of_the_teachers_size_takes_all_but_its_lengths(corpus, teacher, tmp_path, capsys):
    start = start_from(teacher, tmp_path, corpus)
    assert capsys.readouterr().out.endswith("fresh: decoder.embed_length.weight\n")
    theirs, ours = (load_weights_only(path)["model"] for path in (teacher, start))
    assert set(ours) - set(theirs) == {"decoder.embed_length.weight"}
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    options = (*OPTIONS, "--finetune-from-model", start, "--save-dir", tmp_path / "save")
    succeed(tmp_path, "fairseq-train", corpus.joined, *options)
    assert (tmp_path / "save/checkpoint_last.pt").is_file()


@pytest.mark.parametrize(
    "more, said",
    [
        (["--encoder-layers", 2], "lacks layers of the model"),
        (["--decoder-ffn-embed-dim", 32], "its decoder.layers.0.fc1.weight is 16x16, the"),
    ],
)
def test_a_model_of_another_size_is_refused(corpus, teacher, tmp_path, more, said):
    with pytest.raises(UserError, match=said):
        start_from(teacher, tmp_path, corpus, *more)
    assert not (tmp_path / "start.pt").exists()


def test_what_is_no_teacher_is_refused(corpus, trained, tmp_path):
    with pytest.raises(UserError, match="checkpoint_last.pt (lacks layers|does not fit)"):
        start_from(trained.checkpoint, tmp_path, corpus)
    with pytest.raises(UserError, match="nowhere.pt"):
        start_from(tmp_path / "nowhere.pt", tmp_path, corpus)
