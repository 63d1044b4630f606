"""How the runs learned, and which learning rates were tried."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from analysis.results import Array, RateSearch, Training
from figures import style
from figures.marks import Axis, Column, Key, Line, Mark, Panel, Points, Scene, grid
from figures.scenes.scales import finite, log_axis, loss_axis, scale_of
from figures.scenes.seeds import Spread, band_words, by_label, curve, interpolation, over_seeds
from figures.scenes.words import count, excluded, listed, seeds_of, sentences
from figures.style import Look

WINDOWS = 50
"""The running median of the mini-batch losses spans one in so many steps."""
MOST = 400
"""At most about so many points of a running median are drawn."""
COLUMNS = 3


def training(trainings: Sequence[Training], order: Sequence[str] = ()) -> Scene:
    """Evaluation loss of each task and each metric against the step; mini-batch losses as a faint running median.

    The running median at step s is taken over a window centred on s, cut off at the ends of the run; it is then
    averaged over seeds like the other curves.
    """
    groups = by_label(trainings, [t.run for t in trainings])
    every = style.looks([*order, *groups])
    tasks = tuple(dict.fromkeys(task for t in trainings for task in t.tasks))
    metrics = tuple(dict.fromkeys(metric for t in trainings for metric in t.metrics))
    spreads: list[Spread | None] = []
    panels = [_losses(task, groups, every, spreads) for task in tasks]
    panels += [_scores(metric, groups, every, spreads) for metric in metrics]
    steps = max((t.batch_steps.size for t in trainings), default=0)
    bad = sum(int((~np.isfinite(t.losses)).sum()) for t in trainings)
    logs = [panel.title for panel in panels if panel.y.scale == "log"]
    caption = sentences(
        f"Evaluation losses and metrics against the step; {seeds_of([t.run for t in trainings])}.",
        band_words(groups),
        f"Faint: mini-batch losses, running median over {count(window(steps), 'step')}, mean over seeds."
        if steps
        else "",
        f"Logarithmic axis: {listed(logs)}." if logs else "",
        interpolation(spreads),
        excluded(bad, "the evaluation losses"),
    )
    legend = tuple(Key(label, every[label]) for label in groups)
    return Scene("Training", caption, grid(tuple(panels), COLUMNS, 44.0), legend)


def window(steps: int) -> int:
    """Width of the running median, an odd number of steps."""
    return 2 * (steps // (2 * WINDOWS)) + 1


def running_median(values: Array, width: int) -> Array:
    """Median over a centred window of `width` values, fewer at the ends; values that are not finite do not count."""
    reach = width // 2
    padded = np.pad(np.where(np.isfinite(values), values, np.nan), reach, constant_values=np.nan)
    windows = np.lib.stride_tricks.sliding_window_view(padded, width)
    seen = np.isfinite(windows).any(axis=1)
    medians = np.full(values.size, np.nan)
    medians[seen] = np.nanmedian(windows[seen], axis=1)
    return medians


Groups = dict[str, list[Training]]


def _losses(task: str, groups: Groups, looks: dict[str, Look], spreads: list[Spread | None]) -> Panel:
    faint: list[Mark] = []
    bold: list[Mark] = []
    drawn: list[Array] = []
    for label, group in groups.items():
        present = [t for t in group if task in t.tasks]
        if not present:
            continue
        batches = over_seeds([_batches(t, task) for t in present if t.batch_steps.size] or [(np.empty(0), np.empty(0))])
        if batches and batches.x.size:
            look = looks[label].but(width=0.6, opacity=0.45, dash="solid", marker="")
            faint.append(Line(batches.x, batches.mean, look, label))
            drawn.append(batches.mean)
        spread = over_seeds([(t.steps, t.losses[:, t.tasks.index(task)]) for t in present])
        spreads.append(spread)
        if spread:
            bold += curve(spread, looks[label], label, ("step", "loss"))
            drawn += [spread.low, spread.high]
    return Panel(task, Axis("step"), loss_axis("loss", *drawn), (*faint, *bold))


def _batches(training: Training, task: str) -> tuple[Array, Array]:
    values = training.batch_losses[:, training.tasks.index(task)]
    every = int(np.ceil(values.size / MOST))
    return training.batch_steps[::every], running_median(values, window(values.size))[::every]


def _scores(metric: str, groups: Groups, looks: dict[str, Look], spreads: list[Spread | None]) -> Panel:
    marks: list[Mark] = []
    for label, group in groups.items():
        present = [t for t in group if metric in t.metrics]
        spread = over_seeds([(t.steps, t.scores[:, t.metrics.index(metric)]) for t in present]) if present else None
        if spread:
            spreads.append(spread)
            marks += curve(spread, looks[label], label, ("step", metric))
    return Panel(metric, Axis("step"), Axis(metric.rpartition(".")[2]), tuple(marks))


def rate_search(searches: Sequence[RateSearch], order: Sequence[str] = ()) -> Scene:
    """Evaluation loss that each learning rate reached, the chosen rate ringed; rates that diverged at the top edge."""
    every = style.looks([*order, *(search.label for search in searches)])
    kept = finite([search.losses[search.done] for search in searches])
    scale = scale_of(kept)
    low, top = _edges(kept, scale == "log")
    marks = tuple(
        m for k, search in enumerate(searches) for m in _search(search, every[search.label], top, 5.0 + 2.5 * k)
    )
    diverged = sum(int((~np.isfinite(search.losses[search.done])).sum()) for search in searches)
    unfinished = [
        f"{s.label}, {int(s.done.sum())} of {count(s.done.size, 'rate')} tried" for s in searches if not s.done.all()
    ]
    legend = [Key(search.label, every[search.label]) for search in searches]
    legend.append(Key("chosen", _ring(Look(style.INK))))
    if diverged:
        legend.append(Key("diverged", Look(style.INK, marker="triangle-up", width=0.9).hollow))
    lengths = sorted({search.steps for search in searches})
    caption = sentences(
        f"Average evaluation loss at the end of a run of {listed(str(n) for n in lengths)} steps, one seed a strategy "
        f"({listed(dict.fromkeys(str(s.seed) for s in searches))}), not used elsewhere; the least loss is chosen.",
        f"{'Logarithmic' if scale == 'log' else 'Linear'} loss axis.",
        f"{count(diverged, 'rate')} diverged: open triangles at the top edge, where they have no loss."
        if diverged
        else "",
        f"Not finished, nothing is chosen yet: {listed(unfinished)}." if unfinished else "",
    )
    x = log_axis("learning rate", *(search.rates for search in searches))
    y = replace(loss_axis("average loss", kept), range=(low, top))
    panel = Panel("", x, y, marks)
    return Scene("Search of the learning rate", caption, grid((panel,), 1, 62.0), tuple(legend))


def _edges(kept: Array, logarithmic: bool) -> tuple[float, float]:
    if kept.size == 0:
        return 0.0, 1.0
    low, high = float(kept.min()), float(kept.max())
    if logarithmic:
        room = (high / low) ** 0.08
        return low / room, high * room
    room = 0.08 * ((high - low) or abs(high) or 1.0)
    return low - room, high + room


def _ring(look: Look) -> Look:
    return look.but(marker="circle", fill="none", width=1.1, dash="solid", size=9.0)


def _search(search: RateSearch, look: Look, top: float, size: float) -> tuple[Mark, ...]:
    tried = np.flatnonzero(search.done)
    order = tried[np.argsort(search.rates[tried])]
    rates, losses = search.rates[order], search.losses[order]
    fine = np.isfinite(losses)
    told = (
        Column("strategy", np.full(rates.size, search.label)),
        Column("learning rate", rates),
        Column("average loss", losses),
    )
    chosen = fine & np.isclose(rates, search.chosen)
    lost = rates[~fine]
    marks: tuple[Mark, ...] = (
        Line(rates, losses, look, search.label, told),
        Points(rates[fine], losses[fine], np.full(int(fine.sum()), look.size), look, search.label),
        Points(rates[chosen], losses[chosen], np.full(int(chosen.sum()), 9.0), _ring(look), search.label),
    )
    if lost.size:
        gone = look.but(marker="triangle-up", dash="solid", fill="none", width=1.0)
        named = (Column("strategy", np.full(lost.size, search.label)), Column("diverged at rate", lost))
        marks += (Points(lost, np.full(lost.size, top), np.full(lost.size, size), gone, search.label, named),)
    return marks
