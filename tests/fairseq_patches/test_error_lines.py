"""Which errors a user sees as one line, and which keep their traceback."""

import pytest
from torch.multiprocessing import ProcessRaisedException

from difformer_plugin.checkpoints.loading import MissingCheckpointError
from difformer_plugin.errors import UserError
from difformer_plugin.fairseq_patches.error_lines import one_line_hook


@pytest.fixture
def show(capsys):
    """What the hook prints of an error, and the errors that it leaves to Python's own hook."""

    def show(error):
        left = []
        one_line_hook(lambda kind, error, traceback: left.append(error))(type(error), error, None)
        return capsys.readouterr().err, left

    return show


TRACEBACK = """

-- Process 1 terminated with the following error:
Traceback (most recent call last):
  File "spawn.py", line 96, in _wrap
    fn(i, *args)
  File "task.py", line 7, in build
    raise UserError("some text")
"""


@pytest.mark.parametrize("kind", [UserError, MissingCheckpointError])
def test_a_mistake_found_by_another_process_of_a_training_is_one_line(show, kind):
    text = f"{TRACEBACK}{kind.__module__}.{kind.__name__}: some text\n"
    assert show(ProcessRaisedException(text, 1, 4711)) == ("error: some text\n", [])


def test_another_error_of_a_process_of_a_training_keeps_its_traceback(show):
    error = ProcessRaisedException(f"{TRACEBACK}RuntimeError: some text\n", 1, 4711)
    assert show(error) == ("", [error])


def test_a_mistake_behind_another_error_is_one_line(show):
    error = RuntimeError("of hydra")
    error.__cause__ = UserError("some text")
    assert show(error) == ("error: some text\n", [])


def test_a_missing_file_is_one_line(show):
    assert show(FileNotFoundError("no such file: x")) == ("error: no such file: x\n", [])


def test_an_error_that_is_not_a_mistake_keeps_its_traceback(show):
    error = RuntimeError("a bug")
    assert show(error) == ("", [error])
