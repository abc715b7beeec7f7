"""Fast decoding: sources projected once, little padding, pieces that fit caches, races.

The output is that of `oracle.decode`, up to floating-point rounding.
"""

from collections.abc import Callable
from functools import partial
from itertools import islice
from typing import Any

import torch

from difformer_plugin.decoding.candidates import Drawn
from difformer_plugin.decoding.combination import Combination
from difformer_plugin.decoding.given import GivenTokens, Infilling, fill_in
from difformer_plugin.decoding.graphs import Recordings
from difformer_plugin.decoding.loop import predictor, reverse_process
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.decoding.speedups import ENGINE, Speedups
from difformer_plugin.diffusion.noise import SentenceNoise
from difformer_plugin.diffusion.sampler import Sampler
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout
from difformer_plugin.networks.precision import PRECISIONS

# Tokens decoded at a time. On a CPU, what is written to memory and not to the caches costs five
# times as much for each token; a GPU wants as many as it can get.
CHUNK = {"cpu": 2048, "cuda": 2**16}
REPLAYING = {"cuda"}  # devices whose predictions are replayed from recorded graphs
WIDTH_MULTIPLE = 8  # of the rows there, so that few shapes occur

Rounded = tuple[torch.Tensor, torch.Tensor]  # tokens (L,) and their log-probabilities (L,)
# Scores candidates of some sentences during a race: sentence numbers, candidates -> scores.
RaceScores = Callable[[list[int], list[list[Rounded]]], list[list[float]]]


def decode(
    model: Family,
    options: Any,
    memory: Memory,
    lengths: torch.Tensor,
    keys: torch.Tensor,
    history: bool = False,
    speedups: Speedups = ENGINE,
    race_scores: RaceScores | None = None,
    given: torch.Tensor | None = None,
) -> list[Drawn]:
    """Draw the candidates of a batch. Arguments and result are those of `oracle.decode`.

    With --race-after, the candidates that were dropped are among the result, marked as such.

    Args:
        race_scores: scores the candidates of a race; needed with --race-after.
    """
    sentences, beam = lengths.shape
    device = memory.mask.device
    owners = [s for s in range(sentences) for _ in range(beam)]
    fixed = GivenTokens.collect(model, memory, owners, given)
    if fixed is not None:
        lengths = fixed.first_lengths(lengths.flatten()).view(lengths.shape)
    lengths = lengths.tolist()
    sampler = build_sampler(model, options)
    noise = SentenceNoise(
        keys.repeat_interleave(beam),
        torch.arange(beam, device=device).repeat(sentences),
        sampler.draw_noise,
    )
    size = CHUNK.get(device.type, CHUNK["cuda"]) if speedups.chunk else None
    # A target that grows ends about as long as its source.
    ends = [[n] * beam for n in memory.lengths().tolist()] if sampler.grows else lengths
    chunks = []
    for chunk in _chunks(ends, size):
        numbers = [s * beam + i for s in chunk for i in range(beam)]
        active = ActiveCandidates(
            model,
            sampler,
            options,
            speedups,
            memory.select(torch.tensor(chunk, device=device)),
            [length for s in chunk for length in lengths[s]],
            noise.select(torch.tensor(numbers, device=device)),
            fixed and fixed.select(numbers),
            history,
            race_scores and partial(race_scores, chunk),
        )
        active.run()
        chunks.append((numbers, active))
    # Only now, so that a GPU goes on with the next chunk without waiting for the host.
    drawn = {
        numbers[i]: candidate
        for numbers, active in chunks
        for i, candidate in active.drawn().items()
    }
    return [drawn[i] for i in range(sentences * beam)]


def _chunks(lengths: list[list[int]], size: int | None) -> list[list[int]]:
    """Which sentences are decoded together: if possible, no more than `size` tokens."""
    if size is None:
        return [list(range(len(lengths)))]
    totals = [sum(own) for own in lengths]
    chunks: list[list[int]] = []
    tokens = 0
    for s in sorted(range(len(lengths)), key=lambda s: -totals[s]):
        if not chunks or tokens + totals[s] > size:
            chunks.append([])
            tokens = 0
        chunks[-1].append(s)
        tokens += totals[s]
    return chunks


class Sources:
    """What one prediction of a step reads of the sources of the active candidates.

    Args:
        memory: of the sources.
        branch: which of the predictions of a step it is.
        share: project keys and values once and not at each step.
    """

    def __init__(
        self, model: Family, memory: Memory, dtype: torch.dtype | None, branch: int, share: bool
    ):
        self.model, self.memory, self.dtype, self.branch = model, memory, dtype, branch
        self.projected = model.conditions(memory, dtype) if share else None
        self.replayed: Any = None

    def select(self, rows: torch.Tensor) -> None:
        """Keep the sources `rows` only."""
        self.memory = self.memory.select(rows)
        self.projected = self.projected and self.projected.select(rows)

    def conditions(self) -> Any:
        """The conditions of a prediction."""
        return self.projected or self.model.conditions(self.memory, self.dtype)

    def record(self, layout: Layout) -> None:
        """Replay predictions of this layout, where there is a recording of its shape."""
        self.replayed = None
        if self.projected is not None and layout.device.type in REPLAYING:
            recordings = self.model.derived.setdefault(("graphs", self.branch), Recordings())
            self.replayed = recordings.find(self.model, layout, self.projected)

    def predict(
        self, z: Any, time: float, layout: Layout, previous: torch.Tensor | None
    ) -> torch.Tensor:
        """The model's prediction (N, D)."""
        if self.replayed is not None:
            return self.replayed(z, time, previous)
        return self.model.predict(z, time, layout, self.conditions(), previous)


class ActiveCandidates:
    """The candidates of some sentences while they are decoded.

    A candidate is known by its number among those it began with, a sentence's one after another,
    and a source by its row in the memory that it began with.

    Args:
        memory: of the sentences.
        lengths: of the candidates, with what leads them; all sentences have equally many.
        noise: of the candidates.
        given: tokens of the candidates, if any are given.
        race_scores: scores the candidates of each sentence.
    """

    def __init__(
        self,
        model: Family,
        sampler: Sampler,
        options: Any,
        speedups: Speedups,
        memory: Memory,
        lengths: list[int],
        noise: SentenceNoise,
        given: GivenTokens | None,
        history: bool,
        race_scores: Callable[[list[list[Rounded]]], list[list[float]]] | None,
    ):
        self.model, self.sampler, self.options = model, sampler, options
        self.speedups, self.race_scores = speedups, race_scores
        self.lengths, self.all_noise, self.given = lengths, noise, given
        self.device = memory.mask.device
        dtype = PRECISIONS.get(options.decoding_precision)
        self.beam = len(lengths) // len(memory.mask)
        owners = [i // self.beam for i in range(len(lengths))]
        self.owners = owners if speedups.share else list(range(len(lengths)))
        self.present = sorted(set(self.owners))
        memory = memory.widened(self._width(memory.mask.shape[1]))
        if not speedups.share:
            memory = memory.select(torch.tensor(owners, device=self.device))
        self.combination = Combination(options)
        self.sources = [
            Sources(model, own, dtype, branch, speedups.share)
            for branch, own in enumerate(self.combination.memories(model, memory))
        ]
        self.numbers = list(range(len(lengths)))  # of those that are still active
        self.taken = 0  # steps
        self.history: list[list[Rounded]] | None = [[] for _ in lengths] if history else None
        self.done: dict[int, tuple] = {}
        self.dropped: set[int] = set()
        self.padded = not speedups.pack or self.device.type != "cpu"
        self._lay_out()

    def run(self) -> None:
        """Draw all."""
        end = reverse_process(
            self.sampler,
            predictor(self.model, self.options, self._predict),
            self._draw_noise,
            self.options.decoding_early_stopping,
            None if self.history is None else self._observe,
            self._drop_losers if self.options.race_after else None,
            lambda: self.layout,
            self._arrange if self.sampler.grows else None,
            self._infilling(),
        )
        if self.numbers:
            taken = len(self.sampler.times) - self.options.decoding_early_stopping
            self._finish(self._split(self.model.round(self.layout.drop_padding(end))), taken)
        self.sources = []  # so that other chunks have room

    def _width(self, longest: int) -> int:
        """What rows are padded to: where shapes are recorded, few shapes should occur."""
        multiple = WIDTH_MULTIPLE if self.device.type in REPLAYING else 1
        return -(-longest // multiple) * multiple

    def _predict(self, z: Any, time: float, previous: torch.Tensor | None) -> torch.Tensor:
        return self.combination.combine(
            [own.predict(z, time, self.layout, previous) for own in self.sources]
        )

    def _infilling(self) -> Infilling | None:
        if self.given is None:
            return None
        return Infilling(
            self.model,
            self.sampler,
            self._draw_noise,
            lambda: self.fixed,
            lambda: self.layout,
            self.given.first_draft,
        )

    def _draw_noise(self, step: int) -> torch.Tensor:
        return self.noise.at(step, self.layout.rows, self.layout.positions, self.model.noise_dim)

    def _lay_out(self) -> None:
        """Set the layout, noise and sources of those that are still active."""
        lengths = [self.lengths[i] for i in self.numbers]
        owners = [self.owners[i] for i in self.numbers]
        if len(present := sorted(set(owners))) < len(self.present):
            rows = torch.tensor([self.present.index(s) for s in present], device=self.device)
            for own in self.sources:
                own.select(rows)
            self.present = present
        place = {source: i for i, source in enumerate(present)}
        owners = [place[source] for source in owners]
        if not self.padded:
            self.layout = Layout(lengths, owners, self.device)
        else:
            # As wide as the longest that there was, so that tokens keep their places.
            width = self._width(max(self.lengths))
            real = torch.arange(width) < torch.tensor(lengths)[:, None]
            self.layout = Layout([width] * len(lengths), owners, self.device, real.to(self.device))
        self.noise = self.all_noise.select(torch.tensor(self.numbers, device=self.device))
        if self.given is not None:
            self.fixed = self.given.select(self.numbers).at(self.layout)
        for own in self.sources:
            own.record(self.layout)

    def _arrange(self, z: Any) -> Any:
        """Re-pack candidates after their lengths changed."""
        self.lengths = z.lengths.tolist()
        self._lay_out()
        return z.placed(self.layout)

    def _split(self, rounded: Rounded) -> dict[int, Rounded]:
        """A pair of tensors (N,) as one pair for each active candidate, by number."""
        lengths = [self.lengths[i] for i in self.numbers]
        if self.given is not None:
            rounded = fill_in(rounded, self.layout.drop_padding(self.fixed))
        pairs = dict(zip(self.numbers, zip(*(x.split(lengths) for x in rounded))))
        if self.given is None:
            return pairs
        leading = self.given.leading
        return {i: (t[leading[i] :], p[leading[i] :]) for i, (t, p) in pairs.items()}

    def _guess(self, z: Any, prediction: torch.Tensor) -> dict[int, Rounded]:
        drop_padding = self.layout.drop_padding
        return self._split(self.model.guess(drop_padding(z), drop_padding(prediction)))

    def _observe(self, k: int, z: Any, prediction: torch.Tensor) -> None:
        shown = (
            self._guess(z, prediction)
            if self.options.retain_z_0_hat
            else self._split(self.model.round(self.layout.drop_padding(z)))
        )
        for number, rounded in shown.items():
            self.history[number].append(rounded)

    def _finish(self, rounded: dict[int, Rounded], taken: int) -> None:
        self.done |= {i: (*pair, taken) for i, pair in rounded.items()}

    def _drop_losers(self, k: int, z: Any, prediction: torch.Tensor) -> torch.Tensor | None:
        """Finish the candidates that have lost the race: an index of tokens that go on."""
        self.taken += 1
        if self.taken != self.options.race_after:
            return None
        rounded = self._guess(z, prediction)
        self.dropped = set(rounded) - self._winners(rounded)
        self._finish({i: rounded.pop(i) for i in self.dropped}, self.taken)
        stays = torch.tensor([i in rounded for i in self.numbers], device=self.device)
        keep = stays[self.layout.rows]
        self.numbers = list(rounded)
        self._lay_out()
        return keep

    def _winners(self, active: dict[int, Rounded]) -> set[int]:
        """Numbers of the --race-keep best of each sentence."""
        candidates = [active[i] for i in range(len(self.lengths))]
        starts = range(0, len(candidates), self.beam)
        scores = self.race_scores([candidates[s : s + self.beam] for s in starts])
        winners = set()
        for start, own in zip(starts, scores):
            # A stable sort: ties keep their order.
            best = sorted(range(self.beam), key=lambda i: -own[i])[: self.options.race_keep]
            winners |= {start + i for i in best}
        return winners

    def drawn(self) -> dict[int, Drawn]:
        """All candidates on the host, by number."""
        final = _on_host([self.done[i][:2] for i in sorted(self.done)])
        steps = [len(own) for own in self.history or []]
        past = iter(_on_host([pair for own in self.history or [] for pair in own]))
        histories = [list(islice(past, count)) for count in steps] or [[]] * len(final)
        return {
            i: Drawn(*pair, self.done[i][2], history, i in self.dropped)
            for i, (pair, history) in enumerate(zip(final, histories))
        }


def _on_host(pairs: list[Rounded]) -> list[Rounded]:
    """Pairs of tensors (L,), moved in two transfers."""
    if not pairs:
        return []
    lengths = [len(first) for first, _ in pairs]
    return list(zip(*(torch.cat(lot).cpu().split(lengths) for lot in zip(*pairs))))
