"""The loss of every task along a line."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import AVERAGE, Array, Profile
from figures import style
from figures.marks import Axis, Band, Column, Key, Line, Mark, Panel, Points, Scene, grid
from figures.scenes.conditions import conditions
from figures.scenes.scales import common_scale, loss_axis
from figures.scenes.words import count, sentences
from figures.style import Look

NORMAL = 1.96
"""Standard errors on each side of a 95 % interval."""
COLUMNS = 2


def profile(profiles: Sequence[Profile]) -> Scene:
    """The loss of every task and of their average along a line, with 95 % intervals over examples, and every metric.

    Several profiles of one line (on other data, with other statistics) are drawn over each other.
    """
    first = profiles[0]
    names = [_name(p, profiles) for p in profiles]
    looks = style.looks(names)
    views = [*first.tasks, *([f"{AVERAGE} of {count(len(first.tasks), 'task')}"] if len(first.tasks) > 1 else [])]
    axis = Axis(first.line.axes[0])
    losses = [[_rows(p)[k] for p in profiles] for k in range(len(views))]
    logarithmic = common_scale([row[0] for group in losses for row in group]) == "log"
    panels = [
        Panel(view, axis, _loss_axis(group, logarithmic), _marks(profiles, group, names, looks))
        for view, group in zip(views, losses, strict=True)
    ]
    for k, metric in enumerate(first.metrics):
        group = [(p.scores[k], p.score_stderr[k]) for p in profiles]
        panels.append(Panel(metric, axis, Axis("mean over examples"), _marks(profiles, group, names, looks)))
    caption = sentences(
        f"Loss along the {first.line.recipe}; {count(first.x.size, 'point')}, marked where measured.",
        "Bands: 95 % intervals over examples, pointwise.",
        *(f"{name}: {count(p.examples, 'example')}." for name, p in zip(names, profiles, strict=True)),
        *_conditions(names, profiles),
        _blanks(profiles),
    )
    legend = tuple(Key(name, looks[name]) for name in names) if len(names) > 1 else ()
    return Scene("Loss along a line", caption, grid(tuple(panels), COLUMNS, 44.0), legend)


def _conditions(names: Sequence[str], profiles: Sequence[Profile]) -> list[str]:
    """Once where all profiles have the same, else of each."""
    every = [conditions(p) for p in profiles]
    if len(set(every)) == 1:
        return every[:1]
    return [f"{name}: {words}" for name, words in zip(names, every, strict=True) if words]


def _name(one: Profile, profiles: Sequence[Profile]) -> str:
    """What tells a profile from the others."""
    words = [one.split] if len({p.split for p in profiles}) > 1 else []
    if len({p.batch_norm for p in profiles}) > 1:
        words.append("frozen statistics" if one.batch_norm in ("none", "frozen") else "statistics estimated again")
    return ", ".join(words) or one.split


def _rows(one: Profile) -> list[tuple[Array, Array]]:
    """Loss and standard error of every task, then of their average."""
    rows = list(zip(one.loss, one.stderr, strict=True))
    return [*rows, (one.loss.mean(0), one.average_stderr)]


def _loss_axis(group: Sequence[tuple[Array, Array]], logarithmic: bool) -> Axis:
    return loss_axis("loss", *(loss for loss, _ in group)) if logarithmic else Axis("loss")


def _marks(
    profiles: Sequence[Profile], group: Sequence[tuple[Array, Array]], names: Sequence[str], looks: dict[str, Look]
) -> tuple[Mark, ...]:
    marks: list[Mark] = []
    for one, (value, error), name in zip(profiles, group, names, strict=True):
        look, half = looks[name], NORMAL * error
        low, high = value - half, value + half
        positive = np.where(low > 0, low, value) if (value > 0).all() else low
        if np.isfinite(half).any():
            marks.append(Band(one.x, positive, high, look, name))
        told = (Column("coordinate", one.x), Column("value", value), Column("standard error", error))
        marks.append(Line(one.x, value, look.but(marker=""), name, told))
        marks.append(Points(one.x, value, np.full(one.x.size, 2.2), look, name, told))
    return tuple(marks)


def _blanks(profiles: Sequence[Profile]) -> str:
    broken = sum(int((p.done.astype(bool) & ~np.isfinite(p.loss).all(0)).sum()) for p in profiles)
    undone = sum(int((~p.done.astype(bool)).sum()) for p in profiles)
    return sentences(
        f"{count(broken, 'point')} with a loss that is not finite, left blank." if broken else "",
        f"{count(undone, 'point')} not measured." if undone else "",
    )
