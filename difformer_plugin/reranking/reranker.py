"""Rerankers: ways to choose among the candidates of a sentence. The protocol and the registry.

A new reranker is a new file in this folder. The generator and the race of candidates use the same
objects.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol

import torch
from fairseq.data import Dictionary

from difformer_plugin.networks.layers import Memory


class Candidate(NamedTuple):
    """A candidate as rerankers see it."""

    tokens: torch.Tensor  # int64 (L,), with BOS and EOS where the model put them
    log_probs: torch.Tensor  # float32 (L,), of the tokens in the rounding


@dataclass
class Batch:
    """The candidates of B sentences, among which to choose.

    Attributes:
        models: those of `--path`: the diffusion model first.
        src_tokens: int64 (B, S), with BOS and EOS.
        memory: the diffusion model's Memory of them.
        candidates: for each sentence the candidates to be scored, at least one.
        evidence: for each sentence candidates that are not to be chosen, but tell what others say.
    """

    models: Sequence[Any]
    src_tokens: torch.Tensor
    memory: Memory
    candidates: Sequence[Sequence[Candidate]]
    evidence: Sequence[Sequence[Candidate]] = field(default_factory=tuple)


Scores = list[list[float]]  # for each sentence one score a candidate; higher is better


class Reranker(Protocol):
    """Scores candidates.

    Attributes:
        name: in the registry.
        needs_teacher: whether `models` must hold a second, autoregressive model.
    """

    name: ClassVar[str]
    needs_teacher: bool

    def check(self, models: Sequence[Any]) -> None:
        """Raise a UserError if these models of --path are not those that it needs."""

    def scores(self, batch: Batch) -> Scores:
        """Scores of finished candidates."""

    def race_scores(self, batch: Batch) -> Scores:
        """Scores of candidates that are still being decoded; the best go on."""


RERANKERS: dict[str, Any] = {}
UNITS: dict[str, float] = {}  # what a score of 1 counts in a weighted sum


def register_reranker(kind: Any = None, *, unit: float = 1.0) -> Any:
    """Class decorator: add a reranker, made from DecodingOptions and the target dictionary.

    Args:
        unit: what its scores are multiplied by in a weighted sum, before their weight.
    """

    def register(kind: Any) -> Any:
        RERANKERS[kind.name], UNITS[kind.name] = kind, unit
        return kind

    return register if kind is None else register(kind)


def body(tokens: torch.Tensor, dictionary: Dictionary) -> torch.Tensor:
    """Tokens without BOS, EOS and padding."""
    frame = tokens.new_tensor([dictionary.bos(), dictionary.eos(), dictionary.pad()])
    return tokens[~torch.isin(tokens, frame)]
