"""Where the given words of a candidate stand: at its ends, or where the model would write them."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from difformer_plugin.decoding.combination import Combination
from difformer_plugin.decoding.constraints import Constraint
from difformer_plugin.decoding.given import FREE, GivenTokens, Infilling
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.diffusion.noise import SentenceNoise
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout

UNLIKELY = -1e30  # in place of log-probabilities that are not numbers
CHUNK = 2048  # tokens, with those of their sources, whose first prediction is made at a time


def place(
    model: Family,
    options: Any,
    memory: Memory,
    lengths: torch.Tensor,
    keys: torch.Tensor,
    constraints: Sequence[Constraint],
    frame: tuple[int, int],
) -> torch.Tensor | None:
    """The given tokens of candidates by their positions, for `engine.decode`.

    Phrases that may stand anywhere go where the first prediction finds them likeliest, all phrases
    together: that of the first step of decoding, from the candidate's own noise, in which the
    other given tokens are filled in.

    Args:
        memory: of B sources.
        lengths: int64 (B, b), of the candidates; each has room for its constraint.
        keys: int64 (B,), of the sentences' noise.
        constraints: of the B sentences.
        frame: the indices of BOS and EOS.
    Returns:
        int64 (B b, W), FREE where a token is drawn; None if nothing is given. Where lengths grow, a
        FREE stands for any number of tokens.
    """
    if not any(constraint.gives_something for constraint in constraints):
        return None
    beam, device = lengths.shape[1], lengths.device
    own = [constraint for constraint in constraints for _ in range(beam)]
    if not model.predicts_length:
        return _padded([_growing_row(constraint, frame) for constraint in own], device)
    rows = [_row(c, length, frame) for c, length in zip(own, lengths.flatten().tolist())]
    open_rows = [i for i, constraint in enumerate(own) if constraint.anywhere]
    given, sizes = _padded(rows, device), memory.lengths().tolist()
    for chosen in _chunks(open_rows, [len(rows[i]) + sizes[i // beam] for i in open_rows]):
        found = _first_log_probs(model, options, memory, keys, given, chosen, rows, own, beam)
        for i, log_probs in zip(chosen, found):
            _insert(rows[i], own[i], log_probs)
    return _padded(rows, device)


def _chunks(candidates: Sequence[int], sizes: Sequence[int]) -> list[list[int]]:
    """Which candidates are predicted together: if possible, no more than CHUNK tokens.

    Args:
        sizes: the tokens of each, with those of its source.
    """
    chunks: list[list[int]] = []
    tokens = 0
    for i, size in zip(candidates, sizes):
        if not chunks or tokens + size > CHUNK:
            chunks.append([])
            tokens = 0
        chunks[-1].append(i)
        tokens += size
    return chunks


def _row(constraint: Constraint, length: int, frame: tuple[int, int]) -> list[int]:
    """The tokens of a candidate of this length before its phrases are placed."""
    bos, eos = frame
    # Tokens next to BOS or EOS are given together with it.
    start = [bos, *constraint.prefix] if constraint.prefix or constraint.complete else [FREE]
    end = [*constraint.suffix, eos] if constraint.suffix or constraint.complete else [FREE]
    return start + [FREE] * (length - len(start) - len(end)) + end


def _growing_row(constraint: Constraint, frame: tuple[int, int]) -> list[int]:
    """What a target that grows begins with; its phrases are in their order, with gaps between."""
    bos, eos = frame
    if constraint.complete:
        return [bos, *constraint.prefix, eos]
    gaps = [token for phrase in constraint.anywhere for token in (FREE, *phrase)]
    return [bos, *constraint.prefix, *gaps, FREE, *constraint.suffix, eos]


def _padded(rows: Sequence[Sequence[int]], device: torch.device) -> torch.Tensor:
    """Rows of tokens as int64 (n, W), with FREE behind them."""
    width = max(map(len, rows))
    return torch.tensor([[*row, *[FREE] * (width - len(row))] for row in rows], device=device)


def _first_log_probs(
    model: Family,
    options: Any,
    memory: Memory,
    keys: torch.Tensor,
    given: torch.Tensor,
    chosen: Sequence[int],
    rows: Sequence[Sequence[int]],
    constraints: Sequence[Constraint],
    beam: int,
) -> list[np.ndarray]:
    """Log-probabilities of the phrases' tokens at all positions, in the first prediction.

    Args:
        chosen: the candidates that are asked for, by number; the others: of all candidates.
    Returns:
        for each of them float64 (m, L), the tokens of its phrases one after another.
    """
    device = given.device
    sentences = sorted({i // beam for i in chosen})
    owners = [sentences.index(i // beam) for i in chosen]
    memory, numbers = memory.select(torch.tensor(sentences, device=device)), torch.tensor(chosen)
    fixed = GivenTokens.collect(model, memory, owners, given[numbers.to(device)])
    assert fixed is not None
    lengths = [len(rows[i]) + leading for i, leading in zip(chosen, fixed.leading)]
    layout: Any = Layout(lengths, owners, device)
    sampler, combination = build_sampler(model, options), Combination(options)
    noise = SentenceNoise(
        keys[(numbers // beam).to(device)], (numbers % beam).to(device), sampler.draw_noise
    )

    def draw_noise(step: int) -> torch.Tensor:
        return noise.at(step, layout.rows, layout.positions, model.noise_dim)

    tokens, first = fixed.at(layout), len(sampler.times) - 1
    infilling = Infilling(
        model, sampler, draw_noise, lambda: tokens, lambda: layout, fixed.first_draft
    )
    z = infilling.state(sampler.prior(lambda: draw_noise(first + 1), layout), first)
    time = options.decoding_fixed_t
    time = float(sampler.times[first]) if time is None else time
    prediction = combination.combine(
        [
            model.predict(z, time, layout, model.conditions(own), None)
            for own in combination.memories(model, memory)
        ]
    )
    phrases = [[t for phrase in constraints[i].anywhere for t in phrase] for i in chosen]
    most = max(map(len, phrases))
    # any token will do where a candidate has fewer
    wanted = torch.tensor([own + own[:1] * (most - len(own)) for own in phrases], device=device)
    found = torch.stack(
        [model.log_probs(column[layout.rows], z, prediction) for column in wanted.T]
    )
    parts = found.double().cpu().numpy()
    ends = np.cumsum(lengths)
    return [
        np.nan_to_num(parts[:, end - length + leading : end], nan=UNLIKELY, neginf=UNLIKELY)
        for end, length, leading in zip(ends, lengths, fixed.leading)
    ]


def _insert(row: list[int], constraint: Constraint, log_probs: np.ndarray) -> None:
    """Write the phrases into a row.

    Args:
        log_probs: float64 (m, L), of all tokens of the phrases at all positions.
    """
    begin = 1 + len(constraint.prefix)
    free = len(row) - begin - len(constraint.suffix) - 1
    scores, done = [], 0
    for phrase in constraint.anywhere:
        starts = np.arange(free - len(phrase) + 1)[:, None] + np.arange(len(phrase))
        scores.append(log_probs[done + np.arange(len(phrase)), begin + starts].sum(1))
        done += len(phrase)
    sizes = [len(phrase) for phrase in constraint.anywhere]
    for phrase, start in zip(
        constraint.anywhere, likeliest_places(scores, sizes, free, constraint.ordered)
    ):
        row[begin + start : begin + start + len(phrase)] = phrase


def likeliest_places(
    scores: Sequence[np.ndarray], sizes: Sequence[int], free: int, ordered: bool = False
) -> list[int]:
    """Where phrases begin, without overlap, so that the sum of their scores is the greatest.

    The best sum of each set of phrases within the first i positions follows from those of the sets
    with one phrase less.

    Args:
        scores: of each phrase, (free - size + 1,), by where it begins.
        sizes: of the phrases.
        free: the number of positions, at least as many as the phrases need.
        ordered: keep the phrases in their order.
    Returns:
        the place of each phrase, from 0.
    """
    every = (1 << len(sizes)) - 1
    best = {0: np.zeros(free + 1)}  # by set of phrases; at i: within the first i positions
    ends, last = {}, {}  # the same with a phrase that ends at i, and which phrase that is
    for chosen in [(2 << p) - 1 for p in range(len(sizes))] if ordered else range(1, every + 1):
        end, which = np.full(free + 1, -np.inf), np.full(free + 1, -1)
        members = [p for p in range(len(sizes)) if chosen >> p & 1]
        for p in members[-1:] if ordered else members:
            sums = best[chosen ^ 1 << p][: free + 1 - sizes[p]] + scores[p]
            better = sums > end[sizes[p] :]
            end[sizes[p] :][better], which[sizes[p] :][better] = sums[better], p
        best[chosen] = np.maximum.accumulate(end)
        ends[chosen], last[chosen] = end, which
    places, chosen, i = [0] * len(sizes), every, free
    while chosen:
        i = int(np.argmax(ends[chosen][: i + 1]))  # the first of equal ones
        p = int(last[chosen][i])
        i -= sizes[p]
        places[p], chosen = i, chosen ^ 1 << p
    return places
