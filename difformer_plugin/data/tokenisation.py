"""Words and subwords of a text: the Moses tokeniser and joint BPE, as fairseq applies them."""

import contextlib
from itertools import chain

from difformer_plugin.errors import UserError


def tokeniser(lang, aggressive_dash_splits=True):
    """Text -> Moses tokens; by default exactly as fairseq's own `--tokenizer moses` makes them."""
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang)
    return lambda text: moses.tokenize(
        text, aggressive_dash_splits=aggressive_dash_splits, return_str=True, escape=True
    )


def detokeniser(lang):
    """Moses tokens -> text, exactly as fairseq's own `--tokenizer moses` joins them."""
    from sacremoses import MosesDetokenizer

    moses = MosesDetokenizer(lang)
    return lambda text: moses.detokenize(text.split())


def remove_bpe(text):
    """Join subwords, as `--remove-bpe` does."""
    return (text + " ").replace("@@ ", "").rstrip()


def learn_codes(paths, codes, merges):
    """Learn one BPE on all tokenised files together and write its merges to `codes`."""
    from subword_nmt.learn_bpe import learn_bpe

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in paths]
        handle = stack.enter_context(open(codes, "w", encoding="utf-8", newline="\n"))
        # It takes the maximum over the pairs of letters, and there may be none.
        with contextlib.suppress(ValueError):
            learn_bpe(chain(*files), handle, merges)
    with _open(codes) as handle:
        if len(handle.readlines()) == 1:  # the version and no merge: apply_bpe would not read it
            raise UserError("train repeats no pair of letters: use 0 BPE merges or more text")


def load_codes(path):
    """Tokenised line -> the same in subwords, by the merges in a file."""
    from subword_nmt.apply_bpe import BPE

    with _open(path) as handle:
        return BPE(handle).process_line


def _open(path):
    return open(path, encoding="utf-8", newline="\n")
