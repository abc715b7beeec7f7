"""The demo: its stages, its report, and all of it at a tiny size."""

import argparse
import json
import re

import pytest
import sacrebleu

from difformer_plugin.cli import demo
from difformer_plugin.data.synthetic.grammar import write_corpus
from difformer_plugin.demo import report as demo_report
from difformer_plugin.errors import UserError

GENERATED = """\
2024-01-01 00:00:00 | INFO | fairseq_cli.generate | loading model(s)
S-1\tEine Frau schläft .
T-1\tA woman sleeps .
H-1\t-0.25\tA woman sle@@ eps .
D-1\t-0.25\tA woman sle@@ eps .
P-1\t-0.1000 -0.2000
E-1_0\t<s> the the sle@@ eps .
E-1_1\t<s> A woman sle@@ eps .
E-1_2\t<s> A woman sle@@ eps .
S-0\tDas ist gut .
T-0\tThat &apos;s good .
H-0\t-0.5\tThat &apos;s good .
E-0_0\t<s> That &apos;s good .
E-0_1\t<s> That &apos;s good .
Generate test with beam=6: BLEU4 = 1.23
"""
PAIRS = [("Das ist gut.", "That's good."), ("Eine Frau schläft.", "A woman sleeps.")]
STAGES = [
    ("corpus", [], 2.0, True),
    ("fairseq-train", ["fairseq-train", "data", "--adam-betas", "(0.9, 0.98)"], 61.5, False),
]


@pytest.fixture
def outputs():
    return demo_report.parse_outputs(GENERATED.splitlines(keepends=True))


def parse(*options):
    parser = argparse.ArgumentParser()
    demo.add_parser(parser.add_subparsers())
    return parser.parse_args(["demo", *map(str, options)])


def test_parse_outputs(outputs):
    assert outputs.best == {0: "That &apos;s good .", 1: "A woman sleeps ."}
    assert outputs.steps[1] == ["the the sleeps ."] + ["A woman sleeps ."] * 2
    assert demo_report.translations(outputs, 2, "en") == ["That's good.", "A woman sleeps."]


@pytest.mark.parametrize("count, said", [(3, r"2 sentences .* 3 .*\[2\]"), (1, "2 sentences .* 1")])
def test_a_lost_or_foreign_sentence_is_an_error(outputs, count, said):
    with pytest.raises(UserError, match=said):
        demo_report.translations(outputs, count, "en")


def test_emergence_takes_a_sentence_that_changed(outputs):
    assert demo_report.choose_emergence(outputs) == 1
    assert demo_report.render_emergence(outputs.steps[1]) == [
        "  step 1       the the sleeps .",
        "  step 2-3     A woman sleeps .",
    ]
    del outputs.steps[1]
    assert demo_report.choose_emergence(outputs) is None
    assert "no output changed" in demo_report.render(STAGES, PAIRS, outputs, "en")


def test_report(outputs):
    report = demo_report.render(STAGES, PAIRS, outputs, "en")
    assert "  fairseq-train data --adam-betas '(0.9, 0.98)'\n" in report
    assert "corpus                    2.0 s  (done in an earlier run)\n" in report
    assert "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|" in report and " = 100.00 " in report
    assert "  source     Das ist gut.\n  reference  That's good.\n  output     That's" in report
    assert "source       Eine Frau schläft." in report


def test_limits_tell_wrong_lengths_from_wrong_words():
    references = ["one two three four five six."] * 3 + ["a b c d e."]
    hypotheses = [references[0], "one two three four five nine.", "one two three.", "a b c d e."]
    exact, right, wrong = demo_report.limits(hypotheses, references)
    assert exact == "exactly the reference: 2 of 4 sentences"
    chosen = [0, 1, 3]
    expected = sacrebleu.corpus_bleu(
        [hypotheses[i] for i in chosen], [[references[i] for i in chosen]]
    )
    assert right.endswith(f"number of words: 3 sentences, BLEU {expected.score:.2f}")
    assert wrong.startswith("with another number: 1 sentences, BLEU ")


def test_examples_are_spread_over_the_test_set():
    texts = [str(number) for number in range(105)]
    lines = demo_report.render_examples(texts, texts, texts)
    assert [line for line in lines if "source" in line][::9] == [
        "  source     0",
        "  source     90",
    ]
    assert len(demo_report.render_examples(texts[:3], texts, texts)) == 3 * 4


def test_stages_are_skipped_until_something_before_them_changes(tmp_path):
    ran = []

    def go(first, second, broken=False):
        ran.clear()
        stages = demo.Stages(tmp_path)
        stages.call("corpus", ["synthetic"], lambda: ran.append("corpus"))
        stages.run("a", [first], lambda: ran.append("a"))
        stages.run("b", [second], lambda: 1 / 0 if broken else ran.append("b"))
        return ran, [skipped for *_, skipped in stages.done]

    assert go("1", "1") == (["corpus", "a", "b"], [False] * 3)
    assert go("1", "1") == ([], [True] * 3)
    assert go("1", "2") == (["b"], [True, True, False])
    assert go("2", "2") == (["a", "b"], [True, False, False])
    with pytest.raises(ZeroDivisionError):
        go("2", "3", broken=True)
    assert go("2", "2") == (["b"], [True, True, False])  # b may be half overwritten
    with pytest.raises(UserError, match="another corpus"):
        demo.Stages(tmp_path).call("corpus", ["other"], lambda: None)
    assert set(json.loads((tmp_path / "stages.json").read_text())) == {"corpus", "a", "b"}


def test_execute_shows_logs_and_hides_results(tmp_path, capfd):
    program = (
        "import sys; print('progress ü'); print('H-3\\t-1\\tHaus'); print('x', file=sys.stderr)"
    )
    demo.execute(["python", "-c", program], tmp_path / "log")
    assert (tmp_path / "log").read_text("utf-8") == "progress ü\nH-3\t-1\tHaus\nx\n"
    shown = capfd.readouterr().out
    assert "progress ü\nx\n" in shown and "\nH-3" not in shown
    assert shown.startswith("\n$ python -c ")


def test_a_failing_stage_gives_the_end_of_its_log(tmp_path):
    program = "print('\\n'.join(map(str, range(99)))); raise SystemExit('no such schedule')"
    with pytest.raises(UserError, match="(?s)exit status 1; .*log ends:\n85\n.*no such schedule"):
        demo.execute(["python", "-c", program], tmp_path / "log")
    with pytest.raises(UserError, match="fairseq-nothing is missing"):
        demo.execute(["fairseq-nothing"], tmp_path / "log")


@pytest.mark.parametrize(
    "options, said",
    [
        (["--max-update", 0], "--max-update must be at least 1"),
        (["--source-lang", "fr"], "give --data"),
        (["--train-size", 0], "--train-size"),
        (["--data", "nowhere"], "nowhere: no such folder"),
    ],
)
def test_options_that_cannot_work(tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        demo.run(parse("--out", tmp_path / "out", *options))
    assert not (tmp_path / "out").exists()


def test_own_data_gets_subwords_and_its_own_languages(tmp_path):
    args = parse("--data", "raw", "--source-lang", "fr", "--max-update", 7, "--seed", 5)
    preprocess, train, generate = map(" ".join, demo.commands(args))
    assert "--source-lang fr --target-lang en" in preprocess and "--joined-dict" in preprocess
    assert "--max-update 7 --seed 5" in train
    assert "--remove-bpe" in generate and "demo-run/checkpoints/checkpoint_last.pt" in generate
    assert "--remove-bpe" not in demo.commands(parse())[2]


@pytest.mark.parametrize("own_data", [False, True], ids=["synthetic", "own data"])
def test_whole_demo_at_a_tiny_size(tmp_path, capfd, own_data):
    options = ["--out", tmp_path / "out", "--max-update", 3]
    if own_data:
        write_corpus(tmp_path / "raw", seed=2, train=120, valid=8, test=11)
        options += ["--data", tmp_path / "raw"]
    else:
        options += ["--train-size", 120, "--test-size", 11]
    assert demo.run(parse(*options)) == 0
    shown = capfd.readouterr().out
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    assert report in shown and "num_updates 3" in shown
    for command in ("fairseq-preprocess ", "fairseq-train ", "fairseq-generate "):
        assert f"\n$ {command}" in shown and f"\n  {command}" in report
    assert "on 11 test sentences" in report and "|version:" in report
    assert report.count("\n  source     ") == 10 + ("emerges\n" in report)

    assert demo.run(parse(*options)) == 0  # nothing is left to do but the report
    again = capfd.readouterr().out
    assert "\n$ fairseq" not in again and again.count("(done in an earlier run)") == 4


@pytest.mark.slow
def test_the_demo_learns_to_translate(tmp_path):
    """As `make demo` runs it: seven minutes on two idle cores."""
    assert demo.run(parse("--out", tmp_path / "out")) == 0
    report = (tmp_path / "out" / "report.txt").read_text(encoding="utf-8")
    bleu = float(re.search(r"\|version:\S+ = ([\d.]+)", report).group(1))
    assert bleu >= 60
