"""difformer tune, and --decoding-settings in all commands that translate."""

import json
import re
import tomllib

import pytest
from harness import SENTENCES, TASK, error_line, lines, load, logged, run, succeed
from sacrebleu.metrics import BLEU

import difformer_plugin
from difformer_plugin.errors import UserError

BEAMS = ["--length-beam-size", 2, "--noise-beam-size", 2, "--bleu-mbr"]
OPTIONS = ["--decoding-steps", 4, *BEAMS]
SETTINGS = """# of the same options
decoding_steps = 4
length_beam_size = 2
noise_beam_size = 2
bleu_mbr = true
"""


@pytest.fixture
def file(tmp_path):
    """A function that makes a settings file."""

    def file(text=SETTINGS):
        path = tmp_path / "settings.toml"
        path.write_text(text, "utf-8")
        return path

    return file


@pytest.fixture(scope="module")
def expected(corpus, model, tmp_path_factory):
    """Translations with the options on the command line, and without any."""
    folder = tmp_path_factory.mktemp("expected")
    command = ("fairseq-generate", corpus.joined, *TASK, "--path", model)
    with_options = succeed(folder, *command, *OPTIONS).translations()
    assert with_options != succeed(folder, *command).translations()
    return with_options


def test_settings_file_acts_like_its_options(corpus, model, expected, file, tmp_path):
    command = ["fairseq-generate", corpus.joined, *TASK, "--path", model]
    command += ["--decoding-settings", file()]
    outcome = succeed(tmp_path, *command)
    assert outcome.translations() == expected
    assert "settings.toml: decoding_steps = 4, length_beam_size = 2" in outcome.out
    same = succeed(tmp_path, *command, "--decoding-steps", 4, "--noise-beam-size", 2)
    assert same.translations() == expected
    part = ["--decoding-settings", file("decoding_steps = 4"), *BEAMS]
    assert succeed(tmp_path, *command[:-2], *part).translations() == expected


def test_interactive_takes_a_settings_file(corpus, model, expected, file, tmp_path):
    outcome = succeed(
        tmp_path,
        *("fairseq-interactive", corpus.joined, *TASK, "--path", model, "--buffer-size", 30),
        *("--input", corpus.text / "test.de", "--decoding-settings", file()),
    )
    assert outcome.translations() == expected


@pytest.mark.parametrize(
    "text, options, said",
    [
        ("decoding_stesp = 4", [], "no such option as decoding_stesp; there are .*decoding_steps"),
        ("decoding_steps = '4'", [], "decoding_steps must be a whole number"),
        ("decoding_steps: 4", [], "is not a TOML file"),
        ("race_after = 3", [], "--race-keep 1 of 1 candidates.*with the options that"),
        ("decoding_steps = 5000", [], "steps, not 5000.*with the options that"),
        ("decoding_steps = 4", ["--decoding-steps", 9], r"both --decoding-steps 9 .*: leave one"),
    ],
)
def test_unusable_settings_file_is_refused_in_one_line(
    corpus, model, file, tmp_path, text, options, said
):
    path = file(text)
    command = ["fairseq-generate", corpus.joined, *TASK, "--path", model, *options]
    line = error_line(run(tmp_path, *command, "--decoding-settings", path))
    assert re.search(said, line) and str(path) in line


def test_arguments_from_python_override_the_settings_file(corpus, model, file):
    difformer_plugin.register()
    from difformer_plugin.families.embeddings.model import Difformer

    def hub(**options):
        names = (str(model.parent), model.name, str(corpus.joined))
        return Difformer.from_pretrained(*names, **options)

    sources = lines(corpus.text / "test.de")[:5]
    translator, plain = hub(decoding_settings=str(file())), hub()
    same = hub(decoding_steps=4, length_beam_size=2, noise_beam_size=2, bleu_mbr=True)
    assert translator.translate(sources) == same.translate(sources) != plain.translate(sources)
    other = {"decoding_steps": 20, "length_beam_size": 1, "noise_beam_size": 1, "bleu_mbr": False}
    assert translator.translate(sources, **other) == plain.translate(sources)
    assert plain.translate(sources, decoding_settings=str(file())) == translator.translate(sources)
    with pytest.raises(UserError, match="No such file"):
        plain.translate(sources, decoding_settings="nowhere.toml")


def test_checkpoint_may_name_a_settings_file_that_is_gone(corpus, model, file, tmp_path):
    """It is asked for where a sentence is translated, and nowhere before."""
    import torch

    checkpoint = load(model)
    checkpoint["cfg"]["task"]["decoding_settings"] = str(tmp_path / "gone.toml")
    assert checkpoint["cfg"]["task"]["eval_bleu"]
    path = tmp_path / "model.pt"
    torch.save(checkpoint, path)
    probe = ("difformer", "probe", corpus.joined, "--path", path, "--cpu", "--points", 2)
    succeed(tmp_path, *probe)
    validate = ("fairseq-validate", corpus.joined, *TASK, "--path", path, "--batch-size", 30)
    assert "gone.toml: No such file" in error_line(run(tmp_path, *validate))
    given = succeed(tmp_path, *validate, "--decoding-settings", file("length_beam_size = 2"))
    assert "settings.toml: length_beam_size = 2" in given.out
    assert len(logged(given.out, "valid")) == 1 and "bleu" in logged(given.out, "valid")[0]


TUNE = ["--length-beam-size", 2, "--noise-beam-size", 2, "--decoding-steps", 6, "--cpu"]
QUICK = ["--precisions", "fp32", "--batch-size", 8, "--repeats", 1, "--max-loss", 100]


def test_tune_writes_settings_for_generate(corpus, model, tmp_path):
    out = tmp_path / "new" / "settings.toml"
    extras = ["--json", tmp_path / "all.json", "--plot", tmp_path / "front.png"]
    command = ["difformer", "tune", corpus.joined, "--path", model, "--out", out, *TUNE]
    outcome = succeed(tmp_path, *command, *QUICK, "--max-trials", 6, *extras)
    text = out.read_text("utf-8")
    values, found = tomllib.loads(text), json.loads((tmp_path / "all.json").read_text("utf-8"))
    chosen, reference = found["chosen"], found["reference"]
    assert values.items() <= (chosen | {"bleu_mbr": True}).items()
    # with any loss allowed
    assert values["decoding_steps"] - values["decoding_early_stopping"] <= 2
    assert (reference["decoding_steps"], reference["length_beam_size"]) == (6, 2)
    assert chosen["ratio"] > 1 and reference["ratio"] == 1
    assert f"{chosen['ratio']:.1f} times the reference" in text and f"{SENTENCES} " in text
    assert "tok:none" in text and "torch" in text
    assert f"r {reference['name']}" in outcome.out and f"* {chosen['name']}" in outcome.out
    assert (tmp_path / "front.png").stat().st_size > 1000

    generate = ["fairseq-generate", corpus.joined, *TASK, "--path", model, "--batch-size", 8]
    generate += ["--gen-subset", "valid", "--seed", 1, "--decoding-settings", out]
    best = succeed(tmp_path, *generate, "--remove-bpe")
    pairs = zip(sorted(best.translations().items()), sorted(best.lines("T")), strict=True)
    texts = [(hypothesis, reference) for (_, hypothesis), (_, reference) in pairs]
    hypotheses, references = zip(*texts)
    score = BLEU(tokenize="none", force=True).corpus_score(hypotheses, [references]).score
    assert score == pytest.approx(chosen["bleu"])

    before = (tmp_path / "new" / "settings.toml.journal").read_bytes()
    again = succeed(tmp_path, *command, *QUICK, "--max-trials", 6)
    assert again.out == outcome.out and out.read_text("utf-8") == text
    assert (tmp_path / "new" / "settings.toml.journal").read_bytes() == before
    other = error_line(run(tmp_path, *command, *QUICK, "--seed", 2))
    assert "settings.toml.journal" in other and "another --seed" in other


@pytest.mark.slow
def test_fitted_weights_are_those_that_generate_uses(corpus, model, teacher, tmp_path):
    """The settings file makes fairseq-generate choose what was chosen; other names draw nothing."""
    out = tmp_path / "rerank.toml"
    paths = f"{model}:{teacher}"
    command = ["difformer", "tune", corpus.joined, "--path", paths, "--out", out, *TUNE]
    command += ["--batch-size", 8, "--json", tmp_path / "all.json", "--fit-rerank"]
    outcome = succeed(tmp_path, *command, "mbr,length,likelihood,teacher")
    values = tomllib.loads(out.read_text("utf-8"))
    found = json.loads((tmp_path / "all.json").read_text("utf-8"))
    assert values["rerank"] == found["rerank"] and "bleu_mbr" not in values
    assert values["decoding_steps"] == 6 and values["length_beam_size"] == 2
    assert f"{found['oracle']:.2f}" in outcome.out and found["rerank"] in outcome.out
    generate = ["fairseq-generate", corpus.joined, *TASK, "--path", paths, "--batch-size", 8]
    generate += ["--gen-subset", "valid", "--seed", 1, "--decoding-settings", out, "--remove-bpe"]
    if "teacher" not in values["rerank"]:
        generate[generate.index(paths)] = model
    best = succeed(tmp_path, *generate)
    pairs = zip(sorted(best.translations().items()), sorted(best.lines("T")), strict=True)
    hypotheses, references = zip(*((hypothesis, ref) for (_, hypothesis), (_, ref) in pairs))
    score = BLEU(tokenize="none", force=True).corpus_score(hypotheses, [references]).score
    assert score == pytest.approx(found["bleu"])

    journal = tmp_path / "rerank.toml.candidates"
    before = journal.read_bytes()
    again = succeed(tmp_path, *command, "mbr,length,likelihood,teacher")
    assert again.out == outcome.out and journal.read_bytes() == before
    command[command.index(paths)] = model
    succeed(tmp_path, *command, "mbr,length")  # without the teacher, of the same candidates
    assert journal.read_bytes() == before
    journal.write_bytes(before[: len(before) // 2])
    succeed(tmp_path, *command, "mbr,length")
    assert journal.read_bytes().startswith(before[: len(before) // 4])
    assert "another --seed" in error_line(run(tmp_path, *command, "mbr,length", "--seed", 2))
    assert "needs a teacher" in error_line(run(tmp_path, *command, "mbr,teacher"))


@pytest.mark.slow
def test_tune_resumes_after_an_interruption(corpus, model, tmp_path):
    """The journal is cut where a kill might cut it; the whole lines before stay as they were."""
    command = ["difformer", "tune", corpus.joined, "--path", model, *TUNE, *QUICK]
    command += ["--max-trials", 4, "--max-loss", 1]
    succeed(tmp_path, *command, "--out", tmp_path / "whole.toml")
    journal = (tmp_path / "whole.toml.journal").read_bytes()
    kept = journal[: len(journal) // 2]
    (tmp_path / "cut.toml.journal").write_bytes(kept)
    succeed(tmp_path, *command, "--out", tmp_path / "cut.toml")
    resumed = (tmp_path / "cut.toml.journal").read_bytes()
    whole_lines = kept[: kept.rindex(b"\n") + 1]
    assert resumed.startswith(whole_lines) and len(resumed) > len(kept)


def test_tune_refuses_wrong_input_in_one_line(corpus, model, teacher, tmp_path):
    def said(*options, path=model):
        command = ("difformer", "tune", corpus.joined, "--path", path, "--cpu")
        return error_line(run(tmp_path, *command, "--out", tmp_path / "out.toml", *options))

    assert "--max-loss must be at least 0" in said("--max-loss", -1)
    assert "--batch-size must be at least 1" in said("--batch-size", 0)
    assert "--precisions: no such precision as int9" in said("--precisions", "int9")
    assert "--length-beam-size" in said("--length-beam-size", 0)
    assert "not a diffusion model" in said(path=teacher)
    assert "--bleu-mbr and --ppl-mbr exclude" in said("--ppl-mbr", "--bleu-mbr")
    assert "needs a teacher" in said("--ppl-mbr")
    assert "nothing.toml: No such file" in said("--decoding-settings", "nothing.toml")
    assert "--fit-rerank mbr,best: no such reranker as 'best'" in said("--fit-rerank", "mbr,best")
    assert "--max-loss belongs to" in said("--fit-rerank", "mbr,length", "--max-loss", 1)
    assert "end the name in .png" in said("--plot", "front.txt")
    assert not (tmp_path / "out.toml").exists()
