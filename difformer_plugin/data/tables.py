"""Pairs from tab-separated tables: of one table, or of two that share a column of keys."""

import csv
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from difformer_plugin.data.recipe import Source
from difformer_plugin.errors import UserError


class Table:
    """A table whose first line names its columns; a backslash escapes the character after it.

    Args:
        name: of its file, for messages.
        lines: of its file.
    Raises:
        UserError: there is no line.
    """

    def __init__(self, name: Any, lines: Iterable[str]):
        self.name, self._lines = name, enumerate(lines, start=1)
        for number, line in self._lines:
            self.columns = self._split(number, line)
            return
        raise UserError(f"{name}: the file is empty; it needs a line with the names of its columns")

    def rows(
        self, wanted: list[str], where: Mapping[str, list[str]]
    ) -> Iterator[tuple[int, list[str]]]:
        """Yield the number of each line and its values in some columns.

        Args:
            wanted: the columns.
            where: column -> the values of which a row must have one.
        Raises:
            UserError: a column is missing, or a line ends before it.
        """
        for column in (*wanted, *where):
            if column not in self.columns:
                raise UserError(
                    f"{self.name}, line 1: no column {column}; the columns are "
                    f"{', '.join(self.columns)}"
                )
        places = [self.columns.index(column) for column in wanted]
        tests = [(self.columns.index(column), set(values)) for column, values in where.items()]
        needed = max([*places, *(place for place, _ in tests)]) + 1
        for number, line in self._lines:
            values = self._split(number, line)
            if len(values) < needed:
                raise UserError(
                    f"{self.name}, line {number}: {len(values)} columns, and at least {needed} are "
                    "needed; fetch the file again"
                )
            if all(values[place] in allowed for place, allowed in tests):
                yield number, [values[place] for place in places]

    def _split(self, number: int, line: str) -> list[str]:
        form: Any = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "escapechar": "\\"}
        try:
            return next(csv.reader([line], **form), [])
        except csv.Error as error:
            raise UserError(f"{self.name}, line {number}: not a row of a table ({error})") from None


def table_pairs(
    source: Source, langs: tuple[str, str], names: list[Any], files: list[Iterable[str]]
) -> Iterator[tuple[int, int, str, str]]:
    """Yield (line number of each side, source text, target text).

    Pairs of two tables are in the order of the source's. A row without a partner is left out. The
    target's table is kept in memory.

    Args:
        source: of format tsv; its `fields` name the columns of the texts, its `key` the column
            that both tables have, and its `where` the values of other columns.
        names: of the files of both sides, for messages; equal if one file holds both.
        files: the lines of each.
    Raises:
        UserError: a column is missing, or a line is not a row of the table.
    """
    columns = [source.fields[lang] for lang in langs]
    left = Table(names[0], files[0])
    if names[0] == names[1]:
        for number, texts in left.rows(columns, source.where):
            yield number, number, texts[0], texts[1]
        return
    if not source.key:
        raise UserError(
            f"{names[0]} and {names[1]}: the recipe needs a key, the column by which the rows of "
            "two tables belong together"
        )
    right = Table(names[1], files[1])
    of_left = {c: values for c, values in source.where.items() if c in left.columns}
    of_right = {c: values for c, values in source.where.items() if c not in of_left}
    partners = defaultdict(list)
    for number, (key, text) in right.rows([source.key, columns[1]], of_right):
        partners[key].append((number, text))
    for number, (key, text) in left.rows([source.key, columns[0]], of_left):
        for other, partner in partners.get(key, ()):
            yield number, other, text, partner
