"""Draws a scene with plotly: zoom, hover, and three dimensions. No arithmetic on data."""

from __future__ import annotations

from typing import Any

import numpy as np
import plotly.graph_objects as go

from figures import style
from figures.layout import Box, plan
from figures.marks import Axis, Cells, Contours, Panel, Scene
from figures.traces import Place, key, plain, traces

TOOLS, KEYS, FOOT = 30, 34, 12
"""Room for plotly's buttons and for the legend above the panels, and room below them, in pixels."""


def figure(scene: Scene) -> Any:
    """The scene as a `plotly.graph_objects.Figure`, without title and caption, which the page around it carries."""
    placed = plan(scene)
    data: list[dict[str, Any]] = [key(entry.label, entry.look) for entry in scene.legend]
    layout = _layout(scene, placed.height)
    for number, box in enumerate(placed.boxes, start=1):
        place = Place(number, _bar_place(box, placed.height))
        for mark in box.panel.marks:
            data += traces(mark, place)
        _axes(layout, box, place, placed.height)
    if "xaxis" not in layout:  # the legend's own traces are flat
        layout |= {"xaxis": {"visible": False}, "yaxis": {"visible": False}}
    return go.Figure({"data": data, "layout": layout})


def _layout(scene: Scene, height: float) -> dict[str, Any]:
    head = TOOLS + KEYS * bool(scene.legend)
    total = round(height * style.PIXELS_PER_MM) + head + FOOT
    return {
        "template": {},
        "height": total,
        "autosize": True,
        "margin": {"l": 0, "r": 0, "t": head, "b": FOOT},
        "paper_bgcolor": style.PAPER,
        "plot_bgcolor": style.PAPER,
        "font": {"family": style.FONT_SCREEN, "size": style.SCREEN_TEXT, "color": style.INK},
        "legend": {
            "orientation": "h",
            "x": 0,
            "y": 1 - TOOLS / total,
            "yref": "container",
            "yanchor": "top",
            "itemsizing": "trace",
            "itemwidth": 44,
        },
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "font": {"family": style.FONT_SCREEN, "size": style.SCREEN_TEXT}},
        "annotations": [],
        "shapes": [],
    }


def _domain(box: Box, height: float) -> dict[str, list[float]]:
    top = 1 - box.top / height
    x = [box.left / style.WIDTH, (box.left + box.width) / style.WIDTH]
    return {"x": x, "y": [top - box.height / height, top]}


def _bar_place(box: Box, height: float) -> dict[str, Any]:
    domain = _domain(box, height)
    low, high = domain["y"]
    bar = box.bar or Axis("")
    return {
        "tickmode": "array",
        "tickvals": list(bar.ticks),
        "ticktext": [plain(text) for text in bar.texts],
        "title": {"text": plain(bar.label), "side": "right", "font": {"size": style.SCREEN_TEXT}},
        "tickfont": {"size": style.SCREEN_TEXT - 1},
        "x": domain["x"][1] + 0.004,
        "xanchor": "left",
        "y": (low + high) / 2,
        "yanchor": "middle",
        "len": high - low,
        "lenmode": "fraction",
        "thickness": 11,
        "xpad": 2,
        "ypad": 0,
        "outlinewidth": 0.5,
    }


def _axes(layout: dict[str, Any], box: Box, place: Place, height: float) -> None:
    panel, domain = box.panel, _domain(box, height)
    if panel.title:
        layout["annotations"].append(
            {
                "text": f"<b>{plain(panel.title)}</b>",
                "x": domain["x"][0],
                "y": domain["y"][1],
                "xref": "paper",
                "yref": "paper",
                "xanchor": "left",
                "yanchor": "bottom",
                "showarrow": False,
                "font": {"size": style.SCREEN_TEXT + 1},
            }
        )
    if panel.z:
        layout[f"scene{place.suffix}"] = _relief_axes(panel, domain)
        return
    x, y = _axis(panel.x), _axis(panel.y)
    x |= {"domain": domain["x"], "anchor": f"y{place.suffix}"}
    y |= {"domain": domain["y"], "anchor": f"x{place.suffix}"}
    if panel.aspect is not None:
        x |= {"constrain": "domain", "mirror": True}
        y |= {"constrain": "domain", "mirror": True, "scaleanchor": f"x{place.suffix}", "scaleratio": panel.aspect}
    layout[f"xaxis{place.suffix}"], layout[f"yaxis{place.suffix}"] = x, y
    if any(isinstance(mark, Contours | Cells) for mark in panel.marks):
        x["showgrid"] = y["showgrid"] = False
        layout["shapes"].append(_ground(place))


def _ground(place: Place) -> dict[str, Any]:
    return {
        "type": "rect",
        "layer": "below",
        "xref": f"x{place.suffix} domain",
        "yref": f"y{place.suffix} domain",
        "x0": 0,
        "x1": 1,
        "y0": 0,
        "y1": 1,
        "fillcolor": style.BLANK,
        "line": {"width": 0},
    }


def _relief_axes(panel: Panel, domain: dict[str, list[float]]) -> dict[str, Any]:
    assert panel.z is not None
    axes = {f"{name}axis": _axis(axis) for name, axis in (("x", panel.x), ("y", panel.y), ("z", panel.z))}
    for axis in axes.values():
        axis["title"] = {"text": axis["title"]["text"], "font": {"size": style.SCREEN_TEXT - 1}}
        axis["tickfont"] = {"size": style.SCREEN_TEXT - 2}
        for flat in ("automargin", "ticks", "showline", "linecolor", "zeroline"):
            axis.pop(flat)
    return {
        **axes,
        "domain": domain,
        "aspectmode": "manual",
        "aspectratio": {"x": 1, "y": 1, "z": 0.7},
        "camera": {"eye": {"x": 1.3, "y": -1.98, "z": 1.18}, "center": {"x": 0, "y": 0, "z": -0.1}},
    }


def _axis(axis: Axis) -> dict[str, Any]:
    drawn: dict[str, Any] = {
        "title": {"text": plain(axis.label), "standoff": 6, "font": {"size": style.SCREEN_TEXT}},
        "tickfont": {"size": style.SCREEN_TEXT - 1},
        "automargin": False,
        "type": axis.scale,
        "ticks": "outside",
        "showline": True,
        "zeroline": False,
        "linecolor": style.INK,
        "gridcolor": style.GRID,
    }
    if axis.ticks:
        drawn |= {"tickmode": "array", "tickvals": list(axis.ticks), "ticktext": [plain(text) for text in axis.texts]}
    if axis.scale == "log":
        drawn |= {"minor": {"ticks": "outside", "ticklen": 3, "dtick": "D1"}}
    if axis.range:
        drawn["range"] = [float(np.log10(end)) for end in axis.range] if axis.scale == "log" else list(axis.range)
    return drawn
