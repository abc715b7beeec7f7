"""Words of any BPE: what fairseq joins to a word is found to be one."""

from types import SimpleNamespace

import pytest
import torch
from fairseq.data.data_utils import post_process
from hypothesis import given
from hypothesis import strategies as st
from tiny import make_dictionary

from difformer_plugin.data import pipeline
from difformer_plugin.data.word_marks import find_joins, find_mark, mark_of
from difformer_plugin.errors import UserError

pieces = st.text("abcäß1.", min_size=1, max_size=3)
texts = st.lists(st.lists(pieces, min_size=1, max_size=4), min_size=1, max_size=6)
WRITE = {
    "@@ ": lambda word: [*(p + "@@" for p in word[:-1]), word[-1]],
    "subword_nmt": lambda word: [*(p + "@@" for p in word[:-1]), word[-1]],
    "sentencepiece": lambda word: ["\u2581" + word[0], *word[1:]],
    "wordpiece": lambda word: ["_" + word[0], *word[1:]],
    "letter": lambda word: [*word, "|"],
    "_EOW": lambda word: [*word[:-1], word[-1] + "_EOW"],
    "none": lambda word: ["".join(word)],
}


def split(tokens, mark):
    """Groups of tokens that belong to one word."""
    dictionary = make_dictionary(sorted(set(tokens)))
    joins, indices = find_joins(dictionary, mark), [dictionary.index(t) for t in tokens]
    groups = [[tokens[0]]]
    for before, after, token in zip(indices, indices[1:], tokens[1:]):
        if joins.next[before] or joins.previous[after]:
            groups[-1].append(token)
        else:
            groups.append([token])
    return groups


@given(texts, st.sampled_from(sorted(WRITE)))
def test_words_are_those_that_fairseq_joins(words, mark):
    tokens = [token for word in words for token in WRITE[mark](word)]
    found = [post_process(" ".join(group), mark) for group in split(tokens, mark)]
    assert found == post_process(" ".join(tokens), mark).split() == ["".join(w) for w in words]


@given(texts, st.sampled_from(["@@ ", "sentencepiece"]))
def test_a_dictionary_tells_by_its_marks(words, mark):
    own = make_dictionary([token for word in words for token in WRITE[mark](word)])
    cut = mark == "sentencepiece" or any(len(word) > 1 for word in words)
    assert mark_of(own) == (mark if cut else "none")


def test_a_stray_mark_does_not_tell():
    assert mark_of(make_dictionary(["\u2581", "a@@", "b@@", "c"])) == "@@ "
    assert mark_of(make_dictionary(["\u2581a", "\u2581b", "c@@"])) == "sentencepiece"


def test_the_frame_continues_no_word():
    dictionary = make_dictionary(["\u2581a", "b"])
    for mark in ("sentencepiece", "_EOW"):
        frame = [dictionary.bos(), dictionary.eos(), dictionary.pad()]
        assert not any(own[frame].any() for own in find_joins(dictionary, mark))


@pytest.mark.parametrize("kind", pipeline.KINDS)
def test_a_pipeline_wins_over_marks_and_an_option_over_both(tmp_path, kind):
    cfg = SimpleNamespace(data=str(tmp_path), eval_bleu_remove_bpe=None)
    dictionary = make_dictionary(["a@@", "b"])
    assert find_mark(cfg, dictionary) == "@@ "
    file = None
    if kind != "none":
        file = tmp_path / "any"
        file.write_text("merges")
    own = pipeline.Pipeline("de", "en", subwords=pipeline.describe_subwords(kind, file))
    pipeline.save(own, tmp_path, file)
    expected = {"none": "none", "bpe": "@@ ", "sentencepiece": "sentencepiece"}[kind]
    assert find_mark(cfg, dictionary) == expected
    cfg.eval_bleu_remove_bpe = "_EOW"
    assert find_mark(cfg, dictionary) == "_EOW"


def test_an_unknown_mark_is_one_line():
    with pytest.raises(UserError, match="'##' are unknown; known are 'subword_nmt', '@@ '"):
        find_joins(make_dictionary(["a"]), "##")


def test_joins_are_masks_of_all_types():
    joins = find_joins(make_dictionary(["a@@", "b"]), "@@ ")
    assert joins.next.dtype == joins.previous.dtype == torch.bool
    assert joins.next.sum() == 1 and joins.previous.sum() == 0
