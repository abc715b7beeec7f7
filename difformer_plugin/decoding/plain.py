"""Decoding as simply as it can be written: what the engine is tested and measured against.

Each candidate brings a copy of its source, padded to the longest of the batch, of which keys and
values are projected anew at each step.
"""

import torch

from difformer_plugin.decoding.candidates import Drawn
from difformer_plugin.decoding.reverse import predictor, reverse_process
from difformer_plugin.diffusion.noise import SentenceNoise
from difformer_plugin.models.layout import Layout


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
    lengths = lengths.flatten()
    layout = Layout.dense(
        torch.arange(int(lengths.max()), device=lengths.device) < lengths[:, None]
    )
    memory, noise = memory.select(rows), SentenceNoise(keys[rows], numbers)
    shape, steps = model.latent_shape(layout.mask.shape[1]), []

    def predict(z, timestep, previous):
        return model.predict(z, timestep, layout, model.context(memory), previous)

    def observe(k, z, prediction):
        shown = prediction if options.retain_z_0_hat else z
        steps.append(_rounded(model, shown, layout, lengths))

    prediction = reverse_process(
        model.decoding_process(options),
        predictor(model, options, predict),
        lambda step: noise(step, shape).flatten(0, 1),
        options.decoding_early_stopping,
        observe if history else None,
    )
    taken = options.decoding_steps - options.decoding_early_stopping
    return [
        Drawn(*rounded, taken, [step[i] for step in steps])
        for i, rounded in enumerate(_rounded(model, prediction, layout, lengths))
    ]


def _rounded(model, z, layout, lengths):
    """The tokens and log-probabilities of each candidate, on the host."""
    tokens, scores = (x.cpu().split(lengths.tolist()) for x in model.round(z[layout.real]))
    return list(zip(tokens, scores))
