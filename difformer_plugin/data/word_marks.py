"""Which subwords belong to one word, by the marks of any BPE that fairseq can join."""

from typing import Any, NamedTuple

import torch
from fairseq import utils
from fairseq.data import Dictionary
from fairseq.data.data_utils import post_process

from difformer_plugin.data import pipeline
from difformer_plugin.errors import UserError

CONTINUES = ("subword_nmt", "@@ ", "@@")  # the last part of a word alone has no such suffix
BEGINS = {"sentencepiece": "\u2581", "wordpiece": "_"}  # the first part alone has such a prefix
ENDS = {"letter": "|", "_EOW": "_EOW"}  # the last part alone has such a suffix
WHOLE = ("none", "silence")  # every token is a word
OF_PIPELINE = {
    pipeline.NONE: "none",
    pipeline.BPE: "@@ ",
    pipeline.SENTENCEPIECE: "sentencepiece",
}


class Joins(NamedTuple):
    """Which types belong to the word of a neighbour."""

    next: torch.Tensor  # bool (V,), the token after one of this type continues its word
    previous: torch.Tensor  # bool (V,), one of this type continues the word of the token before


def find_mark(cfg: Any, dictionary: Dictionary) -> str:
    """How subwords are joined to words, a value of fairseq's --post-process.

    It is that of --eval-bleu-remove-bpe, or of the data-bin's pipeline.json; without either, the
    dictionary tells by its marks.

    Args:
        cfg: the task's configuration.
    """
    if cfg.eval_bleu_remove_bpe:
        return cfg.eval_bleu_remove_bpe
    own = pipeline.load(utils.split_paths(cfg.data)[0])
    return mark_of(dictionary) if own is None else OF_PIPELINE[own.subwords.kind]


def mark_of(dictionary: Dictionary) -> str:
    """How the subwords of a dictionary are joined, by their marks."""
    symbols = dictionary.symbols[dictionary.nspecial :]
    begin = sum(symbol.startswith(BEGINS["sentencepiece"]) for symbol in symbols)
    go_on = sum(symbol.endswith("@@") for symbol in symbols)
    if begin > go_on:
        return "sentencepiece"
    return "@@ " if go_on else "none"


def check_mark(mark: str, option: str = "--post-process") -> None:
    """Check that fairseq knows a way of joining subwords, such as '@@ '.

    Args:
        option: what messages call it.
    Raises:
        UserError: it does not.
    """
    try:
        post_process("", mark)
    except NotImplementedError:  # what fairseq raises for an unknown name
        raise UserError(
            f"{option} '{mark}' is unknown to fairseq: give '@@ ', or sentencepiece"
        ) from None


def find_joins(dictionary: Dictionary, mark: str) -> Joins:
    """Which types belong to the word of a neighbour; BOS, EOS and padding never do.

    Args:
        mark: a value of fairseq's --post-process.
    Raises:
        UserError: it is unknown.
    """
    none = [False] * len(dictionary)
    follows, precedes = none, none
    if mark in CONTINUES:
        follows = [symbol.endswith("@@") for symbol in dictionary.symbols]
    elif mark in ENDS:
        follows = [not symbol.endswith(ENDS[mark]) for symbol in dictionary.symbols]
    elif mark in BEGINS:
        precedes = [not symbol.startswith(BEGINS[mark]) for symbol in dictionary.symbols]
    elif mark not in WHOLE:
        known = ", ".join(repr(name) for name in (*CONTINUES, *BEGINS, *ENDS, *WHOLE))
        raise UserError(
            f"--generate-words: words of subwords joined by {mark!r} are unknown; known are {known}"
        )
    frame = torch.tensor([dictionary.bos(), dictionary.eos(), dictionary.pad()])
    return Joins(*(torch.tensor(own).index_fill(0, frame, False) for own in (follows, precedes)))
