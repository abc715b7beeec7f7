"""The vectors in which the nearest-neighbour process finds neighbours."""

import pytest
import torch

from difformer_plugin.errors import UserError
from difformer_plugin.families.tokens.config import DiscreteDiffusionConfig
from difformer_plugin.families.tokens.type_vectors import type_vectors

FIRST_TYPE = 3


def cfg(**options):
    return DiscreteDiffusionConfig(process="nearest", objective="d3pm", **options)


@pytest.fixture
def write(tmp_path):
    def write(name, content):
        path = tmp_path / name
        if isinstance(content, str):
            path.write_text(content)
        else:
            torch.save(content, path)
        return str(path)

    return write


def text_of(symbols, dim=2):
    return "\n".join(f"{symbol} " + " ".join([str(i + 0.5)] * dim) for i, symbol in symbols)


def test_vectors_of_a_text(task, write):
    """Special symbols need none; a heading is skipped, and other symbols do no harm."""
    symbols = list(enumerate(task.target_dictionary.symbols))
    text = "22 2\n" + text_of(symbols[FIRST_TYPE:]) + "\nelsewhere 7 7"
    for option in ("neighbour_embeddings", "decoder_embed_path"):
        vectors = type_vectors(cfg(**{option: write("v.txt", text)}), task.target_dictionary)
        assert vectors.tolist() == [[0, 0]] * FIRST_TYPE + [
            [i + 0.5] * 2 for i, _ in symbols[FIRST_TYPE:]
        ]


@pytest.mark.parametrize("table", ["decoder.embed_tokens.weight", "denoiser.embed_tokens.weight"])
def test_vectors_of_a_checkpoint(task, write, table):
    weights = torch.randn(len(task.target_dictionary), 3)
    path = write("c.pt", {"model": {table: weights.half(), "encoder.x": torch.zeros(1)}})
    vectors = type_vectors(cfg(neighbour_embeddings=path), task.target_dictionary)
    assert vectors.dtype == torch.float32 and vectors.equal(weights.half().float())


def test_vectors_of_models_of_ours_and_fairseqs(task, teacher, build_discrete, write):
    for model in (teacher, build_discrete()):
        path = write("model.pt", {"model": model.state_dict()})
        vectors = type_vectors(cfg(neighbour_embeddings=path), task.target_dictionary)
        part = model.decoder if model is teacher else model.denoiser
        assert vectors.equal(part.embed_tokens.weight)


@pytest.mark.parametrize("case", ["none", "missing", "size", "empty", "text", "dims", "lines"])
def test_vectors_that_are_refused(task, write, tmp_path, case):
    symbols = list(enumerate(task.target_dictionary.symbols))
    whole = text_of(symbols)
    table = {"model": {"decoder.embed_tokens.weight": torch.zeros(7, 3)}}
    path, said = {
        "none": (None, "--process nearest needs embeddings"),
        "missing": (str(tmp_path / "no.txt"), "no.txt: No such file"),
        "size": (write("s.pt", table), "a table of 7 types, but.*24"),
        "empty": (write("e.pt", {"model": {}}), "no table"),
        "text": (write("t.txt", text_of(symbols[:-2])), "no vector for 't18@@' and 1 other types"),
        "dims": (write("d.txt", whole + "\nmore 1 2 3"), "several dimensions"),
        "lines": (write("l.txt", whole + "\nmore 1 x"), "line 25"),
    }[case]
    with pytest.raises(UserError, match=said) as error:
        type_vectors(cfg(neighbour_embeddings=path), task.target_dictionary)
    assert "\n" not in str(error.value)
