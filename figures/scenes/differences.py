"""Two surfaces of one plane under different conditions: what changes."""

from __future__ import annotations

import numpy as np

from analysis.results import AVERAGE, Array, Surface
from figures import style
from figures.marks import Axis, Contours, Panel, Scene
from figures.scenes.many import Most, on_a_page
from figures.scenes.scales import common_scale, even_levels, finite, tick_texts
from figures.scenes.trajectories import axis_words, blanks, geometry, plane_axes
from figures.scenes.words import count, lone_words, sentences

COLUMNS = 2
CONDITIONS = {
    "split": "{} data",
    "batch_norm": "normalisation statistics {}",
    "heads": "heads {}",
    "examples": "{} examples",
}


def difference(one: Surface, other: Surface) -> Scene:
    """The loss under other conditions minus (or divided by) that under the first ones, for every task and the average.

    Where losses span decades the logarithm of their ratio is drawn, else their difference; zero has the same colour
    everywhere. Raises `ValueError` for surfaces of different planes or grids.
    """
    if one.plane != other.plane or not (np.array_equal(one.x, other.x) and np.array_equal(one.y, other.y)):
        raise ValueError("expected two surfaces of one plane and grid, got different ones: measure both on the same")
    names = [*one.tasks, *([f"{AVERAGE} of {count(len(one.tasks), 'task')}"] if len(one.tasks) > 1 else [])]
    losses = [np.concatenate([s.loss, s.loss.mean(0)[None]])[: len(names)] for s in (one, other)]
    logarithmic = common_scale(losses) == "log"
    with np.errstate(invalid="ignore", divide="ignore"):
        changes = np.log10(losses[1] / losses[0]) if logarithmic else losses[1] - losses[0]
    changes = np.where(np.isfinite(changes), changes, np.nan)
    x, y = plane_axes(one, ())
    aspect, words = geometry(one.plane)
    label = "log10 of the ratio" if logarithmic else "difference of the losses"
    panels = tuple(
        Panel(name, x, y, (_contours(one, change, measured, label),), None, aspect)
        for name, change, measured in zip(names, changes, losses[1], strict=True)
    )
    rows, few = on_a_page(panels, Most.large(list(changes)), COLUMNS, 66.0)
    first, second = _told_apart(one, other)
    caption = sentences(
        f"{'Log10 of the loss' if logarithmic else 'The loss'} with {second}, "
        f"{'minus the same' if logarithmic else 'minus the loss'} with {first}, over the {one.plane.recipe}.",
        few,
        *_sizes(names, changes, losses[0], logarithmic),
        axis_words(one.plane, (x, y)),
        words,
        blanks(other),
        lone_words(changes),
    )
    return Scene("What other conditions change", caption, rows)


def _told_apart(one: Surface, other: Surface) -> tuple[str, str]:
    """The conditions in which two surfaces differ, in words."""
    keys = [key for key in CONDITIONS if getattr(one, key) != getattr(other, key)] or ["split"]
    first, second = (", ".join(CONDITIONS[key].format(getattr(s, key)) for key in keys) for s in (one, other))
    return first, second


def _contours(surface: Surface, change: Array, measured: Array, label: str) -> Contours:
    most = float(np.abs(finite([change])).max(initial=0.0)) or 1.0
    levels = even_levels(-most, most)
    levels = levels if levels.size % 2 else even_levels(-most, most * (1 + 1e-6))
    colours = style.shades(levels.size - 1, style.DIVERGING)
    ticks = levels[:: int(np.ceil(levels.size / 7))]
    bar = Axis(label, range=(float(levels[0]), float(levels[-1])), ticks=tuple(ticks.tolist()), texts=tick_texts(ticks))
    return Contours(surface.x, surface.y, change, measured, levels, colours, bar)


def _sizes(names: list[str], changes: Array, losses: Array, logarithmic: bool) -> list[str]:
    """The largest change of each panel, and the range that it is to be set against."""
    told = []
    for name, change, loss in zip(names, changes, losses, strict=True):
        kept, base = finite([change]), finite([loss])
        if kept.size and base.size:
            largest = float(np.abs(kept).max())
            spread = float(np.ptp(np.log10(base)) if logarithmic else np.ptp(base))
            told.append(f"{name} {largest:.2g} of a range of {spread:.2g}")
    return [f"Largest change: {'; '.join(told)}."] if told else []
