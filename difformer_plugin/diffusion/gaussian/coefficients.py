"""Coefficients of z_0 and z_t: one number for all tokens, or a number for each token, (N, 1)."""

from types import ModuleType
from typing import TypeAlias

import numpy as np
import torch

Coefficient: TypeAlias = float | torch.Tensor  # a tensor is float64 (N, 1)


def functions_of(coefficient: Coefficient) -> ModuleType:
    """The library with the functions of a coefficient (sqrt, log, expm1): numpy or torch."""
    return torch if isinstance(coefficient, torch.Tensor) else np


def scaled(coefficient: Coefficient, z: torch.Tensor) -> torch.Tensor:
    """coefficient * z, in the precision of z (N, D)."""
    if isinstance(coefficient, torch.Tensor):
        return coefficient.to(z.dtype) * z
    return float(coefficient) * z
