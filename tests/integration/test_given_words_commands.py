"""Words that are given, in fairseq's commands, `difformer translate` and `from_pretrained`.

All in this process, since importing fairseq takes longer than these commands.
"""

import importlib
import json
import re
import shutil
import sys

import pytest
import torch
from harness import FAIRSEQ, SENTENCES, lines

import difformer_plugin
from difformer_plugin.cli.main import main
from difformer_plugin.data import pipeline
from difformer_plugin.errors import UserError

STEPS = ["--decoding-steps", "3", "--seed", "5"]
COUNT = 6


@pytest.fixture(scope="module")
def folder(corpus, model, tmp_path_factory):
    """The model beside all that `difformer translate` wants to know."""
    folder = tmp_path_factory.mktemp("given") / "model"
    shutil.copytree(corpus.joined, folder)
    pipeline.save(pipeline.load(corpus.text), folder, corpus.codes)
    shutil.copy(model, folder / "model.pt")
    return folder


@pytest.fixture(scope="module")
def hub(folder):
    difformer_plugin.register()
    from difformer_plugin.families.embeddings.model import Difformer

    return Difformer.from_pretrained(str(folder), decoding_steps=3, seed=5)


@pytest.fixture(scope="module")
def words(corpus):
    """For each of the first sentences given words, raw and in subwords."""
    raw, subwords = (lines(path / "test.en")[-COUNT:] for path in (corpus.raw, corpus.text))
    found = []
    for i, (text, own) in enumerate(zip(raw, subwords, strict=True)):
        assert text.endswith((".", "?")) and own.endswith((" .", " ?"))
        first = own.split(" ")[0] if not own.split(" ")[0].endswith("@@") else None
        # each has a suffix, and some a prefix
        tables = [{"suffix": text[-1]}, {"suffix": own[-1]}]
        if first and i % 2:
            tables = [table | {"prefix": first} for table in tables]
        found.append(tables)
    found[2] = [None, None]
    return found


@pytest.fixture
def files(words, tmp_path):
    """The same words in two files, raw and in subwords."""
    paths = tmp_path / "raw.jsonl", tmp_path / "subwords.jsonl"
    for path, tables in zip(paths, zip(*words, strict=True), strict=True):
        path.write_text("".join(f"{json.dumps(t) if t else ''}\n" for t in tables), "utf-8")
    return paths


@pytest.fixture
def run(corpus, folder, hub, monkeypatch, capsys):
    """A function that runs one of fairseq's commands: number of the line -> kind -> text."""

    def run(command, *options):
        argv = [command, corpus.joined, "--task", "diffusion_translation", "--cpu", *STEPS]
        argv += ["--path", folder / "model.pt", *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in argv])
        capsys.readouterr()
        importlib.import_module(FAIRSEQ[command]).cli_main()
        found = {}
        printed = capsys.readouterr().out
        for kind, number, text in re.findall(r"^([HD])-(\d+)\t[^\t]*\t(.*)$", printed, re.M):
            found.setdefault(int(number), {})[kind] = text
        return [found[i] for i in sorted(found)]

    return run


@pytest.fixture
def source(corpus, tmp_path):
    """A function that writes the first sentences to a file, raw or in subwords."""

    def source(kind):
        path = tmp_path / "source"
        path.write_text("".join(f"{x}\n" for x in lines(kind / "test.de")[:COUNT]), "utf-8")
        return path

    return source


def translate(folder, source, output, *options):
    argv = ["translate", folder, "--input", source, "--output", output, "--cpu", *STEPS, *options]
    return main([str(word) for word in argv])


def test_a_file_of_words_in_all_commands(run, hub, folder, corpus, source, files, words, tmp_path):
    raw_words, subwords = files
    read = ["--buffer-size", "4", "--batch-size", "2", "--input", source(corpus.text)]
    answers = run("fairseq-interactive", *read, "--constraints-file", subwords)
    free = run("fairseq-interactive", *read)
    assert answers[2] == free[2] and answers != free
    for answer, (_, table) in zip(answers, words, strict=True):
        if table is not None:
            assert answer["H"].split()[-1] == table["suffix"]
            assert answer["H"].startswith(table.get("prefix", ""))
    raw = lines(corpus.raw / "test.de")[:COUNT]
    found = hub.translate(raw, constraints_file=str(subwords))
    assert hub.translate(raw) != found
    output = tmp_path / "output"
    assert translate(folder, source(corpus.raw), output, "--constraints-file", raw_words) == 0
    assert lines(output) == found
    # What interactive decodes in subwords is that after tokeniser and subwords are undone.
    assert [hub.detokenize(hub.remove_bpe(a["H"])) for a in answers] == found


def test_first_words_of_references(run, hub, corpus):
    generated = run("fairseq-generate", "--batch-size", "8", "--prefix-size", "3")
    references = [text.split(" ") for text in lines(corpus.text / "test.en")]
    assert len(generated) == SENTENCES
    for answer, reference in zip(generated, references, strict=True):
        assert answer["H"].split(" ")[:3] == reference[:3]
    # in an order that is not that of the lengths, by which batches are made
    order = list(range(0, SENTENCES, 4))
    sources = [hub.encode(lines(corpus.raw / "test.de")[i]) for i in order]
    assert len({len(s) for s in sources}) > 2
    dictionary = hub.task.target_dictionary
    prefixes = torch.tensor([[dictionary.index(w) for w in references[i][:3]] for i in order])
    found = hub.generate(sources, inference_step_args={"prefix_tokens": prefixes})
    shown = [dictionary.string(hypotheses[0]["tokens"]) for hypotheses in found]
    assert shown == [generated[i]["H"] for i in order]
    alone = hub.generate(sources[1], inference_step_args={"prefix_tokens": prefixes[1:2]})
    assert dictionary.string(alone[0]["tokens"]) == shown[1]


def test_what_the_hub_refuses(hub, corpus, files):
    raw, subwords = lines(corpus.raw / "test.de"), str(files[1])
    for count in (COUNT - 1, COUNT + 1):
        with pytest.raises(UserError, match=f"has 6 lines, but the input has {count} sentences"):
            hub.translate(raw[:count], constraints_file=subwords)
    tokens = [hub.encode(text) for text in raw[:2]]
    prefix = {"prefix_tokens": torch.tensor([[5], [6]])}
    for given, options, said in (
        (prefix, {"constraints_file": subwords}, "exclude each other"),
        ({"prefix_tokens": torch.tensor([[5]])}, {}, "a tensor of 2 rows"),
        ({"constraints": 1}, {}, "no such argument as constraints; give prefix_tokens, or"),
        (None, {"infill": "z_t"}, "--infill has no effect where no words are given"),
        (None, {"nbest": 2}, "--nbest 2 needs as many candidates, and there are 1"),
    ):
        with pytest.raises(UserError, match=said):
            hub.generate(tokens, inference_step_args=given, **options)
    assert hub.generate(tokens, inference_step_args=prefix, infill="z_t")


def test_all_lines_are_checked_before_translation_begins(folder, corpus, source, tmp_path, capsys):
    raw, given, output = source(corpus.raw), tmp_path / "given", tmp_path / "output"
    long = tmp_path / "long"
    settings = tmp_path / "settings.toml"
    settings.write_text("force_length = 2\n", "utf-8")
    forced = ["--decoding-settings", settings]
    long.write_text("\n".join(["Gut."] * (COUNT - 1) + ["Gut. " * 99]) + "\n", "utf-8")
    many = {"prefix": "The " * 300}
    few = {"prefix": "The The The"}
    for text, table, options, said in (
        (raw, many, [], "have 300 subwords"),
        (raw, few, forced, "asks for 2 subwords"),
        (long, few, [], f"line {COUNT} of the input is too long"),
    ):
        given.write_text("\n" * (COUNT - 1) + json.dumps(table) + "\n", "utf-8")
        words = ["--constraints-file", given, "--batch-size", "1", *options]
        assert translate(folder, text, output, *words) == 2
        printed = capsys.readouterr().err
        assert f"{given}, line {COUNT}: " in printed and said in printed
        assert not output.exists() and not (tmp_path / "output.translating").exists()
    words = ["--constraints-file", str(given), "--decoding-settings", str(settings)]
    assert main(["translate", str(folder), "--input", str(raw), "--cpu", *STEPS, *words]) == 2
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "command, options, said",
    [
        ("fairseq-interactive", ["--prefix-size", "2"], "--prefix-size is not available"),
        ("fairseq-interactive", ["--input", "none"], "--input none: no such file"),
        ("fairseq-interactive", ["--infill", "z_t"], "--infill has no effect"),
        ("fairseq-generate", ["--prefix-size", "2", "--constraints-file", "F"], "exclude"),
        ("fairseq-generate", ["--nbest", "2"], "--nbest 2 needs as many candidates"),
    ],
)
def test_what_the_commands_refuse(run, files, command, options, said):
    with pytest.raises(UserError, match=said):
        run(command, *(files[1] if word == "F" else word for word in options))
