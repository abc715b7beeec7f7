"""Journal: whatever a kill leaves of the last line, all earlier records are kept."""

import multiprocessing

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal

HEADER = {"teacher": "abc", "--beam": 5}
RECORDS = [{"batch": 0, "text": "ä\n"}, {"batch": 1, "tokens": [1, 2, 3]}, {"batch": 7}]


@pytest.fixture
def path(tmp_path):
    """A journal with a header and three records."""
    path = tmp_path / "journal"
    with Journal(path) as journal:
        assert journal.header is None and journal.count == 0
        journal.begin(HEADER)
        for record in RECORDS:
            journal.append(record)
    return path


def contents(path):
    with Journal(path) as journal:
        return [journal.header, *journal.records()] if journal.header else []


def complete_lines(data):
    """Number of lines that end within these bytes."""
    return data.count(b"\n")


def test_records_are_read_as_written(path):
    assert contents(path) == [HEADER, *RECORDS]
    with Journal(path) as journal:
        assert journal.count == len(RECORDS)
        journal.begin({"teacher": "other"})
        assert list(journal.records()) == []
    assert contents(path) == [{"teacher": "other"}]


def test_a_line_torn_at_any_byte_is_cut_off(path):
    written = path.read_bytes()
    for size in range(len(written) + 1):
        path.write_bytes(written[:size])
        kept = complete_lines(written[:size])
        assert contents(path) == [HEADER, *RECORDS][:kept]
        with Journal(path) as journal:
            if journal.header is None:
                journal.begin(HEADER)
            journal.append({"batch": 9})
        assert contents(path) == [HEADER, *RECORDS[: max(0, kept - 1)], {"batch": 9}]


def test_a_changed_byte_invalidates_its_line_and_all_after_it(path):
    """A damaged record is never read as a different one."""
    written = path.read_bytes()
    for place in range(len(written)):
        path.write_bytes(written[:place] + bytes([written[place] ^ 1]) + written[place + 1 :])
        assert contents(path) == [HEADER, *RECORDS][: complete_lines(written[:place])]


def test_trailing_zeros_are_cut_off(path):
    """Some file systems leave them after a power failure."""
    path.write_bytes(path.read_bytes() + bytes(4096))
    assert contents(path) == [HEADER, *RECORDS]


def _hold(path, held, release):
    with Journal(path):
        held.set()
        release.wait()


def test_another_process_is_refused_until_the_first_ends(path):
    fork = multiprocessing.get_context("fork")
    held, release = fork.Event(), fork.Event()
    process = fork.Process(target=_hold, args=(path, held, release))
    process.start()
    held.wait()
    with pytest.raises(UserError, match="in use by another process"):
        Journal(path)
    process.kill()  # the lock does not outlive its process
    process.join()
    assert contents(path) == [HEADER, *RECORDS]


def test_the_same_process_cannot_open_it_twice(path):
    with Journal(path), pytest.raises(UserError, match="in use"):
        Journal(path)
    assert contents(path) == [HEADER, *RECORDS]
