"""Division of a split into batches and shards.

Batches are formed from the whole split before it is divided into shards. So a sentence is always
decoded together with the same others, and to the same tokens, however the work is divided or
interrupted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from difformer_plugin.distillation.failures import LONG_SOURCE, NO_SOURCE
from difformer_plugin.errors import UserError


@dataclass(frozen=True)
class Plan:
    """The sentences of a shard, and how they are batched.

    Attributes:
        lines: number of sentences in all shards.
        batches: batch number -> sentence numbers. The longest come first, so that a batch that
            exceeds the memory shows at once.
        failures: sentences that the teacher does not get -> cause.
    """

    lines: int
    batches: dict[int, list[int]]
    failures: dict[int, str]

    def sentences(self) -> int:
        """Number of sentences in this shard."""
        return sum(len(batch) for batch in self.batches.values()) + len(self.failures)


def unusable(words: np.ndarray, tokens: np.ndarray, longest: int) -> dict[int, str]:
    """Sentences that the teacher cannot translate, and why.

    Args:
        words: number of source tokens of each sentence without BOS and EOS, (N,).
        tokens: number of tokens that the teacher sees, (N,).
        longest: the most that it accepts.
    Returns:
        sentence number -> cause.
    """
    words, tokens = np.asarray(words), np.asarray(tokens)
    causes = {int(i): LONG_SOURCE for i in np.flatnonzero(tokens > longest)}
    return causes | {int(i): NO_SOURCE for i in np.flatnonzero(words == 0)}


def make_plan(
    tokens: np.ndarray | Sequence[int],
    causes: Mapping[int, str],
    max_tokens: int,
    batch_size: int,
    shard: int = 0,
    shards: int = 1,
) -> Plan:
    """Form batches of sentences of similar length; a shard takes every `shards`-th batch.

    Args:
        tokens: number of source tokens of each sentence, (N,).
        causes: result of `unusable`.
        max_tokens: tokens in a batch, padding included, at most; a longer sentence is a batch of
            its own.
        batch_size: sentences in a batch, at most.
        shard: number of this shard, from 0.
        shards: number of shards.
    Raises:
        UserError: there are fewer batches than shards.
    """
    tokens = np.asarray(tokens)
    order = [i for i in np.argsort(-tokens, kind="stable").tolist() if i not in causes]
    cut, start = [], 0
    while start < len(order):
        size = min(batch_size, max(1, max_tokens // int(tokens[order[start]])))
        cut.append(order[start : start + size])
        start += size
    if shards > max(1, len(cut)):
        raise UserError(
            f"--shard {shard}/{shards}: there are only {len(cut)} batches; use fewer shards or a "
            "smaller --batch-size"
        )
    batches = {number: cut[number] for number in range(shard, len(cut), shards)}
    return Plan(len(tokens), batches, {i: causes[i] for i in sorted(causes)[shard::shards]})
