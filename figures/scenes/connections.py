"""What lies between runs: barriers, losses along paths, where runs part, what they compute differently."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import AVERAGE, Array, Barriers, FunctionDistances, PathLosses, PointDistances, Separation
from figures import style
from figures.marks import Axis, Band, Cells, Column, Key, Line, Mark, Panel, Points, Scene, Segments, grid
from figures.scenes.lines import NORMAL
from figures.scenes.scales import even_levels, finite, tick_texts
from figures.scenes.words import count, sentences
from figures.style import Look

WRITTEN = 9
"""Matrices of at most this many points have their values written in the cells."""
HALF = 0.55
"""Text is light on colours below this share of the range."""
COLUMNS = 2
PATHS = 4
"""Pairs whose losses are drawn along the way: those of the largest barriers; so many rows fit a page."""


def barriers(record: Barriers, beside: Sequence[Barriers] = ()) -> Scene:
    """Barriers between all points as one heat map a task, and one of their average, on one scale; that of `beside`,
    barriers on other paths, is the same, so that what a curve or an alignment takes away is seen.
    """
    top = _top(np.concatenate([one.barrier.ravel() for one in (record, *beside)]))
    bar = _bar("barrier (loss)", top)
    panels = tuple(
        _matrix(_view_name(view, record.views), record.points, values, top, bar, k == 0)
        for k, (view, values) in enumerate(zip(record.views, record.barrier, strict=True))
    )
    missing = int(np.isnan(record.barrier[-1]).sum() // 2)
    caption = sentences(
        f"Barrier: the largest height of the loss above the straight line between the ends' losses, in loss units, on "
        f"{record.samples} points of the {record.path} between two points; {conditions_of(record)}; "
        f"{count(record.examples, f'{record.split} example')}.",
        "All panels share one scale" + (", with those of the other paths." if len(beside) > 1 else "."),
        f"{count(missing, 'pair')} without a barrier left blank." if missing else "",
        "A maximum of noisy values is too large on average; errors are in the table.",
    )
    return Scene(f"Barriers: {matrix_title(record)}", caption, grid(panels, COLUMNS, 62.0 + 2.0 * len(record.points)))


def paths(records: Sequence[PathLosses]) -> Scene:
    """The loss of every task along the paths between some pairs, one row of panels a pair; several kinds of path
    (straight, aligned, a trained curve) are drawn over each other.

    Bands: 95 % intervals over examples of the height above the dotted line between the ends' losses, drawn around the
    loss. Of many pairs those with the largest barrier on the first kind of path.
    """
    first = records[0]
    kinds = _kinds(records)
    looks = style.looks(kinds)
    columns = min(len(first.views), 4)
    chosen = _highest(first)[: max(1, PATHS * columns // len(first.views))]
    views = _furthest(first, chosen, PATHS * columns)
    panels = []
    for number, pair in enumerate(chosen, start=1):
        for view in views:
            marks: list[Mark] = []
            for record, kind in zip(records, kinds, strict=True):
                where = _same_pair(record, first, pair)
                if where is not None:
                    marks += _along(record, where, view, looks[kind], kind)
            title = f"{number}: {first.views[view]}"
            label = "loss" if view == views[0] else ""
            panels.append(Panel(title, Axis("t", range=(0.0, 1.0)), Axis(label), tuple(marks)))
    left = int(first.done.sum()) - len(chosen)
    caption = sentences(
        f"Loss of every task and of their average along paths of all parameters, heads {first.heads}; "
        f"{count(first.t.size, 'point')} each, "
        f"{count(first.examples, f'{first.split} example')}.",
        "Dotted: the straight line between the ends' losses; a barrier is the largest height above it.",
        "Bands: 95 % intervals over examples of that height, pointwise.",
        *(f"{k}: from {first.starts[p]} (t = 0) to {first.ends[p]} (t = 1)." for k, p in enumerate(chosen, start=1)),
        f"The {count(len(chosen), 'pair')} with the largest barrier; {left} more were measured." if left else "",
        f"Of {len(first.views)} losses the {len(views)} that range furthest, the average among them."
        if len(views) < len(first.views)
        else "",
        _beyond(records),
    )
    legend = tuple(Key(kind, looks[kind]) for kind in kinds)
    return Scene("Loss along paths", caption, grid(tuple(panels), columns, 40.0), legend)


def separation(records: Sequence[Separation]) -> Scene:
    """How far two runs of one seed are apart against the step: in parameter units beside both net distances, relative
    to them, and the angle between both displacements; and the principal angles of the spaces they travel in.
    """
    names = [f"{r.first.name} and {r.second.name}" for r in records]
    looks = style.looks(names)
    distance: list[Mark] = []
    relative: list[Mark] = []
    angles: list[Mark] = []
    for record, name in zip(records, names, strict=True):
        look = looks[name].but(size=3.0)
        told = (Column("step", record.steps), Column("distance", record.distance), Column("relative", record.relative))
        distance += _line(record.steps, record.distance, look, name, told)
        relative += _line(record.steps, record.relative, look, name, told)
        angles += _line(np.arange(1, record.angles.size + 1), record.angles, look, name, ())
    first = records[0]
    ends = (float(min(r.steps[0] for r in records)), float(max(r.steps[-1] for r in records)))
    relative.insert(0, _level(ends, 1.0, Look(style.FAINT, "dot", width=0.9)))
    relative += [_level(ends, t, Look(style.INK, "dash", width=0.8)) for t in sorted({r.threshold for r in records})]
    reach = 1.05 * max(1.0, *(float(np.nanmax(r.relative, initial=0.0)) for r in records))
    most = max(records, key=lambda r: r.null_angles.size)
    random = Key("random subspaces (median)", Look(style.FAINT, "dash", "triangle-down", width=0.9, size=3.5))
    if most.null_angles.size:
        angles += _line(np.arange(1, most.null_angles.size + 1), most.null_angles, random.look, random.label, ())
    numbers = range(1, most.null_angles.size + 1)
    panels = (
        Panel("distance", Axis("step"), Axis("parameter units"), tuple(distance)),
        Panel(
            "relative to both net distances",
            Axis("step"),
            Axis("1: at a right angle", range=(0.0, reach)),
            tuple(relative),
        ),
        Panel(
            "spaces of the increments",
            Axis(
                "principal angle, by its number", ticks=tuple(float(n) for n in numbers), texts=tuple(map(str, numbers))
            ),
            Axis("degrees", range=(0.0, 92.0)),
            tuple(angles),
        ),
    )
    parted = [
        f"{name} {'at step ' + str(r.parted) if r.parted >= 0 else 'never'}"
        for name, r in zip(names, records, strict=True)
    ]
    caption = sentences(
        f"Runs of one seed from the same start, over the parameters: {first.subset} ({first.dimension} entries).",
        "Relative distance: ||u \u2212 v|| / sqrt(||u||\u00b2 + ||v||\u00b2) of the displacements from the start; "
        "dotted at 1, where they are at a right angle; dashed: the threshold.",
        f"Above it first: {'; '.join(parted[:6])}{'; ...' if len(parted) > 6 else ''}.",
        "Principal angles: between the leading directions of both runs' increments; 0 is a shared direction.",
    )
    legend = (*(Key(name, looks[name]) for name in names), *((random,) if most.null_angles.size else ()))
    return Scene("Where runs of one seed part", caption, grid(panels, 3, 46.0), legend)


def disagreement(record: FunctionDistances) -> Scene:
    """What every two points compute differently: a heat map a task of disagreement, and one of per-example losses.

    Tasks whose disagreement is a share have one scale, from 0; the others, and all losses, one each.
    """
    panels = []
    shares = record.disagreement[record.shares.astype(bool)]
    common = _top(shares) if len(shares) else 1.0
    for t, task in enumerate(record.tasks):
        share = bool(record.shares[t])
        top = common if share else _top(record.disagreement[t])
        bar = _bar("share of examples" if share else "RMS of predictions", top)
        panels.append(_matrix(f"{task}: predictions", record.points, record.disagreement[t], top, bar, True))
        top = _top(record.loss[t])
        panels.append(_matrix(f"{task}: losses", record.points, record.loss[t], top, _bar("RMS of losses", top), False))
    caption = sentences(
        *(f"{task}: {rule}." for task, rule in zip(record.tasks, record.rules, strict=True)),
        "Losses: root mean square over examples of the difference of each example's loss.",
        f"{count(record.examples, f'{record.split} example')}.",
        "Shares have one scale, everything else its own." if len(shares) else "Every panel has its own scale.",
    )
    height = 62.0 + 2.0 * len(record.points)
    return Scene("What the points compute differently", caption, grid(tuple(panels), COLUMNS, height))


def point_distances(record: PointDistances) -> Scene:
    """Distances in weights between points as a heat map; beside it the same with hidden units matched."""
    top = _top(record.distance)
    bar = _bar("distance (parameter units)", top)
    aligned = bool(np.isfinite(record.aligned).any())
    panels = [_matrix("as they are" if aligned else "distance", record.points, record.distance, top, bar, True)]
    if aligned:
        panels.append(_matrix("hidden units matched", record.points, record.aligned, top, bar, False))
    caption = sentences(
        f"||theta_i \u2212 theta_j|| over the parameters: {record.subset}, in parameter units.",
        f"Matched: {record.alignment}; both panels share one scale." if aligned else "",
    )
    height = 70.0 + 2.0 * len(record.points)
    return Scene("Distances in weights", caption, grid(tuple(panels), COLUMNS, height))


def matrix_title(record: Barriers | PathLosses) -> str:
    """What tells one set of paths from another: `straight lines, hidden units matched, statistics estimated again`."""
    words = [f"{record.path}s"]
    if record.alignment != "none":
        words.append("hidden units matched")
    if record.batch_norm not in ("none", "interpolated"):
        words.append("statistics estimated again")
    if record.heads != "interpolated":
        words.append("heads fitted again")
    return ", ".join(words)


def conditions_of(record: Barriers | PathLosses) -> str:
    """Heads, statistics and hidden units, in words."""
    norm = "" if record.batch_norm == "none" else f", normalisation statistics {record.batch_norm}"
    units = "" if record.alignment == "none" else f", {record.alignment}"
    return f"heads {record.heads}{norm}{units}"


def _kinds(records: Sequence[PathLosses]) -> list[str]:
    return [matrix_title(record) for record in records]


def _view_name(view: str, views: Sequence[str]) -> str:
    return f"average of {count(len(views) - 1, 'task')}" if view == AVERAGE else view


def _highest(record: PathLosses) -> list[int]:
    height = np.where(record.done, np.nan_to_num(record.barrier[:, -1], nan=np.inf), -np.inf)
    return [int(k) for k in np.argsort(-height, kind="stable")[:PATHS] if record.done[k]]


def _furthest(record: PathLosses, pairs: Sequence[int], most: int) -> list[int]:
    """The losses that are drawn: the average, which is the last, and those that range furthest along some pairs."""
    ranges = [
        float(np.ptp(finite([record.loss[list(pairs), view]]).tolist() or [0.0])) for view in range(len(record.views))
    ]
    first = sorted(range(len(ranges)), key=lambda view: (view != len(ranges) - 1, -ranges[view]))
    return sorted(first[:most])


def _same_pair(record: PathLosses, first: PathLosses, pair: int) -> int | None:
    wanted = (first.starts[pair], first.ends[pair])
    for k, ends in enumerate(zip(record.starts, record.ends, strict=True)):
        if ends == wanted and record.done[k]:
            return k
    return None


def _along(record: PathLosses, pair: int, view: int, look: Look, group: str) -> list[Mark]:
    t, loss, error = record.t, record.loss[pair, view], record.excess_stderr[pair, view]
    told = (
        Column("t", t),
        Column("loss", loss),
        Column("height above the ends' line", record.excess[pair, view]),
        Column("its standard error", error),
    )
    marks: list[Mark] = [Line(t[[0, -1]], loss[[0, -1]], Look(style.FAINT, "dot", width=0.9))]
    if np.isfinite(error).any():
        marks.append(Band(t, loss - NORMAL * error, loss + NORMAL * error, look, group))
    marks.append(Line(t, loss, look.but(marker=""), group, told))
    marks.append(Points(t, loss, np.full(t.size, 2.2), look, group, told))
    return marks


def _line(x: Array, y: Array, look: Look, group: str, told: tuple[Column, ...]) -> list[Mark]:
    return [
        Line(np.asarray(x, float), y, look.but(marker=""), group, told),
        Points(np.asarray(x, float), y, np.full(y.size, look.size), look, group, told),
    ]


def _level(ends: tuple[float, float], value: float, look: Look) -> Segments:
    low, high = (np.array([end]) for end in ends)
    return Segments(low, np.array([value]), high, np.array([value]), look)


def _top(values: Array) -> float:
    """The largest finite value, above zero."""
    kept = values[np.isfinite(values)]
    return float(kept.max(initial=0.0)) or 1.0


def _bar(label: str, top: float) -> Axis:
    levels = even_levels(0.0, top)
    ticks = levels[:: int(np.ceil(levels.size / 6))]
    return Axis(
        label, range=(float(levels[0]), float(levels[-1])), ticks=tuple(ticks.tolist()), texts=tick_texts(ticks)
    )


def _matrix(title: str, points: Sequence[str], values: Array, top: float, bar: Axis, named: bool) -> Panel:
    size = len(points)
    written = size <= WRITTEN
    end = bar.range[1] if bar.range else top
    texts = tuple(tuple(f"{v:.2g}" if np.isfinite(v) else "" for v in row) for row in values) if written else ()
    inks = tuple(tuple(style.PAPER if v < HALF * end else style.INK for v in row) for row in values) if written else ()
    places = tuple(float(k) for k in range(size))
    numbers = tuple(str(k) for k in range(1, size + 1))
    names = tuple(f"{name}  {number}" for name, number in zip(points, numbers, strict=True))
    x = Axis("point, by its number", range=(-0.5, size - 0.5), ticks=places, texts=numbers)
    y = Axis("", range=(size - 0.5, -0.5), ticks=places, texts=names if named else numbers)
    return Panel(title, x, y, (Cells(np.asarray(values, float), texts, inks, bar),), aspect=1.0)


def _beyond(records: Sequence[PathLosses]) -> str:
    broken = sum(int((~np.isfinite(r.loss[r.done.astype(bool)])).any(1).sum()) for r in records)
    return f"{count(broken, 'point')} with a loss that is not finite, left blank." if broken else ""
