"""How far a plane can be trusted about the trajectories on it: gaps of the loss, what it shows, how stable it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import AVERAGE, Array, Faithfulness, Feet, PlaneStability
from figures import style
from figures.marks import Axis, Band, Column, Key, Line, Mark, Panel, Points, Row, Scene, Segments, grid
from figures.scenes.conditions import causes_of_gaps
from figures.scenes.many import FRAME, PAGE, Most, on_a_page
from figures.scenes.scales import common_scale, finite, log_axis
from figures.scenes.seeds import markers
from figures.scenes.words import count, excluded, listed, seeds_of, sentences
from figures.style import Look

NORMAL = 1.96
"""Standard errors on each side of a 95 % interval."""
COLUMNS = 2
LINE = 6.0
"""Height of one line of the shares and of the angles in mm."""
APART = 0.16
"""Distance of a run's two markers from the middle of its line, in lines."""
TRUE, FOOT = Look(style.INK), Look(style.INK, "dash", width=1.0)
SHOWN = Look(style.COLOURS[0], marker="circle", width=1.2, fill=style.COLOURS[0])
WALKS = Look(style.COLOURS[1], marker="square", width=1.2, fill=style.PAPER)
ANGLES = tuple(Look(c, marker=m, fill=c) for c, m in ((style.COLOURS[2], "circle"), (style.INK, "diamond")))
SHARES, DEGREES = (0.0, 0.25, 0.5, 0.75, 1.0), (0.0, 15.0, 30.0, 45.0, 60.0, 75.0, 90.0)
PANELS = ("variance, first axis", "variance, second axis", "distance travelled")


@dataclass(frozen=True, eq=False)
class _Pair:
    """One run's true loss, the loss at the foot, and the half width of the gap's 95 % interval, [S] each."""

    feet: Feet
    true: Array
    foot: Array
    half: Array


def gap(feet: Sequence[Feet], order: Sequence[str] = ()) -> Scene:
    """The true loss of every task, and of their average, beside the loss at the foot in the plane, against the step.

    Solid: the true loss of each run. Dashed: the plane's loss below it, within the 95 % interval of the paired gap, so
    that a solid line outside the band has a gap that the examples tell from zero. A last row has the distance off the
    plane. `order` names strategies whose looks come first.
    """
    every = style.looks([*order, *(one.run.label for one in feet)])
    looks = {one.run.label: every[one.run.label].but(dash="solid") for one in feet}
    views = _views(feet)
    losses = [np.concatenate([v for p in pairs for v in (p.true, p.foot)]) for pairs in views.values()]
    scale = common_scale(losses)
    panels = tuple(_panel(title, pairs, scale == "log", looks) for title, pairs in views.items())
    lost = sum(int((~np.isfinite(one.true)).sum() + (~np.isfinite(one.foot)).sum()) for one in feet)
    last = _distance(feet, looks)
    rows, few = on_a_page(panels, Most.varied(losses), COLUMNS, 46.0, PAGE - last.height - FRAME)
    caption = sentences(
        f"Solid: true loss of the snapshots over {_examples(feet)}; dashed: loss at their feet, the nearest points of "
        f"the plane. One pair of lines a run, {seeds_of([one.run for one in feet])}.",
        "A gap means that a surface over the plane does not show the loss that the trajectory had there: the effect of "
        f"{causes_of_gaps(feet)}.",
        few,
        "Bands: 95 % interval of the gap, paired over examples, around the dashed line.",
        _gap_words(views),
        "Logarithmic loss axes." if scale == "log" else "",
        _cut_words(views) if scale == "log" else "",
        excluded(lost, "the losses"),
    )
    legend = (
        *(Key(label, look) for label, look in looks.items()),
        Key("true loss", TRUE),
        Key("loss at the foot, in the plane", FOOT),
    )
    return Scene("True loss beside the plane's loss below", caption, (*rows, last), legend)


def _views(feet: Sequence[Feet]) -> dict[str, list[_Pair]]:
    """By the panel's title: the tasks, then their average where a run has several."""
    views: dict[str, list[_Pair]] = {}
    for one in feet:
        for k, task in enumerate(one.tasks):
            pair = _Pair(one, one.true[:, k], one.foot[:, k], NORMAL * one.gap_stderr[:, k])
            views.setdefault(task, []).append(pair)
    for one in feet:
        if len(one.tasks) > 1:
            pair = _Pair(one, one.true.mean(1), one.foot.mean(1), NORMAL * one.average_gap_stderr)
            views.setdefault(f"{AVERAGE} of {count(len(one.tasks), 'task')}", []).append(pair)
    return views


def _panel(title: str, pairs: Sequence[_Pair], logarithmic: bool, looks: dict[str, Look]) -> Panel:
    values = [v for pair in pairs for v in (pair.true, pair.foot)]
    floor = float(finite(values).min(initial=np.inf)) / 2 if logarithmic else -np.inf
    marks = tuple(mark for pair in pairs for mark in _lines(pair, floor, looks[pair.feet.run.label]))
    return Panel(title, Axis("step"), log_axis("loss", *values) if logarithmic else Axis("loss"), marks)


def _lines(pair: _Pair, floor: float, look: Look) -> list[Mark]:
    feet, label = pair.feet, pair.feet.run.label
    low, high = np.maximum(pair.foot - pair.half, floor), pair.foot + pair.half
    told = _told(pair)
    dashed = look.but(dash="dash", width=1.0, fill=style.PAPER)
    marks: list[Mark] = [Band(feet.steps, low, high, look, label)] if np.isfinite(pair.half).any() else []
    for value, one in ((pair.foot, dashed), (pair.true, look)):
        marks += [Line(feet.steps, value, one.but(marker=""), label, told), *markers(feet.steps, value, one, label)]
    return marks


def _told(pair: _Pair) -> tuple[Column, ...]:
    feet = pair.feet
    return (
        Column("strategy", np.full(feet.steps.size, feet.run.label)),
        Column("seed", np.full(feet.steps.size, feet.run.seed)),
        Column("step", feet.steps),
        Column("true loss", pair.true),
        Column("loss at the foot", pair.foot),
        Column("gap", pair.true - pair.foot),
        Column("standard error of the gap", pair.half / NORMAL),
        Column("distance off the plane", feet.off_plane),
    )


def _distance(feet: Sequence[Feet], looks: dict[str, Look]) -> Row:
    marks: list[Mark] = []
    for one in feet:
        look, label = looks[one.run.label], one.run.label
        told = (
            Column("strategy", np.full(one.steps.size, label)),
            Column("seed", np.full(one.steps.size, one.run.seed)),
        )
        marks += [Line(one.steps, one.off_plane, look.but(marker=""), label, told)]
        marks += markers(one.steps, one.off_plane, look, label)
    top = float(finite([one.off_plane for one in feet]).max(initial=0.0))
    y = Axis("parameter units", range=(0.0, 1.08 * top or 1.0))
    return Row((Panel("distance off the plane", Axis("step"), y, tuple(marks)),), 1, 22.0)


def _examples(feet: Sequence[Feet]) -> str:
    return listed(dict.fromkeys(count(one.examples, f"{one.split} example") for one in feet))


def _gap_words(views: dict[str, list[_Pair]]) -> str:
    """How many of the gaps are told from zero, and how large they are."""
    pairs = [pair for title, group in views.items() if not title.startswith(f"{AVERAGE} of ") for pair in group]
    gaps = np.concatenate([p.true - p.foot for p in pairs] or [np.empty(0)])
    halves, true = (np.concatenate([getattr(p, name) for p in pairs] or [np.empty(0)]) for name in ("half", "true"))
    with np.errstate(invalid="ignore", divide="ignore"):
        shares = finite([np.abs(gaps / true)])
    known = np.isfinite(gaps) & np.isfinite(halves)
    beyond = int((np.abs(gaps[known]) > halves[known]).sum())
    return sentences(
        f"{beyond} of {count(int(known.sum()), 'gap')} of the tasks exceed their interval." if known.any() else "",
        f"The median gap is {np.median(shares):.1%} of the true loss." if shares.size else "",
    )


def _cut_words(views: dict[str, list[_Pair]]) -> str:
    cut = sum(int((pair.foot - pair.half <= 0).sum()) for pairs in views.values() for pair in pairs)
    return f"{count(cut, 'band edge')} that would reach zero or less end at half the least loss." if cut else ""


def shares(found: Faithfulness, stability: PlaneStability | None = None) -> Scene:
    """What a plane shows of the variance and of the distance of each run and of all, beside random walks.

    Filled: the trajectories in the plane. Hollow: random walks with the same starts and step lengths in their own best
    plane, mean over draws with a bar of one standard deviation on each side. Below, where they are given, the principal
    angles between the plane and those without a run or without some of the snapshots.
    """
    names = runs(found)
    axis = Axis("share", range=(-0.03, 1.03), ticks=SHARES, texts=tuple(f"{share:.0%}" for share in SHARES))
    blank = ("",) * len(names)
    panels = tuple(
        Panel(title, axis, _lines_axis(blank if k else names), _share_marks(names, shown))
        for k, (title, shown) in enumerate(zip(PANELS, columns(found), strict=True))
    )
    legend = [Key("trajectories, in the plane", SHOWN), Key("random walks, in their best plane", WALKS)]
    rows = list(grid(panels, len(panels), LINE * len(names) + 4.0))
    if stability is not None:
        rows.append(_angle_row(stability))
        legend += [Key("smaller angle", ANGLES[0]), Key("larger angle", ANGLES[1])]
    first, second = found.axes
    caption = sentences(
        f"Shares of the variance about the plane's origin, along the {first} and along the {second}, and of the "
        "distance travelled between stored snapshots.",
        "In all runs together each run weighs equally in the variance." if len(names) > 1 else "",
        f"Random walks take over the runs' starts and step lengths, with random directions in {found.dimension} "
        f"dimensions: mean and standard deviation over {count(found.draws, 'draw')}. Where the plane shows no more "
        "than that, its picture is no evidence of structure.",
        excluded(sum(int((~np.isfinite(mine)).sum()) for mine, _, _ in columns(found)), "the shares"),
        _angle_words(stability),
    )
    title = "What the plane shows of the trajectories"
    return Scene(title, caption, tuple(rows), tuple(legend))


def runs(found: Faithfulness) -> tuple[str, ...]:
    """The runs and all of them together, or the one run that is all."""
    return found.runs[:1] if len(found.runs) == 2 else found.runs


def columns(found: Faithfulness) -> tuple[tuple[Array, Array, Array], ...]:
    """Shares of the variance along both axes and of the distance, for `runs`: the plane's, the walks', their spread."""
    three = (
        *zip(found.variance.T, found.walk_variance.T, found.walk_variance_spread.T, strict=True),
        (found.distance, found.walk_distance, found.walk_distance_spread),
    )
    kept = len(runs(found))
    return tuple((mine[:kept], walk[:kept], spread[:kept]) for mine, walk, spread in three)


def _lines_axis(texts: tuple[str, ...]) -> Axis:
    places = tuple(float(k) for k in range(len(texts)))
    return Axis("", range=(len(texts) - 0.5, -0.5), ticks=places, texts=texts)


def _share_marks(names: tuple[str, ...], shown: tuple[Array, Array, Array]) -> tuple[Mark, ...]:
    mine, walk, spread = shown
    places = np.arange(len(names), dtype=float)
    size = np.full(len(names), 5.0)
    below = places + APART
    told = (
        Column("run", np.array(names)),
        Column("in the plane", mine),
        Column("random walks", walk),
        Column("their standard deviation", spread),
    )
    return (
        Segments(walk - spread, below, walk + spread, below, WALKS.but(marker=""), "walks"),
        Points(walk, below, size, WALKS, "walks", told),
        Points(mine, places - APART, size, SHOWN, "trajectories", told),
    )


def _angle_row(stability: PlaneStability) -> Row:
    texts = tuple(
        name if np.isfinite(angles).all() else f"{name}: no plane"
        for name, angles in zip(stability.left_out, stability.angles, strict=True)
    )
    places = np.arange(len(texts), dtype=float)
    size = np.full(len(texts), 5.0)
    low, high = stability.angles.T
    told = (
        Column("left out", np.array(stability.left_out)),
        Column("smaller angle", low),
        Column("larger angle", high),
    )
    smaller, larger = ANGLES
    marks = (
        Segments(low, places, high, places, Look(style.FAINT, width=0.8)),
        Points(high, places, size, larger, "larger angle", told),
        Points(low, places, size, smaller, "smaller angle", told),
    )
    label = "principal angles to the plane of all snapshots, in degrees"
    x = Axis(label, range=(-2.0, 92.0), ticks=DEGREES, texts=tuple(f"{angle:g}" for angle in DEGREES))
    panel = Panel("how the plane turns without", x, _lines_axis(texts), marks)
    return Row((panel,), 1, LINE * len(texts) + 4.0)


def _angle_words(stability: PlaneStability | None) -> str:
    if stability is None:
        return ""
    gone = int((~np.isfinite(stability.angles).all(1)).sum())
    return sentences(
        "Angles: how far the principal plane turns when a run or some snapshots of every run are left out; 0 is the "
        "same plane, 90 shares no direction.",
        f"{count(gone, 'case')} in which no plane is left." if gone else "",
    )
