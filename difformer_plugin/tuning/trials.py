"""Decoding with one setting after another: BLEU and time of each, kept in a journal."""

import hashlib
import time
from argparse import Namespace
from collections import defaultdict
from statistics import median

import numpy as np
import torch
from sacrebleu.metrics import BLEU

from difformer_plugin.decoding.probe import words
from difformer_plugin.errors import UserError
from difformer_plugin.tuning.search import Measured

SCREEN = 200  # sentences that settings are first measured on, at least, if there are so many
SHARE = 4  # and at least one of so many
RESAMPLES = 1000
GENERATORS = 8  # kept ready for the next batch


class Trials:
    """Measures settings on batches of sentences.

    A batch is decoded once with some settings, with the same noise as with all others, so that
    its BLEU can be compared with theirs; what is in the journal is not decoded again.

    Args:
        build_generator: called with a Namespace of options; returns what has `generate`.
        models: as `generate` takes them.
        dictionary: of the target.
        batches: a list of fairseq's samples, with targets.
        reference: settings.
        mark: how subwords are joined to words, as fairseq's --post-process.
        journal: a Journal.
        options: those that are not searched over, name -> value.
        observe: called with the number of sentences decoded.
    """

    def __init__(
        self,
        build_generator,
        models,
        dictionary,
        batches,
        reference,
        mark,
        journal,
        options=None,
        observe=lambda sentences: None,
    ):
        self.build_generator, self.models, self.dictionary = build_generator, models, dictionary
        self.batches, self.reference, self.mark = batches, reference, mark
        self.journal, self.options, self.observe = journal, options or {}, observe
        self.sizes = [len(batch["id"]) for batch in batches]
        self.references = [
            [words(dictionary, tokens, mark, escape_unk=True) for tokens in batch["target"]]
            for batch in batches
        ]
        self.metric = BLEU(tokenize="none", force=True)
        # measurements and their time, with those of an earlier run that this one has asked for
        self.count, self.seconds = 0, 0.0
        self.taken, self.generators, self.warm = set(), {}, False
        self.known = {
            (record["settings"], record["batch"], record["repeat"]): record
            for record in journal.records()
        }

    @property
    def part(self):
        """The numbers of the batches that settings are first measured on, of all lengths."""
        total, sentences = len(self.batches), sum(self.sizes)
        least = -(-SCREEN * total // sentences)
        count = min(total, max(-(-total // SHARE), least))
        return [int((i + 0.5) * total / count) for i in range(count)]

    def measure(self, settings, whole):
        """`Measured` of settings, as `Search` wants it."""
        numbers = range(len(self.batches)) if whole else self.part
        self.count += 1
        runs = [self._run(settings, number) for number in numbers]
        found = _statistics(runs)
        if settings == self.reference:
            difference, error = 0.0, 0.0
        else:
            base = _statistics([self._run(self.reference, number) for number in numbers])
            difference, error = bleu(base.sum(0)) - bleu(found.sum(0)), losses(base, found).std()
        seconds = sum(run["seconds"] for run in runs) / len(found)
        return Measured(difference, float(error), seconds, len(numbers) == len(self.batches))

    def score(self, settings):
        """BLEU on all sentences, and the 95 % interval of the loss against the reference."""
        base, found = (
            _statistics([self._run(which, number) for number in range(len(self.batches))])
            for which in (self.reference, settings)
        )
        low, high = np.percentile(losses(base, found), [2.5, 97.5])
        return bleu(found.sum(0)), (float(low), float(high))

    def speeds(self, several, repeats):
        """Sentences a second of several settings, measured in alternation.

        Each batch is decoded with all of them before the next, so that a machine that others
        work on as well is as slow for one as for another; of the repetitions the median counts.
        """
        # times of one alternation are never mixed with those of another
        group = hashlib.blake2b("\n".join(map(str, several)).encode(), digest_size=4).hexdigest()
        spent = defaultdict(list)  # settings, batch -> seconds
        for repeat in range(1, repeats + 1):
            for number in self.part:
                turn = repeat % len(several)
                for settings in [*several[turn:], *several[:turn]]:
                    run = self._run(settings, number, f"{group}-{repeat}")
                    spent[settings, number].append(run["seconds"])
        sentences = sum(self.sizes[number] for number in self.part)
        return {
            settings: sentences / sum(median(spent[settings, number]) for number in self.part)
            for settings in several
        }

    def signature(self):
        """sacreBLEU's."""
        self.metric.corpus_score(["a"], [["a"]])  # it has none before it has scored anything
        return str(self.metric.get_signature())

    def _run(self, settings, number, repeat=None):
        """The record of a batch: seconds and, the first time, the statistics of BLEU."""
        key = str(settings), number, repeat
        if key not in self.known:
            record = dict(zip(("settings", "batch", "repeat"), key))
            record |= self._decode(settings, number, repeat is None)
            self.journal.append(record)
            self.known[key] = record
        if key not in self.taken:
            self.taken.add(key)
            self.seconds += self.known[key]["seconds"]
        return self.known[key]

    def _decode(self, settings, number, first):
        """Decode a batch: a dict of `seconds` and, the first time, `bleu`."""
        generator, sample = self._generator(settings), self.batches[number]
        source = sample["net_input"]["src_tokens"]
        try:
            if not self.warm:
                self._generator(_cheapest(settings)).generate(self.models, sample)
                self.warm = True
            if first and source.is_cuda:  # a GPU prepares itself for shapes that it has not met
                generator.generate(self.models, sample)
            if source.is_cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            translations = generator.generate(self.models, sample)
            seconds = time.perf_counter() - start
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU's memory is too small for {self.sizes[number]} sentences with "
                f"{settings.candidates} candidates each: give a smaller --batch-size"
            ) from None
        self.observe(self.sizes[number])
        if not first:
            return {"seconds": seconds}
        best = [words(self.dictionary, found[0]["tokens"], self.mark) for found in translations]
        scored = [
            self.metric.corpus_score([hypothesis], [[reference]])
            for hypothesis, reference in zip(best, self.references[number], strict=True)
        ]
        return {
            "seconds": seconds,
            "bleu": [[*each.counts, *each.totals, each.sys_len, each.ref_len] for each in scored],
        }

    def _generator(self, settings):
        if settings not in self.generators:
            if len(self.generators) == GENERATORS:
                self.generators.pop(next(iter(self.generators)))
            options = Namespace(**(self.options | settings._asdict()))
            self.generators[settings] = self.build_generator(self.models, options)
        return self.generators[settings]


def _cheapest(settings):
    """Settings to warm up with."""
    return settings._replace(
        decoding_steps=1,
        decoding_early_stopping=0,
        length_beam_size=1,
        noise_beam_size=1,
        halt_after=0,
        race_after=0,
        race_keep=1,
    )


def _statistics(runs):
    """Counts of n-grams and lengths of each sentence, (N, 10)."""
    return np.array([sentence for run in runs for sentence in run["bleu"]])


def bleu(sums):
    """sacreBLEU's BLEU from its statistics: 4 matches, 4 totals, 2 lengths."""
    sums = [int(each) for each in sums]
    return BLEU.compute_bleu(sums[:4], sums[4:8], *sums[8:], smooth_method="exp").score


def losses(base, found, seed=1):
    """BLEU lost on test sets resampled from one, whose sentences both systems have translated.

    Source:
        Koehn (2004), Statistical Significance Tests for Machine Translation Evaluation.
    Args:
        base, found: statistics of the sentences, (N, 10) each.
    Returns:
        a sample of differences.
    """
    weights = np.random.default_rng(seed).multinomial(
        len(base), [1 / len(base)] * len(base), RESAMPLES
    )
    pairs = zip(weights @ base, weights @ found)
    return np.array([bleu(ours) - bleu(theirs) for ours, theirs in pairs])
