"""`difformer bench` on the tiny corpus: rows, equal outputs, figures, and bad input."""

import json
import re
import shutil
import sys

import pytest
from harness import USER_DIR, error_line, run, succeed

from difformer_plugin.data import pipeline

TINY = ["--arch", "difformer_tiny", "--cpu", "--threads", 1, "--repetitions", 1]
OTHERS = ["bf16", "engine-bf16", "transformer", "cmlm"]
EXACT = ["plain", "share", "pack", "chunk", "count", "engine"]
ROWS = EXACT + OTHERS


@pytest.fixture(scope="module")
def decoded(corpus, tmp_path_factory):
    """A run with all rows that translate: its outcome and its figures."""
    folder = tmp_path_factory.mktemp("decoded")
    outcome = succeed(
        folder,
        *("difformer", "bench", "decode", corpus.joined, *TINY, "--sentences", 5, "--steps", 2),
        *("--beams", "2x2", "--batch-size", 3, "--json", folder / "figures.json", "--rows", *ROWS),
    )
    return outcome, json.loads((folder / "figures.json").read_text())


def rows_of(block):
    return {row["name"]: row for row in block["rows"]}


def test_all_rows_are_measured_and_printed(decoded):
    outcome, figures = decoded
    (block,) = figures["blocks"]
    assert sorted(rows_of(block)) == sorted(ROWS)
    assert f"\n{block['title']}\n" in outcome.out
    printed = [line.split()[0] for line in outcome.out.splitlines() if line.startswith("  ")]
    assert [name for name in printed if name in ROWS] == list(rows_of(block))
    assert not outcome.err


def test_exact_rows_have_the_same_output(decoded):
    (block,) = decoded[1]["blocks"]
    for name, row in rows_of(block).items():
        assert row["exact"] == (name in EXACT)
        if name in EXACT:
            assert row["tokens_differing"] == row["sentences_differing"] == 0
            # 4 candidates per sentence, about as long as the reference, with BOS and EOS
            wanted = 5 * 4 * (decoded[1]["subwords_per_reference"] + 2)
            assert row["tokens_compared"] == pytest.approx(wanted, abs=5 * 4)


def test_outputs_are_as_long_as_the_references(decoded):
    (block,) = decoded[1]["blocks"]
    for name, row in rows_of(block).items():
        made = row["tokens_per_second"] / row["sentences_per_second"]
        wanted = decoded[1]["subwords_per_reference"]
        # BLEU may choose the other length; a CMLM with random weights may choose padding
        loose = name != "transformer"
        assert made == pytest.approx(wanted, rel=0.2 if loose else 1e-6)


def test_figures_are_consistent(decoded):
    figures = decoded[1]
    for block in figures["blocks"]:
        first = block["rows"][0]
        for row in block["rows"]:
            total = sum(row["seconds"][0])
            assert len(row["seconds"]) == 1 and len(row["seconds"][0]) == 2  # batches of 3 and 2
            assert row["sentences_per_second"] == pytest.approx(5 / total)
            assert row["ratio"] == pytest.approx(sum(first["seconds"][0]) / total)
            assert row["memory_mib"] is not None and row["memory_mib"] >= 0
    assert not any(model["trained"] for model in figures["models"].values())


@pytest.mark.slow
def test_checkpoints_and_tuned_settings(corpus, model, teacher, tmp_path):
    settings = tmp_path / "found.toml"
    settings.write_text("decoding_steps = 3\nlength_beam_size = 2\nbleu_mbr = true\n")
    outcome = succeed(
        tmp_path,
        *("difformer", "bench", "decode", corpus.joined, *TINY, "--sentences", 4, "--steps", 2),
        *("--path", model, "--transformer", teacher, "--settings", settings, "--beams", 1),
        *("--rows", "limit", "plain", "count", "engine", "transformer", "tuned", "--json", "-"),
    )
    figures = json.loads(outcome.out)
    assert all(model["trained"] for model in figures["models"].values())
    rows = rows_of(figures["blocks"][0])
    # with one candidate, there are no n-grams to count
    assert list(rows) == ["plain", "engine", "tuned", "transformer"]
    assert rows["engine"]["tokens_differing"] == 0
    assert "tokens_differing" not in rows["tuned"]
    (limit,) = figures["limit"]["rows"]
    assert limit["name"] == "engine" and 0 < limit["share"] < 1
    assert limit["share"] == pytest.approx(limit["operations_per_second"] / limit["matrix_rate"])
    assert "mbr" not in figures


def test_lines_are_timed_one_at_a_time(corpus, model, tmp_path):
    data = tmp_path / "data-bin"
    shutil.copytree(corpus.joined, data)
    pipeline.save(pipeline.load(corpus.text), data, corpus.codes)
    options = [*TINY, "--rows", "engine", "lines", "--sentences", 4]
    command = ["difformer", "bench", "decode", data, *options, "--path", model]
    outcome = succeed(tmp_path, *command, "--steps", 2, "--beams", 1, "2x2", "--json", "-")
    rows = json.loads(outcome.out)["lines"]
    assert [row["name"] for row in rows] == ["K = 2, b = 1 x 1", "K = 2, b = 2 x 2"]
    for row in rows:
        (seconds,) = row["seconds"]
        assert len(seconds) == 3  # the first line is told apart
        assert row["sentences_per_second"] == pytest.approx(3 / sum(seconds))
        assert row["p50_ms"] == pytest.approx(1000 * sorted(seconds)[1])
        assert row["first_ms"] > 0 and row["load_seconds"] > 0 and row["tokens_per_second"] > 0
    message = "the row lines translates raw text: it needs a trained model"
    assert message in error_line(run(tmp_path, *command[:-2]))
    command[3] = corpus.joined
    assert message in error_line(run(tmp_path, *command))


@pytest.mark.parametrize(
    "options, title",
    [
        ("--objective d3pm --process uniform", "b = 2 x 2"),
        # predicts no lengths
        pytest.param("--objective flexible", "b = 1 x 4", marks=pytest.mark.slow),
    ],
)
def test_decoding_with_discrete_models(corpus, tmp_path, options, title):
    outcome = succeed(
        tmp_path,
        *("difformer", "bench", "decode", corpus.joined, *TINY, "--sentences", 4, "--steps", 3),
        *("--arch", "discrete_diffusion_tiny", "--model-options", options, "--json", "-"),
        *("--beams", title[4:].replace(" ", ""), "--rows", "plain", "engine", "limit"),
    )
    figures = json.loads(outcome.out)
    assert not figures["models"]["discrete_diffusion_tiny"]["trained"]
    (block,) = figures["blocks"]
    assert title in block["title"]
    rows = rows_of(block)
    assert rows["engine"]["exact"] and rows["engine"]["tokens_compared"] > 4 * 4 * 2
    # a draw within round-off of a boundary may differ
    assert rows["engine"]["tokens_differing"] <= 0.02 * rows["engine"]["tokens_compared"]
    assert figures["limit"]["rows"][0]["operations"] > 0
    if options == "--objective flexible":
        message = "--beams 2x2: .* give 1x4"
        command = ["bench", "decode", corpus.joined, *TINY, "--arch", "discrete_diffusion_tiny"]
        command += ["--sentences", 2, "--rows", "plain", "--beams", "2x2"]
        line = error_line(run(tmp_path, "difformer", *command, "--model-options", options))
        assert re.search(message, line), line


@pytest.mark.slow
def test_a_discrete_model_trains_with_its_own_criterion(corpus, tmp_path):
    outcome = succeed(
        tmp_path,
        *("difformer", "bench", "train", corpus.joined, *TINY, "--max-tokens", 100),
        *("--arch", "discrete_diffusion_tiny", "--model-options", "--objective sedd --self-cond"),
        *("--updates", 1, "--json", "-", "--rows", "plain", "engine", "engine-bf16"),
    )
    figures = json.loads(outcome.out)
    assert [row["name"] for row in figures["rows"]] == ["plain", "engine", "engine-bf16"]
    assert all(row["tokens_per_second"] > 0 for row in figures["rows"])


@pytest.mark.slow
def test_scaling(corpus, tmp_path):
    outcome = succeed(
        tmp_path,
        *("difformer", "bench", "decode", corpus.joined, *TINY, "--sentences", 3, "--scaling"),
        *("--steps", 1, 3, "--beams", 1, "2x2", "--batch-size", 1, 3, "--json", "-"),
    )
    found = [(row["factor"], row["value"]) for row in json.loads(outcome.out)["scaling"]]
    assert found[:6] == [
        *(("K", 1), ("K", 3), ("candidates", 1), ("candidates", 4), ("batch", 1), ("batch", 3))
    ]
    lengths = [value for factor, value in found[6:] if factor == "length"]
    assert len(lengths) == 3 and lengths == sorted(lengths)


@pytest.mark.slow
def test_training(corpus, tmp_path):
    wanted = ["plain", "engine", "pack-bf16", "transformer", "transformer-bf16"]
    outcome = succeed(
        tmp_path,
        # longer sentences than a batch may have are left out
        *("difformer", "bench", "train", corpus.joined, *TINY, "--max-tokens", 20),
        *("--updates", 2, "--json", tmp_path / "figures.json", "--rows", *wanted),
    )
    figures = json.loads((tmp_path / "figures.json").read_text())
    rows = {row["name"]: row for row in figures["rows"]}
    assert list(rows) == wanted
    for name, row in rows.items():
        total = sum(row["seconds"][0])
        assert len(row["seconds"][0]) == figures["updates"] == 2
        assert row["tokens_per_second"] == pytest.approx(figures["tokens"] / total)
        assert row["memory_mib"] > 0 and f"\n  {name} " in outcome.out
    assert not outcome.err
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        *("difformer.err", "difformer.out", "figures.json")
    ]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--rows", "plain", "plane"], "no such row as plane; there are plain, "),
        (["--rows", "tuned"], "--settings FILE"),
        (
            ["--arch", "transformer"],
            "--arch transformer: no such diffusion model; there are difformer",
        ),
        (["--beams", "7*3"], r"--beams 7\*3: .*7x3"),
        (["--model-options", "--foo bar"], "--model-options: .*--foo bar; give options of fairseq"),
        (["--path", "x.pt", "--model-options", "--foo bar"], "leave them out with --path"),
        (["--steps", "5", "0"], "--steps must be at least 1, not 5 0"),
        (["--subset", "tset"], "tset.de-en.de.idx: no such file"),
        (["--steps", "9999"], "--decoding-steps must lie between 1 and"),
        (["--settings", "no.toml", "--rows", "tuned"], "no.toml: No such file"),
    ],
)
def test_bad_options_get_one_line(corpus, tmp_path, arguments, message):
    command = ["bench", "decode", corpus.joined, *TINY, "--sentences", 3, "--rows", "plain"]
    line = error_line(run(tmp_path, "difformer", *command, *arguments))
    assert re.search(message, line), line


def test_checkpoints_of_another_kind_or_dictionary_are_refused(corpus, model, teacher, tmp_path):
    command = ["difformer", "bench", "decode"]
    for arguments, message in (
        ([corpus.other, "--path", model], "dictionar"),
        ([corpus.joined, "--path", teacher], "is a TransformerModel: give a diffusion model's"),
        ([corpus.joined, "--path", model, "--cmlm", teacher], "--cmlm .* does not translate in"),
        ([corpus.joined / "nowhere"], "no such data folder"),
    ):
        line = error_line(run(tmp_path, *command, *arguments, *TINY, "--sentences", 3))
        assert re.search(message, line), line


@pytest.mark.slow
def test_commands_of_others_beside_ours(corpus, model, teacher, tmp_path):
    generate = (
        f"{sys.executable} -m fairseq_cli.generate {{data}} --cpu --batch-size {{batch_size}}"
    )
    others = [
        f"same={generate} --user-dir {USER_DIR} --task diffusion_translation --path {model} "
        "--decoding-steps {steps} --seed {seed}",
        f"greedy={generate} --user-dir {USER_DIR} --path {teacher} --beam 1 "
        "--required-batch-size-multiple 1",
    ]
    outcome = succeed(
        tmp_path,
        *("difformer", "bench", "decode", corpus.joined, "--cpu", "--path", model, "--steps", 3),
        *("--sentences", 16, "--beams", 1, "--batch-size", 4, "--repetitions", 1, "--json", "-"),
        *(word for command in others for word in ("--against", command)),
    )
    figures = json.loads(outcome.out)
    (block,) = figures["blocks"]
    assert block["sentences"] == 12 and "K = 3" in block["title"]
    equal = {row["name"]: row["equal"] for row in block["rows"]}
    assert equal["ours"] == equal["same"] == 16 > equal["greedy"]
