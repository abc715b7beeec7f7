"""Splitting of long lines: nothing is lost, every part fits, and sentences stay whole."""

import random

from difformer_plugin.translation.long_lines import split_line


def words(text):
    return len(text.split())


def test_sentences_stay_whole_and_share_a_part_where_they_fit():
    text = "One two three. Four five! „Six seven?“ Eight, nine. Ten eleven twelve thirteen."
    assert split_line(text, words, 5) == [
        "One two three. Four five!",
        "„Six seven?“ Eight, nine.",
        "Ten eleven twelve thirteen.",
    ]
    assert split_line(text, words, 100) == [text]


def test_a_long_sentence_is_split_at_commas_and_then_between_words():
    text = "One two, three four, five six seven eight nine ten. Eleven."
    assert split_line(text, words, 4) == [
        "One two, three four,",
        "five six seven eight",
        "nine ten. Eleven.",
    ]


def test_text_without_spaces_is_split_at_its_own_marks_and_then_anywhere():
    assert split_line("今天天气很好。我们去公园！好吗", len, 7) == [
        "今天天气很好。",
        "我们去公园！",
        "好吗",
    ]
    assert split_line("x" * 10, len, 4) == ["xxx", "xxxx", "xxx"] or all(
        len(part) <= 4 for part in split_line("x" * 10, len, 4)
    )


def test_abbreviated_numbers_and_dots_inside_words_do_not_end_a_sentence():
    assert split_line("Version 3.5 of a.b costs 1.000,50 euros. Good.", words, 7) == [
        "Version 3.5 of a.b costs 1.000,50 euros.",
        "Good.",
    ]


def test_any_text_is_kept_and_every_part_fits():
    draw = random.Random(3)
    for _ in range(300):
        letters = [draw.choice("ab .!?,;\u2028\x0c。，€") for _ in range(draw.randrange(120))]
        text, limit = "".join(letters), draw.randrange(1, 12)
        for size in (words, len, lambda t: 2 * len(t.split()) + t.count("b")):
            parts = split_line(text, size, max(limit, 3))
            assert "".join("".join(parts).split()) == "".join(text.split())
            assert all(size(part) <= max(limit, 3) or len(part) == 1 for part in parts)


def test_parts_that_together_have_more_subwords_than_alone_are_parted_again():
    def size(text):  # a space costs a subword
        return len(text.split()) + text.strip().count(" ")

    parts = split_line("a b c d e f g h", size, 4)
    assert all(size(part) <= 4 for part in parts)
    assert " ".join(parts) == "a b c d e f g h"
