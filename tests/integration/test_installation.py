"""An installed copy, and what importing it costs."""

import shutil
import sys
from pathlib import Path

import pytest
from harness import BIN, lines, shell

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The package, installed by pip from a copy of the sources; what PYTHONPATH finds first."""
    folder = tmp_path_factory.mktemp("installed")
    source = folder / "source"
    source.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(REPOSITORY / name, source)
    shutil.copytree(REPOSITORY / "difformer_plugin", source / "difformer_plugin")
    options = ["--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", "install", *options, "--target", folder / "target", source]
    outcome = shell(*pip)
    assert outcome.code == 0, outcome.err
    shutil.rmtree(source)
    return folder / "target"


@pytest.mark.slow
def test_an_installed_copy_is_a_user_dir(installed, corpus, model, tmp_path):
    """Its path comes from `difformer user-dir`; the sources are in no path of that process."""
    outcome = shell(BIN / "difformer", "user-dir", cwd=tmp_path, PYTHONPATH=str(installed))
    user_dir = Path(outcome.out.strip())
    assert outcome.code == 0 and user_dir == installed / "difformer_plugin"
    sentences = lines(corpus.text / "test.de")[:3]
    outcome = shell(
        *(BIN / "fairseq-interactive", corpus.joined, "--user-dir", user_dir, "--path", model),
        *("--task", "diffusion_translation", "--cpu", "--decoding-steps", 2),
        cwd=tmp_path,
        stdin="".join(f"{sentence}\n" for sentence in sentences),
        PYTHONPATH=str(installed),
        PYTHONVERBOSE="",
    )
    assert outcome.code == 0, outcome.err[-3000:]
    assert [text for _, text in outcome.lines("S")] == sentences
    assert sorted(outcome.translations()) == [0, 1, 2]


@pytest.mark.parametrize(
    "statement, forbidden",
    [
        ("import difformer_plugin", {"fairseq", "hydra", "torch"}),
        ("import difformer_plugin.diffusion.gaussian.process", {"fairseq", "hydra"}),
        (
            "from difformer_plugin.cli.main import main; assert main(['user-dir']) == 0",
            {"fairseq", "hydra", "torch"},
        ),
    ],
)
def test_what_is_cheap_imports_nothing_dear(statement, forbidden):
    report = f"import sys; print(sorted({forbidden!r} & set(sys.modules)))"
    outcome = shell(sys.executable, "-c", f"{statement}\n{report}")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[-1] == "[]"


def test_help_is_printed_without_fairseq_and_torch(tmp_path):
    """Stand-ins for both that fail on import come first in the path."""
    for name in ("fairseq", "torch", "hydra"):
        (tmp_path / f"{name}.py").write_text("raise AssertionError('imported')\n")
    outcome = shell(BIN / "difformer", "--help", PYTHONPATH=str(tmp_path))
    assert outcome.code == 0, outcome.err
    for command in ("demo", "convert", "check-reference", "user-dir"):
        assert command in outcome.out
