"""Single marks as plotly traces."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import singledispatch
from html import escape
from typing import Any

import numpy as np

from figures import style
from figures.marks import Axis, Band, Cells, Column, Contours, Line, Path, Points, Relief, Segments
from figures.style import Look

POINT = style.PIXELS_PER_MM * 25.4 / 72
"""Pixels in a point (1/72 inch)."""
SOLID_MARKERS = {"circle": "circle", "square": "square", "diamond": "diamond"}
"""Markers that plotly has in three dimensions."""


@dataclass(frozen=True)
class Place:
    """Where a mark goes: the axes' names in traces (`x2`, `y2`, or `scene2`), and the colour bar."""

    number: int
    bar: dict[str, Any]

    @property
    def suffix(self) -> str:
        return "" if self.number == 1 else str(self.number)

    @property
    def flat(self) -> dict[str, str]:
        return {"xaxis": f"x{self.suffix}", "yaxis": f"y{self.suffix}"}

    @property
    def solid(self) -> dict[str, str]:
        return {"scene": f"scene{self.suffix}"}


def plain(text: str) -> str:
    """Text that plotly shows as it is: neither its subset of HTML, nor its templates, nor TeX is read into it."""
    return escape(text, quote=False).replace("%{", "&#37;{").replace("$", "&#36;")


def _scale() -> list[list[Any]]:
    return [[float(where), colour] for where, colour in zip(np.linspace(0, 1, len(style.SURFACE)), style.SURFACE)]  # noqa: B905


def _grid_hover(bar: Axis) -> str:
    return f"x: %{{x:.4g}}<br>y: %{{y:.4g}}<br>{plain(bar.label)}: %{{customdata:.4g}}<extra></extra>"


def _stroke(look: Look) -> dict[str, Any]:
    return {"color": look.colour, "width": look.width * POINT, "dash": look.dash}


def _marker(look: Look, size: Any) -> dict[str, Any]:
    hollow = look.fill == "none"
    return {
        "symbol": f"{look.marker or 'circle'}{'-open' if hollow else ''}",
        "size": size,
        "color": look.colour if hollow else look.fill or look.colour,
        "line": {"color": look.colour, "width": look.width * POINT if look.fill else 0},
        "opacity": look.opacity,
    }


def key(label: str, look: Look) -> dict[str, Any]:
    """A trace without points, for the legend; a click on it shows and hides the marks of its group."""
    lined = not (look.marker and look.fill)
    return {
        "type": "scatter",
        "x": [None],
        "y": [None],
        "name": plain(label),
        "legendgroup": plain(label),
        "mode": "lines+markers" if lined and look.marker else "lines" if lined else "markers",
        "line": _stroke(look),
        "marker": _marker(look, look.size * POINT),
    }


def _group(group: str) -> dict[str, Any]:
    return {"legendgroup": plain(group), "showlegend": False, "name": plain(group)}


def _hover(columns: Sequence[Column]) -> dict[str, Any]:
    if not columns:
        return {"hoverinfo": "skip"}
    lines = []
    for k, column in enumerate(columns):
        number = ":.4g" if column.values.dtype.kind == "f" else ""
        lines.append(f"{plain(column.name)}: %{{customdata[{k}]{number}}}")
    rows = zip(*[_entries(column) for column in columns], strict=True)
    return {"customdata": [list(row) for row in rows], "hovertemplate": "<br>".join(lines) + "<extra></extra>"}


def _entries(column: Column) -> list[Any]:
    if column.values.dtype.kind in "US":
        return [plain(str(value)) for value in column.values]
    return [value if np.isfinite(value) else None for value in column.values.tolist()]


@singledispatch
def traces(mark: Any, place: Place) -> list[dict[str, Any]]:
    """One mark as plotly traces."""
    raise TypeError(f"expected a mark of figures.marks, got {type(mark).__name__}: add it to figures.interactive")


@traces.register
def _(mark: Line, place: Place) -> list[dict[str, Any]]:
    line = {"type": "scatter", "mode": "lines", "x": mark.x, "y": mark.y, "line": _stroke(mark.look)}
    return [line | {"opacity": mark.look.opacity} | _hover(mark.hover) | _group(mark.group) | place.flat]


@traces.register
def _(mark: Points, place: Place) -> list[dict[str, Any]]:
    size = np.asarray(mark.size, dtype=float) * POINT
    points = {"type": "scatter", "mode": "markers", "x": mark.x, "y": mark.y, "marker": _marker(mark.look, size)}
    return [points | {"cliponaxis": False} | _hover(mark.hover) | _group(mark.group) | place.flat]


@traces.register
def _(mark: Segments, place: Place) -> list[dict[str, Any]]:
    gap = np.full(mark.x0.size, np.nan)
    x = np.column_stack([mark.x0, mark.x1, gap]).ravel()
    y = np.column_stack([mark.y0, mark.y1, gap]).ravel()
    line = {"type": "scatter", "mode": "lines", "x": x, "y": y, "line": _stroke(mark.look), "connectgaps": False}
    return [line | {"opacity": mark.look.opacity, "hoverinfo": "skip"} | _group(mark.group) | place.flat]


@traces.register
def _(mark: Band, place: Place) -> list[dict[str, Any]]:
    edge = {"type": "scatter", "mode": "lines", "x": mark.x, "line": {"width": 0}, "hoverinfo": "skip"}
    edge |= _group(mark.group) | place.flat
    red, green, blue = (int(mark.look.colour[k : k + 2], 16) for k in (1, 3, 5))
    filled = {"y": mark.high, "fill": "tonexty", "fillcolor": f"rgba({red},{green},{blue},0.16)"}
    return [edge | {"y": mark.low}, edge | filled]


@traces.register
def _(mark: Contours, place: Place) -> list[dict[str, Any]]:
    if mark.levels.size == 0:
        return []
    stops = np.linspace(0, 1, len(mark.colours)) if len(mark.colours) > 1 else np.array([0.0, 1.0])
    colours = mark.colours if len(mark.colours) > 1 else mark.colours * 2
    inner = mark.levels[1:-1] if len(mark.colours) > 1 else mark.levels
    return [
        {
            "type": "contour",
            "x": mark.x,
            "y": mark.y,
            "z": mark.z,
            "customdata": mark.measured,
            "zmin": mark.levels[0],
            "zmax": mark.levels[-1],
            "autocontour": False,
            "contours": {
                "start": inner[0],
                "end": inner[-1],
                "size": mark.levels[1] - mark.levels[0],
                "coloring": "fill",
            },
            "colorscale": [[float(stop), colour] for stop, colour in zip(stops, colours, strict=True)],
            "line": {"width": 0.5, "color": "rgba(255,255,255,0.45)"},
            "connectgaps": False,
            "colorbar": place.bar,
            "hovertemplate": _grid_hover(mark.bar),
            **place.flat,
        }
    ]


@traces.register
def _(mark: Relief, place: Place) -> list[dict[str, Any]]:
    if mark.bar.range is None:
        return []
    low, high = mark.bar.range
    return [
        {
            "type": "surface",
            "x": mark.x,
            "y": mark.y,
            "z": mark.z,
            "customdata": mark.measured,
            "colorscale": _scale(),
            "cmin": low,
            "cmax": high,
            "opacity": 0.8,
            "connectgaps": False,
            "showscale": False,
            "hovertemplate": _grid_hover(mark.bar),
            **place.solid,
        }
    ]


@traces.register
def _(mark: Path, place: Place) -> list[dict[str, Any]]:
    single = mark.x.size == 1
    look = mark.look
    path = {"type": "scatter3d", "x": mark.x, "y": mark.y, "z": mark.z, "mode": "markers" if single else "lines"}
    marker = _marker(look, look.size) | {"symbol": SOLID_MARKERS.get(look.marker, "circle")}
    drawn = {"marker": marker} if single else {"line": _stroke(look) | {"width": look.width * 3}}
    return [path | drawn | _hover(mark.hover) | _group(mark.group) | place.solid]


@traces.register
def _(mark: Cells, place: Place) -> list[dict[str, Any]]:
    assert mark.bar.range is not None
    low, high = mark.bar.range
    cells = {
        "type": "heatmap",
        "z": mark.z,
        "zmin": low,
        "zmax": high,
        "colorscale": _scale(),
        "xgap": 1,
        "ygap": 1,
        "colorbar": place.bar,
        "hovertemplate": "row %{y}, column %{x}: %{z:.4g}<extra></extra>",
    }
    written = {"text": mark.texts, "texttemplate": "%{text}"} if mark.texts else {}
    return [cells | written | place.flat]
