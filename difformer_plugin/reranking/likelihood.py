"""The model's own likelihood of a corrupted candidate: a choice that needs no teacher."""

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from fairseq.data import Dictionary

from difformer_plugin.diffusion.noise import SentenceNoise, sentence_keys
from difformer_plugin.errors import UserError
from difformer_plugin.families.contract import Family
from difformer_plugin.networks.layers import Memory
from difformer_plugin.networks.layout import Layout
from difformer_plugin.reranking.reranker import Batch, Scores, register_reranker

TIMES = (0.3, 0.6, 0.9)  # at which candidates are corrupted
SEED = -1  # of the noise; no --seed, with whose noise candidates are drawn, is below 0
TOKENS = 2048  # scored at a time on a CPU: more exceed its caches


@register_reranker
class OwnLikelihood:
    """Mean of log p(y | z_t(y), x) over a candidate's tokens and three times, in nats a token.

    z_t(y) is the candidate y corrupted by the forward process of training. Its noise depends only
    on the source and on the position of the token: the candidates of a sentence share it, so that
    equal ones have equal scores, and a score does not depend on the batch.
    """

    name: ClassVar[str] = "likelihood"
    needs_teacher = False

    def __init__(self, options: Any, dictionary: Dictionary):
        self.pad = dictionary.pad()

    def check(self, models: Sequence[Any]) -> None:
        """The model must be able to corrupt a target, and to tell how likely its tokens are."""
        if not models[0].scores_targets:
            raise UserError(
                f"--rerank likelihood: {models[0].title} has no probabilities of a given target; "
                "leave it out"
            )

    def scores(self, batch: Batch) -> Scores:
        """The means, float32; equal candidates of a sentence are scored once."""
        model, device = batch.models[0], batch.src_tokens.device
        keys = sentence_keys(batch.src_tokens, self.pad, SEED)
        distinct = [{tuple(c.tokens.tolist()): None for c in own} for own in batch.candidates]
        scores: Scores = []
        for part in _parts(distinct, TOKENS if device.type == "cpu" else 32 * TOKENS):
            rows = torch.tensor(part, device=device)
            targets = [list(distinct[s]) for s in part]
            found = iter(own_likelihoods(model, batch.memory.select(rows), keys[rows], targets))
            for s, own in zip(part, targets):
                of_target = {target: next(found) for target in own}
                scores.append([of_target[tuple(c.tokens.tolist())] for c in batch.candidates[s]])
        return scores

    race_scores = scores


def _parts(distinct: Sequence[Any], size: int) -> list[list[int]]:
    """Runs of sentences with about `size` tokens each, as their numbers."""
    parts: list[list[int]] = []
    total = size
    for s, targets in enumerate(distinct):
        own = sum(len(target) for target in targets)
        if total + own > size:
            parts.append([])
            total = 0
        parts[-1].append(s)
        total += own
    return parts


def own_likelihoods(
    model: Family,
    memory: Memory,
    keys: torch.Tensor,
    targets: Sequence[Sequence[Sequence[int]]],
    times: Sequence[float] = TIMES,
) -> list[float]:
    """Mean of log p(y | z_t(y), x) over the tokens of targets and over times.

    Args:
        model: in evaluation mode.
        memory: of B sources.
        keys: int64 (B,), from `sentence_keys`.
        targets: for each source any number of targets, at least one, with their frame.
        times: in [0, 1).
    Returns:
        one number a target, in nats a token.
    """
    flat = [target for own in targets for target in own]
    owners = [s for s, own in enumerate(targets) for _ in own]
    device = memory.mask.device
    layout = Layout([len(target) for target in flat], owners, device)
    tokens = torch.tensor([token for target in flat for token in target], device=device)
    draw = next(iter(model.samplers().values())).draw_noise
    streams = keys[torch.tensor(owners, device=device)]
    noise = SentenceNoise(streams, torch.zeros_like(streams), draw)
    conditions = model.conditions(memory)
    sums = torch.zeros(len(flat), device=device)
    for k, time in enumerate(times):
        numbers = noise.at(k, layout.rows, layout.positions, model.noise_dim)
        z_t = model.corrupt(tokens, time, numbers, layout)
        prediction = model.predict(z_t, time, layout, conditions, None)
        sums.index_add_(0, layout.rows, model.log_probs(tokens, z_t, prediction))
    return (sums / (len(times) * layout.lengths)).tolist()
