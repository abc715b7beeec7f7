"""Locks: who is excluded, and for how long."""

import multiprocessing
import os
import signal

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.storage.locks import locked_folder


def hold(folder, held):
    with locked_folder(folder):
        held.set()
        signal.pause()


def hold_with_a_child(folder, connection):
    """Lock the folder, then fork a child that outlives this process."""
    with locked_folder(folder):
        child = os.fork()
        if child == 0:
            connection.recv()
            os._exit(0)
        connection.send(child)
        signal.pause()


def test_a_folder_belongs_to_one_process_until_it_ends(tmp_path):
    fork = multiprocessing.get_context("fork")
    held = fork.Event()
    process = fork.Process(target=hold, args=(tmp_path / "work", held))
    process.start()
    held.wait()
    with (
        pytest.raises(UserError, match="work is in use by another process"),
        locked_folder(tmp_path / "work"),
    ):
        pass
    process.kill()
    process.join()
    with locked_folder(tmp_path / "work"):
        assert (tmp_path / "work" / "lock").exists()


def test_a_child_that_outlives_its_killed_parent_does_not_hold_the_folder(tmp_path):
    fork = multiprocessing.get_context("fork")
    ours, theirs = fork.Pipe()
    process = fork.Process(target=hold_with_a_child, args=(tmp_path, theirs))
    process.start()
    child = ours.recv()
    process.kill()
    process.join()
    os.kill(child, 0)  # it is still alive
    with locked_folder(tmp_path):
        pass
    ours.send("end")
