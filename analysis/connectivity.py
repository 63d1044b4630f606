"""Barriers: how high the loss of every task rises on the way from one point to another."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from analysis.points import Conditions
from analysis.results import AVERAGE, Array, Barriers, PathLosses
from analysis.routes import EachLoss, Path
from landscape.errors import LandscapeError
from landscape.problem import Problem


@dataclass(frozen=True, eq=False)
class Way:
    """A path to be measured, by the names of its ends; it is made when its turn comes, so that one is held at once."""

    start: str
    end: str
    path: Callable[[], Path]


def positions(count: int) -> Array:
    """`count` even positions on a path, 0 and 1 among them."""
    if count < 3:
        raise LandscapeError(f"expected 3 or more points on a path, the two ends among them, got {count}")
    return np.linspace(0.0, 1.0, count)


def measure(
    problem: Problem,
    ways: Sequence[Way],
    t: Array,
    conditions: Conditions = Conditions(),
    alignment: str = "none",
    before: PathLosses | None = None,
) -> PathLosses:
    """The losses along all ways; see `measuring`, of which this is the last word."""
    *_, found = measuring(problem, ways, t, conditions, alignment, before)
    return found


def measuring(
    problem: Problem,
    ways: Sequence[Way],
    t: Array,
    conditions: Conditions = Conditions(),
    alignment: str = "none",
    before: PathLosses | None = None,
) -> Iterator[PathLosses]:
    """Measures path after path and yields what is known after each.

    loss = (1 / N) sum_n L_t(example n; theta(t)) in float64, all tasks from one forward pass; excess and errors as in
    `PathLosses`. Each path is measured for itself, so going on with `before`, an unfinished record of the same ways
    under the same conditions, gives the same bytes. A loss that is not finite stays so. Statistics that are not
    estimated again are mixed linearly between the ends' own, so that both ends have their true losses; those that are,
    are estimated at the ends as well.

    Cost: one forward pass of the examples for every position of every path. Memory of the losses of every example at
    both ends and at the points measured together, and of one path's points.

    Raises:
        LandscapeError: no way, positions that do not rise from 0 to 1, or a record of other ways to go on with.
    """
    _require_positions(t)
    if not ways:
        raise LandscapeError("expected at least one pair of points to connect, got none: name two or more snapshots")
    each = EachLoss(problem, conditions)
    found = _nothing(problem, ways, t, conditions, alignment, each)
    if before is not None:
        _require_same(found, before)
        found = before
    if found.done.all():
        yield found
    for place in np.flatnonzero(~found.done):
        path = ways[int(place)].path()
        rows = {name: getattr(found, name).copy() for name in ("loss", "stderr", "excess", "excess_stderr", "length")}
        for name, values in zip(("loss", "stderr", "excess", "excess_stderr"), _summed(each, path, t), strict=True):
            rows[name][place] = values
        rows["length"][place] = path.length
        done = found.done.copy()
        done[place] = True
        found = replace(found, **rows, done=done, path=path.kind, engine=repr(each.engine))
        yield found


def barriers(found: PathLosses, points: Sequence[str]) -> Barriers:
    """The barrier of every task between every two of the points, from the losses along the paths that lead there."""
    place = {name: k for k, name in enumerate(points)}
    shape = (len(found.views), len(points), len(points))
    barrier, stderr, at = (np.full(shape, np.nan) for _ in range(3))
    loss, length = np.full(shape[:2], np.nan), np.full(shape[1:], np.nan)
    np.fill_diagonal(length, 0.0)
    for matrix in (*barrier, *stderr, *at):
        np.fill_diagonal(matrix, 0.0)
    views = np.arange(len(found.views))
    for pair in np.flatnonzero(found.done):
        i, j = place[found.starts[pair]], place[found.ends[pair]]
        top = found.summit[pair]
        for row, column, where in ((i, j, found.t[top]), (j, i, 1 - found.t[top])):
            barrier[:, row, column] = found.barrier[pair]
            stderr[:, row, column] = found.excess_stderr[pair, views, top]
            at[:, row, column] = where
            length[row, column] = found.length[pair]
        loss[:, i], loss[:, j] = found.loss[pair, :, 0], found.loss[pair, :, -1]
    return Barriers(
        path=found.path,
        points=tuple(points),
        views=found.views,
        barrier=barrier,
        stderr=stderr,
        at=at,
        loss=loss,
        length=length,
        samples=len(found.t),
        alignment=found.alignment,
        heads=found.heads,
        batch_norm=found.batch_norm,
        examples=found.examples,
        data=found.data,
        split=found.split,
    )


def _summed(each: EachLoss, path: Path, t: Array) -> tuple[Array, Array, Array, Array]:
    """Loss, its error, excess, its error, each [V, n]."""
    rows = []
    with np.errstate(invalid="ignore", over="ignore"):
        first, last = (_views(losses) for losses in each.along(path, np.array([0.0, 1.0])))
        for place, losses in zip(t, each.along(path, t), strict=True):
            here = first if place == 0 else last if place == 1 else _views(losses)
            above = here - ((1 - place) * first + place * last) if 0 < place < 1 else here - here
            rows.append((*_mean_and_error(here), *_mean_and_error(above)))
    loss, error, excess, excess_error = (np.stack(column, 1) for column in zip(*rows, strict=True))
    return loss, error, excess, excess_error


def _views(losses: Array) -> Array:
    """The tasks' losses [T, N], and below them their average where there are several."""
    return np.concatenate([losses, losses.mean(0, keepdims=True)]) if len(losses) > 1 else losses


def _mean_and_error(values: Array) -> tuple[Array, Array]:
    count = values.shape[1]
    spread = values.std(1, ddof=1) if count > 1 else np.full(len(values), np.nan)
    return values.mean(1), spread / np.sqrt(count)


def _nothing(
    problem: Problem, ways: Sequence[Way], t: Array, conditions: Conditions, alignment: str, each: EachLoss
) -> PathLosses:
    views = (*problem.names, *((AVERAGE,) if len(problem.names) > 1 else ()))
    words = conditions.words(problem)
    unknown = np.full((len(ways), len(views), len(t)), np.nan)
    norm, heads = str(words["batch_norm"]), str(words["heads"])
    return PathLosses(
        path="",
        views=views,
        starts=tuple(way.start for way in ways),
        ends=tuple(way.end for way in ways),
        t=np.asarray(t, np.float64),
        loss=unknown,
        stderr=unknown,
        excess=unknown,
        excess_stderr=unknown,
        length=np.full(len(ways), np.nan),
        done=np.zeros(len(ways), bool),
        alignment=alignment,
        heads="interpolated" if heads == "as the plane's" else heads,
        batch_norm="interpolated" if norm == "frozen" else norm,
        examples=int(words["examples"]),
        data=str(words["data"]),
        split=str(words["split"]),
        engine=repr(each.engine),
    )


def _require_positions(t: Array) -> None:
    places = np.asarray(t, np.float64)
    if places.ndim != 1 or len(places) < 3 or places[0] != 0 or places[-1] != 1 or not (np.diff(places) > 0).all():
        raise LandscapeError(
            f"expected 3 or more positions that rise from 0 to 1, got {', '.join(f'{p:g}' for p in places.ravel()[:6])}"
        )


def _require_same(fresh: PathLosses, before: PathLosses) -> None:
    for name in ("views", "starts", "ends", "t", "alignment", "heads", "batch_norm", "data"):
        if not np.array_equal(getattr(fresh, name), getattr(before, name)):
            raise LandscapeError(
                f"the losses along paths to go on with have other {name}: expected the same pairs, positions, data and "
                "conditions; measure anew"
            )
