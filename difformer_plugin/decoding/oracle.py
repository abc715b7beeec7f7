"""Decoding as simply as it can be written: what the engine is tested and measured against.

Each candidate brings a copy of its source, padded to the longest of the batch, of which keys and
values are projected anew at each step.
"""

import torch

from difformer_plugin.decoding.candidates import Drawn
from difformer_plugin.decoding.loop import predictor, reverse_process
from difformer_plugin.diffusion.noise import SentenceNoise
from difformer_plugin.networks.layout import Layout


def decode(model, options, memory, lengths, keys, history=False):
    """Draw the candidates of a batch.

    Args:
        model: a diffusion model, as `DiffusionGenerator` describes it.
        options: DecodingOptions; halting, racing and another precision are the engine's alone.
        memory: Memory of B sources.
        lengths: int64 (B, b), the target length of each candidate.
        keys: int64 (B,), of the sentences' noise.
        history: keep the tokens of every step.
    Returns:
        a list of B x b Drawn, a sentence's one after another.
    """
    sentences, beam = lengths.shape
    rows = torch.arange(sentences, device=lengths.device).repeat_interleave(beam)
    numbers = torch.arange(beam, device=lengths.device).repeat(sentences)
    process = model.decoding_process(options)
    memory, noise = memory.select(rows), SentenceNoise(keys[rows], numbers, process.draw_noise)
    layout, steps = _padded(lengths.flatten()), []

    def arrange(z):
        nonlocal layout
        layout = _padded(z.lengths)
        return z.placed(layout)

    def predict(z, timestep, previous):
        return model.predict(z, timestep, layout, model.context(memory), previous)

    def observe(k, z, prediction):
        z = z[layout.real]
        # where the state has grown there is no prediction of its tokens
        guesses = options.retain_z_0_hat
        shown = model.guess(z, prediction[layout.real]) if guesses else model.round(z)
        steps.append(_split(shown, layout))

    end = reverse_process(
        process,
        predictor(model, options, predict),
        lambda step: noise(step, model.noise_shape(layout.mask.shape[1])).flatten(0, 1),
        options.decoding_early_stopping,
        observe if history else None,
        layout=lambda: layout,
        arrange=arrange if process.grows else None,
    )
    taken = len(process) - options.decoding_early_stopping
    return [
        Drawn(*rounded, taken, [step[i] for step in steps])
        for i, rounded in enumerate(_split(model.round(end[layout.real]), layout))
    ]


def _padded(lengths):
    """The layout of candidates of these lengths (n,), padded to the longest."""
    return Layout.dense(torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None])


def _split(rounded, layout):
    """The tokens and log-probabilities (N,) of each candidate, on the host."""
    lengths = layout.mask.sum(1).tolist()
    tokens, scores = (x.cpu().split(lengths) for x in rounded)
    return list(zip(tokens, scores))
