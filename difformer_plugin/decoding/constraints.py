"""Words that a translation has to contain: those of --constraints-file, and forced prefixes."""

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from typing import Any

from fairseq.data import Dictionary

from difformer_plugin.data.sources import read_lines
from difformer_plugin.decoding.candidates import FRAME
from difformer_plugin.errors import UserError

MAX_UNORDERED = 10  # phrases without an order; finding their places takes time and memory of 2^n
EXAMPLE = '{"prefix": "the house", "anywhere": ["big", "to day"], "suffix": "."}'
Encode = Callable[[str], Sequence[int]]  # text -> dictionary indices


@dataclass(frozen=True)
class Constraint:
    """Tokens that a target has to contain, as dictionary indices without BOS and EOS.

    Attributes:
        prefix, suffix: how the target begins and ends.
        anywhere: phrases between them, each in a place of its own.
        ordered: whether the phrases come in this order.
        complete: whether the prefix is the whole target.
        name: what messages call it.
    """

    prefix: tuple[int, ...] = ()
    anywhere: tuple[tuple[int, ...], ...] = ()
    suffix: tuple[int, ...] = ()
    ordered: bool = False
    complete: bool = False
    name: str = field(default="", compare=False)

    @property
    def least_length(self) -> int:
        """The number of tokens of the shortest target that meets it, with BOS and EOS."""
        return FRAME + sum(map(len, (self.prefix, *self.anywhere, self.suffix)))

    @property
    def gives_something(self) -> bool:
        """Whether a target exists that does not meet it."""
        return self.complete or self.least_length > FRAME

    def alone(self) -> "Constraint":
        """The constraint that nothing but these tokens, in their order, is in the target."""
        tokens = (*self.prefix, *(t for phrase in self.anywhere for t in phrase), *self.suffix)
        return Constraint(tokens, complete=True, name=self.name)

    @classmethod
    def of_prefix(cls, tokens: Iterable[int], dictionary: Dictionary, name: str) -> "Constraint":
        """That of a row of fairseq's prefix_tokens, which may end with EOS or with padding."""
        found: list[int] = []
        for token in tokens:
            if token in (dictionary.eos(), dictionary.pad()):
                return cls(tuple(found), complete=token == dictionary.eos(), name=name)
            found.append(token)
        return cls(tuple(found), name=name)

    def check_length(self, longest: int, forced: int | None = None, option: str = "") -> None:
        """Check that there is room.

        Args:
            longest: the greatest length that the model can have, with BOS and EOS.
            forced: the length that an option fixes, if any, and the name of the option.
        Raises:
            UserError: there is not.
        """
        least = self.least_length
        if least > longest:
            raise UserError(
                f"{self.name}: the given words have {least - FRAME} subwords, and the model's "
                f"targets have at most {longest - FRAME}: give fewer"
            )
        if forced is None or not self.gives_something:
            return
        if forced < least or (self.complete and forced > least):
            exactly = "exactly " if self.complete else ""
            raise UserError(
                f"{self.name}: {option} asks for {forced - FRAME} subwords, but the given words "
                f"need {exactly}{least - FRAME}: leave {option} out, or give other words"
            )


def encoder(dictionary: Dictionary, split: Callable[[str], list[str]] = str.split) -> Encode:
    """A function from text to dictionary indices, for `read_constraints`.

    Args:
        split: text -> subwords as the data has them.
    """

    def encode(text: str) -> list[int]:
        subwords = split(text)
        indices = [dictionary.index(subword) for subword in subwords]
        for subword, index in zip(subwords, indices):
            if index < dictionary.nspecial:
                raise UserError(
                    f"{subword!r} is not a subword of the target dictionary: write words as the "
                    "model's data has them, with its tokens and subwords"
                )
        return indices

    return encode


def read_constraints(path: str | PathLike, encode: Encode) -> list[Constraint]:
    """Read the file of --constraints-file: a JSON object a line, or nothing.

    Args:
        encode: text -> dictionary indices; it raises a UserError for words that are not known.
    Returns:
        the constraint of each line.
    Raises:
        UserError: the file cannot be read, or a line is not as it has to be; the message names it.
    """
    found = []
    try:
        for number, line in enumerate(read_lines(path), start=1):
            name = f"--constraints-file {path}, line {number}"
            try:
                found.append(_parse(line, encode, name))
            except UserError as error:
                raise UserError(f"{name}: {error}") from None
    except OSError as error:
        raise UserError(f"--constraints-file {path}: {error.strerror}; give a file") from None
    return found


def _parse(line: str, encode: Encode, name: str) -> Constraint:
    """The constraint of a line."""
    if not line.strip():
        return Constraint(name=name)
    try:
        table = json.loads(line, object_pairs_hook=_table)
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        raise UserError(f"not JSON ({error}): write {EXAMPLE}, or nothing") from None
    known = {"prefix": str, "suffix": str, "anywhere": list, "ordered": bool}
    if not isinstance(table, dict) or not table.keys() <= known.keys():
        raise UserError(
            f"not a JSON object with some of {', '.join(known)} and nothing else: write {EXAMPLE}"
        )
    for key, value in table.items():
        phrases = value if isinstance(value, list) else []
        if not isinstance(value, known[key]) or not all(isinstance(p, str) for p in phrases):
            kind = {str: "text", list: "a list of texts", bool: "true or false"}[known[key]]
            raise UserError(f"{key} must be {kind}, as in {EXAMPLE}")
    anywhere = filter(None, (tuple(encode(text)) for text in table.get("anywhere", [])))
    constraint = Constraint(
        tuple(encode(table.get("prefix", ""))),
        tuple(anywhere),
        tuple(encode(table.get("suffix", ""))),
        table.get("ordered", False),
        name=name,
    )
    if len(constraint.anywhere) > MAX_UNORDERED and not constraint.ordered:
        raise UserError(
            f"{len(constraint.anywhere)} phrases anywhere are too many: at most {MAX_UNORDERED}, "
            'or any number with "ordered": true'
        )
    return constraint


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys have to differ."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise UserError("a key occurs twice: write each once")
    return table
