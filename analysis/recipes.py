"""From the words of the settings to planes, lines, grids and conditions."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from analysis import directions, planes, subsets, surfaces
from analysis.adaptive import Adaptive
from analysis.engines import Engine
from analysis.examples import evaluation, training
from analysis.heads import AsThePlanes, CentreHeads, InterpolatedHeads, MeasuredHeads, PlaneHeads, RefittedHeads
from analysis.normalisation import Frozen, Reestimated, Statistics
from analysis.planes import AtMean, AtPlace, Centre
from analysis.points import Conditions, Meter
from analysis.product_choice import Auto
from analysis.ranges import distances, rising
from analysis.results import AVERAGE, Array, Line, Plane, Shadow
from analysis.settings import SurfaceSettings
from analysis.subspaces import Frame, Place
from landscape.errors import LandscapeError, unknown
from landscape.problem import Problem
from landscape.trajectory import Trajectory

RISE = 9.0
"""Planes whose axes have no natural length reach as far as the averaged loss rises tenfold."""
PREFIXES = " kmgt"
"""Of units of memory: with B alone each is 1000 times the one before, with iB or nothing 1024 times."""


def place(text: str, runs: Sequence[Trajectory]) -> Place:
    """A snapshot from `RUN@STEP`, `RUN@first`, `RUN@last` or `RUN`: the run by its name, in which an @ may stand, the
    step by its number.
    """
    by_name = {run.name: run for run in runs}
    name, _, step = (text, "", "") if text in by_name or "@" not in text else text.rpartition("@")
    if name not in by_name:
        raise unknown("run", name, by_name)
    run = by_name[name]
    if step in ("", "last", "first"):
        return Place(run, 0 if step == "first" else -1)
    if not step.isdecimal():
        raise LandscapeError(f"expected a snapshot as RUN@STEP, RUN@first or RUN@last, got {text!r}")
    return Place(run, run.at(int(step)))


def plane(chosen: SurfaceSettings, problem: Problem, runs: Sequence[Trajectory]) -> Plane | Line:
    """The plane or line that the settings describe."""
    subset, heads = subsets.parse(chosen.subset), _plane_heads(chosen)
    if chosen.plane == "principal":
        return planes.principal(runs, subset, heads, centre(chosen, runs))
    here = place(chosen.centre, runs) if chosen.centre else Place(runs[0])
    if chosen.plane in ("through", "line"):
        return _through(chosen, runs, (subset, heads))
    if isinstance(heads, InterpolatedHeads):
        raise LandscapeError(
            f"expected interpolated heads with a plane that mixes snapshots (principal, through, line), got the plane "
            f"{chosen.plane!r}: its directions say nothing of the heads; take the centre's or refitted ones"
        )
    match chosen.plane:
        case "random":
            return directions.random(here, chosen.seed, subset)
        case "random-line":
            return directions.random_line(here, chosen.seed, subset)
        case "eigenvectors":
            return directions.eigenvectors(problem, here, chosen.tasks or (AVERAGE,), subset, search=_search(chosen))
        case "gradients":
            return directions.gradients(problem, here, _two_tasks(chosen, problem), subset)
        case "local":
            return directions.local(problem, here, subset, search=_search(chosen))
    return _given(chosen, Frame.at(here, subset))


def _search(chosen: SurfaceSettings) -> directions.Search:
    return directions.Search(chosen.seed, Auto(memory(chosen.max_memory)))


def centre(chosen: SurfaceSettings, runs: Sequence[Trajectory]) -> Centre:
    """Where a principal plane has its origin: the mean, or the snapshot that the settings name."""
    return AtMean() if chosen.centre in ("", "mean") else AtPlace(place(chosen.centre, runs))


def _through(
    chosen: SurfaceSettings, runs: Sequence[Trajectory], about: tuple[subsets.Subset, PlaneHeads]
) -> Plane | Line:
    wanted = 3 if chosen.plane == "through" else 2
    places = [place(text, runs) for text in chosen.through]
    if not places:
        ends = [Place(run) for run in runs[:2]]
        places = [Place(runs[0], 0), *ends] if wanted == 3 else ends if len(ends) == 2 else [Place(runs[0], 0), *ends]
    if len(places) != wanted:
        raise LandscapeError(
            f"expected {wanted} places for the plane {chosen.plane!r}, got {len(places)}: name them as --through "
            "RUN@STEP"
        )
    if wanted == 3:
        return planes.through(places[0], places[1], places[2], *about)
    return directions.between(places[0], places[1], *about)


def _two_tasks(chosen: SurfaceSettings, problem: Problem) -> tuple[str, str]:
    tasks = chosen.tasks or list(problem.names[:2])
    if len(tasks) != 2:
        raise LandscapeError(f"expected two tasks for a plane of gradients, got {len(tasks)} ({', '.join(tasks)})")
    return tasks[0], tasks[1]


def _given(chosen: SurfaceSettings, frame: Frame) -> Plane:
    if not chosen.vectors:
        raise LandscapeError("expected a file of two directions for the plane 'given': name it with --vectors FILE.npy")
    vectors = vectors_of(Path(chosen.vectors))
    return planes.spanned(frame, vectors, f"plane of the directions in {chosen.vectors}", ("first", "second"))


def vectors_of(path: Path) -> Array:
    """An array of numbers as `numpy.save` writes it; one of objects, which could run code, is refused."""
    try:
        found = np.load(path, allow_pickle=False)
        if found.dtype.kind not in "iuf":
            raise TypeError(found.dtype)
        return np.asarray(found, np.float64)
    except FileNotFoundError as error:
        raise LandscapeError(
            f"there is no file {path}: expected directions [2, P] as numpy.save writes them"
        ) from error
    except (OSError, ValueError, EOFError, TypeError) as error:
        raise LandscapeError(
            f"cannot read {path}: expected an array of numbers [2, P] as numpy.save writes it; choose another file"
        ) from error


def array_hash(path: str) -> str:
    """Sixteen hex digits of a SHA-256 over the numbers in a file of directions."""
    return hashlib.sha256(np.ascontiguousarray(vectors_of(Path(path))).tobytes()).hexdigest()[:16]


def grid(chosen: SurfaceSettings, problem: Problem, space: Plane, shadows: Sequence[Shadow]) -> surfaces.Grid:
    """The grid: as far as asked, or around the shadows, or, where axes have no natural length, up to a tenfold loss."""
    if chosen.reach:
        return surfaces.Grid(chosen.nx, chosen.ny, chosen.reach)
    if chosen.rise:
        return rising(problem, space, chosen.rise, chosen.nx, chosen.ny, _first_conditions(chosen, problem))
    if chosen.plane == "principal":
        return surfaces.Grid.around(shadows, chosen.nx, chosen.ny, chosen.margin)
    if chosen.plane == "through":
        return _around_corners(chosen, space, shadows)
    if chosen.plane == "random":
        return surfaces.Grid(chosen.nx, chosen.ny, 1.0)
    return rising(problem, space, RISE, chosen.nx, chosen.ny, _first_conditions(chosen, problem))


def _first_conditions(chosen: SurfaceSettings, problem: Problem) -> Conditions:
    """Those of the first surface, by the problem's own micro-batches."""
    return conditions(chosen, problem, chosen.data[0], chosen.batch_norm[0])


def _around_corners(chosen: SurfaceSettings, space: Plane, shadows: Sequence[Shadow]) -> surfaces.Grid:
    """Around the snapshots that lie in the plane, the three that it goes through."""
    on = [s.coordinates[s.off_plane <= 1e-6 * (1 + s.from_origin)] for s in shadows]
    points = np.concatenate([*on, np.zeros((1, 2))])
    low, high = points.min(0), points.max(0)
    room = chosen.margin * float((high - low).max())
    return surfaces.Grid.between(low - room, high + room, chosen.nx, chosen.ny)


def refinement(chosen: SurfaceSettings) -> Adaptive:
    """How closely an adaptive surface is interpolated, and at what cost."""
    return Adaptive(chosen.adaptive, chosen.budget, seed=chosen.seed)


def most_points(chosen: SurfaceSettings) -> int:
    """Points of one plane's grid that are measured at most.

    Raises:
        LandscapeError: too few for an adaptive surface.
    """
    return refinement(chosen).most(chosen.nx, chosen.ny) if chosen.adaptive else chosen.nx * chosen.ny


def along(chosen: SurfaceSettings, problem: Problem, line: Line) -> tuple[float, ...]:
    """Coordinates along a line: from 0 to 1 with the margin on both sides, as far as asked, or as far as a rise."""
    if chosen.plane == "line" and not (chosen.reach or chosen.rise):
        whole = np.linspace(-chosen.margin, 1 + chosen.margin, chosen.nx)
        apart = [float(x) for x in whole if min(abs(x), abs(x - 1)) > 1e-9]  # the two ends once, exactly
        return tuple(sorted([*apart, 0.0, 1.0]))
    low, high = -(chosen.reach or 1.0), chosen.reach or 1.0
    if chosen.rise:
        back, high = distances(Meter(problem, line, _first_conditions(chosen, problem)), line, chosen.rise, 0)
        low = -back
    return surfaces.Grid.between((low, low), (high, high), chosen.nx, chosen.nx).x


def conditions(
    chosen: SurfaceSettings, problem: Problem, data: str, batch_norm: str, engine: Engine | None = None
) -> Conditions:
    """The conditions of one measurement, with the engine given or the problem's own."""
    statistics: Statistics = Frozen()
    if batch_norm == "reestimated":
        statistics = Reestimated(chosen.examples, seed=chosen.seed)
    heads: MeasuredHeads = AsThePlanes()
    if chosen.heads == "refitted":
        heads = RefittedHeads(examples=chosen.examples, seed=chosen.seed)
    examples = evaluation(problem) if data == "evaluation" else training(problem, chosen.examples, chosen.seed)
    return Conditions(engine, statistics, heads, examples)


def _plane_heads(chosen: SurfaceSettings) -> PlaneHeads:
    return InterpolatedHeads() if chosen.heads == "interpolated" else CentreHeads()


def memory(text: str) -> int:
    """Bytes from `2GiB` or `2G` (2 x 2^30), `500MB` (500 x 10^6), `1e9`."""
    found = re.fullmatch(r"\s*(\d+\.?\d*(?:e\d+)?)\s*([kmgt]?)(i?b)?\s*", text.lower())
    size = 0.0
    if found:
        size = float(found[1]) * (1000.0 if found[3] == "b" else 1024.0) ** PREFIXES.index(found[2] or " ")
    if not 1 <= size < np.inf:
        raise LandscapeError(f"expected an amount of memory above zero, such as 2GiB or 500MiB, got {text!r}")
    return int(size)
