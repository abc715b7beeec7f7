"""Recipes: small TOML files that say how a published corpus becomes a data-bin."""

import dataclasses
import tomllib
import types
import typing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from difformer_plugin.errors import UserError

FOLDER = Path(__file__).parent / "recipes"
FORMATS = ("plain", "segments", "jsonl")
PLACEHOLDERS = {"src": "", "tgt": "", "lang": "", "role": ""}


@dataclass(frozen=True)
class Source:
    """Files with the two sides of some pairs, as their publisher ships them."""

    file: str | list | dict  # name, names to choose from, or a name for each language
    archive: str = ""  # a .tgz, .tar or .zip in which the file may still be
    format: str = "plain"  # a line a sentence; `segments`: <seg id="…">; `jsonl`: JSON objects
    fields: dict = field(default_factory=dict)  # jsonl: language -> name of the value
    drop_lines_with: list = field(default_factory=list)  # leave out lines that hold one of these
    remove: list = field(default_factory=list)  # strings to take out of a line
    replace: dict = field(default_factory=dict)  # strings to replace in a line
    decode_entities: bool = False  # read &amp; as &

    def names(self, lang, source, target):
        """The possible names of the file of one language, with `{lang}` and such filled in."""
        names = self.file.get(lang, "") if isinstance(self.file, dict) else self.file
        role = "src" if lang == source else "ref"
        names = [names] if isinstance(names, str) else names
        return [name.format(lang=lang, src=source, tgt=target, role=role) for name in names]


@dataclass(frozen=True)
class Split:
    """Where a split comes from: files, or every n-th pair of the training text."""

    files: list[Source] = field(default_factory=list)
    every: int = 0


@dataclass(frozen=True)
class Text:
    """What happens to a line, in this order."""

    normalise_punctuation: bool = False  # as Moses does
    remove_control: bool = False  # characters that are not printed
    replace: dict = field(default_factory=dict)  # language -> {string: its replacement}
    tokenise: bool = True  # with Moses
    moses_language: str = ""  # whose rules, if the language's name is not a language
    aggressive_dash_splits: bool = True  # as fairseq's --tokenizer moses: a-b is a @-@ b
    lowercase: bool = False


@dataclass(frozen=True)
class Clean:
    """Which pairs of the training text stay."""

    min: int = 1  # units on either side
    max: int = 0  # 0: any number
    ratio: float = 0.0  # greatest ratio of the lengths of the two sides; 0: any
    units: str = "tokens"  # or subwords


@dataclass(frozen=True)
class Download:
    """A file with a public address."""

    url: str
    bytes: int = 0  # 0: as many as the server says
    languages: list = field(default_factory=list)  # needed for these languages only
    file: str = ""  # name to give it, if not the address's last part


@dataclass(frozen=True)
class Recipe:
    """A recipe; README, section "From raw text", explains its keys."""

    title: str
    published: str  # where the files are to be had
    train: Split
    valid: Split
    test: Split
    languages: list = field(default_factory=list)  # none: any
    source_lang: str = ""
    target_lang: str = ""
    bpe_merges: int = 0  # joint; 0: whole words
    text: Text = Text()
    clean: Clean = Clean()
    pairs: dict = field(default_factory=dict)  # split -> how many there should be
    pairs_from: str = "the recipe"  # who says so
    download: list[Download] = field(default_factory=list)


def available():
    """Names of the recipes that come with the package."""
    return sorted(path.stem for path in FOLDER.glob("*.toml"))


def find(name):
    """Path of a recipe, given its name or the path of a .toml file."""
    path = Path(name) if str(name).endswith(".toml") else FOLDER / f"{name}.toml"
    if not path.is_file():
        raise UserError(
            f"no recipe {name}: there are {', '.join(available())}; or name a .toml file"
        )
    return path


def load(name):
    """Read a recipe.

    Raises:
        UserError: no such file, not TOML, or a key or value that a recipe does not have.
    """
    path = find(name)
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    recipe = _build(Recipe, table, str(path))
    _check(recipe, path)
    return recipe


def _build(kind, table, where):
    """A dataclass from a TOML table, whose keys have hyphens for underscores."""
    fields = {f.name.replace("_", "-"): f for f in dataclasses.fields(kind)}
    if unknown := sorted(set(table) - set(fields)):
        raise UserError(f"{where}: no such key as {unknown[0]}; there are {', '.join(fields)}")
    needed = [
        key
        for key, f in fields.items()
        if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing := [key for key in needed if key not in table]:
        raise UserError(f"{where}: the key {missing[0]} is missing")
    values = {fields[key].name: (fields[key].type, value, key) for key, value in table.items()}
    return kind(**{n: _value(t, v, f"{where}: {key}") for n, (t, v, key) in values.items()})


def _value(kind, value, where):
    """A value of a dataclass's field, checked against its type."""
    if dataclasses.is_dataclass(kind):
        kind_of_table = dict
    elif isinstance(kind, types.UnionType):
        kind_of_table = typing.get_args(kind)
    else:
        kind_of_table = typing.get_origin(kind) or kind
    if kind_of_table is float and type(value) is int:
        value = float(value)
    # to Python, true is an int
    if not isinstance(value, kind_of_table) or (kind is not bool and isinstance(value, bool)):
        raise UserError(f"{where} is {value!r}, which is not a {_called(kind)}")
    if dataclasses.is_dataclass(kind):
        return _build(kind, value, where)
    if typing.get_origin(kind) is list:
        (item,) = typing.get_args(kind)
        return [_value(item, entry, f"{where}[{i}]") for i, entry in enumerate(value)]
    return value


def _called(kind):
    if dataclasses.is_dataclass(kind) or kind is dict:
        return "table"
    names = {str: "string", bool: "true or false", int: "whole number", float: "number"}
    return names.get(kind, "string, list or table" if isinstance(kind, types.UnionType) else "list")


def _check(recipe, path):
    """What the types do not say."""
    for name in ("train", "valid", "test"):
        split = getattr(recipe, name)
        if bool(split.files) == bool(split.every):
            raise UserError(f"{path}: {name} needs either files or every")
        if split.every and name == "train":
            raise UserError(f"{path}: train cannot be drawn from itself; name its files")
        if split.every < 0 or split.every == 1:
            raise UserError(f"{path}: {name}: every must be 2 or more, not {split.every}")
        for source in split.files:
            _check_source(source, f"{path}: {name}")
    if recipe.valid.every and recipe.test.every:
        raise UserError(f"{path}: only one of valid and test can be drawn from train")
    if recipe.bpe_merges < 0:
        raise UserError(f"{path}: bpe-merges must be 0 (whole words) or more")
    clean = recipe.clean
    if clean.units not in ("tokens", "subwords"):
        raise UserError(f"{path}: clean: units are tokens or subwords, not {clean.units!r}")
    if clean.min < 1 or clean.max < 0 or clean.ratio < 0:
        raise UserError(f"{path}: clean: min must be at least 1, max and ratio at least 0")


def _check_source(source, where):
    if source.format not in FORMATS:
        raise UserError(f"{where}: format {source.format!r} is none of {', '.join(FORMATS)}")
    if (source.format == "jsonl") != bool(source.fields):
        raise UserError(f"{where}: jsonl needs fields, and other formats have none")
    entries = source.file.values() if isinstance(source.file, dict) else [source.file]
    for name in chain.from_iterable(e if isinstance(e, list) else [e] for e in entries):
        try:
            name.format(**PLACEHOLDERS)
        except (KeyError, ValueError, IndexError, AttributeError):
            raise UserError(
                f"{where}: the file name {name!r} may hold {{lang}}, {{src}}, {{tgt}} and {{role}}"
            ) from None


def languages(recipe, source, target):
    """The pair to prepare: as asked for, or the recipe's own.

    Raises:
        UserError: a language that the corpus does not have, or one language twice.
    """
    if (source is None) != (target is None) and recipe.languages:
        others = [lang for lang in recipe.languages if lang not in (source, target)]
        if len(others) == 1:  # the other one of two
            source, target = source or others[0], target or others[0]
    source, target = source or recipe.source_lang, target or recipe.target_lang
    if not source or not target:
        raise UserError("--source-lang and --target-lang are needed: this recipe takes any")
    for lang in (source, target):
        if recipe.languages and lang not in recipe.languages:
            raise UserError(
                f"{recipe.title} has no {lang}: --source-lang and --target-lang are two of "
                f"{', '.join(recipe.languages)}"
            )
    if source == target:
        raise UserError(f"--source-lang and --target-lang are both {source}")
    return source, target
