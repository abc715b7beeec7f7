"""Moses tokenisation and joint byte-pair encoding (BPE), equal to fairseq's own."""

import contextlib
from collections.abc import Callable, Iterable
from itertools import chain
from os import PathLike
from typing import TextIO

from difformer_plugin.errors import UserError


def tokeniser(lang: str, aggressive_dash_splits: bool = True) -> Callable[[str], str]:
    """Function from text to Moses tokens; by default equal to fairseq's `--tokenizer moses`.

    Args:
        lang: language whose rules apply.
        aggressive_dash_splits: split hyphenated words: a-b becomes a @-@ b.
    """
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang)
    return lambda text: moses.tokenize(
        text, aggressive_dash_splits=aggressive_dash_splits, return_str=True, escape=True
    )


def detokeniser(lang: str) -> Callable[[str], str]:
    """Function from Moses tokens to text, equal to fairseq's `--tokenizer moses`."""
    from sacremoses import MosesDetokenizer

    moses = MosesDetokenizer(lang)
    return lambda text: moses.detokenize(text.split())


def remove_bpe(text: str) -> str:
    """Join subwords, as `--remove-bpe` does."""
    return (text + " ").replace("@@ ", "").rstrip()


def learn_codes(paths: Iterable[str | PathLike], codes: str | PathLike, merges: int) -> None:
    """Learn one BPE on several tokenised files together.

    Args:
        paths: the tokenised files.
        codes: file to write the merges to.
        merges: their number, at most.
    Raises:
        UserError: no pair of letters occurs twice, so there is nothing to merge.
    """
    from subword_nmt.learn_bpe import learn_bpe

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in paths]
        handle = stack.enter_context(open(codes, "w", encoding="utf-8", newline="\n"))
        # learn_bpe takes the maximum over all pairs of letters, and there may be none.
        with contextlib.suppress(ValueError):
            learn_bpe(chain(*files), handle, merges)
    with _open(codes) as written:
        if len(written.readlines()) == 1:  # a version line alone, which apply_bpe does not read
            raise UserError("train repeats no pair of letters: use 0 BPE merges or more text")


def load_codes(path: str | PathLike) -> Callable[[str], str]:
    """Function from a tokenised line to subwords, by the merges in a file."""
    from subword_nmt.apply_bpe import BPE

    with _open(path) as handle:
        return BPE(handle).process_line


def _open(path: str | PathLike) -> TextIO:
    return open(path, encoding="utf-8", newline="\n")
