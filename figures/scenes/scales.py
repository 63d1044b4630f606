"""Which scale and which levels a set of values is drawn with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import Array
from figures.marks import Axis, Scale

LARGE_RANGE = 20.0
"""Positive values whose largest is this many times their least are drawn on a logarithmic scale."""
BANDS = 16
"""At most this many contour bands."""
MOST_TICKS = 7
FEWEST_TICKS = 3


@dataclass(frozen=True)
class Height:
    """How measured values become heights and colours: `log10` or not, and evenly spaced levels around all of them."""

    scale: Scale
    levels: Array
    axis: Axis

    def __call__(self, values: Array) -> Array:
        """The values as drawn: NaN where they are not finite, or not positive on a logarithmic scale."""
        usable = np.isfinite(values) & ((values > 0) | (self.scale == "linear"))
        kept = np.where(usable, values, np.nan)
        return np.asarray(np.log10(kept) if self.scale == "log" else kept)


def scale_of(*arrays: Array) -> Scale:
    """`log` for positive values with a large range, otherwise `linear`; values that are not finite do not count."""
    values = finite(arrays)
    if values.size == 0 or values.min() <= 0:
        return "linear"
    return "log" if values.max() / values.min() >= LARGE_RANGE else "linear"


def common_scale(arrays: Sequence[Array]) -> Scale:
    """One scale for panels that are compared: `log` where all values are positive and one panel has a large range."""
    if scale_of(*arrays) == "linear":
        return "linear"
    return "log" if any(scale_of(array) == "log" for array in arrays) else "linear"


def finite(arrays: Iterable[Array]) -> Array:
    """All finite values, flat."""
    flat = np.concatenate([np.ravel(np.asarray(a, dtype=float)) for a in arrays] or [np.empty(0)])
    return np.asarray(flat[np.isfinite(flat)])


def height(label: str, scale: Scale, *arrays: Array) -> Height:
    """Levels for values that are shown by colour or height; the texts of the ticks are measured values."""
    values = finite(arrays)
    if values.size == 0:
        return Height(scale, np.empty(0), Axis(label))
    drawn = np.log10(values) if scale == "log" else values
    levels = even_levels(float(drawn.min()), float(drawn.max()))
    low, high = float(levels[0]), float(levels[-1])
    if scale == "log":
        written = round_values(10.0**low, 10.0**high)
        ticks = np.clip(np.log10(written), low, high)
    else:
        ticks = written = levels[:: int(np.ceil(levels.size / MOST_TICKS))]
    return Height(scale, levels, Axis(label, "linear", (low, high), tuple(ticks.tolist()), tick_texts(written)))


def loss_axis(label: str, *arrays: Array) -> Axis:
    """An axis for values that may span decades; on a logarithmic one the ticks are round values."""
    if scale_of(*arrays) == "linear":
        return Axis(label)
    return log_axis(label, *arrays)


def log_axis(label: str, *arrays: Array) -> Axis:
    """A logarithmic axis for positive values, with ticks at round ones; of no values one without any text."""
    values = finite(arrays)
    if values.size == 0:
        return Axis("", "linear", (0.0, 1.0), (0.0,), ("",))
    ticks = round_values(float(values.min()) / 1.5, float(values.max()) * 1.5)
    return Axis(label, "log", None, tuple(ticks.tolist()), tick_texts(ticks))


def round_values(low: float, high: float) -> Array:
    """Powers of ten between two positive values, at most about seven; with 1, 2 and 5 times them where they are few."""
    first, last = int(np.floor(np.log10(low))), int(np.ceil(np.log10(high)))
    every = max(1, -(-(last - first) // MOST_TICKS))
    for steps in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), tuple(np.arange(1.0, 10.0)), tuple(np.arange(1.0, 10.0, 0.1))):
        values = np.array([s * 10.0**k for k in range(first, last + 1, every) for s in steps])
        inside = values[(values >= low * (1 - 1e-9)) & (values <= high * (1 + 1e-9))]
        if inside.size >= FEWEST_TICKS:
            break
    return inside


def even_levels(low: float, high: float) -> Array:
    """Multiples of a round number (1, 2, 2.5 or 5 times a power of ten) from at most `low` to at least `high`."""
    spread = high - low
    if spread <= 1e-9 * max(abs(low), abs(high), 1e-300):
        spread = max(abs(low), 1.0) * 1e-2
    power = 10.0 ** np.floor(np.log10(spread / BANDS))
    step = next(m * power for m in (1.0, 2.0, 2.5, 5.0, 10.0, 20.0) if _bands(low, high, m * power) <= BANDS)
    first, last = np.floor(low / step + 1e-9), np.ceil(high / step - 1e-9)
    return np.asarray(step * np.arange(first, max(last, first + 1) + 1))


def _bands(low: float, high: float, step: float) -> float:
    return float(np.ceil(high / step - 1e-9) - np.floor(low / step + 1e-9))


def tick_texts(values: Array) -> tuple[str, ...]:
    """Numbers as short as they can be while all of them differ."""
    for digits in range(2, 8):
        texts = tuple(_text(float(v), digits) for v in values)
        if len(set(texts)) == len(texts) and _close(values, digits):
            break
    return texts


def _text(value: float, digits: int) -> str:
    plain = f"{value:g}" if 1e-3 <= abs(value) < 1e4 and len(f"{value:g}") <= digits + 2 else f"{value:.{digits}g}"
    return plain.replace("e-0", "e-").replace("e+0", "e").replace("-", "\u2212")


def _close(values: Array, digits: int) -> bool:
    rounded = np.array([float(f"{v:.{digits}g}") for v in values])
    gaps = np.diff(values)
    return gaps.size == 0 or bool(np.all(np.abs(rounded - values).max() <= 0.1 * np.abs(gaps).min()))
