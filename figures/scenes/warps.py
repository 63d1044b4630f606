"""Where on paper a value of either sign lies when values span decades."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import Array
from figures.marks import Axis
from figures.scenes.scales import finite, tick_texts

FEWEST_TICKS, MOST_TICKS = 3, 9
BETWEEN = ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 5, 7))
"""Multiples of powers of ten that get ticks: the first with which there are enough."""
NEAREST = 2.8
"""Beside the tick at zero the next stand at least so many thresholds away, half a decade on paper."""


@dataclass(frozen=True)
class Straight:
    """Values lie where they are."""

    def __call__(self, values: Array) -> Array:
        return np.asarray(values, dtype=float)

    def axis(self, label: str, *arrays: Array) -> Axis:
        return Axis(label)

    unit = "unit"
    words = ""


@dataclass(frozen=True)
class Symmetric:
    """A value v lies at asinh(v / (2 c)) / ln 10: near zero in proportion to it, further out at sign(v) log10(|v| / c).

    One unit is a decade far from zero.
    """

    threshold: float

    def __call__(self, values: Array) -> Array:
        return np.asarray(np.arcsinh(np.asarray(values, dtype=float) / (2 * self.threshold)) / np.log(10))

    def axis(self, label: str, *arrays: Array) -> Axis:
        """An axis with ticks at zero and at powers of ten of either sign, in the range of the values; where these are
        fewer than three, also between powers.
        """
        values = finite(arrays)
        if not values.size:
            return Axis(label)
        low, high = float(values.min()), float(values.max())
        lengths = [end for end in (-low, high) if end > 0]
        nearest = max(NEAREST * self.threshold, low, -high)
        first = int(np.ceil(np.log10(nearest)))
        last = max([first, *(int(np.floor(np.log10(end))) for end in lengths)])
        every = max(1, -(-(last - first + 1) * len(lengths) // (MOST_TICKS - 1)))
        powers = 10.0 ** np.arange(last, first - 2, -every)
        ticks = np.zeros(0)
        for multiples in BETWEEN:
            sizes = np.outer(multiples, powers).ravel()
            sizes = sizes[sizes >= nearest]
            ticks = np.unique(np.r_[-sizes, 0.0, sizes])
            ticks = ticks[(ticks >= low) & (ticks <= high)]
            if ticks.size >= FEWEST_TICKS:
                break
        texts = tuple(tick_texts(np.array([tick]))[0] if tick else "0" for tick in ticks)
        return Axis(label, ticks=tuple(self(ticks).tolist()), texts=texts)

    @property
    def unit(self) -> str:
        return "decade"

    @property
    def words(self) -> str:
        """How it is drawn, for a caption."""
        return (
            f"Eigenvalues are drawn at asinh(\u03bb / {2 * self.threshold:.2g}) / ln 10: evenly near zero, in decades "
            "of either sign further out."
        )


Warp = Straight | Symmetric


def around(widths: Sequence[float]) -> Warp:
    """A symmetric scale that is even within the median of some widths; straight where there is none."""
    known = [w for w in widths if np.isfinite(w) and w > 0]
    return Symmetric(float(np.median(known))) if known else Straight()
