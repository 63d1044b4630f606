"""Derivatives against differences: a backward pass can be wrong, and what is made of it symmetric all the same.

For a function L of tensors theta, a unit vector v and a step h, the slope (L(theta + h v) - L(theta - h v)) / 2 h is
held against g'v, and (g(theta + h v) - g(theta - h v)) / 2 h against the product H v.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Tensors = list[Tensor]

TOLERANCE = 1e-3
"""A product or a slope may differ from differences by this share of their length, beside what rounding makes."""

STEPS = (1e-5, 1e-7, 1e-4, 1e-3, 1e-2)
"""Steps that are tried in float64, in units of max(1, ||theta||); one is enough where it agrees. Small ones step over
no kink of a piecewise linear network, large ones are above the rounding of a part that is computed in less precision.
"""

COARSE = (1e-3, 1e-2, 1e-4, 3e-2)
"""Steps that are tried in less precision than float64."""

ROUNDINGS = 100.0
"""Roundings of a value or of a gradient that a difference may be off by."""

SETTLED = 0.1
"""Two differences have settled where they are apart by no more than this share of what each is from the derivative:
only these speak against it. At a kink, or in rounding, they do not settle. Where rounding is more than this share of
what is compared, an agreement says nothing.
"""


@dataclass(frozen=True)
class Verdict:
    """How far derivatives are from differences, relative to their length, and what that says: they agree (`passed`),
    and there was more than rounding to compare (`told`); they are `wrong`; or none of these, where differences do not
    settle.
    """

    apart: float
    passed: bool = False
    told: bool = False
    wrong: bool = False


@dataclass(frozen=True)
class Compared:
    """The verdicts on the gradient and on the product."""

    gradient: Verdict
    product: Verdict


class Along(Protocol):
    """A function of tensors on the line through theta along a unit vector v."""

    @property
    def unit(self) -> float:
        """What steps are multiples of."""
        ...

    @property
    def epsilon(self) -> float:
        """Rounding of the type in which it is computed."""
        ...

    def end(self, step: float) -> tuple[float, Tensor, float]:
        """Value, gradient [n] and the gradient's share along v, at theta + step v, in float64."""
        ...

    def difference(self, step: float, ends: tuple[Tensor, Tensor]) -> Tensor:
        """The product with v by differences, [n] in float64, from the gradients at +step and -step."""
        ...

    def product(self) -> Tensor | None:
        """The product with v by backward passes, [n] in float64; None where it is not to be looked at."""
        ...


@dataclass(frozen=True)
class _Difference:
    found: Tensor
    expected: Tensor
    scale: float
    noise: float

    @property
    def off(self) -> float:
        return float((self.found - self.expected).norm())


def compared(line: Along) -> Compared:
    """Both verdicts. Cost: 2 gradients and a product, and 2 gradients more for every further step that is needed."""
    product = line.product()
    tried: list[tuple[_Difference, _Difference]] = []
    for step in STEPS if line.epsilon < 1e-10 else COARSE:
        tried.append(_differences(line, step * line.unit, product))
        slopes, products = zip(*tried, strict=True)
        verdicts = Compared(_verdict(slopes), _verdict(products))
        finite = all(math.isfinite(one.off) for one in tried[-1])
        if not finite or (verdicts.gradient.passed and verdicts.product.passed):
            break
    return verdicts


def _differences(line: Along, step: float, product: Tensor | None) -> tuple[_Difference, _Difference]:
    (high, after, along_after), (low, before, along_before) = line.end(step), line.end(-step)
    length = max(float(after.norm()), float(before.norm()))
    slope, expected = (high - low) / (2 * step), (along_after + along_before) / 2
    rounding = ROUNDINGS * line.epsilon / (2 * step)
    typical = length / math.sqrt(max(1, len(after)))
    first = _Difference(
        torch.tensor([slope], dtype=torch.float64),
        torch.tensor([expected], dtype=torch.float64),
        max(abs(slope), abs(expected), typical),
        rounding * max(abs(high), abs(low)),
    )
    if product is None:
        product = second = torch.zeros(1, dtype=torch.float64)
    else:
        second = line.difference(step, (after, before))
    scale = max(float(second.norm()), float(product.norm()))
    return first, _Difference(second, product, scale, rounding * length)


def _verdict(tried: Sequence[_Difference]) -> Verdict:
    """What the differences so far say together: one that agrees is enough, and two that have settled refuse."""
    passed = [one for one in tried if one.off <= TOLERANCE * one.scale + one.noise]
    told = [one for one in passed if one.noise <= SETTLED * one.scale]
    if told:
        return Verdict(told[0].off / told[0].scale if told[0].scale else 0.0, passed=True, told=told[0].scale > 0)
    for k, one in enumerate(tried):
        for other in tried[:k]:
            moved = float((one.found - other.found).norm()) + max(one.noise, other.noise)
            if moved <= SETTLED * min(one.off, other.off):
                return Verdict(one.off / one.scale, wrong=True)
    return Verdict(0.0 if passed else math.inf, passed=bool(passed))


class Scalar:
    """A scalar function, a sum of parts that are differentiated one after the other, along a unit vector drawn from
    `draw`. `second` says whether second derivatives are looked at.
    """

    def __init__(
        self,
        parts: Callable[[Tensors], Iterator[Tensor]],
        at: Sequence[Tensor],
        direction: Sequence[Tensor],
        second: bool = True,
    ) -> None:
        self._parts, self._second = parts, second
        self._at: Tensors = [one.detach() for one in at]
        length = _length(direction)
        self._direction = [one / length for one in direction]
        self.unit = max(1.0, _length(self._at))
        self.epsilon = max(torch.finfo(one.dtype).eps for one in self._at)

    def end(self, step: float) -> tuple[float, Tensor, float]:
        leaves = self._moved(step)
        value, gradient = 0.0, torch.zeros(sum(one.numel() for one in leaves), dtype=torch.float64)
        for part in self._parts(leaves):
            value += float(part.detach())
            gradient += _flat(_gradient(part, leaves, False), leaves)
        return value, gradient, float(gradient @ _flat(self._direction, self._direction))

    def difference(self, step: float, ends: tuple[Tensor, Tensor]) -> Tensor:
        return (ends[0] - ends[1]) / (2 * step)

    def product(self) -> Tensor | None:
        if not self._second:
            return None
        leaves = self._moved(0.0)
        total = torch.zeros(sum(one.numel() for one in leaves), dtype=torch.float64)
        for part in self._parts(leaves):
            slopes = [
                (g, v)
                for g, v in zip(_gradient(part, leaves, True), self._direction, strict=True)
                if g is not None and g.requires_grad
            ]
            if slopes:
                found = torch.autograd.grad([g for g, _ in slopes], leaves, [v for _, v in slopes], allow_unused=True)
                total += _flat(found, leaves)
        return total

    def _moved(self, step: float) -> Tensors:
        return [
            (one + step * v.to(one.dtype)).requires_grad_() for one, v in zip(self._at, self._direction, strict=True)
        ]


def _gradient(part: Tensor, leaves: Tensors, again: bool) -> Sequence[Tensor | None]:
    if not part.requires_grad:
        return [None] * len(leaves)
    return torch.autograd.grad(part, leaves, create_graph=again, allow_unused=True)


def _flat(found: Sequence[Tensor | None], like: Sequence[Tensor]) -> Tensor:
    parts = (torch.zeros_like(one) if part is None else part for part, one in zip(found, like, strict=True))
    return torch.cat([part.detach().reshape(-1).double().cpu() for part in parts])


def _length(tensors: Sequence[Tensor]) -> float:
    return math.sqrt(sum(float(one.double().square().sum()) for one in tensors))
