"""Raw parallel text in, tokenised text with joint subwords out, ready for fairseq-preprocess."""

import contextlib
import gzip
import logging
import os
import re
import tempfile
import zlib
from itertools import chain

from difformer_plugin.errors import UserError

logger = logging.getLogger(__name__)

SPLITS = {"train": ("train",), "valid": ("valid", "val"), "test": ("test",)}
CONTROL = re.compile(r"[\x00-\x1f]")  # what the Moses tokeniser deletes


def find_split(folder, split, lang):
    """Path of a split in one language: `train.de` or `train.de.gz`; `val` will do for `valid`."""
    names = [f"{stem}.{lang}{end}" for stem in SPLITS[split] for end in ("", ".gz")]
    for name in names:
        path = os.path.join(folder, name)
        if os.path.isfile(path):
            return path
    raise UserError(f"{folder}: no {' or '.join(names)} there; put the {split} text in one of them")


def read_lines(path):
    r"""Lines of a plain or gzipped UTF-8 file, split on \n only: U+2028 and such stay inside."""
    opener = gzip.open if str(path).endswith(".gz") else open
    with opener(path, "rb") as handle:
        number = 0
        try:
            for number, line in enumerate(handle, start=1):
                text = line.rstrip(b"\r\n").decode("utf-8")
                yield text.removeprefix("\ufeff") if number == 1 else text
        except UnicodeDecodeError as error:
            raise UserError(
                f"{path}, line {number}: not UTF-8 ({error.reason}); convert the file with iconv"
            ) from error
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise UserError(
                f"{path}: damaged gzip after line {number} ({error}); fetch the file again"
            ) from error


def read_pairs(folder, split, src, tgt):
    """Yield (source, target) for each line of a split.

    Pairs with an empty side are dropped from train, with a count in the log; in valid and test,
    where every line is scored, they are an error.
    """
    paths = [find_split(folder, split, lang) for lang in (src, tgt)]
    dropped = 0
    for number, pair in enumerate(_zip_lines(paths), start=1):
        empty = [path for path, text in zip(paths, pair, strict=True) if is_empty(text)]
        if empty and split != "train":
            raise UserError(
                f"{empty[0]}, line {number}: empty; remove the line from {paths[0]} and {paths[1]}"
            )
        if empty:
            dropped += 1
        else:
            yield pair
    if dropped:
        logger.warning("%s: dropped %d pairs in which one side is empty", split, dropped)


def is_empty(text):
    """Whether the tokeniser would leave nothing of the text."""
    return not CONTROL.sub("", text).strip()


def _zip_lines(paths):
    """Lines side by side; complains where one file ends before the other."""
    files = [read_lines(path) for path in paths]
    counts = [0, 0]
    with contextlib.ExitStack() as stack:
        for lines in files:
            stack.callback(lines.close)
        while True:
            pair = [next(lines, None) for lines in files]
            counts = [count + (text is not None) for count, text in zip(counts, pair, strict=True)]
            if None in pair:
                break
            yield tuple(pair)
        counts = [count + sum(1 for _ in lines) for count, lines in zip(counts, files, strict=True)]
    for path, count in zip(paths, counts, strict=True):
        if count == 0:
            raise UserError(f"{path}: the file is empty; it needs one sentence a line")
    if counts[0] != counts[1]:
        raise UserError(
            f"{paths[0]} has {counts[0]} lines and {paths[1]} has {counts[1]}; "
            "they must be translations line by line"
        )


def tokeniser(lang):
    """Text -> Moses tokens, exactly as fairseq's own `--tokenizer moses` makes them."""
    from sacremoses import MosesTokenizer

    moses = MosesTokenizer(lang)
    return lambda text: moses.tokenize(
        text, aggressive_dash_splits=True, return_str=True, escape=True
    )


def detokeniser(lang):
    """Moses tokens -> text, exactly as fairseq's own `--tokenizer moses` joins them."""
    from sacremoses import MosesDetokenizer

    moses = MosesDetokenizer(lang)
    return lambda text: moses.detokenize(text.split())


def remove_bpe(text):
    """Join subwords, as `--remove-bpe` does."""
    return (text + " ").replace("@@ ", "").rstrip()


def prepare(folder, out, src, tgt, bpe_merges=8000, lowercase=False, progress=True):
    """Tokenise train, valid and test of `folder`, and split words by a BPE learnt on both sides.

    Writes `out/{train,valid,test}.{src,tgt}` and, unless `bpe_merges` is 0, `out/codes`; nothing
    appears there before all of it is done. Returns the number of pairs in each split.
    """
    if bpe_merges < 0:
        raise UserError(f"{bpe_merges} BPE merges; give a positive number, or 0 for whole words")
    os.makedirs(out, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out, prefix="unfinished-") as work:
        counts = {}
        for split in SPLITS:
            pairs = _show(read_pairs(folder, split, src, tgt), f"tokenise {split}", progress)
            stem = os.path.join(work, split)
            counts[split] = _write_tokenised(pairs, stem, (src, tgt), lowercase)
        if bpe_merges:
            train = [os.path.join(work, f"train.{lang}") for lang in (src, tgt)]
            codes = os.path.join(work, "codes")
            learn_codes(train, codes, bpe_merges)
            for split in SPLITS:
                for lang in (src, tgt):
                    _apply_codes(codes, os.path.join(work, f"{split}.{lang}"), progress)
        for name in sorted(os.listdir(work)):
            os.replace(os.path.join(work, name), os.path.join(out, name))
    return counts


def _show(iterable, what, progress):
    from tqdm import tqdm

    return tqdm(iterable, desc=what, unit=" lines", disable=not progress)


def _write_tokenised(pairs, stem, langs, lowercase):
    """Write pairs to `stem.lang` in tokens; return their number."""
    count = 0
    tokenise = [tokeniser(lang) for lang in langs]
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_create(f"{stem}.{lang}")) for lang in langs]
        for pair in pairs:
            for text, to_tokens, handle in zip(pair, tokenise, files, strict=True):
                handle.write(to_tokens(text.lower() if lowercase else text) + "\n")
            count += 1
    if count == 0:
        raise UserError(f"{os.path.basename(stem)}: every pair has an empty side; nothing is left")
    return count


def _create(path):
    return open(path, "w", encoding="utf-8", newline="\n")


def _open(path):
    return open(path, encoding="utf-8", newline="\n")


def learn_codes(paths, codes, merges):
    """Learn one BPE on all tokenised files together and write its merges to `codes`."""
    from subword_nmt.learn_bpe import learn_bpe

    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(_open(path)) for path in paths]
        handle = stack.enter_context(_create(codes))
        # It takes the maximum over the pairs of letters, and there may be none.
        with contextlib.suppress(ValueError):
            learn_bpe(chain(*files), handle, merges)
    with _open(codes) as handle:
        if len(handle.readlines()) == 1:  # the version and no merge: apply_bpe would not read it
            raise UserError("train repeats no pair of letters: use 0 BPE merges or more text")


def _apply_codes(codes, path, progress):
    """Split the words of a tokenised file into subwords, in place."""
    from subword_nmt.apply_bpe import BPE

    with _open(codes) as handle:
        bpe = BPE(handle)
    with _open(path) as lines, _create(path + ".bpe") as handle:
        for line in _show(lines, f"subwords {os.path.basename(path)}", progress):
            handle.write(bpe.process_line(line))
    os.replace(path + ".bpe", path)
