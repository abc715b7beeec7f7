"""Embeddings for the graph of nearest types: messages name the option that gave the file."""

from types import SimpleNamespace

import pytest
from fairseq.data import Dictionary

from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.type_vectors import type_vectors


@pytest.mark.parametrize("name", ["neighbour_embeddings", "decoder_embed_path"])
def test_a_file_without_a_type_is_named_by_its_option(tmp_path, name):
    path = tmp_path / "vectors.txt"
    path.write_text("1 2\nhere 0.5 0.5\n", "utf-8")
    dictionary = Dictionary()
    for symbol in ("here", "absent"):
        dictionary.add_symbol(symbol)
    paths = {"neighbour_embeddings": None, "decoder_embed_path": None, name: str(path)}
    option = "--" + name.replace("_", "-")
    with pytest.raises(UserError, match=f"^{option} .*vectors.txt has no vector for"):
        type_vectors(SimpleNamespace(**paths), dictionary)
