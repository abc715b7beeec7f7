"""`difformer evaluate` on the output and the history file of fairseq-generate."""

import json
import re

import pytest
from harness import SENTENCES, TASK, USER_DIR, error_line, lines, run, succeed
from sacrebleu.metrics import BLEU

STEPS = 4
GENERATE = ["--decoding-steps", STEPS, "--seed", 5, "--noise-beam-size", 3, "--nbest", 2]
HISTORY = ["--retain-iter-history", "--retain-z-0-hat"]
QUICK = ["--target-lang", "en", "--bootstrap-samples", 50, "--skip", "bertscore", "comet"]


@pytest.fixture(scope="module")
def generated(corpus, model, tmp_path_factory):
    """A run of fairseq-generate with --history-file: its outcome, its output and the file."""
    folder = tmp_path_factory.mktemp("generated")
    outcome = succeed(
        folder,
        *("fairseq-generate", corpus.joined, *TASK, "--path", model, *GENERATE, *HISTORY),
        *("--history-file", folder / "history.jsonl", "--batch-size", 4),
    )
    (folder / "gen.out").write_text(outcome.out, "utf-8")
    return outcome, folder / "gen.out", folder / "history.jsonl"


def best_lines(outcome, kind):
    """Sentence number -> its first line of a kind, which is that of the best candidate."""
    found = {}
    for number, text in outcome.lines(kind):
        found.setdefault(number, text)
    return found


def test_the_history_has_the_tokens_and_probabilities_that_fairseq_prints(generated):
    outcome, _, path = generated
    entries = [json.loads(line) for line in lines(path)]
    places = {(entry["id"], entry["step"]) for entry in entries}
    assert len(entries) == len(places)
    assert places == {(i, k) for i in range(SENTENCES) for k in range(STEPS)}
    texts, scores = best_lines(outcome, "H"), best_lines(outcome, "P")
    steps = {}
    for line in outcome.out.splitlines():
        if line.startswith("E-"):
            place, text = line.split("\t")
            number, step = map(int, place[2:].split("_"))
            steps.setdefault((number, step), text)  # the best candidate's come first
    for entry in entries:
        tokens, probabilities = entry["tokens"], entry["probabilities"]
        assert len(tokens) == len(probabilities) and all(0 <= p <= 1 for p in probabilities)
        words = [token for token in tokens if token != "</s>"]
        assert words == [w for w in steps[entry["id"], entry["step"]].split() if w != "</s>"]
        if entry["step"] == STEPS - 1:
            assert [word for word in words if word != "<s>"] == texts[entry["id"]].split()
            # P-lines are base-2 logarithms with four digits
            expected = [2 ** float(score) for score in scores[entry["id"]].split()]
            assert probabilities == pytest.approx(expected, abs=1e-4)


def test_the_history_file_changes_no_translation(generated, corpus, model, tmp_path):
    plain = succeed(tmp_path, "fairseq-generate", corpus.joined, *TASK, "--path", model, *GENERATE)
    assert best_lines(plain, "H") == best_lines(generated[0], "H")


def test_unusable_history_files_are_refused(generated, corpus, model, tmp_path):
    def fail(*options):
        return error_line(
            run(
                tmp_path,
                *("fairseq-generate", corpus.joined, *TASK, "--path", model, *GENERATE),
                *options,
            )
        )

    path = generated[2]
    before = path.read_bytes()
    assert f"--history-file {path} already exists" in fail(*HISTORY, "--history-file", path)
    assert path.read_bytes() == before
    new = tmp_path / "new"
    assert "needs --retain-iter-history" in fail("--history-file", new)
    (tmp_path / "input").write_text("Das ist gut .\n", "utf-8")
    interactive = run(
        tmp_path,
        *("fairseq-interactive", corpus.joined, *TASK, "--path", model, *GENERATE, *HISTORY),
        *("--history-file", new, "--input", tmp_path / "input"),
    )
    assert "use fairseq-generate" in error_line(interactive)
    assert not new.exists()


def test_scores_of_a_log_match_its_lines(generated, corpus, tmp_path):
    outcome, path, history = generated
    found = succeed(
        tmp_path,
        *("difformer", "evaluate", path, "--json", "--html", tmp_path / "page.html", *QUICK),
        *("--history", history),
    )
    result = json.loads(found.out)
    scores = {row["key"]: row["scores"][0] for row in result["metrics"]}
    texts = [
        [best_lines(outcome, kind)[i].replace("@@ ", "") for i in range(SENTENCES)] for kind in "HT"
    ]
    plain = BLEU(tokenize="none", smooth_method="none", force=True)
    assert scores["bleu_tokenised"] == pytest.approx(plain.corpus_score(texts[0], [texts[1]]).score)
    assert result["sentences"] == SENTENCES and len(result["bleu_by_step"][0]) == STEPS
    # with --retain-z-0-hat, the last step is the output
    assert result["bleu_by_step"][0][-1] == pytest.approx(scores["bleu_tokenised"])
    assert result["diversity"][0]["samples"] == 2
    assert sum(bucket["sentences"] for bucket in result["bleu_by_length"]) == SENTENCES
    page = (tmp_path / "page.html").read_text("utf-8")
    assert page.count('class="box stepwise"') == 6
    assert re.search(r'class="t c\d" title="[01]\.\d', page)
    without = [*("difformer", "evaluate", path, "--html", tmp_path / "bare.html", *QUICK)]
    succeed(tmp_path, *without, "--history", history, "--no-sentences")
    bare = (tmp_path / "bare.html").read_text("utf-8")
    assert bare.count("<svg") == page.count("<svg") and 'class="box' not in bare


def test_two_systems_and_raw_references(generated, corpus, tmp_path):
    _, path, _ = generated
    ref, half = corpus.raw / "test.en", tmp_path / "half"
    texts = [text if i % 2 else "?" for i, text in enumerate(lines(ref))]
    half.write_text("".join(f"{text}\n" for text in texts), "utf-8")
    found = succeed(
        tmp_path,
        *("difformer", "evaluate", path, "--ref", ref, "--src", corpus.raw / "test.de"),
        *("--baseline", half, "--buckets", "6,9", *QUICK),
    )
    table = found.out.split("\nsignatures")[0].splitlines()
    rows = {line[:30].strip(): line[30:].split() for line in table}
    system, baseline, difference, p, better = rows["sacreBLEU"]
    expected = BLEU().corpus_score(texts, [lines(ref)]).score
    assert float(baseline) == pytest.approx(expected, abs=0.01)
    assert float(difference) == pytest.approx(float(system) - expected, abs=0.02)
    assert p == f"{1 / 51:.3f}"  # the smallest p-value of 50 samples
    assert better == ("system" if float(difference) > 0 else "baseline")
    assert "t = " in found.out and f"{SENTENCES - 2} degrees of freedom" in found.out


def test_sentences_lost_by_fairseq_are_an_error(corpus, teacher, tmp_path):
    """fairseq's own task drops the last batch if its size is not a multiple of 8."""
    outcome = succeed(
        tmp_path,
        *("fairseq-generate", corpus.joined, "--task", "translation", "--path", teacher, "--cpu"),
        *("--user-dir", USER_DIR, "--beam", 1, "--batch-size", 8, "--max-len-b", 5),
    )
    (tmp_path / "gen.out").write_text(outcome.out, "utf-8")
    kept = len(outcome.lines("H"))
    assert kept < SENTENCES
    ref = corpus.raw / "test.en"
    lost = run(tmp_path, "difformer", "evaluate", tmp_path / "gen.out", "--ref", ref, *QUICK)
    said = error_line(lost)
    assert f"{SENTENCES - kept} of {SENTENCES} sentences are missing, the first of them" in said
    assert "--required-batch-size-multiple 1" in said


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "give the output of fairseq-generate, or a plain file"),
        (["GEN", "--hyp", "GEN"], "give the output of fairseq-generate, or a plain file"),
        (["GEN", "--tokenized", "--raw"], "exclude each other"),
        (["GEN", "--bootstrap-samples", -1], "--bootstrap-samples must be at least 0"),
        (["GEN", "--history", "GEN"], "--history colours the report: give --html"),
        (["GEN", "--no-sentences"], "--no-sentences concerns the report: give --html"),
        (["GEN", "--html", "FOLDER"], "is a folder: name a file"),
        (["GEN", "--buckets", "9,6"], "--buckets '9,6'"),
        (["GEN", "--history", "GEN", "--html", "NEW"], "line 1: not a line of a history file"),
        (["NEW"], "No such file"),
    ],
)
def test_contradictory_options_get_one_line(generated, tmp_path, options, said):
    places = {"GEN": generated[1], "FOLDER": tmp_path, "NEW": tmp_path / "new"}
    given = [places.get(option, option) for option in options]
    found = run(tmp_path, "difformer", "evaluate", *given, "--target-lang", "en")
    assert said in error_line(found)
    assert found.out == "" and not (tmp_path / "new").exists()


def test_skipped_metrics_and_several_samples(generated, tmp_path):
    found = succeed(
        tmp_path, "difformer", "evaluate", generated[1], "--json", *QUICK, "rouge", "ter", "chrf"
    )
    result = json.loads(found.out)
    (diversity,) = result["diversity"]
    assert 0 < diversity["div_4"] <= 1 and 0 < diversity["self_bleu"] < 100
    keys = [row["key"] for row in result["metrics"]]
    assert keys == ["bleu_tokenised", "sacrebleu"] and not result["missing"]
