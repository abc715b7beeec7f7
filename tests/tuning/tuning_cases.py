"""What several tests of tuning share."""

from dataclasses import dataclass

from difformer_plugin.decoding.options import DecodingOptions
from difformer_plugin.tuning.space import search_space

REFERENCE = DecodingOptions(
    decoding_steps=12,
    length_beam_size=5,
    noise_beam_size=2,
    bleu_mbr=True,
    decoding_precision="fp32",
)


@dataclass
class Plain:
    """A sampler without settings."""


def one_sampler_space(options, precisions):
    """The search space of a model that has a single sampler and accepts everything."""
    return search_space(options, precisions, {"ancestral": Plain}, lambda options: None)
