"""fairseq's own options and data folders with our task, in the real commands."""

import json
import shutil

import pytest
from harness import SENTENCES, TASK, TRAIN, binarise, error_line, lines, run, shell, succeed

DECODING = ["--decoding-steps", 2, "--batch-size", 4, "--seed", 3]


@pytest.fixture
def generate(corpus, model, tmp_path):
    def call(*options, data=corpus.joined):
        command = ["fairseq-generate", data, *TASK, "--path", model, *DECODING, *options]
        return run(tmp_path, *command)

    return call


def test_a_shard_that_fails_leaves_no_results_that_block_the_next(corpus, tmp_path):
    results = tmp_path / "results"
    command = ["fairseq-generate", corpus.joined, *TASK, "--path", tmp_path / "none.pt", "--cpu"]
    failed = shell(*command, "--num-shards", 2, "--shard-id", 0, "--results-path", results)
    assert failed.code != 0 and "none.pt" in failed.err
    assert results.is_dir() and not list(results.iterdir())


@pytest.mark.slow
def test_shards_translate_what_one_process_translates(generate, tmp_path):
    """Each sentence once, token for token and score for score; `evaluate` reads their logs."""
    whole = generate()
    parts = [generate("--num-shards", 3, "--shard-id", i) for i in range(3)]
    assert all(part.code == 0 for part in (whole, *parts))
    found = [part.translations() for part in parts]
    assert sum(map(len, found)) == SENTENCES and all(found)
    assert found[0] | found[1] | found[2] == whole.translations()
    for kind in "STHDP":
        together = [line for part in parts for line in part.lines(kind)]
        assert sorted(together) == sorted(whole.lines(kind))
    (tmp_path / "gen.out").write_text("".join(part.out for part in parts))
    (tmp_path / "whole.out").write_text(whole.out)
    merged, single = (
        json.loads(succeed(tmp_path, "difformer", "evaluate", tmp_path / name, "--json").out)
        for name in ("gen.out", "whole.out")
    )
    assert merged["sentences"] == SENTENCES and merged["metrics"] == single["metrics"]


def test_a_shard_without_a_batch(generate):
    line = error_line(generate("--num-shards", 30, "--shard-id", 29))
    assert "only 6 batches" in line and "fewer shards" in line


def test_options_that_are_refused_at_the_start(generate, corpus, model, tmp_path):
    """Before the checkpoint is read."""
    for options in (["--replace-unk"], ["--lm-path", "lm.pt"], ["--path", ""]):
        outcome = generate(*options)
        assert options[0] in error_line(outcome)
        assert "loading model" not in outcome.out
    (tmp_path / "input").write_text("Das ist gut .\n")
    interactive = ["fairseq-interactive", corpus.joined, *TASK, "--path", model]
    interactive += ["--input", tmp_path / "input"]
    for options in (["--replace-unk"], ["--num-shards", 2], ["--batch-size", 5]):
        outcome = run(tmp_path, *interactive, *options)
        assert options[0] in error_line(outcome) and "H-" not in outcome.out


def test_languages_with_a_hyphen(corpus, tmp_path):
    """They need not be given; the other direction needs one of them."""
    for split in ("train", "valid", "test"):
        shutil.copy(corpus.text / f"{split}.de", tmp_path / f"{split}.zh-CN")
        shutil.copy(corpus.text / f"{split}.en", tmp_path / f"{split}.en")
    data = tmp_path / "bin"
    options = ["-s", "zh-CN", "--joined-dictionary"]  # after -s de, which binarise gives
    binarise(tmp_path, data, *options)
    train = ["fairseq-train", data, *TRAIN, "--share-all-embeddings", "--max-update", 1]
    train += ["--disable-validation", "--save-dir", tmp_path / "save"]
    assert "[zh-CN] dictionary" in succeed(tmp_path, *train, "--no-save").out
    turned = succeed(tmp_path, *train, "-t", "zh-CN", "--no-save").out
    assert turned.index("[en] dictionary") < turned.index("[zh-CN] dictionary")
    factor = succeed(tmp_path, "difformer", "factor", "--from-data", data, "--json").out
    assert f'"vocab_size": {len(lines(data / "dict.en.txt")) + 4}' in factor


def test_folders_with_other_dictionaries(corpus, tmp_path):
    train = ["fairseq-train", *TRAIN, "--share-all-embeddings", "--save-dir", tmp_path / "save"]
    line = error_line(run(tmp_path, *train, f"{corpus.joined}:{corpus.other}"))
    assert "is not the dictionary of" in line and "line 1 differs" in line


def test_tokens_that_the_dictionary_does_not_have(corpus, generate, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(corpus.joined, data)
    for language in ("de", "en"):
        kept = lines(corpus.smaller / f"dict.{language}.txt")
        (data / f"dict.{language}.txt").write_text("\n".join(kept) + "\n", "utf-8")
    train = ["fairseq-train", data, *TRAIN, "--share-all-embeddings", "--save-dir", tmp_path / "s"]
    line = error_line(run(tmp_path, *train))
    assert "holds token" in line and "--srcdict" in line
