"""Parse the output of fairseq-generate: sources, references, candidates and decoding steps."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import unescape
from itertools import groupby
from os import PathLike
from typing import Any

from difformer_plugin.data.tokenisation import remove_bpe
from difformer_plugin.errors import UserError

# P-lines (scores) are not needed.
LINE = re.compile(r"^([STHDE])-([0-9]{1,18})(?:_([0-9]{1,18}))?\t(.*)$")
LANGUAGE = re.compile(r"\[([\w-]+)\] dictionary: ")  # logged for the source, then for the target
MODEL = re.compile(r"loading model\(s\) from (.+)$")
# Decoding options in the configuration that fairseq-generate logs, shown where they are set.
DECODING = re.compile(
    r"'((?:decoding_(?:steps|early_stopping|sampler|precision|settings))|(?:length|noise)_beam_size|"
    r"bleu_mbr|ppl_mbr|rerank)': ([^,}]+)"
)
UNSET = ("None", "False", "''")
END = re.compile(r"^Generate .* with beam=")  # printed last, where there are references
BOUNDARIES = ("<s>", "</s>")
# Tokenised text has no word with , ; ! ? attached, and few lines that end in an attached full stop
# ("etc.").
ATTACHED = re.compile(r"\w\w(?:[,;!?](?:\s|$)|\.$)")
# Only these two marks: French plain text has spaces before the others.
SEPARATE = re.compile(r"(?:^|\s)[.,](?:\s|$)")
MIN_ATTACHED_SHARE = 0.1  # share of lines with attached punctuation above which text is plain
HYPHEN = "@-@"
INNER_HYPHEN = re.compile(r"\w-\w")
SENTENCEPIECE = "\u2581"  # begins a word
REMEDY = (
    "give files of one test set; the run was cut short, or is one of several shards (join them "
    "with cat), or skipped long sentences, or was one of fairseq's own tasks, which leave out "
    "batches of odd sizes without --required-batch-size-multiple 1"
)


@dataclass
class Outputs:
    """A log of fairseq-generate, by sentence number, with subwords joined to words.

    Attributes:
        sources: S-lines.
        references: T-lines.
        candidates: H-lines of each sentence, best candidate first.
        detokenised: D-lines of each sentence, best candidate first.
        steps: E-lines of the best candidate, first step first.
        repeated: numbers of sentences whose source was printed more than once.
        languages: source and target language, if the log names them.
        model: the checkpoint, if the log names it.
        decoding: options of decoding that are set, if the log has them.
        sentencepiece: whether the subwords were those of SentencePiece.
        ended: whether the last line of a complete run is there.
    """

    sources: dict[int, str] = field(default_factory=dict)
    references: dict[int, str] = field(default_factory=dict)
    candidates: dict[int, list[str]] = field(default_factory=dict)
    detokenised: dict[int, list[str]] = field(default_factory=dict)
    steps: dict[int, list[str]] = field(default_factory=dict)
    repeated: list[int] = field(default_factory=list)
    languages: list[str] = field(default_factory=list)
    model: str = ""
    decoding: dict[str, str] = field(default_factory=dict)
    sentencepiece: bool = False
    ended: bool = False

    @property
    def best(self) -> dict[int, str]:
        """The best candidate of each sentence."""
        return {number: candidates[0] for number, candidates in self.candidates.items()}

    @property
    def was_detokenised(self) -> bool:
        """Whether fairseq ran with --tokenizer, which makes S-, T- and D-lines plain text."""
        return any(t != self.candidates.get(number) for number, t in self.detokenised.items())

    @property
    def in_tokens(self) -> bool:
        """Whether H-lines look like Moses tokens, rather than SentencePiece or plain text.

        If fairseq has joined SentencePiece subwords itself, only the punctuation tells.
        """
        lines = list(map(unescape, self._lines()))  # so that l&apos; has no semicolon
        attached = sum(ATTACHED.search(line) is not None for line in lines)
        separate = sum(SEPARATE.search(line) is not None for line in lines)
        return not self.sentencepiece and attached <= max(separate, MIN_ATTACHED_SHARE * len(lines))

    @property
    def splits_hyphens(self) -> bool:
        """Whether tokens are split at hyphens (a-b to a @-@ b); true if no hyphen tells."""
        words = [word for line in self._lines() for word in line.split()]
        return HYPHEN in words or not any(INNER_HYPHEN.search(word) for word in words)

    def _lines(self):
        """The best candidates, and the references unless they are plain text."""
        return [*self.best.values(), *(() if self.was_detokenised else self.references.values())]


def parse_outputs(lines: Iterable[str]) -> Outputs:
    """Parse the S-, T-, H-, D- and E-lines of fairseq-generate, ignoring all other lines."""
    outputs, steps = Outputs(), {}
    for line in lines:
        line = line.rstrip("\n")
        match = LINE.match(line)
        if match is None:
            outputs.languages += LANGUAGE.findall(line)
            outputs.ended = outputs.ended or END.match(line) is not None
            if found := MODEL.search(line):
                outputs.model = found[1]
            if not outputs.decoding and "'decoding_steps':" in line:
                set_options = ((name, value.strip("'")) for name, value in DECODING.findall(line))
                outputs.decoding = {n: value for n, value in set_options if value not in UNSET}
            continue
        kind, number, step, text = match[1], int(match[2]), match[3], match[4]
        if kind == "E" and step is not None:
            # the best candidate and its steps are printed first; skip the steps of the others
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
    """Join subwords to words: E-lines always need it, other lines unless fairseq joined them."""
    for name in ("sources", "references", "candidates", "detokenised", "steps"):
        texts = getattr(outputs, name)
        sentencepiece = any(SENTENCEPIECE in str(text) for text in texts.values())
        outputs.sentencepiece = outputs.sentencepiece or sentencepiece
        for number, text in texts.items():
            if isinstance(text, str):
                texts[number] = _words(text, sentencepiece)
            else:
                texts[number] = [_words(part, sentencepiece) for part in text]


def _words(text, sentencepiece):
    words = [word for word in text.split() if word not in BOUNDARIES]
    if sentencepiece:
        return " ".join("".join(words).replace(SENTENCEPIECE, " ").split())
    return remove_bpe(" ".join(words))


def matching_form(text: str) -> str:
    """The text without case, spaces, and Moses escapes and marks, to compare across formats."""
    return "".join(unescape(text).replace(HYPHEN, "-").casefold().split())


def check_complete(outputs: Outputs, num_sentences: int, path: str | PathLike) -> None:
    """Raise a UserError unless each of the sentences 0 to num_sentences - 1 is there once."""
    if outputs.repeated:
        raise UserError(
            f"{path}: sentence {min(outputs.repeated)} (counted from 0) is there twice: give the "
            "output of a single run of fairseq-generate"
        )
    first = next((i for i in range(num_sentences) if i not in outputs.candidates), None)
    if first is not None:
        missing = num_sentences - sum(number < num_sentences for number in outputs.candidates)
        raise UserError(
            f"{path}: {missing} of {num_sentences} sentences are missing, the first of them "
            f"{first} (counted from 0): {REMEDY}"
        )
    if len(outputs.candidates) > num_sentences:
        raise UserError(
            f"{path} has {len(outputs.candidates)} sentences, but there are {num_sentences} "
            "references: give the references of the same test set"
        )


def sentences_by_changes(steps: Mapping[int, Sequence[Any]]) -> list[int]:
    """Rank sentences by how often their output changed from one step to the next.

    Args:
        steps: sentence number -> outputs, first step first.
    Returns:
        the numbers of the sentences whose last output differs from their first, most changes first.
    """
    changes = {
        number: len(list(groupby(texts)))
        for number, texts in steps.items()
        if texts[0] != texts[-1]
    }
    return sorted(changes, key=lambda number: (-changes[number], number))
