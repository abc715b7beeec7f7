"""What the command `difformer` says of itself: overview, help, examples, completion, options."""

import argparse
import errno
import re
import shlex
import subprocess

import pytest

from difformer_plugin.cli import main as command_line
from difformer_plugin.cli import prepare, print_result
from difformer_plugin.cli.main import SUBCOMMANDS, build_parser, main


def parsers(parser=None, name=""):
    """(name, parser) of each command, and of the commands within commands."""
    for action in (parser or build_parser())._actions:
        if isinstance(action, argparse._SubParsersAction):
            for word, own in action.choices.items():
                yield f"{name} {word}".strip(), own
                yield from parsers(own, f"{name} {word}".strip())


def printed(capsys, *words):
    assert main(words) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("words", [(), ("help",)])
def test_the_overview_has_a_line_for_each_command_in_the_order_of_work(words, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    text = printed(capsys, *words)
    lines = text.split("COMMAND\n", 1)[1].split("\n\n")[0].splitlines()
    names = [line.split()[0] for line in lines]
    assert all(re.fullmatch(r"    [\w-]+ +\S.*", line) for line in lines)
    assert names == [name for name, _ in parsers() if " " not in name]
    assert len(names) == len(SUBCOMMANDS) + 1
    work = ["prepare", "distill", "average", "translate", "evaluate", "tune"]
    assert [name for name in names if name in work] == work
    assert "fairseq-train" in text


@pytest.mark.parametrize("name, parser", [pytest.param(*pair, id=pair[0]) for pair in parsers()])
def test_every_help_has_a_description_and_examples_that_parse(name, parser, capsys):
    assert len(parser.description.split()) >= 5
    title, *examples = parser.epilog.splitlines()
    assert title == "examples:" and examples
    for example in examples:
        program, *words = shlex.split(re.split(r" [<>] ", example)[0])
        assert program == "difformer" and " ".join(words).startswith(name)
        assert build_parser().parse_args(words).run
    with pytest.raises(SystemExit) as exited:
        main(["help", *name.split()])
    help_page = capsys.readouterr().out
    assert exited.value.code == 0 and parser.epilog in help_page
    with pytest.raises(SystemExit):
        main([*name.split(), "--help"])
    assert capsys.readouterr().out == help_page


COMMANDS = {
    "probe": ["probe", "bin", "--path", "m.pt"],
    "tune": ["tune", "bin", "--path", "m.pt", "--out", "s.toml"],
    "bench": ["bench", "decode", "bin"],
}


@pytest.mark.parametrize(
    "name, old, default",
    [
        ("probe", "--gen-subset", "valid"),
        ("tune", "--gen-subset", "valid"),
        ("bench", "--subset", "test"),
    ],
)
def test_a_split_is_called_split_and_its_older_names_work(name, old, default):
    parse = build_parser().parse_args
    for option in ("--split", old):
        own = vars(parse([*COMMANDS[name], option, "other"]))
        assert "other" in (own.get("gen_subset"), own.get("subset"))
    own = vars(parse(COMMANDS[name]))
    assert default in (own.get("gen_subset"), own.get("subset"))


@pytest.mark.parametrize("name, parser", [pytest.param(*pair, id=pair[0]) for pair in parsers()])
def test_json_is_a_flag_everywhere_and_its_file_is_json_out(name, parser):
    """--json FILE of bench and tune still means --json-out FILE: see their tests."""
    options = parser._option_string_actions
    assert ("--json" in options) == ("--json-out" in options)
    assert not {"--gen-subset", "--subset"} & set(re.findall(r"--[\w-]+", parser.format_usage()))


def test_where_json_goes(tmp_path, capsys, monkeypatch):
    arguments = ["factor", "--vocab-size", "50", "--rescaling-factor", "2", "--timesteps", "500"]
    plain = printed(capsys, *arguments)
    figures = printed(capsys, *arguments, "--json")
    file = tmp_path / "factor.json"
    assert printed(capsys, *arguments, "--json-out", str(file)) == plain
    assert file.read_text() + "\n" == figures != plain
    assert main([*arguments, "--json-out", str(tmp_path)]) == 2
    assert "is a folder: name a file" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, found",
    [
        (["difformer", "pre"], {"prepare"}),
        (["difformer", "bench", ""], {"decode", "train"}),
        (["difformer", "average", "--b"], {"--best"}),
    ],
)
def test_bash_completes(words, found, capsys):
    """By the script itself, in a bash of its own."""
    script = printed(capsys, "completion", "bash")
    call = f"COMP_WORDS=({' '.join(map(shlex.quote, words))}); COMP_CWORD={len(words) - 1}"
    lines = f"{script}\n{call}\n_shtab_difformer\nprintf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    done = subprocess.run(["bash", "-c", lines], capture_output=True, text=True)
    assert found <= {word.strip() for word in done.stdout.split()}, done.stderr


def test_files_are_completed_where_files_are_meant(capsys):
    script = printed(capsys, "completion", "zsh")
    assert re.search(r"--out\[checkpoint to write\]:FILE:_files\W", script)
    assert re.search(r"--raw\[.*?\]:FOLDER:_files -/", script)


def test_options_prints_those_of_the_plug_in(capsys):
    everything = printed(capsys, "options")
    for option in ("--rescaling-factor", "--process", "--mse-factor", "--length-beam-size"):
        assert f"\n{option}" in everything
    decoding = printed(capsys, "options", "decoding")
    assert "--length-beam-size" in decoding and "--rescaling-factor VALUE" not in decoding
    preset = printed(capsys, "options", "model", "--arch", "difformer_paper_iwslt_de_en")
    flat = " ".join(preset.split())
    assert "(default: 0.3)" in flat and "(default: 4.0)" in flat and "--process" not in flat
    assert re.search(r"--self-cond .{20,90}\(on; off with --no-self-cond\)", flat)
    plain = " ".join(printed(capsys, "options", "model", "--arch", "difformer").split())
    assert "(default: 1.0)" in plain and "--no-self-cond" not in plain
    assert main(["options", "--arch", "transformer"]) == 2
    line = capsys.readouterr().err
    assert "--arch transformer: no such diffusion model; there are " in line
    assert " difformer_paper_tiny" in line


@pytest.mark.parametrize("words, goes_on", [(["prepare", "plain"], True), (["user-dir"], False)])
def test_ctrl_c_says_whether_the_same_command_goes_on(words, goes_on, monkeypatch, capsys):
    def interrupted(args):
        raise KeyboardInterrupt

    monkeypatch.setattr(prepare, "run", interrupted)
    monkeypatch.setattr(command_line.user_dir, "run", interrupted)
    assert main(words) == 130
    said = capsys.readouterr().err
    assert said == f"interrupted{': the same command goes on from here' * goes_on}\n"


@pytest.mark.parametrize(
    "words, said",
    [
        (["translate", "m", "--beam", "5"], "--beam 5; .* give --length-beam-size and --noise-b"),
        (["translate", "m", "--force-length=5"], "`force_length = ...` to the file of --decoding-"),
        (["translate", "m", "--nonsense"], "unrecognized arguments: --nonsense$"),
        (["factor", "--beam", "5"], "unrecognized arguments: --beam 5$"),
    ],
)
def test_options_that_a_command_does_not_have(words, said, capsys):
    with pytest.raises(SystemExit) as exited:
        main(words)
    assert exited.value.code == 2
    assert re.search(said, capsys.readouterr().err.rstrip(), re.MULTILINE)


@pytest.mark.parametrize(
    "command, remedy",
    [
        ("user-dir", "free some space and run the command again"),
        ("demo", "free some space and go on: the same command goes on from here"),
    ],
)
def test_a_full_disk_names_a_remedy(monkeypatch, capsys, command, remedy):
    def fill_up(args):
        raise OSError(errno.ENOSPC, "No space left on device")

    args = build_parser().parse_args([command])
    args.run = fill_up
    monkeypatch.setattr(argparse.ArgumentParser, "parse_known_args", lambda *given: (args, []))
    assert main([command]) == 2
    assert f"No space left on device: {remedy}" in capsys.readouterr().err


def test_a_report_is_printed_even_if_its_file_cannot_be_written(tmp_path, capsys):
    (tmp_path / "file").touch()
    args = argparse.Namespace(json=False, json_out=tmp_path / "file" / "scores.json")
    with pytest.raises(OSError):
        print_result(args, {"bleu": 1.5}, lambda: "BLEU 1.5")
    assert capsys.readouterr().out == "BLEU 1.5\n"
