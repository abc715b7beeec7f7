"""Bad input: each a non-zero exit status and one line that says what to do, never a traceback."""

import os
import pickle
import shutil

import pytest
import torch
from harness import (
    TASK,
    TRAIN,
    binarise,
    error_line,
    lines,
    load,
    quick_and_slow,
    run,
    shell,
    succeed,
)

import difformer_plugin

SHARED = "--share-all-embeddings"


@pytest.fixture
def refuse(tmp_path):
    """Run a command that must fail; returns its error line."""

    def call(command, *args):
        return error_line(run(tmp_path, command, *args))

    return call


@pytest.fixture
def generate(refuse, corpus, model):
    """fairseq-generate, which must fail."""

    def call(*options, data=corpus.joined, path=model):
        return refuse("fairseq-generate", data, *TASK, "--path", path, *options)

    return call


@pytest.fixture
def train(refuse, corpus, tmp_path):
    """fairseq-train, which must fail before it has saved anything."""

    def call(*options, data=corpus.joined):
        save = ["--max-update", 2, "--save-dir", tmp_path / "save"]
        line = refuse("fairseq-train", data, *TRAIN, *save, *options)
        assert not list(tmp_path.glob("save/*.pt"))
        return line

    return call


@pytest.mark.parametrize("data, types", quick_and_slow([("other", 1)], [("smaller", 2)]))
def test_a_checkpoint_and_the_dictionaries_of_other_data(
    corpus, model, trained, generate, refuse, tmp_path, data, types
):
    """`smaller` has a dictionary of another size, `other` the same symbols in another order."""
    folder = getattr(corpus, data)
    sizes = [len(lines(corpus.joined / "dict.de.txt")) + 4, len(lines(folder / "dict.de.txt")) + 4]
    assert len(set(sizes)) == types
    (tmp_path / "input").write_text("Das ist gut .\n")
    interactive = ["fairseq-interactive", folder, *TASK, "--path", model]
    (tmp_path / "save").mkdir()
    shutil.copy(trained.checkpoint, tmp_path / "save" / "checkpoint_last.pt")
    resumed = ["fairseq-train", folder, *TRAIN, "--max-update", 70, "--save-dir", tmp_path / "save"]
    for line in (
        generate(data=folder),
        refuse(*interactive, "--input", tmp_path / "input"),
        refuse(*resumed, SHARED),
    ):
        assert "source dictionary" in line and "--srcdict" in line
        assert f" {sizes[0]} types" in line and f" {sizes[1]} types" in line
    kept = (tmp_path / "save" / "checkpoint_last.pt").read_bytes()
    assert kept == trained.checkpoint.read_bytes()


def test_from_pretrained_with_other_dictionaries(corpus, model):
    difformer_plugin.register()
    from difformer_plugin.errors import UserError
    from difformer_plugin.families.embeddings.model import Difformer

    with pytest.raises(UserError, match="fingerprint"):
        Difformer.from_pretrained(str(model.parent), model.name, str(corpus.other))


def test_shared_embeddings_of_two_dictionaries(train, generate, corpus):
    assert "--joined-dictionary" in train(SHARED, data=corpus.separate)
    assert "the data-bin it was trained on" in generate(data=corpus.separate)


@pytest.mark.parametrize(
    "options, said",
    quick_and_slow(
        [
            (["--rescaling-factor", "nan"], "--rescaling-factor"),
            (["--max-source-positions", "12"], "--max-source-positions"),
            (["--eval-bleu", "--eval-bleu-args", '{"beam": 4, "lenpen": 1}'], "beam, lenpen"),
        ],
        [
            (["--noise-schedule", "nonsense"], "nonsense"),
            (["--rescaling-factor", "0"], "--rescaling-factor"),
            (["--rescaling-factor", "-1"], "--rescaling-factor"),
            (["--eval-bleu", "--decoding-steps", "3000"], "--decoding-steps"),
            (["--max-target-positions", "12"], "--max-target-positions"),
            (["--label-smoothing", "nan"], "--label-smoothing"),
        ],
    ),
)
def test_values_that_training_cannot_have(train, options, said):
    assert said in train(SHARED, *options)


@pytest.mark.parametrize(
    "options, said",
    quick_and_slow(
        [
            (["--decoding-steps", "2001"], "2000"),
            (["--noise-beam-size", "2", "--ppl-mbr"], "teacher"),
            (["--prefix-size", "-1"], "--prefix-size"),
            (["--constraints", "ordered"], "--constraints-file"),
        ],
        [
            (["--decoding-steps", "0"], "--decoding-steps"),
            (
                ["--decoding-steps", "5", "--decoding-early-stopping", "5"],
                "--decoding-early-stopping",
            ),
            (["--length-beam-size", "0"], "--length-beam-size"),
            (["--noise-beam-size", "-1"], "--noise-beam-size"),
            (["--decoding-noise-schedule", "nonsense"], "nonsense"),
            (["--decoding-rescaling-factor", "0"], "--decoding-rescaling-factor"),
            (["--decoding-rescaling-factor", "nan"], "--decoding-rescaling-factor"),
            (["--decoding-fixed-t", "nan"], "--decoding-fixed-t"),
            (["--force-length-ratio", "nan"], "--force-length-ratio"),
            (["--bleu-mbr", "--ppl-mbr"], "--ppl-mbr"),
            (["--constraints-file", "none.jsonl"], "none.jsonl"),
        ],
    ),
)
def test_values_that_decoding_cannot_have(generate, options, said):
    assert said in generate(*options)


def test_models_that_cannot_be_combined(generate, model, teacher, other_teacher):
    mbr = ["--noise-beam-size", 2, "--ppl-mbr"]
    other = generate(*mbr, path=f"{model}:{other_teacher}")
    assert "dictionary" in other and "teacher" in other
    assert "autoregressive" in generate(*mbr, path=f"{model}:{model}")
    assert "ensembles" in generate(path=f"{model}:{model}")
    assert "--path names a TransformerModel" in generate(path=teacher)
    assert "first" in generate(*mbr, path=f"{teacher}:{model}")


def test_a_sentence_longer_than_the_position_table(corpus, model, generate, refuse, tmp_path):
    for language in ("de", "en"):
        for split in ("train", "valid", "test"):
            shutil.copy(corpus.text / f"{split}.{language}", tmp_path)
    with open(tmp_path / "test.de", "a") as source, open(tmp_path / "test.en", "a") as target:
        for words in (126, 127, 130):  # 128 tokens with BOS and EOS fill the table
            source.write("gut " * words + "\n")
            target.write("good\n")
    dictionary = ["--srcdict", corpus.joined / "dict.de.txt", "--joined-dictionary"]
    data = binarise(tmp_path, tmp_path / "long", *dictionary)
    line = generate(data=data)
    assert "--max-source-positions" in line and "128" in line
    assert "sentence 22 " in line and "129" in line and "2 such sentences" in line
    skip = "--skip-invalid-size-inputs-valid-test"
    outcome = succeed(tmp_path, "fairseq-generate", data, *TASK, "--path", model, skip)
    assert sorted(outcome.translations()) == list(range(21 + 1))
    assert "skipped" in outcome.out + outcome.err


def test_a_typed_sentence_may_fill_the_position_table(corpus, model, refuse, tmp_path):
    interactive = ["fairseq-interactive", corpus.joined, *TASK, "--path", model]
    interactive += ["--decoding-steps", 2, "--force-length-ratio", 1, "--seed", 5]
    interactive += ["--input", tmp_path / "input"]
    difformer_plugin.register()
    from difformer_plugin.errors import UserError
    from difformer_plugin.families.embeddings.model import Difformer

    hub = Difformer.from_pretrained(
        str(model.parent),
        model.name,
        str(corpus.joined),
        decoding_steps=2,
        force_length_ratio=1.0,
        seed=5,
    )
    assert hub.models[0].cfg.encoder_learned_pos and hub.models[0].cfg.decoder_learned_pos

    longest = "gut " * 126
    (tmp_path / "input").write_text(f"{longest}\n")
    outcome = succeed(tmp_path, *interactive)
    assert [len(scores.split()) for _, scores in outcome.lines("P")] == [128]
    assert hub.translate(longest) == outcome.translations()[0] != ""

    (tmp_path / "input").write_text(f"{longest} gut\n")
    line = refuse(*interactive)
    assert "129" in line and "--max-source-positions" in line
    with pytest.raises(UserError, match="129.*--max-source-positions"):
        hub.translate(f"{longest} gut")


class Code:
    """Unpickles by running a command."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)


def spoil(kind, good, path):
    """Write a file that is no good checkpoint."""
    content = good.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "foreign":
        torch.save({"weight": torch.zeros(3)}, path)
    elif kind == "a tensor":
        torch.save(torch.zeros(3), path)
    elif kind == "text":
        path.write_text("not a checkpoint\n")
    elif kind == "empty":
        path.touch()
    elif kind == "a folder":
        path.mkdir()
    else:
        assert kind == "missing"


@pytest.mark.parametrize(
    "kind",
    quick_and_slow(
        [("truncated",), ("foreign",), ("missing",)],
        [("a tensor",), ("text",), ("empty",), ("a folder",)],
    ),
)
def test_a_file_that_is_no_checkpoint(generate, refuse, trained, tmp_path, kind):
    path = tmp_path / "bad.pt"
    spoil(kind, trained.checkpoint, path)
    assert "bad.pt" in generate(path=path)
    assert "bad.pt" in refuse("difformer", "convert", path, tmp_path / "converted.pt")
    assert not list(tmp_path.glob("converted*"))


def test_training_does_not_resume_from_half_a_checkpoint(refuse, corpus, trained, tmp_path):
    (tmp_path / "save").mkdir()
    spoil("truncated", trained.checkpoint, tmp_path / "save" / "checkpoint_last.pt")
    line = refuse("fairseq-train", corpus.joined, *TRAIN, SHARED, "--save-dir", tmp_path / "save")
    assert "checkpoint_last.pt" in line


@pytest.mark.parametrize("form", ["zip", "pickle"])
def test_a_checkpoint_that_runs_code_does_not(
    corpus, trained, generate, refuse, tmp_path, monkeypatch, form
):
    difformer_plugin.register()
    from difformer_plugin.errors import UserError
    from difformer_plugin.families.embeddings.model import Difformer

    trace, bad = tmp_path / "trace", tmp_path / "bad.pt"
    state = load(trained.checkpoint)
    state["extra_state"]["code"] = Code(trace)
    if form == "zip":
        torch.save(state, bad)
    else:
        bad.write_bytes(pickle.dumps({"args": Code(trace), "model": {}}))
    (tmp_path / "save").mkdir()
    shutil.copy(bad, tmp_path / "save" / "checkpoint_last.pt")

    lines_said = [
        generate(path=bad),
        refuse("difformer", "convert", bad, tmp_path / "converted.pt"),
        refuse("fairseq-train", corpus.joined, *TRAIN, SHARED, "--save-dir", tmp_path / "save"),
    ]
    assert all("bad.pt" in line or "checkpoint_last.pt" in line for line in lines_said)
    with pytest.raises(UserError, match=r"bad\.pt"):
        Difformer.from_pretrained(str(tmp_path), "bad.pt", str(corpus.joined))
    assert not trace.exists()
    # and the file would have run it, had anybody let it
    torch.load(bad, weights_only=False) if form == "zip" else pickle.loads(bad.read_bytes())
    assert trace.exists()


def empty_split(folder):
    """Binarise an empty test set over the one that is there."""
    text = folder.parent / "empty"
    text.mkdir()
    for language in ("de", "en"):
        for split in ("train", "valid"):
            (text / f"{split}.{language}").write_text("gut .\n")
        (text / f"test.{language}").touch()
    options = ["--srcdict", folder / "dict.de.txt", "--joined-dictionary"]
    shutil.copytree(binarise(text, text / "bin", *options), folder, dirs_exist_ok=True)


def cut(path):
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


DAMAGE = {
    "no folder": (shutil.rmtree, "no such data folder"),
    "no dictionary": (lambda folder: (folder / "dict.en.txt").unlink(), "dict.en.txt"),
    "no dictionaries": (lambda folder: [p.unlink() for p in folder.glob("dict*")], "dict."),
    "no split": (lambda folder: [p.unlink() for p in folder.glob("test*")], "no such file"),
    "empty split": (empty_split, "no sentences"),
    "truncated .bin": (lambda folder: cut(folder / "test.de-en.de.bin"), "de.bin"),
    "truncated .idx": (lambda folder: cut(folder / "test.de-en.en.idx"), "en.idx"),
    "empty .idx": (lambda folder: open(folder / "test.de-en.de.idx", "w").close(), "de.idx"),
    "no .bin": (lambda folder: (folder / "test.de-en.en.bin").unlink(), "en.bin"),
    "unequal numbers of lines": (
        lambda folder: [
            shutil.copy(folder / f"train.de-en.de.{e}", folder / f"test.de-en.de.{e}")
            for e in ("bin", "idx")
        ],
        "unequal",
    ),
}


MAIN = ("no dictionary", "no split", "empty split", "truncated .bin", "unequal numbers of lines")
REST = [(kind,) for kind in DAMAGE if kind not in MAIN]


@pytest.mark.parametrize("kind", quick_and_slow([(kind,) for kind in MAIN], REST))
def test_a_damaged_data_bin(generate, corpus, tmp_path, kind):
    damage, said = DAMAGE[kind]
    data = tmp_path / "data"
    shutil.copytree(corpus.joined, data)
    damage(data)
    line = generate("-s", "de", "-t", "en", data=data)
    assert said in line and "data" in line


@pytest.mark.parametrize("kind", ["no folder", "no dictionaries"])
def test_training_on_a_damaged_data_bin(train, corpus, tmp_path, kind):
    data = tmp_path / "data"
    shutil.copytree(corpus.joined, data)
    DAMAGE[kind][0](data)
    assert DAMAGE[kind][1] in train(SHARED, data=data)


def test_a_full_disk_leaves_the_last_checkpoint_whole(corpus, trained, tmp_path):
    save = tmp_path / "save"
    save.mkdir()
    shutil.copy(trained.checkpoint, save / "checkpoint_last.pt")
    before = (save / "checkpoint_last.pt").read_bytes()
    assert len(before) > 200_000
    command = ["fairseq-train", corpus.joined, *TRAIN, SHARED, "--save-dir", save]
    outcome = run(tmp_path, *command, "--max-update", 62, file_limit=150_000)
    assert "could not be written" in error_line(outcome)
    assert "File too large" in error_line(outcome)
    assert os.listdir(save) == ["checkpoint_last.pt"]
    assert (save / "checkpoint_last.pt").read_bytes() == before


def test_the_errors_of_other_programs_keep_their_traceback(tmp_path):
    script = "import difformer_plugin; difformer_plugin.register(); open('nowhere/file')"
    outcome = shell("python", "-c", script, cwd=tmp_path)
    assert outcome.code == 1 and "error: " not in outcome.err.splitlines()[0]
    assert "Traceback (most recent call last)" in outcome.err
    assert outcome.err.splitlines()[-1].startswith("FileNotFoundError: ")
