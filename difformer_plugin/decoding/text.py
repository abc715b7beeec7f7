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
    """Tokens (L,) as words separated by blanks, without BOS, EOS and padding.

    Args:
        post_process: how subwords are joined, a value of fairseq's --post-process.
        escape_unk: write <unk> as <<unk>>, as fairseq does in references: a hypothesis that holds
            <unk> does not match it.
    """
    return dictionary.string(
        tokens, post_process, escape_unk, extra_symbols_to_ignore={dictionary.pad()}
    )
