"""Read systems and references from logs of fairseq-generate and from plain files."""

import re
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path

from difformer_plugin.data.sources import read_lines
from difformer_plugin.errors import UserError
from difformer_plugin.evaluation.language import language_nearby
from difformer_plugin.evaluation.moses import MosesText
from difformer_plugin.evaluation.outputs import (
    Outputs,
    check_complete,
    matching_form,
    parse_outputs,
)

UNKNOWN = "<<unk>>"  # how fairseq prints a reference's words that are not in its dictionary
MIN_AGREEMENT = 0.5  # if fewer lines agree, they are taken to be of different test sets


@dataclass
class System:
    """The translations of one system, in the order of the test set.

    Attributes:
        name: as shown in tables and plots.
        texts: best candidates, detokenised.
        tokens: best candidates, in Moses tokens.
        samples: all candidates of each sentence in Moses tokens, best first.
        steps: the output after each decoding step of the best candidate of each sentence, in Moses
            tokens; None if the steps were not recorded.
        model: the checkpoint and the options of decoding, as far as the log tells; empty if not.
    """

    name: str
    texts: list[str]
    tokens: list[str]
    samples: list[list[str]]
    steps: list[list[str]] | None = None
    model: str = ""


@dataclass
class TestSet:
    """References and sources of a test set.

    Attributes:
        language: the target language, or None if no conversion needed it.
        references: detokenised.
        reference_tokens: in Moses tokens.
        sources: None if there are none.
        raw_sources: whether the sources are plain text rather than Moses tokens.
        notes: sentences for the user about where the texts came from.
    """

    __test__ = False  # keeps pytest from collecting it as a test class

    language: str | None
    references: list[str]
    reference_tokens: list[str]
    sources: list[str] | None
    raw_sources: bool = True
    notes: list[str] = field(default_factory=list)


def load(
    path: str | PathLike,
    ref: str | PathLike | None = None,
    src: str | PathLike | None = None,
    baseline: str | PathLike | None = None,
    language: str | None = None,
    lowercase: bool = False,
    tokenised: bool | None = None,
) -> tuple[TestSet, list[System]]:
    """Read one system or two, with their references.

    Args:
        path: a log of fairseq-generate, or a plain file of translations.
        ref: raw references; None to take those of the log.
        src: raw sources; None to take those of the log, if there are any.
        baseline: a second system, in either form.
        language: the target language, whose region is ignored; None to take it from the log, from
            the suffix of `ref`, or from a `pipeline.json` near `path`.
        lowercase: lower-case all texts.
        tokenised: whether logs and plain files hold Moses tokens; None to detect it in logs, and
            to assume that plain files do not.
    Raises:
        UserError: a file is empty, has another encoding, or does not belong to the others.
    """
    files = [_read(file) for file in (path, baseline) if file is not None]
    language = language or _language([outputs for _, outputs in files], ref)
    notes = []
    if language is None and (near := language_nearby(path)):
        language = near[0]
        notes.append(f"target language {language}: from {near[1]}; --target-lang replaces it")
    language = language and re.split("[-_]", language)[0].lower()  # de_DE and de-DE are de
    logs = [outputs for _, outputs in files if outputs is not None]
    split_hyphens = all(log.splits_hyphens for log in logs if log.in_tokens)
    moses = MosesText(language, lowercase, split_hyphens)
    log = files[0][1]
    test_set = _test_set(path, log, ref, src, moses, tokenised)
    test_set.notes += notes
    num_sentences = len(test_set.references)
    names = _names([file for file in (path, baseline) if file is not None])
    systems = []
    for name, file, (lines, outputs) in zip(names, (path, baseline), files):
        if outputs is None:
            _check_num_lines(file, lines, ref or path, num_sentences)
            systems.append(_plain_system(name, lines, moses, bool(tokenised)))
        else:
            check_complete(outputs, num_sentences, file)
            in_tokens = outputs.in_tokens if tokenised is None else tokenised
            if tokenised is None and not in_tokens:
                test_set.notes.append(
                    f"translations of {file} treated as raw text; give --tokenized if they are "
                    "Moses tokens"
                )
            systems.append(_logged_system(name, outputs, num_sentences, moses, in_tokens))
    for file, (_, outputs) in zip((path, baseline), files):
        if outputs is not None:
            _check_same_references(file, outputs, test_set)
            if src is not None:
                _check_same_sources(file, outputs, src, test_set.sources)
    return test_set, systems


def _read(path):
    """(lines, None) of a plain file, or (None, Outputs) of a log of fairseq-generate."""
    lines = list(read_lines(path))
    if not lines:
        raise UserError(f"{path}: the file is empty; it needs one sentence a line")
    outputs = parse_outputs(lines)
    if outputs.candidates:
        return None, outputs
    if outputs.ended or outputs.sources or outputs.languages:
        raise UserError(
            f"{path}: fairseq-generate printed no translations: run it without --quiet, and give "
            "its standard output"
        )
    return lines, None


def _language(logs, ref):
    """The target language according to a log or to the suffix of the references, or None."""
    for outputs in logs:
        if outputs is not None and len(outputs.languages) > 1:
            return outputs.languages[1]
    suffix = re.fullmatch(
        r"\.([a-z]{2}(?:[-_][A-Z]{2})?)", Path(str(ref).removesuffix(".gz")).suffix
    )
    return suffix[1] if ref and suffix else None


def _names(paths):
    """File names without folders, if these differ; otherwise the full paths."""
    short = [Path(path).name for path in paths]
    return short if len(set(short)) == len(short) else [str(path) for path in paths]


def _check_num_lines(path, lines, other, num_sentences):
    if len(lines) != num_sentences:
        raise UserError(
            f"{path} has {len(lines)} lines and {other} has {num_sentences} sentences; they must "
            "be of the same test set, line by line"
        )


def _plain_system(name, lines, moses, tokenised):
    pairs = [moses.both_forms(line, tokenised) for line in lines]
    tokens = [tokens for _, tokens in pairs]
    return System(name, [text for text, _ in pairs], tokens, [[line] for line in tokens])


def _logged_system(name, outputs, num_sentences, moses, tokenised):
    def tokens(text):
        return moses.both_forms(text, tokenised)[1]

    numbers = range(num_sentences)
    samples = [[tokens(text) for text in outputs.candidates[i]] for i in numbers]
    if outputs.was_detokenised:
        texts = [moses.both_forms(outputs.detokenised[i][0], False)[0] for i in numbers]
    else:
        texts = [moses.both_forms(outputs.candidates[i][0], tokenised)[0] for i in numbers]
    steps = None
    if all(i in outputs.steps for i in numbers):
        steps = [[tokens(text) for text in outputs.steps[i]] for i in numbers]
    tokens_of_best = [candidates[0] for candidates in samples]
    return System(name, texts, tokens_of_best, samples, steps, _model(outputs))


def _model(outputs):
    """The checkpoint and the options of decoding in a log, as one line."""
    options = [
        f"--{name.replace('_', '-')}{'' if value == 'True' else f' {value}'}"
        for name, value in outputs.decoding.items()
    ]
    return " ".join(filter(None, [outputs.model, *options]))


def _test_set(path, log, ref, src, moses, tokenised):
    """The TestSet from plain files or, where they are not given, from the lines of a log."""
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
    pairs = [moses.both_forms(line, in_tokens) for line in lines]
    done = "detokenised" if in_tokens else "tokenised"
    hyphens = (
        "" if in_tokens or moses.split_hyphens else ", hyphens not split, as in the translations"
    )
    notes.append(f"references {done} by sacremoses ({moses.language}){hyphens}")
    sources, raw = _sources(path, log, src, len(pairs), tokenised)
    if src is not None:
        notes.append(f"sources: {src}")
    elif sources is None:
        notes.append("no sources: give --src for BLEU by source length")
    texts, tokens = map(list, zip(*pairs))
    return TestSet(moses.language, texts, tokens, sources, raw, notes)


def _sources(path, log, src, num_sentences, tokenised):
    """The sources or None, and whether they are raw text."""
    if src is not None:
        sources = list(read_lines(src))
        _check_num_lines(src, sources, path, num_sentences)
        return sources, not tokenised
    sources = [log.sources.get(i) for i in range(num_sentences)] if log else [None]
    raw = log is not None and not _in_tokens(log, tokenised)
    return (None, raw) if None in sources else (sources, raw)


def _in_tokens(log: Outputs, tokenised: bool | None) -> bool:
    """Whether the S- and T-lines of a log are in tokens; fairseq detokenises them like D-lines."""
    return not log.was_detokenised and (log.in_tokens if tokenised is None else tokenised)


def _logged_references(path, log, tokenised, notes):
    """The T-lines in order, and whether they are in tokens."""
    if not log.references:
        raise UserError(f"{path} has no T-lines: give the references with --ref")
    num_sentences = max(max(log.references), max(log.candidates)) + 1
    check_complete(log, num_sentences, path)
    if len(log.references) != num_sentences:
        raise UserError(
            f"{path}: only {len(log.references)} of {num_sentences} sentences have a T-line: give "
            "the references with --ref"
        )
    lines = [log.references[i] for i in range(num_sentences)]
    notes.append(f"references: the T-lines of {path}")
    if unknown := sum(line.count(UNKNOWN) for line in lines):
        notes.append(
            f"the T-lines have {unknown} words that are not in the dictionary, which count as "
            "errors: raw references, given with --ref, are better"
        )
    if not log.ended:
        notes.append(
            f"{path} lacks the last line of a complete run of fairseq-generate: sentences at the "
            "end may be missing"
        )
    return lines, _in_tokens(log, tokenised)


def _check_same_references(path, outputs, test_set):
    """Refuse a log whose own references show that it is of another test set."""
    known = list(zip(test_set.references, test_set.reference_tokens))
    _check_agreement(path, outputs.references, known, "references", "T")


def _check_same_sources(path, outputs, src, sources):
    """Refuse sources of another test set, which would put sentences among others' lengths."""
    known = [(source,) for source in sources]
    _check_agreement(f"--src {src}", outputs.sources, known, "sources", "S", of=path)


def _check_agreement(path, own, known, what, letter, of=None):
    """Refuse lines of a log that are not those of the test set.

    Lines with unknown words are ignored: they differ from the raw text, and from those of a system
    with another dictionary.

    Args:
        path: what is refused.
        own: from a sentence to its line in the log; known: the forms of each line.
        what: the lines; letter: begins those of the log.
        of: the log, if that is not `path`.
    """
    pairs = [
        (matching_form(line), map(matching_form, known[number]))
        for number, line in own.items()
        if not any(UNKNOWN in text for text in (line, *known[number]))
    ]
    num_equal = sum(line in forms for line, forms in pairs)
    if num_equal < MIN_AGREEMENT * len(pairs):
        lines = f"the {letter}-lines of {of}" if of else f"its {letter}-lines"
        raise UserError(
            f"{path}: the {what} of {len(pairs) - num_equal} of {len(pairs)} sentences ({lines}) "
            "differ from those that it is compared with: give files of one test set"
        )
