"""`difformer factor` for normal embeddings: its numbers, table, plots and error messages."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from difformer_plugin.cli.main import main
from difformer_plugin.diffusion.gaussian.degeneration import CLASSIFIERS
from difformer_plugin.diffusion.gaussian.published import DGS_MAX, TABLE_19
from difformer_plugin.diffusion.gaussian.rescaling import NoiseSeries, dgs, search_factor
from difformer_plugin.diffusion.positional_schedules import gaussian_schedule_names

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def factor(capsys):
    """A function that runs the command and returns its output, decoded if it is JSON."""

    def call(*arguments):
        assert main(["factor", *map(str, arguments)]) == 0
        out = capsys.readouterr().out
        return json.loads(out) if "--json" in arguments else out

    return call


def test_command_of_the_documentation(factor):
    setting = ["--noise-schedule", "sqrt", "--vocab-size", 10_000, "--latent-dim", 128]
    out = factor(*setting, "--max-dgs", 0.15)
    found, score = search_factor(lambda f: dgs(NoiseSeries(), f, 10_000, 128), 0.15)
    assert f"rescaling factor    {found:g}\ndegeneration score  {score:.4f}, at most 0.15" in out
    assert f"{dgs(NoiseSeries(), 1.0, 10_000, 128):.4f} at F = 1" in out
    assert "the paper           4.0 (Table 19)" in out and "one in 32 of 2000" in out
    result = factor(*setting, "--json")
    assert result["rescaling_factor"] == found and result["dgs"] == pytest.approx(score)
    assert result["max_dgs"] == 0.15 and result["method"] == "exact"


def test_every_option_reaches_the_search(factor):
    options = {
        "--noise-schedule": "cosine",
        "--vocab-size": 500,
        "--latent-dim": 64,
        "--max-dgs": 0.4,
        "--sigma": 0.7,
        "--search-step": 0,
        "--classifier": "nearest",
        "--diffusion-steps": 300,
        "--timesteps": 20,
    }
    result = factor("--json", "--vp-rf", *(part for pair in options.items() for part in pair))
    series = NoiseSeries("cosine", 300, True, 20)
    found, score = search_factor(lambda f: dgs(series, f, 500, 64, 0.7, "nearest"), 0.4, 0)
    assert (result["rescaling_factor"], result["dgs"]) == (found, score)
    assert score == pytest.approx(0.4, abs=1e-3)


def test_score_of_a_factor(factor):
    result = factor("--vocab-size", 300, "--rescaling-factor", 2.5, "--json")
    assert result["rescaling_factor"] == 2.5 and result["max_dgs"] is None
    assert result["dgs"] == pytest.approx(dgs(NoiseSeries(), 2.5, 300, 128))


def test_monte_carlo_agrees_within_its_standard_error(factor):
    setting = ["--vocab-size", 60, "--latent-dim", 32, "--rescaling-factor", 2, "--json"]
    exact = factor(*setting)
    sampled = factor(*setting, "--method", "monte-carlo", "--samples", 200)
    assert abs(sampled["dgs"] - exact["dgs"]) < 3 * sampled["standard_error"] < 0.05
    again = factor(*setting, "--method", "monte-carlo", "--samples", 200, "--seed", 2)
    assert again["dgs"] != sampled["dgs"]


@pytest.mark.slow
def test_table_has_the_layout_of_the_paper_and_marks_differences(factor):
    out = factor("--table").splitlines()
    assert out[0].split() == ["DGS_MAX", "Linear", "Cosine", "Sqrt"]
    assert out[1].split() == ["10K", "20K", "40K"] * 3
    for max_dgs, line in zip(DGS_MAX, out[2:]):
        cells = line.replace(" (", "(").split()
        assert float(cells[0]) == max_dgs
        for cell, (schedule, vocab_size) in zip(cells[1:], TABLE_19, strict=True):
            paper = TABLE_19[schedule, vocab_size][DGS_MAX.index(max_dgs)]
            ours, _, theirs = cell.rstrip(")").partition("(")
            assert float(theirs or ours) == paper if paper else cell == "-"
    assert "of 51 entries are the same" in out[9] and out[10].startswith("Table 2,")


@pytest.mark.slow
def test_table_as_json(factor):
    result = factor("--table", "--json", "--search-step", 2, "--latent-dim", 64)
    assert len(result["table_19"]) == 54 and "table_2" not in result
    entry = result["table_19"][0]
    assert entry["rescaling_factor"] % 2 == 1 and entry["dgs"] <= entry["max_dgs"]


def test_plots_are_complete_files(factor, tmp_path):
    out = factor("--vocab-size", 100, "--latent-dim", 32, "--plot", tmp_path / "new" / "plot.png")
    assert f"plot                {tmp_path / 'new' / 'plot.png'}" in out
    assert (tmp_path / "new" / "plot.png").read_bytes().startswith(PNG)
    factor("--vocab-size", 100, "--latent-dim", 32, "--plot", tmp_path / "plot.svg")
    text = (tmp_path / "plot.svg").read_text("utf-8")
    assert "<svg" in text and text.rstrip().endswith("</svg>")
    assert sorted(p.name for p in tmp_path.rglob("*.*")) == ["plot.png", "plot.svg"]


@pytest.mark.parametrize(
    "arguments, message",
    [
        ("", "give one of --vocab-size, --from-data and --from-checkpoint"),
        ("--vocab-size 9 --from-data x", "not --vocab-size and --from-data"),
        ("--vocab-size 0", "--vocab-size must be at least 1, not 0"),
        ("--vocab-size 9 --latent-dim 1", "--latent-dim must be at least 2, not 1"),
        ("--vocab-size 9 --sigma 0", "--sigma must lie between 1e-06 and 1e+06, not 0"),
        ("--vocab-size 9 --max-dgs 1.2", "--max-dgs must lie in (0, 1], not 1.2"),
        ("--vocab-size 9 --max-dgs 0.05", "--max-dgs must be at least 0.1"),
        ("--vocab-size 9 --noise-schedule no", "--noise-schedule must be one of"),
        (
            "--vocab-size 9 --search-step -1",
            "--search-step must be 0 or lie between 0.001 and 10000, not -1",
        ),
        ("--vocab-size 9 --timesteps 2000", "--timesteps must lie between 1 and 1999, not 2000"),
        ("--vocab-size 9 --rescaling-factor 0", "--rescaling-factor must be above 0 and"),
        ("--vocab-size 9 --rescaling-factor 2 --max-dgs 0.1", "leave --max-dgs out"),
        (
            "--vocab-size 9 --samples 5",
            "nothing is sampled without --method monte-carlo",
        ),
        ("--vocab-size 9 --method monte-carlo --samples 0", "--samples must be at least 1"),
        ("--vocab-size 9 --plot plot.docx", "--plot plot.docx: end the name in .png"),
        ("--table --max-dgs 0.1 --plot x.png", "leave --max-dgs and --plot out"),
        ("--from-checkpoint x.pt --sigma 2", "--from-checkpoint brings its own: leave --sigma"),
        ("--table --latent-dim 0", "--latent-dim must be at least 2, not 0"),
        ("--table --max-dgs 0 --seed 2", "leave --max-dgs and --seed out"),
        ("--vocab-size 9 --target-lang en", "leave --target-lang out"),
        ("--vocab-size 9 --sigma 1e160", "--sigma must lie between"),
        ("--vocab-size 9 --method monte-carlo --seed -1", "--seed must lie between"),
        ("--vocab-size 99999999999 --method monte-carlo", "too large to be drawn"),
        ("--from-data nowhere", "nowhere: no such data folder"),
    ],
)
def test_wrong_options_are_refused_in_one_line(arguments, message, capsys):
    assert main(["factor", *arguments.split()]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ") and message in line


def test_vocabulary_size_is_read_from_the_target_dictionary(factor, tmp_path):
    """As fairseq counts it, with the four special symbols that no dict.*.txt lists."""
    from fairseq.data import Dictionary

    for language, size in (("de", 7), ("en", 33)):
        path = tmp_path / f"dict.{language}.txt"
        path.write_text("".join(f"w{i} 1\n" for i in range(size)), "utf-8")
    assert factor("--from-data", tmp_path, "--target-lang", "de", "--json")["vocab_size"] == 11
    assert main(["factor", "--from-data", str(tmp_path)]) == 2  # two languages
    (tmp_path / "train.de-en.de.idx").touch()
    (tmp_path / "dict.fr.txt").write_bytes(b"\xff\xfe 1\n")
    assert main(["factor", "--from-data", str(tmp_path), "--target-lang", "fr"]) == 2
    result = factor("--from-data", tmp_path, "--json")
    assert result["vocab_size"] == len(Dictionary.load(str(tmp_path / "dict.en.txt"))) == 37


def test_exact_search_imports_neither_fairseq_nor_torch():
    code = (
        "import sys; from difformer_plugin.cli.main import main; "
        "main(['factor', '--vocab-size', '100', '--latent-dim', '64']); "
        "sys.exit(bool({'torch', 'fairseq'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], stdout=subprocess.DEVNULL).returncode == 0


def test_help_names_every_option(capsys):
    with pytest.raises(SystemExit):
        main(["factor", "--help"])
    out = capsys.readouterr().out
    source = Path(sys.modules["difformer_plugin.cli.factor"].__file__).read_text("utf-8")
    names = set(re.findall(r'"(--[a-z-]+)"', source))
    assert len(names) == 20 and "--json" in out and all(name in out for name in names)


def test_help_names_every_schedule_and_classifier(capsys):
    """They are written out there, so that the help needs no numerical library."""
    with pytest.raises(SystemExit):
        main(["factor", "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    names = gaussian_schedule_names()
    listed = re.search(r"--noise-schedule NAME ([\w, ]+) or (\w+); default", shown)
    assert sorted([*listed[1].split(", "), listed[2]]) == sorted(names)
    assert re.search(r"--classifier \{([\w,]+)\}", shown)[1].split(",") == list(CLASSIFIERS)


def test_score_of_a_position_dependent_schedule(factor):
    setting = ["--noise-schedule", "positional", "--vocab-size", 50, "--latent-dim", 16]
    setting += ["--target-length", 3, "--timesteps", 400, "--rescaling-factor", 2]
    series = NoiseSeries("positional", stride=400, target_length=3)
    result = factor(*setting, "--json")
    assert result["dgs"] == pytest.approx(dgs(series, 2.0, 50, 16))
    assert result["target_length"] == 3
    assert "3 positions" in factor(*setting)
    sampled = factor(*setting, "--method", "monte-carlo", "--samples", 600, "--json")
    assert abs(sampled["dgs"] - result["dgs"]) < 4 * sampled["standard_error"] < 0.1


def test_a_target_length_is_refused_where_it_does_nothing(capsys):
    assert main(["factor", "--vocab-size", "50", "--target-length", "3"]) == 2
    error = capsys.readouterr().err
    assert "--target-length is for the noise schedule positional" in error and "sqrt" in error


def test_plot_of_a_position_dependent_schedule(factor, tmp_path):
    path = tmp_path / "factor.png"
    setting = ["--noise-schedule", "positional", "--vocab-size", 30, "--latent-dim", 16]
    setting += ["--target-length", 2, "--diffusion-steps", 20]
    factor(*setting, "--rescaling-factor", 2, "--plot", path)
    assert path.read_bytes().startswith(PNG)
