"""The report of the demonstration."""

import pytest
import sacrebleu

from difformer_plugin.demo import report as demo_report
from difformer_plugin.demo.stages import StageRecord
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import parse_outputs

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
TRAIN = ["fairseq-train", "data", "--adam-betas", "(0.9, 0.98)"]
STAGES = [
    StageRecord("corpus", [], 2.0, True),
    StageRecord("fairseq-train", TRAIN, 61.5, False),
]


@pytest.fixture
def outputs():
    return parse_outputs(GENERATED.splitlines(keepends=True))


def test_translations_are_detokenised(outputs):
    assert outputs.best == {0: "That &apos;s good .", 1: "A woman sleeps ."}
    assert outputs.steps[1] == ["the the sleeps ."] + ["A woman sleeps ."] * 2
    assert demo_report.translations(outputs, 2, "en") == ["That's good.", "A woman sleeps."]


@pytest.mark.parametrize("count, said", [(3, r"2 sentences .* 3 .*\[2\]"), (1, "2 sentences .* 1")])
def test_a_missing_or_additional_sentence_is_an_error(outputs, count, said):
    with pytest.raises(UserError, match=said):
        demo_report.translations(outputs, count, "en")


def test_emergence_shows_a_sentence_that_changed(outputs):
    assert demo_report.choose_emergence(outputs) == 1
    assert demo_report.render_emergence(outputs.steps[1]) == [
        "  step 1       the the sleeps .",
        "  step 2-3     A woman sleeps .",
    ]
    del outputs.steps[1]
    assert demo_report.choose_emergence(outputs) is None
    assert "no output changed" in demo_report.render(STAGES, PAIRS, outputs, "en")


def test_the_report_holds_commands_times_scores_and_examples(outputs):
    report = demo_report.render(STAGES, PAIRS, outputs, "en")
    assert "  fairseq-train data --adam-betas '(0.9, 0.98)'\n" in report
    assert "corpus                    2.0 s  (done in an earlier run)\n" in report
    assert "BLEU|nrefs:1|case:mixed|eff:no|tok:13a|" in report and " = 100.00 " in report
    assert "  source     Das ist gut.\n  reference  That's good.\n  output     That's" in report
    assert "source       Eine Frau schläft." in report


def test_the_error_analysis_separates_wrong_lengths_from_wrong_words():
    references = ["one two three four five six."] * 3 + ["a b c d e."]
    hypotheses = [references[0], "one two three four five nine.", "one two three.", "a b c d e."]
    exact, right, wrong = demo_report.error_analysis(hypotheses, references)
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
