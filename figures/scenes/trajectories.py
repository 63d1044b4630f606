"""What the flat and the relief drawing of a surface have in common: tasks, axes and trajectories."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.results import AVERAGE, Array, Plane, Shadow, Surface
from figures import style
from figures.marks import Axis, Column, Key
from figures.scenes.scales import Height, common_scale, height
from figures.scenes.words import count
from figures.style import Look

ORTHOGONAL = 1e-3
"""Axes whose cosine is smaller than this are drawn at right angles without a remark."""
START = Look(style.INK, marker="circle", size=5.0, fill=style.PAPER, width=0.9)
CIRCLE = Look(style.FAINT, marker="circle", size=6.5, fill="none", width=0.9)
END = Look(style.FAINT, marker="circle", size=5.0, fill=style.FAINT, width=0.9)
"""The legend's entry for ends; on the surface an end has the colour and the marker of its strategy."""
ROOM, NARROW = 46, 23
"""Characters that fit along the axis of a panel, and of a small one."""
MARGIN = 0.04
"""Room around trajectories that leave the grid, as a share of the range."""


@dataclass(frozen=True)
class View:
    """One loss over the plane, with the heights it is drawn at."""

    title: str
    loss: Array
    height: Height

    def __call__(self, losses: Array) -> Array:
        """Losses as heights."""
        return self.height(losses)


def views(surface: Surface, reach: Sequence[Array] = ()) -> tuple[View, ...]:
    """One view for each task and, with several tasks, one for their average; NaN where a point is not done.

    The average is the mean over tasks of the task losses at each point, so it is missing where one of them is.
    `reach` holds further losses, one array for each view, that levels have to enclose.
    """
    measured = np.where(surface.done.astype(bool), surface.loss, np.nan)
    measured = np.where(np.isfinite(measured), measured, np.nan)
    losses = [*measured, measured.mean(axis=0)][: view_count(surface)]
    names = [*surface.tasks, f"{AVERAGE} of {count(len(surface.tasks), 'task')}"]
    further = reach or [np.empty(0)] * len(losses)
    seen = [np.concatenate([loss.ravel(), more]) for loss, more in zip(losses, further, strict=True)]
    scale = common_scale(seen)
    return tuple(
        View(name, loss, height("loss", scale, values)) for name, loss, values in zip(names, losses, seen, strict=False)
    )


def view_count(surface: Surface) -> int:
    """Number of views: the tasks, and their average unless there is only one."""
    return len(surface.tasks) + (len(surface.tasks) > 1)


def true_losses(surface: Surface, shadow: Shadow) -> tuple[Array, ...]:
    """The trajectory's own losses [S] for each view, in the order of the surface's tasks."""
    missing = [task for task in surface.tasks if task not in shadow.tasks]
    if missing:
        raise ValueError(
            f"expected losses of {', '.join(surface.tasks)} along {shadow.run.name}, got only "
            f"{', '.join(shadow.tasks)}: project a trajectory of the same problem"
        )
    losses = shadow.losses[:, [shadow.tasks.index(task) for task in surface.tasks]]
    return (*losses.T, losses.mean(axis=1))[: view_count(surface)]


def plane_axes(surface: Surface, shadows: Sequence[Shadow]) -> tuple[Axis, Axis]:
    """The axes of the plane: what each is, the share of variance it explains, and a range that holds everything."""
    x, y = (_range((surface.x, surface.y)[k], [s.coordinates[:, k] for s in shadows]) for k in range(2))
    aspect = geometry(surface.plane)[0]
    height = ROOM if aspect is None else ROOM * aspect * (y[1] - y[0]) / (x[1] - x[0])
    return (
        Axis(_axis_label(surface.plane, 0), range=x),
        Axis(_axis_label(surface.plane, 1, int(min(ROOM, height))), range=y),
    )


def _axis_label(plane: Plane, k: int, room: int = ROOM) -> str:
    """What an axis is, with its share of variance; less where there is no room: its name, or its letter alone."""
    share = float(plane.explained[k])
    full = f"{plane.axes[k]} ({share:.1%} of variance)" if np.isfinite(share) else plane.axes[k]
    return next((text for text in (full, plane.axes[k]) if len(text) <= room), "xy"[k])


def narrow(plane: Plane, axes: tuple[Axis, Axis]) -> tuple[Axis, Axis]:
    """The same axes with labels for a small panel."""
    x, y = (replace(axis, label=_axis_label(plane, k, NARROW)) for k, axis in enumerate(axes))
    return x, y


def axis_words(plane: Plane, axes: tuple[Axis, Axis]) -> str:
    """What the axes are that a label names by a letter alone, as a sentence."""
    told = [f"{a.label}: {name}" for a, name in zip(axes, plane.axes, strict=True) if a.label in ("x", "y")]
    return f"Axes: {'; '.join(told)}." if told else ""


def explained_words(plane: Plane) -> str:
    """How much of the trajectories' variance the axes explain, as a sentence; empty where it has no share."""
    if not np.isfinite(plane.explained).all():
        return ""
    return f"The axes explain {plane.explained[0]:.1%} and {plane.explained[1]:.1%} of the trajectories' variance."


def _range(grid: Array, coordinates: Sequence[Array]) -> tuple[float, float]:
    low, high = float(grid.min()), float(grid.max())
    points = np.concatenate([grid, *coordinates])
    points = points[np.isfinite(points)]
    room = MARGIN * (float(points.max()) - float(points.min()) or 1.0)
    low = low if points.min() >= low else float(points.min()) - room
    high = high if points.max() <= high else float(points.max()) + room
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def geometry(plane: Plane) -> tuple[float | None, str]:
    """Aspect of the axes, and what the caption says of them.

    With orthogonal axes one unit of parameter space is equally long in both directions, which needs an aspect of
    sqrt(gram[1, 1] / gram[0, 0]). With oblique axes no aspect makes lengths and angles true.
    """
    gram = np.asarray(plane.gram, dtype=float)
    lengths = np.sqrt(np.diag(gram))
    cosine = gram[0, 1] / (lengths[0] * lengths[1])
    if not np.isfinite(cosine):
        return None, "The axes of the plane have no length in both directions: distances are not to scale."
    if abs(cosine) > ORTHOGONAL:
        angle = np.degrees(np.arccos(np.clip(cosine, -1, 1)))
        return None, (
            f"The axes are not orthonormal (lengths {lengths[0]:.3g} and {lengths[1]:.3g} parameter units, angle "
            f"{angle:.1f}\u00b0), so distances and angles are not to scale."
        )
    if abs(lengths[1] / lengths[0] - 1) <= ORTHOGONAL:
        unit = (
            "parameter units" if abs(lengths[0] - 1) <= ORTHOGONAL else f"multiples of {lengths[0]:.3g} parameter units"
        )
        return 1.0, f"Axes are orthogonal, in {unit}, to equal scale."
    return float(lengths[1] / lengths[0]), (
        f"Axes are orthogonal but not orthonormal: one unit is {lengths[0]:.3g} parameter units along x and "
        f"{lengths[1]:.3g} along y; they are drawn to equal scale in parameter units."
    )


def identity(shadow: Shadow) -> tuple[Column, ...]:
    """What a reader learns who points at a trajectory: which run, when, and how far off the plane."""
    return (
        Column("strategy", np.full(shadow.steps.size, shadow.run.label)),
        Column("seed", np.full(shadow.steps.size, shadow.run.seed)),
        Column("step", shadow.steps),
        Column("distance off the plane", shadow.off_plane),
    )


def hover(shadow: Shadow, losses: Array, title: str) -> tuple[Column, ...]:
    """The same with the true loss of one view."""
    return (*identity(shadow), Column(f"true loss, {title}", losses))


def keys(looks: dict[str, Look]) -> tuple[Key, ...]:
    """Legend: one entry a strategy, then start and end."""
    ends = (Key("start", START), Key("end", END)) if looks else ()
    lines = (Key(label, look.but(marker="")) for label, look in looks.items())
    return (*lines, *ends, *((Key("distance off the plane", CIRCLE),) if looks else ()))


def blanks(surface: Surface) -> str:
    """Sentences that count the grid points without a loss."""
    done = surface.done.astype(bool)
    undone = int((~done).sum())
    broken = int((done & ~np.isfinite(surface.loss).all(axis=0)).sum())
    total = count(done.size, "grid point")
    parts = []
    if undone:
        parts.append(f"{undone} of {total} not measured.")
    if broken:
        parts.append(f"{broken} of {total} with a loss that is not finite.")
    if parts:
        parts.append("They are left blank.")
    return " ".join(parts)
