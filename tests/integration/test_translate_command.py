"""`difformer translate` and `difformer export`, against fairseq's own commands."""

import json
import re
import shutil
from argparse import Namespace

import pytest
import torch
from harness import (
    SENTENCES,
    TASK,
    TRAIN,
    error_line,
    lines,
    load,
    quick_and_slow,
    redraw,
    run,
    shell,
    succeed,
)

import difformer_plugin
from difformer_plugin.data import pipeline
from difformer_plugin.decoding import checks
from difformer_plugin.errors import UserError
from difformer_plugin.translation.settings import Settings, TextOptions
from difformer_plugin.translation.translator import load_model

STEPS = ["--decoding-steps", 3]
ODD = ["", " ", "\u2028", "a\u2028b\x85c\x0cd\x0be", "<s> </s> <pad> <unk>", "&lt; @@ @-@", "\x01"]


@pytest.fixture(scope="module")
def prepared(corpus, tmp_path_factory):
    """A data-bin as `difformer prepare` leaves it."""
    folder = tmp_path_factory.mktemp("prepared") / "data-bin"
    shutil.copytree(corpus.joined, folder)
    pipeline.save(pipeline.load(corpus.text), folder, corpus.codes)
    return folder


@pytest.fixture(scope="module")
def saved(prepared, tmp_path_factory):
    """A --save-dir of fairseq-train, whose data-bin is gone; its translations differ."""
    folder = tmp_path_factory.mktemp("saved")
    data, checkpoints = folder / "moved", folder / "checkpoints"
    shutil.copytree(prepared, data)
    succeed(
        folder,
        *("fairseq-train", data, *TRAIN, "--share-all-embeddings", "--max-update", 2),
        *("--save-dir", checkpoints, "--disable-validation", "--decoding-steps", 9, "--seed", 8),
    )
    shutil.rmtree(data)
    state = load(checkpoints / "checkpoint_last.pt")
    redraw(state["model"])
    torch.save(state, checkpoints / "checkpoint_last.pt")
    return checkpoints


@pytest.fixture(scope="module")
def interactive(prepared, corpus, tmp_path_factory):
    """fairseq-interactive on raw lines: their D-lines in order."""

    def call(checkpoint, text, *options):
        folder = tmp_path_factory.mktemp("interactive")
        (folder / "input").write_text("".join(f"{line}\n" for line in text), "utf-8")
        outcome = succeed(
            folder,
            *("fairseq-interactive", prepared, *TASK, "--path", checkpoint, *STEPS),
            *("-s", "de", "-t", "en", "--tokenizer", "moses", "--bpe", "subword_nmt"),
            *("--bpe-codes", corpus.codes, "--input", folder / "input"),
            *("--buffer-size", 7, "--batch-size", 3, *options),
        )
        answers = dict(outcome.lines("D"))
        assert sorted(answers) == list(range(len(text)))
        return [answers[i] for i in range(len(text))]

    return call


def translate(folder, model, text, *options):
    """The output of `difformer translate` for some lines, from a file to a file."""
    source, output = folder / "source.txt", folder / "output.txt"
    source.write_bytes("".join(f"{line}\n" for line in text).encode())
    command = ("difformer", "translate", model, "--input", source, "--output", output)
    outcome = succeed(folder, *command, "--cpu", *STEPS, *options)
    assert not (folder / "output.txt.translating").exists()
    return output.read_bytes().decode().split("\n"), outcome


def test_a_folder_with_a_checkpoint_is_all_that_is_needed(saved, interactive, corpus, tmp_path):
    """Its translations are those of fairseq-interactive, whatever the lines and the batches."""
    assert {p.name for p in saved.iterdir()} == {
        *("checkpoint_last.pt", "codes", "dict.de.txt", "dict.en.txt", "pipeline.json"),
    }
    raw = lines(corpus.raw / "test.de")
    text = [*raw[:9], *ODD, *raw[9:]]
    found, outcome = translate(tmp_path, saved, text, "--batch-size", 4)
    assert found[-1] == "" and len(found) == len(text) + 1
    assert found[:-1] == interactive(saved / "checkpoint_last.pt", text)
    assert len(set(found)) > SENTENCES // 2
    assert [found[9 + i] for i in (0, 1, 2, 6)] == [""] * 4
    assert outcome.out == "" and outcome.err == ""


def test_from_standard_input_to_standard_output(saved, corpus, tmp_path):
    text = [*lines(corpus.raw / "test.de")[:3], *ODD]
    expected, _ = translate(tmp_path, saved, text)
    command = ("difformer", "translate", saved / "checkpoint_last.pt", "--cpu", *STEPS)
    outcome = shell(*command, stdin="\n".join(text))
    assert outcome.code == 0, outcome.err
    assert outcome.out.split("\n") == expected


def test_candidates_settings_and_seed_are_those_of_fairseq(saved, interactive, corpus, tmp_path):
    raw = lines(corpus.raw / "test.de")[:8]
    settings = tmp_path / "settings.toml"
    settings.write_text("noise_beam_size = 2\nbleu_mbr = true\n", "utf-8")
    options = ["--length-beam-size", 3, "--seed", 4, "--decoding-settings", settings]
    expected = interactive(saved / "checkpoint_last.pt", raw, *options)
    assert translate(tmp_path, saved, raw, *options)[0][:-1] == expected
    ranked, _ = translate(tmp_path, saved, raw, *options, "--nbest", 6)
    rows = [row.split("\t") for row in ranked[:-1]]
    assert [int(row[0]) for row in rows] == [n for n in range(1, 9) for _ in range(6)]
    assert [row[2] for row in rows[::6]] == expected
    for best in range(0, 48, 6):
        scores = [float(row[1]) for row in rows[best : best + 6]]
        assert scores == sorted(scores, reverse=True)
    command = ["difformer", "translate", saved, "--cpu", *options, "--noise-beam-size", 3]
    said = "both --noise-beam-size 3 and --decoding-settings .* set this option: leave one out"
    assert re.search(said, error_line(run(tmp_path, *command)))


def test_a_line_that_is_too_long_is_translated_sentence_by_sentence(saved, corpus, tmp_path):
    pairs = zip(lines(corpus.raw / "test.de"), lines(corpus.text / "test.de"), strict=True)
    # one of them is short enough for 18 subwords, and two together are too long
    raw = [text for text, subwords in pairs if 10 <= len(subwords.split()) <= 18]
    assert len(raw) > 3
    alone, _ = translate(tmp_path, saved, raw)
    text = [raw[0], " ".join(raw), "x" * 200, raw[1]]
    found, outcome = translate(tmp_path, saved, text, "--split-above", 18)
    assert found[0] == alone[0] and found[3:] == [alone[1], ""]
    assert found[1] == " ".join(alone[:-1])
    warnings = re.findall(r"^warning: line (\d) has more than 18 subwords", outcome.err, re.M)
    assert warnings == ["2", "3"]


def test_an_interrupted_run_goes_on(saved, corpus, tmp_path):
    """The work of an earlier run is taken over, not done again."""
    text = lines(corpus.raw / "test.de") * 12
    expected, _ = translate(tmp_path, saved, text)
    source, output = tmp_path / "source.txt", tmp_path / "output.txt"
    command = ("difformer", "translate", saved, "--input", source, "--output", output)
    command = (*command, "--cpu", *STEPS, "--batch-size", 30)
    output.unlink()
    full = run(tmp_path, *command, file_limit=4000)
    assert "output.txt could not be written" in error_line(full) and not output.exists()
    work = tmp_path / "output.txt.translating"
    key = json.loads((work / "key.json").read_text("utf-8"))
    assert key["device"] == "cpu" and key["--decoding-steps"] == 3
    (work / "translate.json").write_text(
        json.dumps({"counts": {"lines": 60, "rows": 60}, "sizes": {"lines": 120}})
    )
    (work / "lines").write_text("a\n" * 70)
    outcome = succeed(tmp_path, *command, "--batch-size", 7)  # another one gives the same
    assert output.read_text("utf-8").split("\n") == ["a"] * 60 + expected[60:]
    assert "60 lines are done already" in outcome.err and not work.exists()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


FILES = ["README.md", "codes", "config.json", "dict.de.txt", "dict.en.txt", "model.safetensors"]


@pytest.mark.parametrize(
    "family", quick_and_slow([("difformer",)], [("nearest",), ("mdlm",), ("flexible",)])
)
def test_an_exported_model_translates_token_for_token(
    family, model, discrete_model, teacher, prepared, corpus, interactive, tmp_path
):
    options = {
        "mdlm": ["--objective", "mdlm"],
        "nearest": ["--objective", "d3pm", "--process", "nearest", "--neighbours", 3]
        + ["--neighbour-embeddings", teacher],
        "flexible": ["--objective", "flexible"],
    }
    path = model if family == "difformer" else discrete_model(*options[family]).model
    exported = tmp_path / "exported"
    done = succeed(tmp_path, "difformer", "export", path, "--data", prepared, "--out", exported)
    assert names(exported) == sorted([*FILES, "pipeline.json"])
    assert "licences are left for you" in done.out
    trained, copied = load(path), load(exported / "model.safetensors")
    assert copied["last_optimizer_state"] is None
    for name, value in trained["model"].items():
        parts = value if isinstance(value, dict) else {"": value}
        own = copied["model"][name] if isinstance(value, dict) else {"": copied["model"][name]}
        assert all(torch.equal(parts[key], own[key]) for key in parts)
    text = lines(corpus.raw / "test.de")
    expected = interactive(path, text)
    assert len(set(expected)) > 1
    assert translate(tmp_path, exported, text)[0][:-1] == expected
    assert interactive(exported / "model.safetensors", text) == expected
    config = (exported / "config.json").read_text("utf-8")
    assert str(corpus.joined.parent) not in config and str(path.parent) not in config

    difformer_plugin.register()
    from difformer_plugin.families.base import DiffusionModel

    hub = DiffusionModel.from_pretrained(str(exported))
    assert hub.translate(text, decoding_steps=3, seed=1) == expected
    before = DiffusionModel.from_pretrained(str(path.parent), path.name, str(prepared))
    assert hub.translate(text) == before.translate(text)


@pytest.mark.slow
def test_the_model_card_has_scores_and_the_settings_are_the_default(
    model, prepared, corpus, interactive, tmp_path
):
    text = lines(corpus.raw / "test.de")[:6]
    (tmp_path / "hyp").write_text("A man.\nA dog runs.\n", "utf-8")
    scored = shell(
        "difformer", "evaluate", "--hyp", tmp_path / "hyp", "--ref", tmp_path / "hyp",
        "--target-lang", "en", "--json", "--bootstrap-samples", 0,
    )  # fmt: skip
    (tmp_path / "scores.json").write_text(scored.out, "utf-8")
    (tmp_path / "tuned.toml").write_text("decoding_steps = 2\nnoise_beam_size = 3\n", "utf-8")
    exported = tmp_path / "exported"
    succeed(
        tmp_path,
        *("difformer", "export", model, "--data", prepared, "--out", exported),
        *("--scores", tmp_path / "scores.json", "--decoding-settings", tmp_path / "tuned.toml"),
    )
    card = (exported / "README.md").read_text("utf-8")
    signatures = [row["signature"] for row in json.loads(scored.out)["metrics"]]
    assert "| sacreBLEU | 100.00 | `nrefs:1|case:mixed" in card
    assert all(f"`{signature}`" in card for signature in signatures if signature)
    assert "`decoding_steps` = 2" in card and "plain text" in card
    assert re.findall(r"^license:(.*)$", card, re.M) == ["  # to be filled in"]
    source = tmp_path / "source"
    source.write_text("".join(f"{line}\n" for line in text), "utf-8")
    out = tmp_path / "out"
    command = ("difformer", "translate", exported, "--input", source, "--output", out)
    succeed(tmp_path, *command, "--cpu")
    expected = interactive(model, text, "--decoding-steps", 2, "--noise-beam-size", 3)
    assert lines(out) == expected
    from difformer_plugin.families.base import DiffusionModel

    assert DiffusionModel.from_pretrained(str(exported)).translate(text, seed=1) == expected
    other = DiffusionModel.from_pretrained(
        str(exported), decoding_steps=1
    )  # instead of the default
    assert other.translate(text, seed=1) == interactive(
        model, text, "--decoding-steps", 1, "--noise-beam-size", 3
    )
    with pytest.raises(UserError, match="nbest: translate returns the best"):
        other.translate(text, nbest=2)


def test_without_a_pipeline_the_options_say_how(model, corpus, interactive, tmp_path):
    text = lines(corpus.raw / "test.de")
    error = run(tmp_path, "difformer", "translate", model, "--data", corpus.joined)
    assert "has no pipeline.json, which says how text is tokenised: give --tokenizer" in error_line(
        error
    )
    options = ["--data", corpus.joined, "--tokenizer", "moses", "--bpe-codes", corpus.codes]
    assert translate(tmp_path, model, text, *options)[0][:-1] == interactive(model, text)
    subwords = lines(corpus.text / "test.de")
    options = ["--data", corpus.joined, "--tokenizer", "none", "--bpe-codes", "none"]
    kept, _ = translate(tmp_path, model, subwords, *options)
    assert any("@@" in line for line in kept)


@pytest.mark.parametrize(
    "options, said",
    [
        (["--nbest", 2], "--nbest 2 needs as many candidates, and there are 1: raise"),
        (["--nbest", 0], "--nbest must be at least 1, not 0"),
        (["--split-above", 0], "--split-above must be at least 1"),
        (["--decoding-steps", 0], "--decoding-steps must be at least 1"),
        (["--decoding-settings", "nowhere.toml"], "--decoding-settings nowhere.toml: No such file"),
        (["--input", "nowhere"], "--input nowhere: no such file"),
        (["--output", "nowhere/x"], "--output nowhere/x: give a file in a folder that exists"),
        (["--data", "nowhere"], "--data nowhere: no such folder"),
        (["--bpe-codes", "nowhere"], "--bpe-codes nowhere: no such file"),
        (["--target-lang", "fr"], "checkpoint_last.pt was trained from de to en: leave out"),
        (["--source-lang", "en", "--target-lang", "de"], "was trained from de to en: leave out"),
        (["--seed", -1], "--seed must be from 0"),
        (["--use-ema"], "has no exponential moving average"),
    ],
)
def test_mistakes_are_one_line(saved, tmp_path, options, said):
    outcome = run(tmp_path, "difformer", "translate", saved, "--cpu", *options)
    assert said in error_line(outcome) and outcome.out == ""


def test_the_other_direction_of_a_checkpoint_that_does_not_name_its_own(
    saved, tmp_path, caplog, monkeypatch
):
    """Training did not save the languages that it had found in the data."""
    difformer_plugin.register()
    shutil.copytree(saved, tmp_path / "older")
    path = tmp_path / "older" / "checkpoint_last.pt"
    state = load(path)
    state["cfg"]["task"].update(source_lang=None, target_lang=None, length_beam_window=True)
    torch.save(state, path)
    options = TextOptions(source_lang="en", target_lang="de")
    loaded = load_model(Settings(path, text=options, cpu=True))
    said = "older/pipeline.json says that the model translates from de to en: leave out"
    assert any(said in record.getMessage() for record in caplog.records)
    assert (loaded.task.cfg.source_lang, loaded.task.cfg.target_lang) == ("en", "de")
    # The user did not give the options of the checkpoint, and is not warned of them.
    for from_checkpoint in (True, False):
        assert loaded.task.from_checkpoint
        checks._warn.cache_clear()
        caplog.clear()
        with monkeypatch.context() as patch:
            patch.setattr(loaded.task, "from_checkpoint", from_checkpoint)
            loaded.task.build_generator(loaded.models, Namespace())
        warned = any("--length-beam-window has no effect" in r.getMessage() for r in caplog.records)
        assert warned != from_checkpoint


def test_models_that_cannot_be_used_are_one_line(saved, teacher, prepared, tmp_path):
    def said(command, *arguments):
        return error_line(run(tmp_path, "difformer", command, *arguments))

    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty has no model.safetensors" in said("translate", empty)
    assert "nowhere: no such checkpoint or folder" in said("translate", tmp_path / "nowhere")
    assert "not a diffusion model" in said("translate", teacher, "--data", prepared)
    (tmp_path / "junk.safetensors").write_bytes(b"junk" * 20)
    assert "is not a readable safetensors file" in said("translate", tmp_path / "junk.safetensors")
    assert "exists: give a folder that is new" in said("export", saved, "--out", saved)
    assert "is not what `difformer evaluate --json` prints" in said(
        "export", saved, "--out", tmp_path / "x", "--scores", saved / "pipeline.json"
    )
    assert not (tmp_path / "x").exists()


def test_the_hub_refuses_what_it_does_not_know(saved, corpus):
    difformer_plugin.register()
    from difformer_plugin.families.base import DiffusionModel

    hub = DiffusionModel.from_pretrained(str(saved), decoding_steps=3)
    text = lines(corpus.raw / "test.de")
    assert hub.translate(text, seed=1) != hub.translate(text, seed=2)
    assert hub.translate(text) == hub.translate(text, seed=8)  # the seed of the training
    for options, said in (
        ({"lenght_beam_size": 3}, "no such option as lenght_beam_size; did you mean length_beam_"),
        ({"beam": 5}, "beam: diffusion decoding has no beam search"),
        ({"seed": "1"}, "seed must be a whole number"),
        ({"sampling_topk": 3}, "no such option as sampling_topk"),
    ):
        with pytest.raises(UserError, match=said):
            hub.translate(text, **options)
    with pytest.raises(UserError, match="beam: diffusion decoding"):
        hub.generate([hub.encode(text[0])], 5)
    with pytest.raises(UserError, match="from_pretrained: no such option as decoding_stps; did yo"):
        DiffusionModel.from_pretrained(str(saved), decoding_stps=3)
    tokens = hub.encode(text[0])
    assert hub.decode(hub.generate(tokens)[0]["tokens"]) == hub.translate(text[0])
