"""Fast decoding: sources projected once, little padding, pieces that fit the caches, early leavers.

The output is that of `plain.decode`, up to the rounding of floating-point numbers.
"""

from itertools import islice

import torch
from torch.nn.utils.rnn import pad_sequence

from difformer_plugin.decoding.candidates import FRAME, Drawn
from difformer_plugin.decoding.graphs import Recordings
from difformer_plugin.decoding.loop import predictor, reverse_process
from difformer_plugin.decoding.options import PRECISIONS
from difformer_plugin.decoding.speedups import ENGINE
from difformer_plugin.diffusion.noise import SentenceNoise
from difformer_plugin.networks.layout import Layout
from difformer_plugin.reranking.ngram_bleu import mbr_scores_of_ids

# Tokens decoded at a time. On a CPU, what is written to memory and not to the caches costs five
# times as much for each token; a GPU wants as many as it can get.
CHUNK = {"cpu": 2048, "cuda": 2**16}
REPLAYING = {"cuda"}  # devices whose predictions are replayed
WIDTH_MULTIPLE = 8  # of the rows there


def decode(model, options, memory, lengths, keys, history=False, means=ENGINE):
    """Draw the candidates of a batch. Arguments and result are those of `plain.decode`.

    With --race-after, the candidates that were dropped are among the result, marked as such.
    """
    sentences, beam = lengths.shape
    lengths, device = lengths.tolist(), memory.mask.device
    process = model.decoding_process(options)
    noise = SentenceNoise(
        keys.repeat_interleave(beam),
        torch.arange(beam, device=device).repeat(sentences),
        process.draw_noise,
    )
    size = CHUNK.get(device.type, CHUNK["cuda"]) if means.chunk else None
    # what grows ends about as long as its source
    ends = [[n] * beam for n in memory.lengths().tolist()] if process.grows else lengths
    chunks = []
    for chunk in _chunks(ends, size):
        numbers = [s * beam + i for s in chunk for i in range(beam)]
        running = Running(
            model,
            process,
            options,
            means,
            memory.select(torch.tensor(chunk, device=device)),
            [length for s in chunk for length in lengths[s]],
            noise.select(torch.tensor(numbers, device=device)),
            history,
        )
        running.run()
        chunks.append((numbers, running))
    # only now, so that a GPU goes on with the next chunk without waiting for the host
    drawn = {
        numbers[i]: candidate
        for numbers, running in chunks
        for i, candidate in running.drawn().items()
    }
    return [drawn[i] for i in range(sentences * beam)]


def _chunks(lengths, size):
    """Which sentences are decoded together, so that no more than `size` tokens are if possible."""
    if size is None:
        return [list(range(len(lengths)))]
    totals = [sum(own) for own in lengths]
    chunks, tokens = [], 0
    for s in sorted(range(len(lengths)), key=lambda s: -totals[s]):
        if not chunks or tokens + totals[s] > size:
            chunks.append([])
            tokens = 0
        chunks[-1].append(s)
        tokens += totals[s]
    return chunks


class Running:
    """The candidates of some sentences on their way through the reverse process.

    A candidate is known by its number among those it began with, a sentence's one after another,
    and a source by its row in the memory that it began with.

    Args:
        process: the model's, for these options.
        memory: Memory of the sentences.
        lengths: list of ints, of the candidates; all sentences have equally many.
        noise: SentenceNoise of the candidates.
    """

    def __init__(self, model, process, options, means, memory, lengths, noise, history):
        self.model, self.process, self.options, self.means = model, process, options, means
        self.lengths, self.all_noise = lengths, noise
        self.device, self.dim = memory.mask.device, model.noise_shape(1)[-1]
        self.dtype = PRECISIONS.get(options.decoding_precision)
        self.beam = len(lengths) // len(memory.mask)
        sources = [i // self.beam for i in range(len(lengths))]
        self.sources = sources if means.share else list(range(len(lengths)))
        self.present = sorted(set(self.sources))
        self.memory = memory.widened(self._width(memory.mask.shape[1]))
        if not means.share:
            self.memory = self.memory.select(torch.tensor(sources, device=self.device))
        self.context = model.context(self.memory, self.dtype) if means.share else None
        self.numbers = list(range(len(lengths)))  # of those that are still running
        self.taken = 0  # steps
        self.tokens = self.unchanged = None  # after the last step, and for how many
        self.history = [[] for _ in lengths] if history else None
        self.done, self.dropped = {}, set()
        self.padded = not means.pack or self.device.type != "cpu"
        self._lay_out()

    def run(self):
        """Draw all."""
        narrows = self.options.halt_after or self.options.race_after
        end = reverse_process(
            self.process,
            predictor(self.model, self.options, self._predict),
            lambda step: self.noise.at(step, self.layout.rows, self.layout.positions, self.dim),
            self.options.decoding_early_stopping,
            None if self.history is None else self._observe,
            self._narrow if narrows else None,
            lambda: self.layout,
            self._arrange if self.process.grows else None,
        )
        if self.numbers:
            taken = len(self.process) - self.options.decoding_early_stopping
            self._finish(self._split(self.model.round(self._real(end))), taken)
        self.memory = self.context = self.replayed = None  # which other chunks have room for

    def _width(self, longest):
        """What rows are padded to: where shapes are recorded, few shapes are wanted."""
        multiple = WIDTH_MULTIPLE if self.device.type in REPLAYING else 1
        return -(-longest // multiple) * multiple

    def _predict(self, z, timestep, previous):
        if self.replayed is not None:
            return self.replayed(z, timestep, previous)
        return self.model.predict(z, timestep, self.layout, self._context(), previous)

    def _context(self):
        return self.context or self.model.context(self.memory, self.dtype)

    def _lay_out(self):
        """The layout, noise and sources of those that are still running."""
        lengths = [self.lengths[i] for i in self.numbers]
        here = [self.sources[i] for i in self.numbers]
        if len(present := sorted(set(here))) < len(self.present):
            rows = torch.tensor([self.present.index(s) for s in present], device=self.device)
            self.memory = self.memory.select(rows)
            self.context = self.context and self.context.select(rows)
            self.present = present
        place = {source: i for i, source in enumerate(present)}
        here = [place[source] for source in here]
        if not self.padded:
            self.layout = Layout(lengths, here, self.device)
        else:
            # of the longest that there was, so that tokens keep their places
            width = self._width(max(self.lengths))
            real = torch.arange(width) < torch.tensor(lengths)[:, None]
            self.layout = Layout([width] * len(lengths), here, self.device, real.to(self.device))
        self.noise = self.all_noise.select(torch.tensor(self.numbers, device=self.device))
        self.replayed = None
        if self.means.share and self.device.type in REPLAYING:
            recordings = self.model.derived.setdefault("recordings", Recordings())
            self.replayed = recordings.find(self.model, self.layout, self.context)

    def _arrange(self, z):
        """A state that has grown, laid out anew."""
        self.lengths = z.lengths.tolist()
        self._lay_out()
        return z.placed(self.layout)

    def _real(self, x):
        """What there is of the tokens that are no padding."""
        return x if self.layout.real is None else x[self.layout.real]

    def _split(self, rounded):
        """A pair of tensors (N,) as pairs of those that are running: one for each number."""
        lengths = [self.lengths[i] for i in self.numbers]
        return dict(zip(self.numbers, zip(*(x.split(lengths) for x in rounded))))

    def _guess(self, z, prediction):
        return self._split(self.model.guess(self._real(z), self._real(prediction)))

    def _observe(self, k, z, prediction):
        shown = (
            self._guess(z, prediction)
            if self.options.retain_z_0_hat
            else self._split(self.model.round(self._real(z)))
        )
        for number, rounded in shown.items():
            self.history[number].append(rounded)

    def _finish(self, rounded, taken):
        self.done |= {i: (*pair, taken) for i, pair in rounded.items()}

    def _narrow(self, k, z, prediction):
        """Finish those that have come to rest, leave those that have lost: what goes on."""
        self.taken += 1
        resting = self._at_rest(z, prediction) if self.options.halt_after else set()
        racing = self.taken == self.options.race_after
        if not resting and not racing:
            return None
        rounded = self._guess(z, prediction)
        self._finish({i: rounded.pop(i) for i in resting}, self.taken)
        if racing:
            # those that have finished cost nothing more and stay what they are
            self.dropped = set(rounded) - self._winners(rounded)
            self._finish({i: rounded.pop(i) for i in self.dropped}, self.taken)
        stays = torch.tensor([i in rounded for i in self.numbers], device=self.device)
        going_on = stays[self.layout.rows]
        self.numbers = list(rounded)
        if self.options.halt_after:
            self.tokens, self.unchanged = self.tokens[going_on], self.unchanged[stays]
        if self.numbers:
            self._lay_out()
        return going_on

    def _winners(self, running):
        """Numbers of the --race-keep best of each sentence, those that have finished included."""
        candidates = [running.get(i) or self.done[i][:2] for i in range(len(self.lengths))]
        if self.options.bleu_mbr:
            words = [tokens[1:-1] for tokens, _ in candidates]  # BOS and EOS would match always
            scores = mbr_scores_of_ids(
                pad_sequence(words, batch_first=True),
                torch.tensor(self.lengths, device=self.device) - FRAME,
                torch.arange(len(candidates), device=self.device) // self.beam,
            )
        else:
            scores = torch.stack([log_probs.mean() for _, log_probs in candidates])
        order = scores.view(-1, self.beam).argsort(dim=1, descending=True, stable=True)
        best = order[:, : self.options.race_keep].tolist()
        return {s * self.beam + i for s, own in enumerate(best) for i in own}

    def _at_rest(self, z, prediction):
        """Numbers of those whose tokens have been the same for --halt-after steps."""
        tokens = self.model.likeliest(z, prediction, self._context())
        if self.tokens is None:
            self.unchanged = torch.zeros(len(self.numbers), dtype=torch.long, device=self.device)
        else:
            differs = tokens != self.tokens
            if self.layout.real is not None:
                differs &= self.layout.real
            changed = torch.zeros_like(self.unchanged, dtype=torch.bool)
            changed[self.layout.rows[differs]] = True
            self.unchanged = (self.unchanged + 1).masked_fill(changed, 0)
        self.tokens = tokens
        rested = (self.unchanged >= self.options.halt_after).tolist()
        return {i for i, rests in zip(self.numbers, rested) if rests}

    def drawn(self):
        """All candidates on the host: a dictionary from numbers to Drawn."""
        final = _on_host([self.done[i][:2] for i in sorted(self.done)])
        steps = [len(own) for own in self.history or []]
        past = iter(_on_host([pair for own in self.history or [] for pair in own]))
        histories = [list(islice(past, count)) for count in steps] or [[]] * len(final)
        return {
            i: Drawn(*pair, self.done[i][2], history, i in self.dropped)
            for i, (pair, history) in enumerate(zip(final, histories))
        }


def _on_host(pairs):
    """Pairs of tensors (L,), moved in two transfers."""
    if not pairs:
        return []
    lengths = [len(first) for first, _ in pairs]
    return list(zip(*(torch.cat(lot).cpu().split(lengths) for lot in zip(*pairs))))
