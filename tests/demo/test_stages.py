"""Stages of the demonstration: skipped where done, shown and logged where run."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import pytest

from difformer_plugin.demo.stages import Stages, execute
from difformer_plugin.errors import UserError


def test_stages_are_skipped_until_something_before_them_changes(tmp_path):
    ran = []

    def go(first, second, broken=False):
        ran.clear()
        stages = Stages(tmp_path)
        stages.corpus(["synthetic"], lambda: ran.append("corpus"))
        stages.run("a", [first], lambda: ran.append("a"))
        stages.run("b", [second], lambda: 1 / 0 if broken else ran.append("b"))
        return ran, [stage.skipped for stage in stages.done]

    assert go("1", "1") == (["corpus", "a", "b"], [False] * 3)
    assert go("1", "1") == ([], [True] * 3)
    assert go("1", "2") == (["b"], [True, True, False])
    assert go("2", "2") == (["a", "b"], [True, False, False])
    with pytest.raises(ZeroDivisionError):
        go("2", "3", broken=True)
    assert go("2", "2") == (["b"], [True, True, False])  # b may be incomplete
    with pytest.raises(UserError, match="another corpus"):
        Stages(tmp_path).corpus(["other"], lambda: None)
    assert set(json.loads((tmp_path / "stages.json").read_text())) == {"corpus", "a", "b"}


def test_each_stage_that_runs_has_its_number(tmp_path, capsys):
    for expected in (["Step 1 of 3: a", "Step 2 of 3: b"], ["Step 2 of 3: b"]):
        stages = Stages(tmp_path, 3)
        stages.run("a", 1, lambda: None)
        stages.run("b", len(expected), lambda: None)
        assert [line for line in capsys.readouterr().out.splitlines() if line] == expected


def test_another_corpus_is_refused_in_the_words_of_both_commands(tmp_path):
    Stages(tmp_path).corpus(["synthetic", 1], lambda: None)
    with pytest.raises(UserError, match=r"another --out \(with make: OUT=FOLDER\)"):
        Stages(tmp_path).corpus(["synthetic", 2], lambda: None)


def test_output_is_shown_and_logged_but_results_are_only_logged(tmp_path, capfd):
    program = (
        "import sys; print('progress ü'); print('H-3\\t-1\\tHaus'); print('x', file=sys.stderr)"
    )
    execute(["python", "-c", program], tmp_path / "log")
    assert (tmp_path / "log").read_text("utf-8") == "progress ü\nH-3\t-1\tHaus\nx\n"
    shown = capfd.readouterr().out
    assert "progress ü\nx\n" in shown and "\nH-3" not in shown
    assert shown.startswith("\n$ python -c ")


def test_a_failing_command_is_reported_with_the_end_of_its_log(tmp_path, capfd):
    program = "print('\\n'.join(map(str, range(99)))); raise SystemExit('no such schedule')"
    with pytest.raises(UserError, match="exit status 1; .*log says why"):
        execute(["python", "-c", program], tmp_path / "log")
    assert re.search(r"(?s)The end of .*log:\n85\n.*no such schedule", capfd.readouterr().err)
    with pytest.raises(UserError, match="fairseq-nothing is missing"):
        execute(["fairseq-nothing"], tmp_path / "log")


STOPPED = """
import sys
from pathlib import Path
from difformer_plugin.cli import demo, main
from difformer_plugin.demo.stages import execute

child = "import os, time; print('child', os.getpid(), flush=True); time.sleep(99)"
demo.run = lambda args: execute(["python", "-c", child], Path(sys.argv[1]))
sys.exit(main.main(["demo"]))
"""


def test_kill_stops_the_command_of_the_stage_as_well(tmp_path):
    command = [sys.executable, "-c", STOPPED, tmp_path / "log"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8"
    ) as process:
        child = next(int(line.split()[1]) for line in process.stdout if line.startswith("child "))
        process.terminate()
        _, said = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert said.startswith("interrupted: the same command goes on from here")
    for _ in range(100):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("the child is still alive")
