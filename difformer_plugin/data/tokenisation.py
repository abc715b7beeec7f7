"""Moses tokenisation, joint byte-pair encoding (BPE), and SentencePiece, equal to fairseq's own."""

import contextlib
from collections.abc import Callable, Iterable
from itertools import chain
from os import PathLike
from typing import TextIO

from difformer_plugin.errors import UserError

CACHED_WORDS = 200_000


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


def learn_codes(paths: Iterable[str | PathLike], codes: str | PathLike, merges: int) -> int:
    """Learn one BPE on several tokenised files together.

    Args:
        paths: the tokenised files.
        codes: file to write the merges to.
        merges: their number, at most.
    Returns:
        the number of merges that were learned; there are fewer if no pair of symbols is left that
        occurs twice.
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
        learned = len(written.readlines()) - 1  # after a line with the version
    if learned == 0:
        raise UserError("train repeats no pair of letters: use 0 BPE merges or more text")
    return learned


def load_codes(path: str | PathLike) -> Callable[[str], str]:
    """Function from a tokenised line to subwords, by the merges in a file."""
    from subword_nmt.apply_bpe import BPE

    with _open(path) as handle:
        bpe = BPE(handle)

    def split(line: str) -> str:
        if len(bpe.cache) > CACHED_WORDS:  # the library would remember every word of a large file
            bpe.cache.clear()
        return bpe.process_line(line)

    return split


def check_sentencepiece() -> None:
    """Raise a UserError if the package sentencepiece is not installed."""
    try:
        import sentencepiece  # noqa: F401
    except ImportError:
        raise UserError(
            "SentencePiece is not installed: pip install sentencepiece, or use BPE merges"
        ) from None


def learn_sentencepiece(
    paths: Iterable[str | PathLike], model: str | PathLike, vocab_size: int
) -> int:
    """Learn one SentencePiece model (unigram) on several files together.

    The library holds the whole text in memory. The same text gives the same model.

    Args:
        paths: the files, a sentence a line.
        model: file to write to.
        vocab_size: the number of pieces, at most.
    Returns:
        the number of pieces; fewer if the text does not have so many.
    Raises:
        UserError: the text has more different characters than `vocab_size`.
    """
    from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in paths]
        handle = stack.enter_context(open(model, "wb"))
        try:
            SentencePieceTrainer.train(
                sentence_iterator=(line.rstrip("\n") for line in chain(*files)),
                model_writer=handle,
                vocab_size=vocab_size,
                character_coverage=1.0,
                hard_vocab_limit=False,
                num_threads=1,  # sums of several threads could differ in the last bit
                minloglevel=2,
            )
        except RuntimeError as error:
            reason = str(error).rpartition("] ")[2].partition(". Increase")[0]
            reason = reason or "too few for <unk>, <s>, </s> and the characters"
            raise UserError(
                f"SentencePiece cannot make a vocabulary of {vocab_size:,} pieces from train "
                f"({reason}): choose another size"
            ) from None
    return SentencePieceProcessor(model_file=str(model)).get_piece_size()


def load_sentencepiece(path: str | PathLike) -> Callable[[str], str]:
    """Function from a line to the pieces of a SentencePiece model, separated by spaces."""
    from sentencepiece import SentencePieceProcessor

    processor = SentencePieceProcessor(model_file=str(path))
    return lambda line: " ".join(processor.encode(line, out_type=str))


def _open(path: str | PathLike) -> TextIO:
    return open(path, encoding="utf-8", newline="\n")
