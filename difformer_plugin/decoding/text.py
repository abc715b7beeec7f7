"""Tokens as text."""

from collections.abc import Sequence

import torch
from fairseq.data import Dictionary


def to_text(
    dictionary: Dictionary,
    tokens: torch.Tensor | Sequence[int],
    post_process: str | None,
    escape_unk: bool = False,
) -> str:
    """Tokens (L,) as words separated by blanks, without BOS and EOS, as fairseq prints them.

    Args:
        post_process: how subwords are joined, a value of fairseq's --post-process.
        escape_unk: of a reference: leave its padding out, and write <unk> as <<unk>>, so that a
            hypothesis that holds <unk> does not match it. Padding that a model has drawn is shown.
    """
    ignored = {dictionary.pad()} if escape_unk else set()
    return dictionary.string(tokens, post_process, escape_unk, extra_symbols_to_ignore=ignored)
