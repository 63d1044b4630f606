"""What tensors hold, as short numbers: to say whether they are still the same."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor

BLOCK = 1 << 22
"""Entries summed at once, which bounds the memory."""
_WORDS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def hash_of(tensors: Mapping[str, Tensor]) -> str:
    """Sixteen hex digits of a SHA-256 over names and bytes, in order."""
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def fingerprint(tensor: Tensor) -> Tensor:
    """Two integers, on the tensor's device, that other entries change: sums modulo 2^64 of its bits and of their
    squares, taken as integers of the entries' width.

    Exact whatever the order of summation. For what is looked at often: one pass at the speed of the memory, where a
    hash needs the bytes on the host.
    """
    flat = tensor.detach().reshape(-1)
    words = (torch.view_as_real(flat).reshape(-1) if flat.is_complex() else flat).view(_WORDS[_width(flat)])
    sums = torch.zeros(2, dtype=torch.int64, device=flat.device)
    for block in torch.split(words, BLOCK):
        sums += torch.stack([block.sum(dtype=torch.int64), (block * block).sum(dtype=torch.int64)])
    return sums


def _width(flat: Tensor) -> int:
    return flat.element_size() // 2 if flat.is_complex() else flat.element_size()
