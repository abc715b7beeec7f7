"""The versions of Python and torch that are tested are those that are promised."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]


def text(path):
    return (ROOT / path).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def tested():
    """(Python, torch) of the hosted tests."""
    jobs = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]
    return [(row["python"], row["torch"]) for row in jobs["test"]["strategy"]["matrix"]["include"]]


def test_the_matrix_is_the_same_here_and_hosted(tested):
    default = re.search(r"\|\| set -- (.+)", text("scripts/matrix.sh"))[1].split()
    assert default == [":".join(pair) for pair in tested]


def test_the_oldest_promised_versions_are_tested(tested):
    setup = text("setup.py")
    python = re.search(r'python_requires=">=([\d.]+)', setup)[1]
    torch = re.search(r'"torch>=([\d.]+)"', setup)[1]
    assert (python, f"{torch}.0") in tested


def test_the_version_that_make_installs_is_tested(tested):
    assert re.search(r"TORCH \?= torch==([\d.]+)", text("Makefile"))[1] in dict(tested).values()


def test_hosted_and_in_a_container_runs_what_a_change_must_pass():
    steps = yaml.safe_load(text(".github/workflows/ci.yml"))["jobs"]["test"]["steps"]
    assert steps[-1] == {"run": ".ci/run"}
    assert text("Dockerfile").endswith('CMD [".ci/run"]\n')


def test_an_unknown_python_is_a_row_of_the_table():
    outcome = subprocess.run(
        [ROOT / "scripts" / "matrix.sh", "9.9:2.13.0"], capture_output=True, text=True
    )
    assert outcome.returncode == 1
    assert "| 9.9 | 2.13.0 | | no Python 9.9: install it with pyenv | |" in outcome.stdout
