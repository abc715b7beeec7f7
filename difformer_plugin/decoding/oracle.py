"""Decoding as simply as it can be written: what the engine is tested and measured against.

Each candidate has a copy of its source, padded to the longest of the batch, whose keys and values
are projected anew at each step.
"""

from typing import Any

import torch

from difformer_plugin.decoding.candidates import Drawn
from difformer_plugin.decoding.combination import Combination
from difformer_plugin.decoding.given import GivenTokens, Infilling, fill_in
from difformer_plugin.decoding.loop import predictor, reverse_process
from difformer_plugin.decoding.sampling import build_sampler
from difformer_plugin.diffusion.noise import SentenceNoise
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout

Rounded = tuple[torch.Tensor, torch.Tensor]  # tokens (L,) and their log-probabilities (L,)


def decode(
    model: Family,
    options: Any,
    memory: Memory,
    lengths: torch.Tensor,
    keys: torch.Tensor,
    history: bool = False,
    given: torch.Tensor | None = None,
) -> list[Drawn]:
    """Draw the candidates of a batch.

    Args:
        options: DecodingOptions; racing and another precision are the engine's alone.
        memory: of B sources.
        lengths: int64 (B, b), the target length of each candidate.
        keys: int64 (B,), of the sentences' noise.
        history: keep the tokens of every step.
        given: int64 (B b, W), given tokens by their positions in the target, -1 where a token is
            drawn; None if none is given. Where lengths grow, BOS and EOS are given as well, and a
            -1 stands for any number of tokens.
    Returns:
        B x b candidates, a sentence's one after another.
    """
    sentences, beam = lengths.shape
    rows = torch.arange(sentences, device=lengths.device).repeat_interleave(beam)
    numbers = torch.arange(beam, device=lengths.device).repeat(sentences)
    sampler, combination = build_sampler(model, options), Combination(options)
    memories = combination.memories(model, memory.select(rows))
    noise = SentenceNoise(keys[rows], numbers, sampler.draw_noise)
    lengths = lengths.flatten()
    fixed = GivenTokens.collect(model, memory, rows.tolist(), given)
    leading = [0] * len(rows) if fixed is None else fixed.leading
    layout, steps = _padded(lengths if fixed is None else fixed.first_lengths(lengths)), []

    def draw_noise(step: int) -> torch.Tensor:
        return noise(step, (layout.mask.shape[1], model.noise_dim)).flatten(0, 1)

    def targets(rounded: Rounded) -> list[Rounded]:
        if fixed is not None:
            rounded = fill_in(rounded, layout.drop_padding(fixed.at(layout)))
        return [(t[n:], p[n:]) for (t, p), n in zip(_split(rounded, layout), leading)]

    infilling = None
    if fixed is not None:
        infilling = Infilling(
            model,
            sampler,
            draw_noise,
            lambda: fixed.at(layout),
            lambda: layout,
            fixed.first_draft,
        )

    def arrange(z: Any) -> Any:
        nonlocal layout
        layout = _padded(z.lengths)
        return z.placed(layout)

    def predict(z: Any, time: float, previous: torch.Tensor | None) -> torch.Tensor:
        return combination.combine(
            [model.predict(z, time, layout, model.conditions(m), previous) for m in memories]
        )

    def observe(k: int, z: Any, prediction: torch.Tensor) -> None:
        z = layout.drop_padding(z)
        # Where the state has grown there is no prediction of its tokens.
        shown = (
            model.guess(z, layout.drop_padding(prediction))
            if options.retain_z_0_hat
            else model.round(z)
        )
        steps.append(targets(shown))

    end = reverse_process(
        sampler,
        predictor(model, options, predict),
        draw_noise,
        options.decoding_early_stopping,
        observe if history else None,
        layout=lambda: layout,
        arrange=arrange if sampler.grows else None,
        infilling=infilling,
    )
    taken = len(sampler.times) - options.decoding_early_stopping
    return [
        Drawn(*rounded, taken, [step[i] for step in steps])
        for i, rounded in enumerate(targets(model.round(layout.drop_padding(end))))
    ]


def _padded(lengths: torch.Tensor) -> Layout:
    """The layout of candidates of these lengths (n,), padded to the longest."""
    return Layout.dense(torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None])


def _split(rounded: Rounded, layout: Layout) -> list[Rounded]:
    """The tokens and log-probabilities (N,) of each candidate, on the host."""
    lengths = layout.mask.sum(1).tolist()
    tokens, scores = (x.cpu().split(lengths) for x in rounded)
    return list(zip(tokens, scores))
