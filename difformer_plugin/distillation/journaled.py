"""Sequence-level distillation: every sentence of a split in one batch, each batch kept once done.

The targets of a training set are replaced by what an autoregressive teacher makes of its sources
(Kim and Rush, 2016). Batches are cut from the whole split before shards are, so that a sentence
is decoded in the same company, and to the same tokens, however the work is divided or interrupted.
"""

import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from difformer_plugin.distillation.failures import LONG_SOURCE, NO_SOURCE, failure
from difformer_plugin.errors import UserError

FORMAT = 1  # of journal and manifest; work of another format is refused


@dataclass(frozen=True)
class Plan:
    """Which sentences a shard has, and how they are decoded.

    `batches` maps a batch's number to its sentences, the longest first, so that a batch too large
    for the memory shows at once. `failures` maps sentences that the teacher is not given to why.
    `lines` counts the sentences of all shards.
    """

    lines: int
    batches: dict
    failures: dict

    def sentences(self):
        """How many sentences this shard has."""
        return sum(len(batch) for batch in self.batches.values()) + len(self.failures)


def unusable(words, tokens, longest):
    """Sentences that a teacher is not given, and why.

    Args:
        words: source tokens of each sentence without BOS and EOS, (N,).
        tokens: those of what the teacher sees, (N,).
        longest: the most that it takes.
    """
    words, tokens = np.asarray(words), np.asarray(tokens)
    causes = {int(i): LONG_SOURCE for i in np.flatnonzero(tokens > longest)}
    return causes | {int(i): NO_SOURCE for i in np.flatnonzero(words == 0)}


def plan(tokens, causes, max_tokens, batch_size, shard=0, shards=1):
    """Cut a split into batches of like length, of which a shard takes every `shards`-th.

    Args:
        tokens: source tokens of each sentence, (N,).
        causes: of `unusable`.
        max_tokens: the most in a batch, padding included; a longer sentence is a batch of its own.
        batch_size: the most sentences in a batch.
    Raises:
        UserError: fewer batches than shards.
    """
    tokens = np.asarray(tokens)
    order = [i for i in np.argsort(-tokens, kind="stable").tolist() if i not in causes]
    cut, start = [], 0
    while start < len(order):
        size = min(batch_size, max(1, max_tokens // int(tokens[order[start]])))
        cut.append(order[start : start + size])
        start += size
    if shards > max(1, len(cut)):
        raise UserError(
            f"--shard {shard}/{shards}: there are only {len(cut)} batches; use fewer shards or a "
            "smaller --batch-size"
        )
    batches = {number: cut[number] for number in range(shard, len(cut), shards)}
    return Plan(len(tokens), batches, {i: causes[i] for i in sorted(causes)[shard::shards]})


@dataclass
class Tally:
    """What has been decoded: sums, which can be added up over batches and shards."""

    sentences: int = 0
    tokens: int = 0  # of the best hypotheses, EOS included
    seconds: float = 0.0
    bleu: list = field(default_factory=lambda: [0] * 10)  # 4 matches, 4 totals, 2 lengths
    failures: Counter = field(default_factory=Counter)
    replaced: int = 0  # failures, by the next hypothesis
    dropped: int = 0
    raw: int = 0  # pairs added as they are
    pairs: int = 0  # written in all

    def add(self, other):
        """Add another tally's sums; it may be the dict that `vars` makes of one."""
        other = other if isinstance(other, dict) else vars(other)
        for name, value in other.items():
            if name == "bleu":
                self.bleu = [a + b for a, b in zip(self.bleu, value, strict=True)]
            elif name == "failures":
                self.failures.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def score(self):
        """sacreBLEU's score of the best hypotheses against the raw targets."""
        from sacrebleu.metrics import BLEU

        correct, total, lengths = self.bleu[:4], self.bleu[4:8], self.bleu[8:]
        return BLEU.compute_bleu(correct, total, *lengths, smooth_method="exp")


def of_record(record):
    """The tally of one batch, from its record in the journal."""
    tally = Tally(bleu=record["bleu"], seconds=record["seconds"])
    tally.sentences = len(record["sentences"])
    tally.tokens = sum(len(tokens) + 1 for tokens in record["outputs"])
    tally.failures.update(cause for cause, _ in record["failures"].values())
    return tally


def decode(journal, batches, translate, pairs, words, observe):
    """Translate the batches that the journal does not have yet; each is in it once it is done.

    Args:
        journal: a Journal.
        batches: number -> sentences.
        translate: sentences -> for each its hypotheses, the best first, and their limit of length
            or None, as `Teacher.translate`.
        pairs: sentence -> its source and raw target, lists of tokens without EOS.
        words: (tokens, escape_unk) -> text, subwords joined.
        observe: called with the Tally of each batch, and whether the journal had it.
    """
    done = set()
    for record in journal.records():
        done.add(record["batch"])
        observe(of_record(record), True)
    for number, sentences in batches.items():
        if number not in done:
            record = _record(number, sentences, translate, pairs, words)
            journal.append(record)
            observe(of_record(record), False)


def _record(number, sentences, translate, pairs, words):
    """What the journal keeps of a batch: all that choosing among its outcomes needs later."""
    from sacrebleu.metrics import BLEU

    started = time.perf_counter()
    translations = translate(sentences)
    seconds = time.perf_counter() - started
    failures = {}
    texts = []
    for sentence, (candidates, limit) in zip(sentences, translations, strict=True):
        source, target = pairs(sentence)
        cause = failure(candidates[0], source, target, limit)
        if cause is not None:
            good = (c for c in candidates[1:] if failure(c, source, target, limit) is None)
            failures[sentence] = cause, next(good, None)
        texts.append((words(candidates[0], False), words(target, True)))
    outputs, references = zip(*texts)
    score = BLEU(tokenize="none", force=True).corpus_score(outputs, [references])
    return {
        "batch": number,
        "sentences": sentences,
        "outputs": [candidates[0] for candidates, _ in translations],
        "failures": failures,
        "seconds": seconds,
        "bleu": [*score.counts, *score.totals, score.sys_len, score.ref_len],
    }


def digest(paths):
    """A hash of the contents of files, in their order."""
    digests = hashlib.blake2b(digest_size=16)
    for path in paths:
        with open(path, "rb") as file:
            digests.update(hashlib.file_digest(file, "blake2b").digest())
    return digests.hexdigest()


OTHER = {
    "data": "other data",
    "teacher": "another teacher",
    "format": "another version of this command",
}


def difference(theirs, ours):
    """In what two settings differ, in words; both are dicts of options and hashes."""
    names = [name for name in {**ours, **theirs} if theirs.get(name) != ours.get(name)]
    return ", ".join(
        OTHER.get(name) or f"{name} {theirs.get(name)} instead of {ours.get(name)}"
        for name in names
    )
