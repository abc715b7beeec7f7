"""Reading lines: as many as there are newlines, whatever stands in them."""

import gzip
import io
import os
import random

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.translation.lines import count_lines, count_rest, open_lines, read_lines

ODD = "a\u2028b\x85c\x0cd\x0be\x1cf\rg\ufeff\tü\x01".encode()


def texts(content):
    warnings = []
    return [t for _, t in read_lines(io.BytesIO(content), "x", warnings.append)], warnings


def test_unusual_characters_stay_within_their_line():
    found, warnings = texts(ODD + b"\n\n" + ODD + b"\r\n" + ODD)
    assert found == [ODD.decode(), "", ODD.decode(), ODD.decode()] and warnings == []


def test_a_byte_order_mark_is_no_text_and_other_encodings_are_replaced_with_a_warning():
    found, warnings = texts(b"\xef\xbb\xbfa\n\xffb\xe9\nc\n\xfe\n")
    assert found == ["a", "\ufffdb\ufffd", "c", "\ufffd"]
    assert warnings == ["line 2 is not UTF-8: such bytes are read as U+FFFD"]


def test_random_bytes_have_as_many_lines_as_newlines(tmp_path):
    draw = random.Random(1)
    for number in range(50):
        content = bytes(draw.randrange(256) for _ in range(draw.randrange(300)))
        path = tmp_path / f"{number}.gz"
        path.write_bytes(gzip.compress(content))
        parts = content.split(b"\n")
        expected = len(parts) - (parts[-1] == b"")
        with open_lines(path) as stream:
            assert len(list(read_lines(stream, path, print))) == expected
        assert count_lines(path)[0] == expected


def test_the_rest_of_an_open_file_is_counted_without_reading_on(tmp_path):
    path = tmp_path / "text"
    path.write_bytes(b"a\nb\nc")
    with open(path, "rb", buffering=0) as stream:
        assert stream.readline() == b"a\n"
        assert count_rest(stream) == 2
        assert stream.read() == b"b\nc"
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream:
        assert count_rest(stream) is None
    os.close(writer)


def test_a_damaged_file_is_one_line(tmp_path):
    path = tmp_path / "text.gz"
    path.write_bytes(gzip.compress(os.urandom(5000))[:2000])
    with pytest.raises(UserError, match=r"text\.gz: damaged .* compress or copy it again"):
        count_lines(path)
    with open_lines(path) as stream, pytest.raises(UserError, match=r"text\.gz: damaged after"):
        list(read_lines(stream, path, print))
