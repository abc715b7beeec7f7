"""What fairseq-generate printed: sources, references, candidates and steps, by sentence."""

import re
from dataclasses import dataclass, field
from html import unescape
from itertools import groupby

from difformer_plugin.data.tokenisation import remove_bpe
from difformer_plugin.errors import UserError

LINE = re.compile(r"^([STHDE])-(\d+)(?:_(\d+))?\t(.*)$")  # P lines (scores) are not needed
LANGUAGE = re.compile(r"\[([\w-]+)\] dictionary: ")  # logged for the source, then for the target
END = re.compile(r"^Generate .* with beam=")  # printed last, where there are references
FRAME = ("<s>", "</s>")
# A tokeniser leaves none of , ; ! ? on a word, and a full stop at the end of few lines ("etc.").
GLUED = re.compile(r"\w\w(?:[,;!?](?:\s|$)|\.$)")
APART = re.compile(r"(?:^|\s)[.,](?:\s|$)")  # in French plain text has spaces before the others
GLUED_SHARE = 0.1  # of the lines, at least, in plain text
HYPHEN, INNER_HYPHEN = "@-@", re.compile(r"\w-\w")
SENTENCEPIECE = "\u2581"
REMEDY = (
    "fairseq leaves out batches of odd sizes: run fairseq-generate again with "
    "--required-batch-size-multiple 1, and give files of one test set"
)


@dataclass
class Outputs:
    """The lines of fairseq-generate, each a dict by sentence number; subwords are joined."""

    sources: dict = field(default_factory=dict)
    references: dict = field(default_factory=dict)
    candidates: dict = field(default_factory=dict)  # H-lines: a list, the best first
    detokenised: dict = field(default_factory=dict)  # D-lines: a list, the best first
    steps: dict = field(default_factory=dict)  # E-lines of the best candidate, first step first
    repeated: list = field(default_factory=list)  # sentences whose source was printed again
    languages: list = field(default_factory=list)  # source and target, if the log names them
    sentencepiece: bool = False  # whether the subwords were sentencepiece's
    ended: bool = False  # whether the last line of a whole run is there

    @property
    def best(self):
        """The best candidate of each sentence."""
        return {number: candidates[0] for number, candidates in self.candidates.items()}

    @property
    def was_detokenised(self):
        """Whether fairseq was told a tokeniser: S-, T- and D-lines are then plain text."""
        return any(t != self.candidates.get(number) for number, t in self.detokenised.items())

    @property
    def in_tokens(self):
        """Whether H-lines look tokenised: they are neither in sentencepiece nor plain text.

        Where fairseq has joined the sentencepiece itself, only the punctuation shows it.
        """
        lines = list(map(unescape, self._lines()))  # tokens such as l&apos; end in no semicolon
        glued = sum(GLUED.search(line) is not None for line in lines)
        apart = sum(APART.search(line) is not None for line in lines)
        return not self.sentencepiece and glued <= max(apart, GLUED_SHARE * len(lines))

    @property
    def splits_hyphens(self):
        """Whether tokens are split at hyphens, a-b to a @-@ b; so they are if none tells."""
        words = [word for line in self._lines() for word in line.split()]
        return HYPHEN in words or not any(INNER_HYPHEN.search(word) for word in words)

    def _lines(self):
        """The best translations, and the references unless they are plain text."""
        return [*self.best.values(), *(() if self.was_detokenised else self.references.values())]


def parse_outputs(lines):
    """Read the S-, T-, H-, D- and E-lines of fairseq-generate; other lines (logs) pass by."""
    outputs, steps = Outputs(), {}
    for line in lines:
        line = line.rstrip("\n")
        match = LINE.match(line)
        if match is None:
            outputs.languages += LANGUAGE.findall(line)
            outputs.ended = outputs.ended or END.match(line) is not None
            continue
        kind, number, step, text = match[1], int(match[2]), match[3], match[4]
        if kind == "E" and step is not None:
            # the best candidate is printed first, then its steps; those of the others pass by
            if len(outputs.candidates.get(number, ())) < 2:
                steps.setdefault(number, {})[int(step)] = text
        elif kind == "S":
            if number in outputs.sources:
                outputs.repeated.append(number)
            outputs.sources[number] = text
        elif kind == "T":
            outputs.references[number] = text
        elif kind in "HD":
            found = outputs.candidates if kind == "H" else outputs.detokenised
            found.setdefault(number, []).append(text.partition("\t")[2])
    outputs.steps = {
        number: [texts[step] for step in sorted(texts)] for number, texts in steps.items()
    }
    _join_subwords(outputs)
    return outputs


def _join_subwords(outputs):
    """Join what is in subwords: E-lines always are, the others unless fairseq joined them."""
    for name in ("sources", "references", "candidates", "detokenised", "steps"):
        texts = getattr(outputs, name)
        pieces = any(SENTENCEPIECE in str(text) for text in texts.values())
        outputs.sentencepiece = outputs.sentencepiece or pieces
        for number, text in texts.items():
            joined = [_words(part, pieces) for part in ([text] if isinstance(text, str) else text)]
            texts[number] = joined[0] if isinstance(text, str) else joined


def _words(text, pieces):
    words = [word for word in text.split() if word not in FRAME]
    if pieces:
        return " ".join("".join(words).replace(SENTENCEPIECE, " ").split())
    return remove_bpe(" ".join(words))


def bare(text):
    """Text without case, spaces, and the escapes and marks of Moses tokens."""
    return "".join(unescape(text).replace(HYPHEN, "-").casefold().split())


def check_complete(outputs, count, path):
    """Raise a UserError unless sentences 0 to `count` - 1 are there, each of them once."""
    if outputs.repeated:
        raise UserError(
            f"{path}: sentence {min(outputs.repeated)} (counted from 0) is there twice: give the "
            "output of one run of fairseq-generate"
        )
    missing = [number for number in range(count) if number not in outputs.candidates]
    if missing:
        raise UserError(
            f"{path}: {len(missing)} of {count} sentences are missing, the first of them "
            f"{missing[0]} (counted from 0): {REMEDY}"
        )
    if len(outputs.candidates) > count:
        raise UserError(
            f"{path} holds {len(outputs.candidates)} sentences where there are {count} "
            "references: give the references of the same test set"
        )


def sentences_by_changes(steps):
    """Numbers of the sentences whose output changed between first and last step.

    Args:
        steps: sentence number -> texts, first step first.
    Returns:
        numbers, those with the most changes first.
    """
    changes = {
        number: len(list(groupby(texts)))
        for number, texts in steps.items()
        if texts[0] != texts[-1]
    }
    return sorted(changes, key=lambda number: (-changes[number], number))
