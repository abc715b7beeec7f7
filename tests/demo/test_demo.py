"""`difformer demo`: its options, its commands, and all of it at a tiny size."""

import re
from pathlib import Path

import pytest

from difformer_plugin.cli.main import build_parser, main
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.demo.commands import fairseq_commands
from difformer_plugin.demo.run import check_training, corpus_key
from difformer_plugin.demo.settings import Settings
from difformer_plugin.errors import UserError


def run(*options):
    return main(["demo", *map(str, options)])


def test_the_defaults_of_the_command_are_those_of_the_settings():
    args = vars(build_parser().parse_args(["demo"]))
    assert Settings(**{name: args[name] for name in vars(Settings(args["out"]))}) == Settings(
        args["out"]
    )


@pytest.mark.parametrize(
    "options, said",
    [
        (["--max-update", 0], "--max-update must be at least 1"),
        (["--source-lang", "fr"], "give --data"),
        (["--train-size", 0], "--train-size"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_impossible_options_are_refused(tmp_path, capsys, options, said):
    assert run("--out", tmp_path / "out", *options) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_commands_for_data_of_the_users_own():
    out = Path("demo-run")
    settings = Settings(out, Path("raw"), source_lang="fr", max_update=7, seed=5)
    preprocess, train, generate = map(" ".join, fairseq_commands(settings))
    assert "--source-lang fr --target-lang en" in preprocess and "--joined-dict" in preprocess
    assert "--max-update 7 --seed 5" in train
    assert "--remove-bpe" in generate and "demo-run/checkpoints/checkpoint_last.pt" in generate
    assert "--remove-bpe" not in fairseq_commands(Settings(out))[2]


def test_another_seed_of_training_is_the_same_corpus(tmp_path):
    first, other = (Settings(tmp_path, seed=seed) for seed in (1, 2))
    assert corpus_key(first) == corpus_key(other)
    assert corpus_key(first) != corpus_key(Settings(tmp_path, corpus_seed=2))
    assert fairseq_commands(first)[1] != fairseq_commands(other)[1]


def test_a_training_goes_on_with_its_own_seed_and_no_fewer_updates(tmp_path):
    check_training(Settings(tmp_path, max_update=100))
    check_training(Settings(tmp_path, max_update=200))
    for other in (Settings(tmp_path, max_update=200, seed=2), Settings(tmp_path, max_update=199)):
        with pytest.raises(UserError, match="--seed 1 and --max-update 200: give another --out"):
            check_training(other)


@pytest.mark.slow
@pytest.mark.parametrize(
    "own_data",
    [
        pytest.param(False, id="synthetic"),
        pytest.param(True, id="own data", marks=pytest.mark.slow),
    ],
)
def test_the_whole_demo_at_a_tiny_size(tmp_path, capfd, own_data):
    options = ["--out", tmp_path / "out", "--max-update", 3]
    if own_data:
        write_corpus(tmp_path / "raw", seed=2, train=120, valid=8, test=11)
        options += ["--data", tmp_path / "raw"]
    else:
        options += ["--train-size", 120, "--test-size", 11]
    assert run(*options) == 0
    shown = capfd.readouterr().out
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert report in shown and "num_updates 3" in shown
    for command in ("fairseq-preprocess ", "fairseq-train ", "fairseq-generate "):
        assert f"\n$ {command}" in shown and f"\n  {command}" in report
    assert "on 11 test sentences" in report and "|version:" in report
    assert report.count("\n  source     ") == 10 + ("emerges\n" in report)

    assert run(*options) == 0  # only the report is left to do
    again = capfd.readouterr().out
    assert "\n$ fairseq" not in again and again.count("(done in an earlier run)") == 4


@pytest.mark.slow
def test_the_demo_learns_to_translate(tmp_path):
    """As `make demo` runs it: seven minutes on two idle cores."""
    assert run("--out", tmp_path / "out") == 0
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    bleu = float(re.search(r"\|version:\S+ = ([\d.]+)", report).group(1))
    assert bleu >= 60
