"""Fused operations whose second derivatives are missing or wrong, computed operation by operation instead."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel


@contextlib.contextmanager
def unfused() -> Iterator[None]:
    """Attention by the mathematical kernel; transformer layers, weight normalisation and sums or means of embeddings
    operation by operation.

    Fused attention and embedding bags have no second derivative. That of fused weight normalisation takes the norms for
    constants (torch 2.13), which is wrong and symmetric all the same.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    before = [(place, name, getattr(place, name)) for place, name, _ in _REPLACED]
    for place, name, plain in _REPLACED:
        setattr(place, name, plain)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        for place, name, own in before:
            setattr(place, name, own)
        torch.backends.mha.set_fastpath_enabled(fused)


def _weight_norm(v: Tensor, g: Tensor, dim: int = 0) -> Tensor:
    """g v / ||v||, norms over all dimensions but one (-1: over all)."""
    return v * (g / torch.norm_except_dim(v, 2, dim))


_FUSED_BAG = functional.embedding_bag


def _embedding_bag(
    input: Tensor,
    weight: Tensor,
    offsets: Tensor | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """The sum or mean of the embeddings in every bag; what else the fused operation can do is left to it."""
    if max_norm is not None or scale_grad_by_freq or mode == "max":
        return _FUSED_BAG(
            input,
            weight,
            offsets,
            max_norm,
            norm_type,
            scale_grad_by_freq,
            mode,
            False,
            per_sample_weights,
            include_last_offset,
            padding_idx,
        )
    places = torch.arange(input.numel(), device=input.device)
    if input.dim() == 2:
        count, bags = len(input), places // max(1, input.shape[1])
    else:
        assert offsets is not None
        count = len(offsets) - include_last_offset
        bags = torch.searchsorted(offsets[:count].contiguous(), places, right=True) - 1
    flat = input.reshape(-1)
    kept = torch.ones_like(flat, dtype=weight.dtype)
    if padding_idx is not None:
        kept = (flat != padding_idx % len(weight)).to(weight.dtype)
    share = kept if per_sample_weights is None else kept * per_sample_weights.reshape(-1)
    rows = functional.embedding(flat, weight) * share[:, None]
    total = weight.new_zeros(count, weight.shape[1]).index_add(0, bags, rows)
    if mode == "sum":
        return total
    return total / weight.new_zeros(count).index_add(0, bags, kept).clamp(min=1)[:, None]


_REPLACED: tuple[tuple[Any, str, Any], ...] = (
    (torch, "_weight_norm", _weight_norm),
    (sys.modules["torch.nn.utils.weight_norm"], "_weight_norm", _weight_norm),
    (functional, "embedding_bag", _embedding_bag),
)
"""Where torch's modules look these operations up, weight normalisation also in its hook of before."""
