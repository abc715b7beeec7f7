"""What is compared: systems and references, from logs of fairseq-generate or from plain files."""

import re
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from difformer_plugin.data.sources import read_lines
from difformer_plugin.data.tokenisation import detokeniser, tokeniser
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.outputs import bare, check_complete, parse_outputs

UNKNOWN = "<<unk>>"  # how fairseq prints a reference's words that its dictionary lacks
ALIKE = 0.5  # two logs whose references agree less often are of different test sets


@dataclass
class System:
    """The translations of one system, in the order of the test set.

    `texts` are detokenised and `tokens` are Moses tokens, of the best candidates; `samples` holds
    all candidates in tokens, the best first; `steps` the tokens of each step of the best, or None.
    """

    name: str
    texts: list
    tokens: list
    samples: list
    steps: list | None = None


@dataclass
class TestSet:
    """References and sources; `notes` says in words how they were come by.

    `sources` is None where there are none, and `raw_sources` is False where they are in tokens.
    """

    __test__ = False  # it is no test, whatever its name makes pytest think

    language: str | None
    references: list
    reference_tokens: list
    sources: list | None
    raw_sources: bool = True
    notes: list = field(default_factory=list)


class Words:
    """Moses tokens to text and back; languages are asked for only where they matter."""

    def __init__(self, language, lowercase, split_hyphens=True):
        self.language, self.lowercase, self.split_hyphens = language, lowercase, split_hyphens
        self.split = cache(self._split)  # steps and candidates are mostly equal
        self.join = cache(self._join)
        self._tools = {}

    def _tool(self, make, *options):
        if self.language is None:
            raise UserError("tell the language of the translations, as in --target-lang de")
        if make not in self._tools:
            self._tools[make] = make(self.language, *options)
        return self._tools[make]

    def _split(self, text):
        return self._tool(tokeniser, self.split_hyphens)(text)

    def _join(self, tokens):
        return self._tool(detokeniser)(tokens)

    def both(self, text, tokenised):
        """(text, tokens) of a sentence that is in tokens, or is not."""
        text = text.lower() if self.lowercase else text
        return (self.join(text), text) if tokenised else (text, self.split(text))


def load(path, ref=None, src=None, baseline=None, language=None, lowercase=False, tokenised=None):
    """Read systems and references.

    Args:
        path, baseline: logs of fairseq-generate or plain files; the second may be None.
        ref, src: plain files, or None where a log has them.
        language: the target's, of which a region is left out, or None to take it from the log or
            from the reference's ending.
        lowercase: lower-case everything.
        tokenised: whether logs and plain files hold Moses tokens; None: as the content of logs
            tells, and plain files do not.
    Returns:
        (TestSet, the list of Systems)
    Raises:
        UserError: a file is empty, in another encoding, or does not fit the others.
    """
    files = [_read(file) for file in (path, baseline) if file is not None]
    language = language or _language([outputs for _, outputs in files], ref)
    language = language and re.split("[-_]", language)[0].lower()  # de_DE and de-DE are de
    logs = [outputs for _, outputs in files if outputs is not None]
    split_hyphens = all(log.splits_hyphens for log in logs if log.in_tokens)
    words = Words(language, lowercase, split_hyphens)
    log = files[0][1]
    test_set = _test_set(path, log, ref, src, words, tokenised)
    count = len(test_set.references)
    names = _names([file for file in (path, baseline) if file is not None])
    systems = []
    for name, file, (lines, outputs) in zip(names, (path, baseline), files):
        if outputs is None:
            _same_count(file, lines, ref or path, count)
            systems.append(_plain_system(name, lines, words, bool(tokenised)))
        else:
            check_complete(outputs, count, file)
            in_tokens = outputs.in_tokens if tokenised is None else tokenised
            if tokenised is None and not in_tokens:
                test_set.notes.append(
                    f"translations of {file} taken for raw text; --tokenized says otherwise"
                )
            systems.append(_logged_system(name, outputs, count, words, in_tokens))
    for file, (_, outputs) in zip((path, baseline), files):
        if outputs is not None:
            _check_same_references(file, outputs, test_set)
    return test_set, systems


def _read(path):
    """(lines, None) of a plain file, or (None, Outputs) of what fairseq-generate printed."""
    lines = list(read_lines(path))
    if not lines:
        raise UserError(f"{path}: the file is empty; it needs one sentence a line")
    outputs = parse_outputs(lines)
    if outputs.candidates:
        return None, outputs
    if outputs.ended or outputs.sources or outputs.languages:
        raise UserError(
            f"{path}: fairseq-generate has printed no translations: run it without --quiet, and "
            "give what it writes to its standard output"
        )
    return lines, None


def _language(logs, ref):
    """The target language, as a log or the name of the reference tells it, or None."""
    for outputs in logs:
        if outputs is not None and len(outputs.languages) > 1:
            return outputs.languages[1]
    ending = re.fullmatch(
        r"\.([a-z]{2}(?:[-_][A-Z]{2})?)", Path(str(ref).removesuffix(".gz")).suffix
    )
    return ending[1] if ref and ending else None


def _names(paths):
    """Short names of the files, if these tell them apart."""
    short = [Path(path).name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _same_count(path, lines, other, count):
    if len(lines) != count:
        raise UserError(
            f"{path} has {len(lines)} lines and {other} has {count} sentences; they must be of the "
            "same test set, line by line"
        )


def _plain_system(name, lines, words, tokenised):
    pairs = [words.both(line, tokenised) for line in lines]
    tokens = [tokens for _, tokens in pairs]
    return System(name, [text for text, _ in pairs], tokens, [[line] for line in tokens])


def _logged_system(name, outputs, count, words, tokenised):
    def tokens(text):
        return words.both(text, tokenised)[1]

    samples = [[tokens(text) for text in outputs.candidates[i]] for i in range(count)]
    if outputs.was_detokenised:
        texts = [words.both(outputs.detokenised[i][0], False)[0] for i in range(count)]
    else:
        texts = [words.both(outputs.candidates[i][0], tokenised)[0] for i in range(count)]
    steps = None
    if all(i in outputs.steps for i in range(count)):
        steps = [[tokens(text) for text in outputs.steps[i]] for i in range(count)]
    return System(name, texts, [candidates[0] for candidates in samples], samples, steps)


def _test_set(path, log, ref, src, words, tokenised):
    """References and sources from plain files, or from the lines of a log."""
    notes = []
    if ref is not None:
        lines = list(read_lines(ref))
        if not lines:
            raise UserError(f"{ref}: the file is empty; it needs one sentence a line")
        in_tokens = bool(tokenised)
        notes.append(f"references: {ref}")
    elif log is None:
        raise UserError(f"{path} is a plain file: give its references with --ref")
    else:
        lines, in_tokens = _logged_references(path, log, tokenised, notes)
    pairs = [words.both(line, in_tokens) for line in lines]
    done = "detokenised" if in_tokens else "tokenised"
    whole = "" if in_tokens or words.split_hyphens else ", hyphens left as in the translations"
    notes.append(f"references {done} by sacremoses ({words.language}){whole}")
    sources, raw = _sources(path, log, src, len(pairs), tokenised)
    if src is not None:
        notes.append(f"sources: {src}")
    elif sources is None:
        notes.append("no sources: --src gives BLEU by their length")
    texts, tokens = map(list, zip(*pairs))
    return TestSet(words.language, texts, tokens, sources, raw, notes)


def _sources(path, log, src, count, tokenised):
    """The sources or None, and whether they are raw text."""
    if src is not None:
        sources = list(read_lines(src))
        _same_count(src, sources, path, count)
        return sources, not tokenised
    sources = [log.sources.get(i) for i in range(count)] if log else [None]
    raw = log is not None and not _in_tokens(log, tokenised)
    return (None, raw) if None in sources else (sources, raw)


def _in_tokens(log, tokenised):
    """Whether a log's S- and T-lines are in tokens; those of H-lines fairseq leaves as they are."""
    return not log.was_detokenised and (log.in_tokens if tokenised is None else tokenised)


def _logged_references(path, log, tokenised, notes):
    """The T-lines in order, and whether they are in tokens."""
    if not log.references:
        raise UserError(f"{path} has no T-lines: give the references with --ref")
    count = max(max(log.references), max(log.candidates)) + 1
    check_complete(log, count, path)
    if len(log.references) != count:
        raise UserError(
            f"{path}: only {len(log.references)} of {count} sentences have a T-line: give the "
            "references with --ref"
        )
    lines = [log.references[i] for i in range(count)]
    notes.append(f"references: the T-lines of {path}")
    if unknown := sum(line.count(UNKNOWN) for line in lines):
        notes.append(
            f"the T-lines have {unknown} words that the dictionary lacks, which count as wrong: "
            "--ref with the raw references is better"
        )
    if not log.ended:
        notes.append(
            f"{path} lacks the last line of a whole run of fairseq-generate: sentences at the end "
            "may be missing"
        )
    return lines, _in_tokens(log, tokenised)


def _check_same_references(path, outputs, test_set):
    """Refuse a log of another test set, which its own references give away.

    Those with unknown words say nothing: they differ from the raw ones, and from those of a
    system with another dictionary.
    """
    known = list(zip(test_set.references, test_set.reference_tokens))
    pairs = [
        (bare(own), map(bare, known[number]))
        for number, own in outputs.references.items()
        if not any(UNKNOWN in text for text in (own, *known[number]))
    ]
    alike = sum(own in both for own, both in pairs)
    if alike < ALIKE * len(pairs):
        raise UserError(
            f"{path}: the references of {len(pairs) - alike} of {len(pairs)} sentences (its "
            "T-lines) are others than those that it is compared with: give files of one test set"
        )
