"""Apply a recipe: raw text to clean tokens, to joint subwords, to a data-bin."""

import dataclasses
import hashlib
import json
import os
import shutil
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from os import PathLike
from pathlib import Path

from difformer_plugin import __version__
from difformer_plugin.data import pipeline
from difformer_plugin.data.prepared import check_lines, check_text_files
from difformer_plugin.data.recipe import SPLITS, Recipe
from difformer_plugin.data.resumable_pass import run_pass, tied_children
from difformer_plugin.data.sources import (
    DONE,
    KEY,
    RESULTS,
    UNFINISHED,
    Folder,
    Pairs,
    read_lines,
    side_by_side,
)
from difformer_plugin.data.subwords import learn_subwords, notes_of, subword_kind
from difformer_plugin.data.tokenisation import check_sentencepiece
from difformer_plugin.data.transforms import SplitWords, Tokenise
from difformer_plugin.errors import UserError
from difformer_plugin.storage.files import FULL_DISK, atomic_text, read_object
from difformer_plugin.storage.locks import locked_folder

TOLERANCE = 0.005  # relative difference from the sizes that a recipe names


def prepare(
    recipe: Recipe,
    raw: str | PathLike,
    out: str | PathLike,
    langs: tuple[str, str],
    workers: int = 1,
    binarise: Callable[[Path, Path, tuple[str, str], int], None] | None = None,
    progress: bool = True,
) -> "Summary":
    """Make tokenised text in joint subwords, and a data-bin of it, from the files of a corpus.

    Writes

    - `out/text/{train,valid,test}.LANG`: tokenised text in subwords,
    - `out/text/codes`: the BPE merges, or `out/text/sentencepiece.model`, unless the recipe keeps
      whole words,
    - `out/reference/{valid,test}.LANG`: the untouched text of the same lines,
    - `out/data-bin`, if `binarise` is given.

    `text` and `data-bin` have a `pipeline.json`, which says how raw text becomes their subwords.

    Each appears complete or not at all. Interrupted at any moment, the same call resumes. The same
    input gives the same bytes, whatever the number of workers.

    Args:
        recipe: what to do.
        raw: folder of the publisher's files.
        out: folder of the results.
        langs: source and target language.
        workers: number of processes.
        binarise: function of (folder of text, new data-bin, langs, workers); None stops before
            the data-bin.
        progress: show progress bars.
    Raises:
        UserError: files are missing, damaged, or do not match line by line; `out` holds something
            else; or the disk is full.
    """
    out = Path(out)
    pairs = _open(recipe, raw, langs)
    key = _key(recipe, langs, pairs)
    work, known = out / UNFINISHED, True
    _check(out, work, key)
    try:
        with locked_folder(work):
            if not (out / DONE).exists():
                known = False
                _claim(work, key)
                counts, notes = _make(recipe, pairs, work, langs, workers, progress)
                if (work / "text").exists():
                    _describe(recipe, langs, work / "text", work / "text")
                _publish(out, work, key, counts, notes)
            counts, notes = _finished(out, key)
            if known:
                check_text_files(recipe, out, langs)
            if binarise is not None and not (out / "data-bin").exists():
                if not (out / "text").is_dir():
                    raise UserError(
                        f"{out}/text is gone, from which data-bin is made: remove {out} and "
                        "prepare it again"
                    )
                if known:
                    check_lines(out, langs, counts)
                known = False
                # fairseq-preprocess refuses to run where an interrupted one has left dictionaries
                shutil.rmtree(work / "data-bin", ignore_errors=True)
                if progress:
                    print("fairseq-preprocess", file=sys.stderr)
                with tied_children():
                    binarise(out / "text", work / "data-bin", langs, workers)
                _describe(recipe, langs, out / "text", work / "data-bin")
                os.replace(work / "data-bin", out / "data-bin")
            for name in ("text", "data-bin"):
                if (out / name).exists():
                    _describe(recipe, langs, out / "text", out / name)
            shutil.rmtree(work)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        raise UserError(
            f"--out {out} could not be written ({error.strerror}): free some space and run the "
            "same command again; it resumes from here"
        ) from error
    return Summary(counts, known, notes)


@dataclass
class Summary:
    """Result of `prepare`.

    Attributes:
        counts: for each split the number of `lines` read, of `pairs` kept, and of pairs removed
            for each reason.
        known: whether an earlier run had done everything.
        notes: sentences for the user about the subwords.
    """

    counts: dict[str, dict[str, int]]
    known: bool
    notes: list[str]


def _make(recipe, pairs, work, langs, workers, progress):
    """Write text and reference to the folder of unfinished work; return counts and notes."""
    if (work / DONE).exists():  # an earlier run was killed between the last renames
        return _recorded(work / DONE)
    if recipe.sentencepiece:
        check_sentencepiece()
    counts = {}
    for split in SPLITS:
        if pairs[split]:
            counts[split] = _tokenise(recipe, split, pairs[split], work, langs, workers, progress)
    _draw(recipe, counts)
    codes = learn_subwords(recipe, work, langs)
    _split_words(recipe, codes, counts, work, langs, workers, progress)
    return counts, notes_of(work)


def _publish(out, work, key, counts, notes):
    """Move the finished text and reference to `out`."""
    with atomic_text(work / DONE) as handle:
        json.dump({"key": key, "counts": counts, "notes": notes}, handle, indent=1)
    for name in ("text", "reference", DONE):
        if (work / name).exists():
            os.replace(work / name, out / name)


def _describe(recipe: Recipe, langs: tuple[str, str], text: Path, folder: Path) -> None:
    """Write the pipeline to a folder that lacks it or its subwords."""
    kind = subword_kind(recipe)
    codes = text / pipeline.SUBWORD_FILES[kind] if kind != pipeline.NONE else None
    wanted = [pipeline.FILE, *([codes.name] if codes else [])]
    lost = not all((folder / name).exists() for name in wanted)
    if lost and (codes is None or codes.exists()):
        subwords = pipeline.describe_subwords(kind, codes)
        described = pipeline.Pipeline(*langs, recipe.text, subwords, recipe.title, recipe.published)
        pipeline.save(described, folder, codes)


def unexpected_sizes(recipe: Recipe, counts: dict[str, dict[str, int]]) -> list[str]:
    """A line for each split whose size differs by more than 0.5 % from the one in the recipe."""
    lines = []
    for split, expected in recipe.pairs.items():
        found = counts[split]["pairs"]
        if abs(found - expected) > TOLERANCE * expected:
            lines.append(
                f"{split} has {found:,} pairs, but {expected:,} according to {recipe.pairs_from} "
                f"({found / expected - 1:+.1%})"
            )
    return lines


def fingerprint(recipe: Recipe, raw: str | PathLike, langs: tuple[str, str]) -> str:
    """Digest of everything that the text made by `prepare` depends on: recipe, languages, files."""
    return _key(recipe, langs, _open(recipe, raw, langs))


def _open(recipe, raw, langs):
    """Find the files of all splits; returns split -> list of Pairs."""
    folder = Folder(raw)
    return {
        name: [Pairs(s, folder, langs, recipe.published) for s in recipe.split(name).files]
        for name in SPLITS
    }


def _key(recipe, langs, pairs):
    """Digest of everything that the result depends on."""
    raws = [raw for sources in pairs.values() for p in sources for raw in p.raws]
    contents = {path: _digest(path) for path in {raw.path for raw in raws}}
    files = [[contents[raw.path], raw.member] for raw in raws]
    keys = dataclasses.asdict(recipe)
    # Folders that were made before these keys existed stay valid.
    if not recipe.sentencepiece:
        del keys["sentencepiece"]
    if not recipe.text.ascii:
        del keys["text"]["ascii"]
    for source in chain.from_iterable(keys[split]["files"] for split in SPLITS):
        for name in ("key", "where"):
            if not source[name]:
                del source[name]
    entries = [keys, langs, files, __version__]
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def _digest(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def _finished(out, key):
    if read_object(out / DONE, f"remove {out} and prepare it again").get("key") != key:
        raise UserError(
            f"--out {out} holds a corpus made of other files, by another recipe or version: choose "
            "another folder, or remove it"
        )
    return _recorded(out / DONE)


def _recorded(path):
    """Counts and notes in the file of a finished preparation."""
    done = read_object(path, f"remove {path.parent} and prepare it again")
    return done["counts"], done.get("notes", [])


def _check(out, work, key):
    """Refuse a folder that holds the results of another recipe, or something else."""
    if (out / DONE).exists():
        _finished(out, key)
        return
    others = [name for name in RESULTS if (out / name).exists()]
    if others and not _is_ours(work, key):
        raise UserError(
            f"--out {out} holds a {others[0]} that this command did not make: choose another folder"
        )


def _is_ours(work, key):
    return (work / KEY).exists() and (work / KEY).read_text("utf-8") == key


def _claim(work, key):
    """Empty the folder of unfinished work, unless an earlier run with the same key left it."""
    if _is_ours(work, key):
        return
    for path in work.iterdir():
        if path.name != "lock":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for name in ("tokens", "text", "reference"):
        (work / name).mkdir()
    with atomic_text(work / KEY) as handle:
        handle.write(key)


def _tokenise(recipe, split, pairs, work, langs, workers, progress):
    """First pass over a split: tokenise and clean; returns its counts."""
    drawn = next((name for name in SPLITS if recipe.split(name).every), None)
    every = recipe.split(drawn).every if drawn and split == "train" else 0

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
    """Update the counts for a split that is drawn from train."""
    for name in SPLITS:
        if every := recipe.split(name).every:
            number = counts["train"]["pairs"] // every
            if number == 0:
                raise UserError(f"train has fewer than {every} pairs: none is left for {name}")
            counts["train"]["pairs"] -= number
            counts[name] = {"pairs": number}


def _split_words(recipe, codes, counts, work, langs, workers, progress):
    """Apply the subwords, where this is not done yet; updates the counts."""
    for split in SPLITS:
        files = [work / "tokens" / f"{split}.{lang}" for lang in langs]
        rows = side_by_side(*map(read_lines, files), files)
        clean = recipe.clean if split == "train" and recipe.clean.units == "subwords" else None
        function = SplitWords(codes and str(codes), clean, recipe.sentencepiece > 0)
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
