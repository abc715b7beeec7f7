"""The README and docs/ as data: their code blocks and the commands in them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
PAGES = {
    str(path.relative_to(REPOSITORY)): path.read_text("utf-8")
    for path in [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
}
BLOCK = re.compile(r"^```(.*)\n((?:.*\n)*?)```$", re.MULTILINE)
USER_DIR = str(REPOSITORY / "difformer_plugin")


@dataclass(frozen=True)
class Command:
    """One command of a bash block.

    Attributes:
        line: the command as it stands, continuation lines joined
        words: program and arguments of the last command of a pipeline
        environment: the variables set in front of it
        output: the file that `>` names, or None
        piped: whether something is piped into it
    """

    line: str
    words: list
    environment: dict
    output: str | None
    piped: bool

    def __str__(self):
        return self.line


def blocks(text):
    """(language, content) of each fenced block."""
    return BLOCK.findall(text)


def commands(text):
    """The commands of all bash blocks of a page, in order."""
    found = []
    for language, content in blocks(text):
        if language == "bash":
            lines = content.replace("\\\n", " ").splitlines()
            found += [command(" ".join(line.split())) for line in lines if line.strip()]
    return [one for one in found if one.words]


def command(line):
    """A Command from its line; comments are dropped."""
    line = line.replace("$(difformer user-dir)", USER_DIR)
    line = line.replace("$(which fairseq-train)", "fairseq-train")
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|>")
    lexer.whitespace_split = True
    words, environment, output = list(lexer), {}, None
    piped = "|" in words
    if piped:
        words = words[len(words) - words[::-1].index("|") :]
    if ">" in words:
        at = words.index(">")
        output, words = words[at + 1], words[:at]
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0], re.DOTALL):
        name, value = words.pop(0).split("=", 1)
        environment[name] = value
    return Command(line, words, environment, output, piped)
