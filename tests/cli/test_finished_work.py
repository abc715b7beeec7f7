"""A distillation that is finished says so at once, without importing fairseq."""

import json

import pytest

from difformer_plugin.cli import distill
from difformer_plugin.cli.main import build_parser, main
from difformer_plugin.storage import receipts


@pytest.fixture
def finished(tmp_path, monkeypatch):
    """The command of a finished distillation; what would do it again raises an error."""
    for folder in ("data", "out"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "dict.en.txt").write_text("a 1\n")
    (tmp_path / "teacher.pt").write_text("weights")
    command = ["distill", f"{tmp_path}/data", "--teacher", f"{tmp_path}/teacher.pt"]
    command += ["--out", f"{tmp_path}/out"]
    settings = distill.check_settings(build_parser().parse_args(command), tmp_path / "out")
    result = {"figures": {"bleu": 1.5}, "report": "finished before, nothing to do"}
    receipts.write(*distill.receipt_of(settings), result)

    def begun():
        raise AssertionError("it begins")

    monkeypatch.setattr(distill, "register_quietly", begun)
    return command


def test_nothing_is_read_again(finished, capsys):
    assert main(finished) == 0
    assert capsys.readouterr().out == "finished before, nothing to do\n"
    assert main([*finished, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bleu": 1.5}


@pytest.mark.parametrize("change", ["option", "data", "teacher"])
def test_other_work_is_begun(finished, tmp_path, change):
    if change == "option":
        finished += ["--beam", "4"]
    else:
        names = {"data": "data/dict.en.txt", "teacher": "teacher.pt"}
        (tmp_path / names[change]).write_text("something else")
    with pytest.raises(AssertionError, match="it begins"):
        main(finished)
