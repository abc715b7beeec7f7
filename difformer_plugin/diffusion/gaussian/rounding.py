"""Predictions whose tokens are not those of z_0-hat.

A prediction is z_0-hat (N, D), or (N, 2D): z_0-hat and beside it the latents that are rounded to
tokens. Steps and self-conditioning read z_0-hat. So the logits of a network that predicts the
expected embedding stay its own, and clamping does not change how likely tokens are.
"""

import torch


def beside(z_0_hat: torch.Tensor, rounded: torch.Tensor) -> torch.Tensor:
    """The prediction (N, 2D) of z_0-hat (N, D) and of what is rounded (N, D)."""
    return torch.cat([z_0_hat, rounded.to(z_0_hat.dtype)], dim=-1)


def z_0_of(prediction: torch.Tensor, dim: int) -> torch.Tensor:
    """z_0-hat (N, D) of a prediction; dim: D."""
    return prediction[:, :dim]


def rounded_of(prediction: torch.Tensor, dim: int) -> torch.Tensor:
    """What is rounded (N, D) of a prediction; dim: D."""
    return prediction[:, -dim:]
