"""Draws single marks into matplotlib axes."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.patches import Rectangle

from figures import style
from figures.marks import Band, Cells, Contours, Line, Path, Points, Relief, Segments
from figures.style import Look

DASHES: dict[str, Any] = {
    "solid": "-",
    "dash": (0, (4.5, 1.8)),
    "dot": (0, (1.2, 1.4)),
    "dashdot": (0, (5, 1.6, 1.2, 1.6)),
    "longdash": (0, (9, 2.2)),
}
MARKERS = {
    "circle": "o",
    "square": "s",
    "triangle-up": "^",
    "triangle-down": "v",
    "diamond": "D",
    "pentagon": "p",
    "hexagon": "h",
}
COLOURS = LinearSegmentedColormap.from_list("landscape", style.SURFACE)


def stroke(look: Look) -> dict[str, Any]:
    """Arguments of a line."""
    return {"color": look.colour, "linewidth": look.width, "alpha": look.opacity}


def marker(look: Look) -> dict[str, Any]:
    """Arguments of a line's marker."""
    return {
        "marker": MARKERS.get(look.marker, "none"),
        "markerfacecolor": look.fill or look.colour,
        "markeredgecolor": look.colour,
        "markeredgewidth": look.width if look.fill else 0.0,
    }


@singledispatch
def paint(mark: Any, axes: Any, order: float) -> None:
    """Draw one mark into axes, above marks of a lower order."""
    raise TypeError(f"expected a mark of figures.marks, got {type(mark).__name__}: add it to figures.static")


@paint.register
def _(mark: Line, axes: Axes, order: float) -> None:
    axes.plot(mark.x, mark.y, linestyle=DASHES[mark.look.dash], zorder=order, **stroke(mark.look))


@paint.register
def _(mark: Points, axes: Axes, order: float) -> None:
    look = mark.look
    axes.scatter(
        mark.x,
        mark.y,
        s=np.square(mark.size),
        marker=MARKERS[look.marker or "circle"],
        facecolors=look.fill or look.colour,
        edgecolors=look.colour,
        linewidths=look.width if look.fill else 0.0,
        alpha=look.opacity,
        zorder=order + 1.0,
        clip_on=False,
    )


@paint.register
def _(mark: Segments, axes: Axes, order: float) -> None:
    x, y = np.stack([mark.x0, mark.x1]), np.stack([mark.y0, mark.y1])
    axes.plot(x, y, linestyle=DASHES[mark.look.dash], zorder=order, **stroke(mark.look))


@paint.register
def _(mark: Band, axes: Axes, order: float) -> None:
    axes.fill_between(mark.x, mark.low, mark.high, color=mark.look.colour, alpha=0.16, linewidth=0, zorder=order)


@paint.register
def _(mark: Contours, axes: Axes, order: float) -> None:
    ground = Rectangle(
        (0, 0), 1, 1, transform=axes.transAxes, facecolor=style.BLANK, edgecolor=style.FAINT, hatch="////"
    )
    ground.set(linewidth=0, zorder=1.0)
    axes.add_patch(ground)
    axes.grid(visible=False)
    if mark.levels.size == 0 or min(mark.z.shape) < 2:
        return
    z = np.ma.masked_invalid(mark.z)
    axes.contourf(mark.x, mark.y, z, mark.levels, colors=mark.colours, corner_mask=False, zorder=1.5)
    axes.contour(
        mark.x,
        mark.y,
        z,
        mark.levels,
        colors=style.PAPER,
        linestyles="solid",
        linewidths=0.3,
        alpha=0.5,
        corner_mask=False,
        zorder=1.6,
    )


@paint.register
def _(mark: Relief, axes: Any, order: float) -> None:
    if mark.bar.range is None:
        return
    x, y = np.meshgrid(mark.x, mark.y)
    z = np.ma.masked_invalid(mark.z)
    low, high = mark.bar.range
    axes.plot_surface(
        x, y, z, cmap=COLOURS, vmin=low, vmax=high, rcount=80, ccount=80,
        linewidth=0.15, edgecolor=style.PAPER, alpha=0.85, rasterized=True, zorder=1.0,
    )  # fmt: skip


@paint.register
def _(mark: Path, axes: Any, order: float) -> None:
    axes.plot(
        mark.x, mark.y, mark.z,
        linestyle=DASHES[mark.look.dash], zorder=order, markersize=mark.look.size,
        **stroke(mark.look), **marker(mark.look if mark.x.size == 1 else mark.look.but(marker="")),
    )  # fmt: skip


@paint.register
def _(mark: Cells, axes: Axes, order: float) -> None:
    assert mark.bar.range is not None
    low, high = mark.bar.range
    axes.grid(visible=False)
    axes.set_facecolor(style.BLANK)
    axes.imshow(mark.z, cmap=COLOURS, vmin=low, vmax=high, aspect="auto", zorder=1.0, interpolation="nearest")
    axes.tick_params(length=0)
    for j, row in enumerate(mark.texts):
        for i, text in enumerate(row):
            axes.text(i, j, text, ha="center", va="center", color=mark.inks[j][i], size=style.TEXT - 0.5)
