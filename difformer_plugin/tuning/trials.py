"""Measures BLEU and time of settings of decoding, and records them in a journal."""

import hashlib
import math
import time
from argparse import Namespace
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from fairseq.data import Dictionary
from sacrebleu.metrics import BLEU

from difformer_plugin.decoding.text import to_text
from difformer_plugin.diffusion.timesteps import UNIFORM
from difformer_plugin.errors import UserError
from difformer_plugin.storage.journal import Journal
from difformer_plugin.tuning.search import Measured
from difformer_plugin.tuning.settings import Settings

# Settings are screened on at least this many sentences and this share of all batches.
MIN_SCREENING_SENTENCES = 200
SCREENING_SHARE = 1 / 4
RESAMPLES = 1000  # of the bootstrap
MAX_GENERATORS = 8  # kept for the next batch


class Trials:
    """Measures settings on batches of sentences.

    Each batch is decoded once with given settings. All settings get the same noise, so that their
    BLEU can be compared. What the journal holds is not decoded again.

    Args:
        build_generator: called with the models and a Namespace of options; returns an object with
            a method `generate`, as fairseq's generators have.
        models: what `generate` is called with.
        dictionary: of the target.
        batches: fairseq's samples, with targets.
        reference: the settings that losses are measured against.
        post_process: how subwords are joined, a value of fairseq's --post-process.
        journal: where measurements are recorded.
        options: options that are not searched over, name -> value.
        observe: called with the number of sentences after each batch.
        seconds_of_reference: after so many seconds of decoding with the reference no further batch
            is begun, and the batches by then are all that losses are measured on; None for all.
    Attributes:
        whole: indices of the batches that are measured on, in order.
        count: measurements so far.
        seconds: decoding time of them, including batches that the journal held already.
    """

    def __init__(
        self,
        build_generator: Callable[[Sequence[Any], Namespace], Any],
        models: Sequence[Any],
        dictionary: Dictionary,
        batches: Sequence[dict[str, Any]],
        reference: Settings,
        post_process: str,
        journal: Journal,
        options: Mapping[str, Any] | None = None,
        observe: Callable[[int], Any] = lambda sentences: None,
        seconds_of_reference: float | None = None,
    ) -> None:
        self.build_generator, self.models, self.dictionary = build_generator, models, dictionary
        self.batches, self.reference, self.post_process = batches, reference, post_process
        self.journal, self.options, self.observe = journal, dict(options or {}), observe
        self.sizes = [len(batch["id"]) for batch in batches]
        self.references = [
            [to_text(dictionary, each, post_process, escape_unk=True) for each in batch["target"]]
            for batch in batches
        ]
        self.metric = BLEU(tokenize="none", force=True)
        self.count, self.seconds = 0, 0.0
        self.whole = list(range(len(batches)))
        self.seconds_of_reference = seconds_of_reference
        self._generators: dict[Settings, Any] = {}
        self._warm = False
        self._counted: set[tuple] = set()  # records whose time is part of `seconds`
        self._records = {
            (record["settings"], record["batch"], record["repeat"]): record
            for record in journal.records()
        }

    @property
    def screening_batches(self) -> list[int]:
        """Indices of the batches that settings are measured on first, evenly spread."""
        total, sentences = len(self.batches), sum(self.sizes)
        enough = math.ceil(MIN_SCREENING_SENTENCES * total / sentences)
        count = min(total, max(math.ceil(SCREENING_SHARE * total), enough))
        return [int((i + 0.5) * total / count) for i in range(count)]

    def measure(self, settings: Settings, whole: bool) -> Measured:
        """Decode with some settings, all sentences or the screening batches."""
        if settings == self.reference and whole and self.seconds_of_reference is not None:
            self._shorten(self.seconds_of_reference)
        numbers = self.whole if whole else self.screening_batches
        self.count += 1
        records = [self._record(settings, number) for number in numbers]
        statistics = _statistics(records)
        if settings == self.reference:
            loss, error = 0.0, 0.0
        else:
            base = _statistics([self._record(self.reference, number) for number in numbers])
            loss = bleu(base.sum(0)) - bleu(statistics.sum(0))
            error = float(bootstrap_losses(base, statistics).std())
        seconds = sum(record["seconds"] for record in records) / len(statistics)
        return Measured(loss, error, seconds, len(numbers) == len(self.whole))

    def _shorten(self, most: float) -> None:
        """Leave out batches, evenly, that the reference would need more than `most` seconds for."""
        screening = self.screening_batches
        others = [number for number in self.whole if number not in screening]
        order = screening + evenly_first(others)
        spent, chosen = 0.0, []
        for number in order:
            if spent > most and len(chosen) >= len(screening):
                break
            chosen.append(number)
            spent += self._record(self.reference, number)["seconds"]
        self.whole = sorted(chosen)

    def score(self, settings: Settings) -> tuple[float, tuple[float, float]]:
        """BLEU on all sentences, and the 95 % interval of the loss against the reference."""
        base, statistics = (
            _statistics([self._record(each, number) for number in self.whole])
            for each in (self.reference, settings)
        )
        low, high = np.percentile(bootstrap_losses(base, statistics), [2.5, 97.5])
        return bleu(statistics.sum(0)), (float(low), float(high))

    def speeds(
        self, several: Sequence[Settings], repeats: int, most: float = math.inf
    ) -> dict[Settings, float]:
        """Sentences per second of several settings, measured in alternation.

        Each batch is decoded with all of them before the next, so that other load on the machine
        slows all of them equally. The median of the repetitions counts.

        Args:
            most: seconds that this may take, by what the batches took before; one batch is always
                measured.
        """
        numbers = self.screening_batches
        if most < math.inf:
            rounds = [
                sum(self._record(each, number)["seconds"] for each in several) for number in numbers
            ]
            affordable = int((np.cumsum(rounds) * repeats <= most).sum())
            numbers = numbers[: max(1, affordable)]
        # Times are comparable only within one alternation, so its members are part of the key.
        group = hashlib.blake2b("\n".join(map(str, several)).encode(), digest_size=4).hexdigest()
        spent = defaultdict(list)  # settings, batch -> seconds
        for repeat in range(1, repeats + 1):
            for number in numbers:
                turn = repeat % len(several)
                for settings in [*several[turn:], *several[:turn]]:
                    record = self._record(settings, number, f"{group}-{repeat}")
                    spent[settings, number].append(record["seconds"])
        sentences = sum(self.sizes[number] for number in numbers)
        return {
            settings: sentences / sum(median(spent[settings, number]) for number in numbers)
            for settings in several
        }

    def signature(self) -> str:
        """sacreBLEU's signature."""
        self.metric.corpus_score(["a"], [["a"]])  # there is none before the first score
        return str(self.metric.get_signature())

    def _record(self, settings, number, repeat=None):
        """Seconds of a batch and, unless it is a repetition, its statistics of BLEU."""
        key = str(settings), number, repeat
        if key not in self._records:
            record = dict(zip(("settings", "batch", "repeat"), key))
            record |= self._decode(settings, number, repeat is None)
            self.journal.append(record)
            self._records[key] = record
        if key not in self._counted:
            self._counted.add(key)
            self.seconds += self._records[key]["seconds"]
        return self._records[key]

    def _decode(self, settings, number, first):
        """Decode a batch: `seconds` and, the first time, `bleu`."""
        generator, sample = self._generator(settings), self.batches[number]
        source = sample["net_input"]["src_tokens"]
        try:
            if not self._warm:
                self._generator(_cheapest(settings)).generate(self.models, sample)
                self._warm = True
            if first and source.is_cuda:  # kernels are prepared when a shape occurs first
                generator.generate(self.models, sample)
            if source.is_cuda:
                torch.cuda.synchronize()
            start = time.perf_counter()
            translations = generator.generate(self.models, sample)
            seconds = time.perf_counter() - start
        except torch.OutOfMemoryError:
            raise UserError(
                f"the GPU's memory is too small for {self.sizes[number]} sentences with "
                f"{settings.num_candidates} candidates each: give a smaller --batch-size"
            ) from None
        self.observe(self.sizes[number])
        if not first:
            return {"seconds": seconds}
        best = [
            to_text(self.dictionary, hypotheses[0]["tokens"], self.post_process)
            for hypotheses in translations
        ]
        scored = [
            self.metric.corpus_score([hypothesis], [[reference]])
            for hypothesis, reference in zip(best, self.references[number], strict=True)
        ]
        return {
            "seconds": seconds,
            "bleu": [[*each.counts, *each.totals, each.sys_len, each.ref_len] for each in scored],
        }

    def _generator(self, settings):
        if settings not in self._generators:
            if len(self._generators) == MAX_GENERATORS:
                self._generators.pop(next(iter(self._generators)))
            options = Namespace(**(self.options | settings.options()))
            self._generators[settings] = self.build_generator(self.models, options)
        return self._generators[settings]


def _cheapest(settings):
    """The same with one step and one candidate, to warm up with."""
    return settings._replace(
        decoding_steps=1,
        decoding_early_stopping=0,
        length_beam_size=1,
        noise_beam_size=1,
        race_after=0,
        race_keep=1,
        decoding_timesteps=UNIFORM,
        soft_clamping=0,
    )


def evenly_first(items: Sequence[int]) -> list[int]:
    """The items in an order whose every beginning is spread over all of them: halves, quarters."""
    if len(items) < 2:
        return list(items)
    middle = len(items) // 2
    left, right = evenly_first(items[:middle]), evenly_first(items[middle + 1 :])
    rest = [each for pair in zip(left, right) for each in pair]
    return [items[middle], *rest, *left[len(right) :], *right[len(left) :]]


def _statistics(records):
    """Statistics of BLEU of each sentence, (N, 10)."""
    return np.array([sentence for record in records for sentence in record["bleu"]])


def bleu(statistics: Sequence[int]) -> float:
    """sacreBLEU's BLEU from its statistics: 4 matches, 4 totals, 2 lengths."""
    counts = [int(each) for each in statistics]
    return BLEU.compute_bleu(counts[:4], counts[4:8], *counts[8:], smooth_method="exp").score


def bootstrap_losses(base: np.ndarray, system: np.ndarray, seed: int = 1) -> np.ndarray:
    """BLEU that a system loses against another, on test sets resampled from one (paired bootstrap).

    Source:
        Koehn (2004), Statistical Significance Tests for Machine Translation Evaluation.
    Args:
        base, system: statistics of the same sentences, (N, 10) each.
    Returns:
        a loss for each test set, (1000,).
    """
    weights = np.random.default_rng(seed).multinomial(
        len(base), [1 / len(base)] * len(base), RESAMPLES
    )
    pairs = zip(weights @ base, weights @ system)
    return np.array([bleu(theirs) - bleu(ours) for theirs, ours in pairs])
