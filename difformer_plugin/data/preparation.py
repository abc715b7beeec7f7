"""A recipe at work: raw text to clean tokens, to joint subwords, to a data-bin."""

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections import Counter
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import chain
from pathlib import Path

from difformer_plugin import __version__
from difformer_plugin.data.cleaning import is_empty, normalise, to_tokens, unfit
from difformer_plugin.data.corpus import learn_codes, load_codes, read_lines
from difformer_plugin.data.files import atomic_text, locked
from difformer_plugin.data.passes import run_pass
from difformer_plugin.data.sources import Folder, Pairs, side_by_side
from difformer_plugin.errors import UserError

SPLITS = ("train", "valid", "test")
RESULTS, UNFINISHED = ("text", "reference", "data-bin"), "unfinished"
DONE = "prepare.json"  # the last file that appears
TOLERANCE = 0.005  # by which sizes may differ from those that a recipe names


def prepare(recipe, raw, out, langs, workers=1, binarise=None, progress=True):
    """Make tokenised text in joint subwords, and a data-bin of it, from the files of a corpus.

    Writes `out/text/{train,valid,test}.LANG`, `out/text/codes` unless words stay whole,
    `out/reference/{valid,test}.LANG`, the untouched text of the same lines, and `out/data-bin`;
    nothing of it is there before all of it is done. Stopped at any moment and called again, it
    goes on where it was. The same input gives the same bytes, however many workers there are.

    Args:
        recipe: a Recipe.
        raw: folder of the publisher's files.
        langs: (source, target).
        workers: processes.
        binarise: function (folder of text, new folder of the data-bin, langs, workers), or None
            for text alone.
    Returns:
        a Summary.
    Raises:
        UserError: files are missing, damaged, or do not match line by line; `out` holds something
            else.
    """
    out = Path(out)
    pairs = _open(recipe, raw, out, langs)
    key = _key(recipe, langs, pairs, binarise is not None)
    if (out / DONE).exists():
        return _finished(out, key)
    work = out / UNFINISHED
    with locked(work):
        _claim(out, work, key)
        if not (work / DONE).exists():
            counts = _make(recipe, pairs, work, langs, workers, binarise, progress)
            with atomic_text(work / DONE) as handle:
                json.dump({"key": key, "counts": counts}, handle, indent=1)
        for name in (*RESULTS, DONE):
            if (work / name).exists():
                os.replace(work / name, out / name)
    shutil.rmtree(work)
    return replace(_finished(out, key), known=False)


@dataclass
class Summary:
    """What `prepare` did.

    `counts` has for each split `lines`, `pairs`, and how many were dropped for each reason;
    `known` is true if all was there already.
    """

    counts: dict
    known: bool = False


def _make(recipe, pairs, work, langs, workers, binarise, progress):
    """All results in the folder of unfinished work; returns the counts of each split."""
    counts = {}
    for split in SPLITS:
        if pairs[split]:
            counts[split] = _tokenise(recipe, split, pairs[split], work, langs, workers, progress)
    _draw(recipe, counts)
    _split_words(recipe, counts, work, langs, workers, progress)
    if binarise is not None:
        # an interrupted fairseq-preprocess leaves dictionaries that make the next one stop
        shutil.rmtree(work / "data-bin", ignore_errors=True)
        binarise(work / "text", work / "data-bin", langs, workers)
    return counts


def unlike_the_paper(recipe, counts):
    """A line for each split whose size is more than 0.5 % away from what the recipe names."""
    lines = []
    for split, expected in recipe.pairs.items():
        found = counts[split]["pairs"]
        if abs(found - expected) > TOLERANCE * expected:
            lines.append(
                f"{split} has {found:,} pairs, and {expected:,} according to {recipe.pairs_from} "
                f"({found / expected - 1:+.1%})"
            )
    return lines


def fingerprint(recipe, raw, out, langs):
    """A digest of all that `prepare` would make text of: recipe, languages, files."""
    return _key(recipe, langs, _open(recipe, raw, Path(out), langs), False)


def _open(recipe, raw, out, langs):
    """The pairs of each split, split -> list of Pairs; all files are looked for at once."""
    folder = Folder(raw, leave_out=[out / name for name in (*RESULTS, UNFINISHED)])
    return {
        name: [Pairs(s, folder, langs, recipe.published) for s in getattr(recipe, name).files]
        for name in SPLITS
    }


def _key(recipe, langs, pairs, binarised):
    """A digest of all that the result depends on."""
    raws = [raw.identity() for sources in pairs.values() for p in sources for raw in p.raws]
    entries = [dataclasses.asdict(recipe), langs, raws, binarised, __version__]
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _finished(out, key):
    done = json.loads((out / DONE).read_text("utf-8"))
    if done["key"] != key:
        raise UserError(
            f"--out {out} holds a corpus made of other files, by another recipe or version: choose "
            "another folder, or remove it"
        )
    return Summary(done["counts"], known=True)


def _claim(out, work, key):
    """Begin, or go on with what an earlier run with the same key has begun."""
    mark = work / "key"
    if mark.exists() and mark.read_text("utf-8") == key:
        return
    if others := sorted(
        p.name for p in out.iterdir() if p.name in ("text", "reference", "data-bin")
    ):
        raise UserError(f"--out {out} holds a {others[0]} of another origin: choose another folder")
    for path in work.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("tokens", "text", "reference"):
        (work / name).mkdir()
    with atomic_text(mark) as handle:
        handle.write(key)


def _tokenise(recipe, split, pairs, work, langs, workers, progress):
    """The first pass over a split; returns its counts."""
    drawn = next((name for name in SPLITS if getattr(recipe, name).every), None)
    every = getattr(recipe, drawn).every if drawn and split == "train" else 0

    def outputs(row, before):
        name = drawn if every and (before + 1) % every == 0 else split
        files = [f"tokens/{name}.{lang}" for lang in langs]
        if name != "train":
            files += [f"reference/{name}.{lang}" for lang in langs]
        return dict(zip(files, row))

    function = Tokenise(recipe, split, tuple(langs))
    name = f"tokenise {split}"
    counts = run_pass(work, name, chain(*pairs), function, outputs, workers, progress)
    if counts["rows"] == 0:
        raise UserError(f"{split}: no pair is left ({_reasons(counts)})")
    return {"pairs" if key == "rows" else key: value for key, value in counts.items()}


def _reasons(counts):
    reasons = {k: v for k, v in counts.items() if k not in ("rows", "lines", "pairs")}
    return ", ".join(f"{number:,} {reason}" for reason, number in reasons.items()) or "none read"


def _draw(recipe, counts):
    """Move the numbers of a split that is drawn from train."""
    for name in SPLITS:
        if every := getattr(recipe, name).every:
            number = counts["train"]["pairs"] // every
            if number == 0:
                raise UserError(f"train has fewer than {every} pairs: none is left for {name}")
            counts["train"]["pairs"] -= number
            counts[name] = {"pairs": number}


def _split_words(recipe, counts, work, langs, workers, progress):
    """Learn the joint BPE and apply it, each if it is not done yet; updates the counts."""
    codes = work / "text" / "codes"
    if recipe.bpe_merges and not codes.exists():
        unfinished = work / "codes"
        learn_codes(
            [work / "tokens" / f"train.{lang}" for lang in langs], unfinished, recipe.bpe_merges
        )
        os.replace(unfinished, codes)
    for split in SPLITS:
        files = [work / "tokens" / f"{split}.{lang}" for lang in langs]
        rows = side_by_side(*map(read_lines, files), files)
        clean = recipe.clean if split == "train" and recipe.clean.units == "subwords" else None
        function = SplitWords(str(codes) if recipe.bpe_merges else None, clean)
        names = [f"text/{split}.{lang}" for lang in langs]
        found = run_pass(
            work, f"subwords {split}", rows, function,
            lambda row, before, names=names: dict(zip(names, row)), workers, progress,
        )  # fmt: skip
        if found["rows"] == 0:
            raise UserError(f"{split}: no pair is left ({_reasons(found)})")
        counts[split]["pairs"] = found["rows"]
        dropped = Counter({k: v for k, v in found.items() if k not in ("rows", "lines")})
        counts[split] = dict(Counter(counts[split]) + dropped)


@dataclass(frozen=True)
class Tokenise:
    """(place, source text, target text) -> rows of tokens, and the text itself, of what stays."""

    recipe: object
    split: str
    langs: tuple

    def __call__(self, entries):
        rows, counts = [], Counter()
        for place, *texts in entries:
            pair = [
                to_tokens(normalise(text, self.recipe.text, lang), self.recipe.text, lang)
                for text, lang in zip(texts, self.langs, strict=True)
            ]
            reason = self._reason(place, texts, pair)
            if reason is None:
                # a line must stay one to every reader
                rows.append((*pair, *(" ".join(text.splitlines()) for text in texts)))
            else:
                counts[reason] += 1
        return rows, counts

    def _reason(self, place, texts, pair):
        """Why a pair is left out of train; in the other splits, where all are scored, an error."""
        empty = [i for i in (0, 1) if is_empty(texts[i]) or not pair[i]]
        if self.split == "train":
            clean = self.recipe.clean
            return "empty" if empty else unfit(*pair, clean) if clean.units == "tokens" else None
        if empty:
            (raws, number) = place
            raise UserError(
                f"{raws[empty[0]]}, line {number}: empty, and {self.split} is scored line by line; "
                "remove the line on both sides"
            )
        return None


@dataclass(frozen=True)
class SplitWords:
    """(source tokens, target tokens) -> the same in subwords, without what is unfit."""

    codes: str | None
    clean: object

    def __call__(self, entries):
        rows, counts = [], Counter()
        split = _bpe(self.codes) if self.codes else str
        for pair in entries:
            pair = tuple(map(split, pair))
            reason = unfit(*pair, self.clean) if self.clean else None
            if reason is None:
                rows.append(pair)
            else:
                counts[reason] += 1
        return rows, counts


@lru_cache(maxsize=1)
def _bpe(path):
    return load_codes(path)


def binarise(text, data_bin, langs, workers):
    """A joint dictionary and the binarised splits, by fairseq-preprocess."""
    from fairseq import options
    from fairseq_cli import preprocess

    log = logging.getLogger("fairseq_cli.preprocess")
    log.setLevel(logging.WARNING)
    handlers, source, target = list(log.handlers), *langs
    arguments = ["--source-lang", source, "--target-lang", target, "--joined-dictionary"]
    for split in SPLITS:
        arguments += [f"--{split}pref", str(text / split)]
    arguments += ["--destdir", str(data_bin), "--workers", str(workers)]
    try:
        preprocess.main(options.get_preprocessing_parser().parse_args(arguments))
    finally:
        for handler in set(log.handlers) - set(handlers):
            log.removeHandler(handler)
            handler.close()
    (data_bin / "preprocess.log").unlink()  # it tells times and folders, not the corpus
