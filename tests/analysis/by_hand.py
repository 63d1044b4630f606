"""Functions whose backward pass is written by hand, right or wrong: torch believes either."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def by_hand(
    name: str, value: Callable[[Tensor], Tensor], pulled: Callable[[Tensor, Tensor], Tensor], once: bool = False
) -> type[torch.autograd.Function]:
    """value(x), whose backward pass gives pulled(slope, x); `once`: the backward pass itself has none."""

    def forward(context: Any, x: Tensor) -> Tensor:
        context.save_for_backward(x)
        return value(x)

    def backward(context: Any, slope: Tensor) -> Tensor:
        return pulled(slope, *context.saved_tensors)

    last = torch.autograd.function.once_differentiable(backward) if once else backward
    return type(name, (torch.autograd.Function,), {"forward": staticmethod(forward), "backward": staticmethod(last)})
