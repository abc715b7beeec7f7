"""Write other values into the text of a recipe, whose comments and layout stay."""

import dataclasses
import json
import re
import tomllib
from typing import Any

from difformer_plugin.data.recipe import Recipe, build
from difformer_plugin.errors import UserError

TABLES = ("text", "clean")
TABLE_LINE = re.compile(r"\s*\[")  # begins a table or an array of tables


def rewritten(text: str, before: Recipe, after: Recipe) -> str:
    """The text of a recipe, changed so that it says another one.

    Args:
        text: TOML.
        before: what it says.
        after: differs from it in numbers, strings and truth values, some of them in TABLES.
    Raises:
        UserError: the text is laid out so that a value cannot be replaced line by line.
    """
    if before == after:
        return text
    lines = text.splitlines()
    for table in ("", *TABLES):
        old, new = (getattr(each, table) if table else each for each in (before, after))
        for key, value in _changed(old, new).items():
            _set(lines, table, key.replace("_", "-"), json.dumps(value, ensure_ascii=False))
    changed = "\n".join(lines) + "\n"
    try:
        as_wanted = build(Recipe, tomllib.loads(changed), "the recipe") == after
    except (ValueError, UserError):
        as_wanted = False
    if not as_wanted:
        raise UserError("--show cannot change this recipe: leave the options out, and edit it")
    return changed


def _changed(old: Any, new: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ and are no tables: name -> new value."""
    values = {f.name: getattr(new, f.name) for f in dataclasses.fields(new)}
    return {
        name: value
        for name, value in values.items()
        if name not in TABLES and value != getattr(old, name)
    }


def _set(lines: list[str], table: str, key: str, value: str) -> None:
    """Replace the line of a key, or add one at the end of its table."""
    header = f"[{table}]"
    begin = 0
    if table:
        begin = next((i + 1 for i, line in enumerate(lines) if line.strip() == header), 0)
        if not begin:
            lines += ["", header]
            begin = len(lines)
    rest = range(begin, len(lines))
    end = next((i for i in rest if TABLE_LINE.match(lines[i])), len(lines))
    own = re.compile(rf"\s*{re.escape(key)}\s*=")
    place = next((i for i in range(begin, end) if own.match(lines[i])), None)
    if place is not None:
        lines[place] = f"{key} = {value}"
        return
    while end > begin and not lines[end - 1].strip():
        end -= 1
    lines.insert(end, f"{key} = {value}")
