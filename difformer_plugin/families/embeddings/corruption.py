"""How training corrupts the embeddings of targets: times, noise, and tokens that are spared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, Optional

import torch
from fairseq.dataclass import ChoiceEnum, FairseqDataclass

from difformer_plugin.diffusion.gaussian.process import GaussianProcess
from difformer_plugin.diffusion.noise import SentenceNoise, uniform
from difformer_plugin.diffusion.times import low_discrepancy
from difformer_plugin.errors import UserError
from difformer_plugin.families.base import SELF_COND_PROBABILITY
from difformer_plugin.families.embeddings.importance import Draw, ImportanceTimes
from difformer_plugin.networks.layout import Layout
from difformer_plugin.options import flag, option

TIME_SAMPLING = ChoiceEnum(["uniform", "stratified", "importance"])


@dataclass
class CorruptionConfig(FairseqDataclass):
    """Options of training that say how targets are corrupted. Validation does not read them."""

    time_sampling: TIME_SAMPLING = option(  # type: ignore[valid-type]
        "uniform",
        "how the times of a training batch are drawn: uniform (each on its own), stratified (one "
        "in each of equally long intervals), or importance (more often where losses are large, "
        "with a smaller weight)",
    )
    noises_per_sentence: int = option(
        1, "corrupt each target this many times for one pass of the encoder"
    )
    clean_tokens: float = option(
        0.0,
        "share of the sentences in which a random part of the tokens is shown uncorrupted, and the "
        "others are predicted; --decoding-sampler confidence needs a value above 0",
    )
    self_cond_ahead: float = option(
        0.0,
        "make the earlier prediction of self-conditioning up to this share of the T steps ahead, "
        "where decoding makes it, in half of the sentences (FastDiSS: 0.2)",
    )


def check_corruption(cfg: Any) -> None:
    """Raise a UserError if values are out of range or contradict each other."""
    if cfg.noises_per_sentence < 1:
        raise UserError(f"--noises-per-sentence must be at least 1, not {cfg.noises_per_sentence}")
    for name in ("clean_tokens", "self_cond_ahead"):
        if not 0 <= getattr(cfg, name) <= 1:
            raise UserError(f"{flag(name)} must be in [0, 1], not {getattr(cfg, name):g}")
    if cfg.self_cond_ahead > 0 and not cfg.self_cond:
        raise UserError("--self-cond-ahead has no effect without --self-cond: give both or neither")


class Corruption(NamedTuple):
    """Corrupted targets, with n = B times --noises-per-sentence rows."""

    z_t: torch.Tensor  # (n, L, D); z_0 where clean
    t: torch.Tensor  # int64 (n,)
    conditioned: torch.Tensor  # bool (B,), the sentences that are self-conditioned
    clean: Optional[torch.Tensor] = None  # bool (n, L), tokens that are shown uncorrupted
    earlier: Optional[tuple[torch.Tensor, torch.Tensor]] = None  # z_s (n, L, D) and s (n,)
    drawn: Optional[Draw] = None  # how t was drawn, if by importance


def corrupt_for_validation(
    process: GaussianProcess, z_0: torch.Tensor, mask: torch.Tensor, keys: torch.Tensor
) -> Corruption:
    """Corrupt targets by functions of their sentences.

    Args:
        z_0: (B, L, D); mask: bool (B, L), True at real tokens.
        keys: see `noise.sentence_keys`.
    """
    u = uniform(keys, 2).T
    noise = SentenceNoise(keys, torch.zeros_like(keys))(0, z_0.shape[1:]).to(z_0)
    t = (u[0] * len(process)).long()
    z_t = process.q_sample(z_0, t, noise, Layout.dense(mask))
    return Corruption(z_t, t, u[1] < SELF_COND_PROBABILITY)


def corrupt(
    cfg: Any,
    process: GaussianProcess,
    z_0: torch.Tensor,
    mask: torch.Tensor,
    generator: torch.Generator,
    importance: ImportanceTimes | None = None,
) -> Corruption:
    """Corrupt targets at random.

    Args:
        cfg: a CorruptionConfig.
        z_0: (n, L, D), the copies of each target one after another; mask: bool (n, L), True at
            real tokens.
        importance: the law of times, if it is not uniform.
    """
    device, count = z_0.device, len(z_0)

    def rand(*shape: int) -> torch.Tensor:
        return torch.rand(*shape, device=device, generator=generator)

    def normal() -> torch.Tensor:
        return torch.randn(z_0.shape, dtype=z_0.dtype, device=device, generator=generator)

    u, noise = rand(2, count), normal()
    if cfg.time_sampling == "stratified":
        order = torch.randperm(count, device=device, generator=generator)
        u[0] = low_discrepancy(u[0, :1].clone(), order)
    times, drawn = (u[0], None) if importance is None else importance.draw(u[0])
    t = (times * len(process)).long()
    layout = Layout.dense(mask)
    z_t = process.q_sample(z_0, t, noise, layout)
    conditioned = u[1, :: cfg.noises_per_sentence] < SELF_COND_PROBABILITY
    earlier = clean = None
    if cfg.self_cond_ahead > 0:
        s = t + (rand(count) * (cfg.self_cond_ahead * len(process))).long()
        s = torch.where(rand(count) < 0.5, s.clamp(max=len(process) - 1), t)
        earlier = process.q_step(z_t, t, s, normal(), layout), s
    if cfg.clean_tokens > 0:
        clean = draw_clean(cfg.clean_tokens, mask, rand)
        z_t = torch.where(clean[..., None], z_0, z_t)
        if earlier is not None:
            earlier = torch.where(clean[..., None], z_0, earlier[0]), earlier[1]
    return Corruption(z_t, t, conditioned, clean, earlier, drawn)


def draw_clean(share: float, mask: torch.Tensor, rand: Callable[..., torch.Tensor]) -> torch.Tensor:
    """Which tokens are shown uncorrupted: in `share` of the targets each with probability r.

    r is uniform in [0, 1] for each target. At least one token of a target is corrupted.

    Args:
        mask: bool (n, L), True at real tokens; rand: draws uniform numbers of a shape.
    Returns:
        bool (n, L), False at padding.
    """
    r = torch.where(rand(len(mask), 1) < share, rand(len(mask), 1), 0.0)
    u = rand(*mask.shape).masked_fill(~mask, -1.0)
    spared = u.argmax(1, keepdim=True)  # the token that would be the last to be clean
    return ((u < r) & mask).scatter(1, spared, False)
