"""Recipes: small TOML files that describe how a published corpus becomes a data-bin."""

import dataclasses
import math
import re
import string
import tomllib
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from difformer_plugin.errors import UserError

FOLDER = Path(__file__).parent / "recipes"
FORMATS = ("plain", "segments", "jsonl", "tsv")
WITH_FIELDS = ("jsonl", "tsv")
PLACEHOLDERS = {"src", "tgt", "lang", "role"}
SPLITS = ("train", "valid", "test")
ADDRESS = re.compile(r"(https?|ftp|file)://[!-~]+")
LANGUAGE = re.compile(r"[A-Za-z0-9_]+")


@dataclass(frozen=True)
class Source:
    """Files that hold the two sides of some pairs, as their publisher ships them."""

    # a name, a list of alternative names, or one of these per language
    file: str | list[str] | dict[str, str | list[str]]
    # a .tgz, .tar or .zip that may hold the file, or one per language
    archive: str | dict[str, str] = ""
    # one sentence per line; `segments`: <seg id="…">; `jsonl`: JSON; `tsv`: tables
    format: str = "plain"
    # jsonl, tsv: language -> key or column of its text
    fields: dict[str, str] = field(default_factory=dict)
    key: str = ""  # tsv: the column by which the rows of two tables belong together
    # tsv: column -> the values of which a row must have one
    where: dict[str, list[str]] = field(default_factory=dict)
    drop_lines_with: list[str] = field(default_factory=list)  # skip lines that contain one of these
    remove: list[str] = field(default_factory=list)  # strings to delete from a line
    replace: dict[str, str] = field(default_factory=dict)  # strings to replace in a line
    decode_entities: bool = False  # &amp; becomes &

    def archive_of(self, lang: str) -> str:
        """The archive that may hold the file of one language; empty if there is none."""
        return self.archive if isinstance(self.archive, str) else self.archive.get(lang, "")

    def names(self, lang: str, source: str, target: str) -> list[str]:
        """Possible names of the file of one language, with `{lang}` and so on filled in."""
        names = self.file.get(lang) if isinstance(self.file, dict) else self.file
        if names is None:
            raise UserError(
                f"the recipe has files for {' and '.join(self.file)} only, and none for {lang}"
            )
        role = "src" if lang == source else "ref"
        names = [names] if isinstance(names, str) else names
        return [name.format(lang=lang, src=source, tgt=target, role=role) for name in names]


@dataclass(frozen=True)
class Split:
    """Origin of a split: files, or every n-th pair of the training text."""

    files: list[Source] = field(default_factory=list)
    every: int = 0


@dataclass(frozen=True)
class Text:
    """How a line is normalised and tokenised, in this order."""

    normalise_punctuation: bool = False  # as Moses does it
    remove_control: bool = False  # control, format and unassigned characters become spaces
    # language -> {string: its replacement}
    replace: dict[str, dict[str, str]] = field(default_factory=dict)
    # accents are removed, and all that is not a letter, digit, space or punctuation mark of ASCII;
    # brackets are removed too
    ascii: bool = False
    tokenise: bool = True  # with the Moses tokeniser
    moses_language: str = ""  # whose rules apply, if the name is not a language code
    aggressive_dash_splits: bool = True  # a-b becomes a @-@ b, as with --tokenizer moses
    lowercase: bool = False


@dataclass(frozen=True)
class Clean:
    """Which training pairs are kept."""

    min: int = 1  # smallest length of either side, in units
    max: int = 0  # greatest length; 0: any
    ratio: float = 0.0  # greatest ratio of the two lengths; 0: any
    units: str = "tokens"  # or subwords


@dataclass(frozen=True)
class Download:
    """A file with a public address."""

    url: str
    bytes: int = 0  # size; 0: what the server says
    languages: list[str] = field(default_factory=list)  # needed for these only; none: all
    file: str = ""  # its name, if not the last part of the URL


@dataclass(frozen=True)
class Recipe:
    """A recipe; docs/how-to/corpora.md explains its keys."""

    title: str
    published: str  # where to get the files
    train: Split
    valid: Split
    test: Split
    languages: list[str] = field(default_factory=list)  # of the corpus; none: any
    source_lang: str = ""
    target_lang: str = ""
    bpe_merges: int = 0  # merges of the joint BPE; 0: whole words
    sentencepiece: int = 0  # size of a joint vocabulary of SentencePiece, in place of the BPE
    text: Text = Text()
    clean: Clean = Clean()
    pairs: dict[str, int] = field(default_factory=dict)  # split -> expected number of pairs
    pairs_from: str = "the recipe"  # source of these numbers
    download: list[Download] = field(default_factory=list)

    def split(self, name: str) -> Split:
        """The split of this name, one of SPLITS."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


def available() -> list[str]:
    """Names of the recipes in the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name: str | Path) -> Path:
    """Path of a recipe.

    Args:
        name: of a recipe in the package, or the path of a .toml file.
    Raises:
        UserError: there is no such recipe.
    """
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(
            f"no recipe {name}: choose one of {', '.join(available())}, or give a .toml file"
        )
    return path


def load(name: str | Path) -> Recipe:
    """Read a recipe.

    Args:
        name: of a recipe in the package, or the path of a .toml file.
    Raises:
        UserError: the file does not exist, is not TOML, or has an unknown key or a wrong value.
    """
    path = find(name)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (ValueError, RecursionError) as error:  # not TOML, not UTF-8, too large a number
        raise UserError(f"{path} is not TOML: {error}") from None
    recipe = build(Recipe, table, str(path))
    _check(recipe, path)
    return recipe


def changed(recipe: Recipe, name: str, values: Mapping[str, Any]) -> Recipe:
    """A recipe with other values for some keys.

    Args:
        name: of the recipe, for messages.
        values: by key, with underscores; `text.lowercase` is the key of a table. A SentencePiece
            vocabulary takes the place of the recipe's BPE and tokeniser, and a BPE its place.
    Raises:
        UserError: a value is impossible.
    """
    tables: dict[str, dict[str, Any]] = {"text": {}, "clean": {}}
    own: dict[str, Any] = {}
    for key, value in values.items():
        table, _, inner = key.partition(".")
        (tables[table] if inner else own)[inner or key] = value
    if own.get("sentencepiece"):
        own.setdefault("bpe_merges", 0)
        tables["text"].setdefault("tokenise", False)
    elif own.get("bpe_merges"):
        own.setdefault("sentencepiece", 0)
    own["text"] = dataclasses.replace(recipe.text, **tables["text"])
    own["clean"] = dataclasses.replace(recipe.clean, **tables["clean"])
    recipe = dataclasses.replace(recipe, **own)
    _check(recipe, Path(name))
    return recipe


def build(kind: Any, table: dict[str, Any], where: str) -> Any:
    """Build a dataclass from a table, whose keys have hyphens instead of underscores.

    Args:
        kind: the dataclass; a field may be a dataclass, too.
        table: what TOML or JSON held.
        where: what messages call the table.
    Raises:
        UserError: a key is unknown or missing, or a value has the wrong type.
    """
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(table) - set(fields)):
        raise UserError(f"{where}: unknown key {unknown[0]}; the keys are {', '.join(fields)}")
    needed = [
        key
        for key, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [key for key in needed if key not in table]:
        raise UserError(f"{where}: the key {missing[0]} is missing")
    values = {fields[key].name: (fields[key].type, value, key) for key, value in table.items()}
    return kind(**{n: _value(t, v, f"{where}: {key}") for n, (t, v, key) in values.items()})


def _value(kind: Any, value: Any, where: str) -> Any:
    """Check a value against the type of a dataclass's field, and convert it."""
    if dataclasses.is_dataclass(kind):
        if not isinstance(value, dict):
            raise _not_a(kind, value, where)
        return build(kind, value, where)
    if isinstance(kind, types.UnionType):
        return _value(_member(kind, value, where), value, where)
    if kind is float and type(value) is int:
        return float(value)
    form, inner = typing.get_origin(kind) or kind, typing.get_args(kind)
    if type(value) is not form:
        raise _not_a(kind, value, where)
    if form is list:
        return [_value(inner[0], entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    if form is dict:
        return {key: _value(inner[1], entry, f"{where}.{key}") for key, entry in value.items()}
    return value


def _member(union: types.UnionType, value: Any, where: str) -> Any:
    """The member of a union type that fits a value."""
    for kind in typing.get_args(union):
        if type(value) is (typing.get_origin(kind) or kind):
            return kind
    raise _not_a(union, value, where)


def _not_a(kind: Any, value: Any, where: str) -> UserError:
    names = {str: "string", bool: "true or false", int: "whole number", float: "number"}
    names |= {list: "list", dict: "table"}
    kinds = typing.get_args(kind) if isinstance(kind, types.UnionType) else [kind]
    called = [names.get(typing.get_origin(kind) or kind, "table") for kind in kinds]
    return UserError(f"{where} is {value!r}, which is not a {' or '.join(called)}")


def _check(recipe: Recipe, path: Path) -> None:
    """Check what the types do not express."""
    for name in SPLITS:
        split = recipe.split(name)
        if bool(split.files) == bool(split.every):
            raise UserError(f"{path}: {name} needs either files or every")
        if split.every and name == "train":
            raise UserError(f"{path}: train cannot be drawn from itself; give its files")
        if split.every < 0 or split.every == 1:
            raise UserError(f"{path}: {name}: every must be 2 or more, not {split.every}")
        for source in split.files:
            _check_source(source, f"{path}: {name}")
    if recipe.valid.every and recipe.test.every:
        raise UserError(f"{path}: only one of valid and test can be drawn from train")
    if recipe.bpe_merges < 0:
        raise UserError(f"{path}: bpe-merges must be 0 (whole words) or more")
    if recipe.sentencepiece < 0:
        raise UserError(f"{path}: sentencepiece must be 0 (none) or the size of a vocabulary")
    if recipe.sentencepiece and recipe.bpe_merges:
        raise UserError(f"{path}: bpe-merges and sentencepiece exclude each other: choose one")
    if wrong := [s for s, n in recipe.pairs.items() if s not in SPLITS or n < 1]:
        raise UserError(f"{path}: pairs: {wrong[0]} is not a split with 1 or more pairs")
    if foreign := set(recipe.text.replace) - set(recipe.languages or recipe.text.replace):
        raise UserError(f"{path}: text: replace: {foreign.pop()} is not a language of this recipe")
    for item in recipe.download:
        if not ADDRESS.fullmatch(item.url) or item.bytes < 0:
            raise UserError(f"{path}: download: {item.url!r} is not a URL, or bytes is negative")
    _check_clean(recipe.clean, f"{path}: clean")


def _check_clean(clean, where):
    if clean.units not in ("tokens", "subwords"):
        raise UserError(f"{where}: units must be tokens or subwords, not {clean.units!r}")
    if clean.min < 1 or (clean.max and clean.max < clean.min):
        raise UserError(f"{where}: min must be at least 1, and max 0 (any) or at least min")
    if clean.ratio and not 1 <= clean.ratio < math.inf:
        raise UserError(f"{where}: ratio must be 0 (any) or at least 1, not {clean.ratio}")


def _check_source(source, where):
    if source.format not in FORMATS:
        raise UserError(f"{where}: format {source.format!r} is not one of {', '.join(FORMATS)}")
    if (source.format in WITH_FIELDS) != bool(source.fields):
        raise UserError(
            f"{where}: jsonl needs fields, as tsv does, and other formats do not take them"
        )
    if source.format != "tsv" and (source.key or source.where):
        raise UserError(f"{where}: key and where are of the format tsv")
    if "" in (*source.drop_lines_with, *source.remove, *source.replace):
        raise UserError(f"{where}: an empty string cannot be searched for in a line")
    entries = source.file.values() if isinstance(source.file, dict) else [source.file]
    names = list(chain.from_iterable(e if isinstance(e, list) else [e] for e in entries))
    if not all(names) or not names:
        raise UserError(f"{where}: file is empty")
    for name in names:
        if not _places(name) <= PLACEHOLDERS:
            raise UserError(
                f"{where}: {name!r} may contain {{lang}}, {{src}}, {{tgt}} and {{role}} only"
            )


def _places(name: str) -> set[str]:
    """Placeholders in a file name; the name itself, which is none, if its braces do not match."""
    try:
        return {place for _, place, _, _ in string.Formatter().parse(name) if place is not None}
    except ValueError:
        return {name}


def languages(recipe: Recipe, source: str | None, target: str | None) -> tuple[str, str]:
    """The language pair to prepare: as requested, or else the recipe's own.

    If only one language is given and the corpus has two, the other one is added.

    Args:
        source, target: as requested; None if not given.
    Raises:
        UserError: a language is missing, not in the corpus, or given twice.
    """
    if (source is None) != (target is None) and recipe.languages:
        others = [lang for lang in recipe.languages if lang not in (source, target)]
        if len(others) == 1:  # the other one of two
            source, target = source or others[0], target or others[0]
    source, target = source or recipe.source_lang, target or recipe.target_lang
    if not source or not target:
        raise UserError("--source-lang and --target-lang are needed: this recipe takes any")
    for lang in (source, target):
        if not LANGUAGE.fullmatch(lang):
            raise UserError(
                f"--source-lang or --target-lang {lang}: fairseq splits file names at hyphens and "
                "dots, so use letters, digits and _"
            )
        if recipe.languages and lang not in recipe.languages:
            raise UserError(
                f"{recipe.title} has no {lang}: --source-lang and --target-lang are two of "
                f"{', '.join(recipe.languages)}"
            )
    if source == target:
        raise UserError(f"--source-lang and --target-lang are both {source}")
    return source, target
