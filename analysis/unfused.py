"""Fused operations whose second derivatives are missing or wrong, computed operation by operation instead."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Attention by the mathematical kernel, transformer layers and weight normalisation operation by operation.

    Fused attention has no second derivative. That of fused weight normalisation takes the norms for constants (torch
    2.13), which is wrong and symmetric all the same.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    before = [(place, place._weight_norm) for place in _callers()]
    for place, _ in before:
        place._weight_norm = _weight_norm
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for place, own in before:
            place._weight_norm = own
        torch.backends.mha.set_fastpath_enabled(fused)


def _callers() -> list[Any]:
    """Where torch's modules look weight normalisation up: its parametrisation, and its hook of before."""
    return [torch, sys.modules["torch.nn.utils.weight_norm"]]


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ||v||, norms over all dimensions but one (-1: over all)."""
    return v * (g / torch.norm_except_dim(v, 2, dim))
