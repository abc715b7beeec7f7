"""Warn, in training, of a model that does not read its source.

A training can get stuck where the denoiser predicts the target from z_t and from itself alone. Its
loss still falls, so that the log looks harmless, but it translates nothing.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from fairseq.distributed.utils import get_global_rank
from fairseq.logging import metrics

logger = logging.getLogger(__name__)

MIN_UPDATES = 500  # before them nothing is measured, whatever the warm-up
MIN_GAIN = 0.1  # of the loss with the right sources; a model with less is warned of
OWN, OTHER, TOKENS = "_own_source_loss", "_other_source_loss", "_source_tokens"


def with_other_sources(sample: dict[str, Any]) -> dict[str, Any]:
    """The batch with each target beside the source of the sentence before it."""
    inputs = sample["net_input"]
    others = {name: inputs[name].roll(1, 0) for name in ("src_tokens", "src_lengths")}
    return {**sample, "net_input": {**inputs, **others}}


def token_loss(criterion: Any, logged: Mapping[str, Any]) -> float:
    """The part of the loss that is a sum over target tokens, hence without that of the length.

    Args:
        logged: what the criterion has logged for a batch.
    """
    terms = [name for name in criterion.loss_terms if name in criterion.token_terms]
    return sum(float(logged.get(name, 0)) for name in terms)


class SourceCheck:
    """Compares the validation loss with that of the sources of other sentences.

    It does so at the first validation after the warm-up of the learning rate, on the batches number
    1, 2, 4, 8, ... If the model has hardly read its source, it warns, and looks once more when
    there were twice as many updates. Nothing random is drawn.

    Attributes:
        updates: how many there were before the current one.
        warm: whether the warm-up is over: the learning rate of an update was not above the last.
        due: the number of updates from which validation measures; None: not any more.
    """

    def __init__(self) -> None:
        self.updates, self.warm = 0, False
        self.due: int | None = MIN_UPDATES
        self._lr: float | None = None  # of the current update
        self._batches: int | None = None  # seen in this validation; None if it does not measure

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"updates": self.updates, "warm": self.warm, "due": self.due, "lr": self._lr}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.updates, self.warm, self.due = state["updates"], state["warm"], state["due"]
        self._lr = state["lr"]

    def update(self, updates: int, lr: float) -> None:
        """Note an update of training: how many came before it, and its learning rate."""
        if updates < self.updates:  # the optimizer was reset, and updates count anew
            self.updates, self.warm, self.due, self._lr = 0, False, MIN_UPDATES, None
        if self._lr is not None and updates > self.updates and lr <= self._lr:
            self.warm = True
        self.updates, self._lr = updates, lr

    def begin_validation(self) -> None:
        """Decide whether this validation measures."""
        due = self.warm and self.due is not None and self.updates >= self.due
        self._batches = 0 if due else None

    @torch.no_grad()
    def measure(self, sample: dict[str, Any], model: Any, criterion: Any) -> dict[str, Any]:
        """Sums to be logged for a validation batch; empty if it is not one to be measured.

        Args:
            model: in evaluation mode, where times and noise are functions of the sources.
        """
        if self._batches is None:
            return {}
        self._batches += 1
        if self._batches.bit_count() != 1:
            return {}
        if len(sample["target"]) < 2:  # there is no other sentence
            return {OWN: 0.0, OTHER: 0.0, TOKENS: 0}
        _, tokens, own = criterion(model, sample)
        if tokens > sample.get("ntokens", tokens):  # the source's own are among them, or padding
            return {OWN: 0.0, OTHER: 0.0, TOKENS: 0}
        _, _, other = criterion(model, with_other_sources(sample))
        losses = {OWN: token_loss(criterion, own), OTHER: token_loss(criterion, other)}
        return {**losses, TOKENS: tokens}

    def end_validation(self, meters: Mapping[str, Any]) -> None:
        """Warn if the model hardly reads its source.

        Args:
            meters: fairseq's, of a validation set; further sets are not measured.
        """
        self._batches = None
        if OWN not in meters:
            return
        own, other = meters[OWN].avg, meters[OTHER].avg
        hardly = other - own < MIN_GAIN * own
        self.due = 2 * self.updates if hardly and self.due == MIN_UPDATES else None
        if hardly and get_global_rank() == 0:
            logger.warning(
                f"the model hardly reads its source: the loss with other sentences' sources is "
                f"{other:.3f}, with their own {own:.3f}; unless this changes soon, start again "
                "with a smaller --length-loss-factor, more --warmup-updates or another --seed"
            )


def log_source_gain(logging_outputs: Sequence[Mapping[str, Any]]) -> None:
    """Log what `SourceCheck.measure` has measured, as `source_gain` in nats a token.

    Args:
        logging_outputs: what the processes logged for a batch.
    """
    tokens = sum(log.get(TOKENS, 0) for log in logging_outputs)
    if tokens == 0:
        return
    for name in (OWN, OTHER):
        mean = sum(log[name] for log in logging_outputs) / tokens
        metrics.log_scalar(name, mean, tokens, priority=1000)
    metrics.log_derived("source_gain", lambda meters: round(meters[OTHER].avg - meters[OWN].avg, 4))
