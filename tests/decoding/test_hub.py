"""Names that `from_pretrained` and `translate` take."""

import numpy as np
import pytest

from difformer_plugin.decoding.hub_checks import check_sentences
from difformer_plugin.errors import UserError
from difformer_plugin.families.base import DiffusionModel


def test_the_data_bin_is_named_by_the_right_keyword():
    """fairseq replaces `data` by its third argument; this is said before a file is read."""
    with pytest.raises(UserError, match="data has no effect; .* data_name_or_path, the third"):
        DiffusionModel.from_pretrained("nowhere", "none.pt", data="data-bin")


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match="from_pretrained: nowhere: no such folder or checkpoint"):
        DiffusionModel.from_pretrained("nowhere")
    with pytest.raises(UserError, match="from_pretrained: nowhere: no such folder; give a data-"):
        DiffusionModel.from_pretrained(str(tmp_path), "other.pt", "nowhere")


@pytest.mark.parametrize(
    "sentences, said",
    [
        (["a", None], "sentence 1 .*no str, but None"),
        ([float("nan")], "sentence 0 .*no str, but nan"),
        ((b"a",), "sentence 0 .*no str, but b'a'"),
        (b"a", "give a str or a list of them, not b'a'"),
        (3, "give a str or a list of them, not 3"),
    ],
)
def test_what_is_no_text_is_refused(sentences, said):
    """A table's empty cells were translated as the words "None" and "nan"."""
    with pytest.raises(UserError, match=said):
        check_sentences(sentences)


def test_sentences_may_be_any_iterable():
    assert check_sentences(iter(("a", np.str_("b")))) == check_sentences(["a", "b"]) == ["a", "b"]
