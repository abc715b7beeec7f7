"""Names that `from_pretrained` and `translate` take."""

import pytest

from difformer_plugin.errors import UserError
from difformer_plugin.families.base import DiffusionModel


def test_the_data_bin_is_named_by_the_right_keyword():
    """fairseq replaces `data` by its third argument; this is said before a file is read."""
    with pytest.raises(UserError, match="data has no effect; .* data_name_or_path, the third"):
        DiffusionModel.from_pretrained("nowhere", "none.pt", data="data-bin")
