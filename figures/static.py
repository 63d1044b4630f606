"""Draws a scene with matplotlib: PNG, PDF and SVG. No arithmetic on data, no global state, no pyplot."""

from __future__ import annotations

import io
import textwrap
from dataclasses import dataclass
from typing import Any

import matplotlib
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, NullFormatter

from figures import style
from figures.layout import BOLD, CHARACTER, Box, plan, shortened, upright
from figures.marks import Axis, Contours, Scene
from figures.painting import COLOURS, DASHES, marker, paint, stroke
from figures.style import Look

MM = 1 / 25.4
LINE = 3.4
"""Height of a line of the caption in mm."""
CHARACTERS = 142
"""Characters of the caption in one line of `style.WIDTH`."""
SAMPLE = 12.0
"""Width of the line in an entry of the legend, in mm."""

RC: Any = {
    "font.family": [style.FONT_STATIC],
    "font.size": style.TEXT,
    "text.color": style.INK,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.edgecolor": style.INK,
    "axes.labelcolor": style.INK,
    "axes.labelsize": style.TEXT,
    "axes.titlesize": style.TEXT + 1,
    "axes.linewidth": 0.6,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.limits": (-4, 5),
    "xtick.labelsize": style.TEXT - 0.5,
    "ytick.labelsize": style.TEXT - 0.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.minor.width": 0.4,
    "ytick.minor.width": 0.4,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "xtick.minor.size": 1.5,
    "ytick.minor.size": 1.5,
    "lines.dash_capstyle": "butt",
    "hatch.linewidth": 0.4,
    "hatch.color": style.FAINT,
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "svg.hashsalt": "landscape",
    "path.simplify": False,
}


@dataclass(frozen=True)
class Frame:
    """The figure's height in mm and the room of title and legend above the panels."""

    height: float
    head: float
    title: float
    caption: str


def render(scene: Scene, suffix: str, dpi: int = style.DPI) -> bytes:
    """The scene as the bytes of a file of this kind (`.png`, `.pdf` or `.svg`); the same scene gives the same bytes."""
    with matplotlib.rc_context(), io.BytesIO() as stream:
        matplotlib.rcParams.update(matplotlib.rcParamsDefault)
        matplotlib.rcParams.update(RC)
        figure(scene).savefig(stream, format=suffix.lstrip("."), dpi=dpi, metadata=_metadata(scene, suffix))
        return stream.getvalue()


def size(scene: Scene) -> tuple[float, float]:
    """Width and height of the whole figure in mm."""
    return style.WIDTH, _frame(scene, plan(scene).height).height


def figure(scene: Scene) -> Figure:
    """The scene as a matplotlib figure, sized in mm; draw it inside the style's settings, as `render` does."""
    placed = plan(scene)
    frame = _frame(scene, placed.height)
    canvas = Figure(figsize=(style.WIDTH * MM, frame.height * MM), facecolor=style.PAPER)
    for box in placed.boxes:
        _panel(canvas, box, frame)
    _words(canvas, scene, frame)
    return canvas


def _frame(scene: Scene, height: float) -> Frame:
    caption = "\n".join(textwrap.wrap(scene.caption, CHARACTERS))
    title = 6.5 if scene.title else 2.0
    head = title + 5.0 * -(-len(scene.legend) // _columns(scene))
    foot = LINE * len(caption.splitlines()) + (3.0 if caption else 0.0)
    return Frame(head + height + foot, head, title, caption)


def _columns(scene: Scene) -> int:
    widths = [SAMPLE + CHARACTER * len(key.label) for key in scene.legend] or [SAMPLE]
    if sum(widths) <= style.WIDTH:
        return len(widths)
    return max(1, int(style.WIDTH / max(widths)))


def _metadata(scene: Scene, suffix: str) -> dict[str, Any]:
    title, caption = scene.title, scene.caption
    return {
        ".png": {"Title": title, "Description": caption, "Software": None},
        ".pdf": {"Title": title, "Subject": caption, "CreationDate": None, "Producer": None, "Creator": None},
        ".svg": {"Title": title, "Description": caption, "Date": None, "Creator": None},
    }[suffix]


def _words(canvas: Figure, scene: Scene, frame: Frame) -> None:
    left = 2.0 / style.WIDTH
    size = style.TEXT
    if scene.title:
        title = shortened(scene.title, int((style.WIDTH - 4.0) / (BOLD * 1.1)))
        canvas.text(left, 1 - 2.0 / frame.height, title, size=size + 2, weight="bold", va="top")
    if frame.caption:
        canvas.text(left, 1.5 / frame.height, frame.caption, size=size - 0.5, va="bottom", linespacing=1.3)
    if scene.legend:
        handles = [_handle(key.label, key.look) for key in scene.legend]
        canvas.legend(
            handles=handles,
            loc="upper left",
            bbox_to_anchor=(left, 1 - (frame.title - 1.0) / frame.height),
            ncols=_columns(scene),
            frameon=False,
            borderpad=0.0,
            borderaxespad=0.2,
            handlelength=3.2,
            columnspacing=1.6,
        )


def _handle(label: str, look: Look) -> Line2D:
    lined = not (look.marker and look.fill)
    handle = Line2D([], [], label=_visible(label), **stroke(look), **marker(look), markersize=look.size)
    handle.set_linestyle(DASHES[look.dash] if lined else "none")
    return handle


def _visible(label: str) -> str:
    """A legend hides labels that begin with an underscore; a space of no width keeps them."""
    return f"\u200b{label}" if label.startswith("_") else label


def _panel(canvas: Figure, box: Box, frame: Frame) -> None:
    bottom = frame.height - frame.head - box.top - box.height
    place = (
        box.left / style.WIDTH,
        bottom / frame.height,
        box.width / style.WIDTH,
        box.height / frame.height,
    )
    axes = _axes_relief(canvas, place, box) if box.panel.z else _axes_flat(canvas, place, box)
    axes.set_title(box.panel.title, loc="left", pad=3.0, weight="bold")
    for order, mark in enumerate(box.panel.marks):
        paint(mark, axes, 2.0 + 0.001 * order)
    if box.bar:
        _bar(canvas, box, place)


def _axes_flat(canvas: Figure, place: tuple[float, float, float, float], box: Box) -> Any:
    axes = canvas.add_axes(place)
    axes.set_axisbelow(True)
    axes.grid(color=style.GRID, linewidth=0.5)
    for side in ("top", "right"):
        axes.spines[side].set_visible(box.panel.aspect is not None)
    _axis(box.panel.x, axes.xaxis, axes.set_xlim, axes.set_xscale)
    _axis(box.panel.y, axes.yaxis, axes.set_ylim, axes.set_yscale)
    for ours, axis, most in zip((box.panel.x, box.panel.y), (axes.xaxis, axes.yaxis), box.most, strict=True):
        if not ours.ticks and ours.scale == "linear" and most < max(2, axis.get_tick_space()):
            axis.set_major_locator(MaxNLocator(most, steps=[1, 2, 2.5, 5, 10], min_n_ticks=1))
    if upright(box.panel.x, box.width):
        axes.tick_params(axis="x", labelrotation=90)
    if box.panel.aspect is not None:
        axes.set_aspect(box.panel.aspect)
    return axes


def _axes_relief(canvas: Figure, place: tuple[float, float, float, float], box: Box) -> Any:
    axes: Any = canvas.add_axes(place, projection="3d", computed_zorder=False)
    assert box.panel.z is not None
    axes.view_init(elev=32, azim=-58)
    axes.set_box_aspect((4, 4, 2.8), zoom=1.0)
    axes.tick_params(pad=-2)
    for axis, ours, limits in (
        (axes.xaxis, box.panel.x, axes.set_xlim3d),
        (axes.yaxis, box.panel.y, axes.set_ylim3d),
        (axes.zaxis, box.panel.z, axes.set_zlim3d),
    ):
        _axis(ours, axis, limits, None)
        axis.labelpad = -5
        axis.set_pane_color(style.PAPER)
    return axes


def _axis(ours: Axis, axis: Any, limits: Any, scale: Any) -> None:
    axis.set_label_text(ours.label)
    if ours.scale == "log":
        scale("log")
        axis.set_minor_formatter(NullFormatter())
    if ours.ticks:
        axis.set_ticks(ours.ticks, labels=ours.texts)
    if ours.range:
        limits(*ours.range)


def _bar(canvas: Figure, box: Box, place: tuple[float, float, float, float]) -> None:
    left, bottom, width, height = place
    axes = canvas.add_axes((left + width + 1.5 / style.WIDTH, bottom, 2.2 / style.WIDTH, height))
    bar, contours = box.bar, [m for m in box.panel.marks if isinstance(m, Contours)]
    assert bar is not None
    assert bar.range is not None
    colours = ListedColormap(list(contours[0].colours)) if contours else COLOURS
    drawn = canvas.colorbar(ScalarMappable(Normalize(*bar.range), colours), cax=axes)
    drawn.set_ticks(list(bar.ticks), labels=list(bar.texts))
    drawn.set_label(bar.label, labelpad=2.0)
    drawn.outline.set_linewidth(0.5)
