"""How runs moved through their parameters: every measure of a path, for several subsets and forms, beside random walks.

found = movement.measure([trajectory], movement.Measuring(subsets=(Shared(), Head("depth")), forms=(Raw(),)))
found[0].movement.of("net"), found[0].displacements.exponent, found[0].null.high
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from threadpoolctl import threadpool_limits

from analysis import diffusion, nulls, paths
from analysis.accounts import Distances
from analysis.advance import Advance, Clock
from analysis.diffusion import Lags
from analysis.forms import Filterwise, Form, Invariant, Raw, Relative
from analysis.onepass import Passed, cores, distances
from analysis.results import Array, Displacements, Movement, WalkNull
from analysis.subsets import Shared, Subset, WithoutNorms, heads, layers, slots_of
from analysis.subspaces import run_of
from landscape.errors import LandscapeError
from landscape.trajectory import Layout, Trajectory

MEASURES = (
    "net",
    "to_end",
    "path_snapshots",
    "path_steps",
    "path_updates",
    "ratio",
    "speed_steps",
    "speed_updates",
    "turning",
    "exponent",
    "radius",
    "dimension",
    "volume",
)
"""net = ||theta_s - theta_0||; to_end = ||theta_S - theta_s||; path_snapshots, path_steps and path_updates = length of
the path so far over stored snapshots, over all steps and over all updates (the last two as training summed them, of all
shared parameters only); ratio = path_snapshots / net; speed_steps, speed_updates = length of the last increment a step
and an update; turning = mean angle between neighbouring increments so far; exponent, radius, dimension and volume: see
`diffusion.Lags.exponents`, `paths.radius`, `paths.dimension` and `paths.volume`."""
NEED_START = ("net", "path_snapshots", "ratio")


@dataclass(frozen=True)
class Measuring:
    """What is measured of every run."""

    subsets: tuple[Subset, ...] = (Shared(),)
    forms: tuple[Form, ...] = (Raw(), Relative(), Filterwise())
    directions: int = 3
    """Leading directions that the volume is of."""
    draws: int = 99
    """Random walks for each subset and form; 0 for none."""
    seed: int = 0
    max_memory: int = 1 << 30
    """Bytes held at once, of all runs together."""
    workers: int = 1
    """Runs measured at once, each with its share of the memory."""
    threads: int = 0
    """Threads of one run; 0 for the cores that are there, at most four."""


@dataclass(frozen=True, eq=False)
class Moved:
    """One run, one subset, one form."""

    movement: Movement
    displacements: Displacements | None
    """None where there are no distances, or one snapshot only; `movement.notes` says why."""
    null: WalkNull | None
    """None also where no walk was asked for."""


def everything(layout: Layout, followed: Sequence[str] = ()) -> Measuring:
    """All subsets of a layout in all forms: shared, shared without norm layers, every head, every shared layer.

    `followed` are patterns of the tensors that a norm follows, without which there is no invariant form.
    """
    plain: list[Subset] = [Shared()]
    without = WithoutNorms(Shared())
    if 0 < len(_names(without, layout)) < len(_names(Shared(), layout)):
        plain.append(without)
    forms: tuple[Form, ...] = (Raw(), Relative(), Filterwise())
    return Measuring(
        (*plain, *heads(layout), *layers(layout, Shared()).values()),
        (*forms, Invariant(tuple(followed))) if followed else forms,
    )


def measure(
    runs: Sequence[Trajectory],
    chosen: Measuring = Measuring(),
    progress: Callable[[Advance], None] = lambda advance: None,
) -> list[Moved]:
    """Every measure of every run, run by run, for every subset every form in their order.

    Cost: one pass over each file and S^2 P operations, see `onepass.distances`; then for every subset and form an
    eigenvalue problem of size S a snapshot (256 at most), and draws x S^3 operations for the walks.

    Raises:
        LandscapeError: no run, a subset that a run does not have, no finite snapshot, more memory needed than allowed,
            or a volume in no direction.
    """
    if not runs:
        raise LandscapeError("expected at least one trajectory, got none")
    if chosen.directions < 1 or chosen.draws < 0 or chosen.workers < 1:
        raise LandscapeError(
            f"expected one direction or more, no draws or more, one worker or more; got {chosen.directions}, "
            f"{chosen.draws}, {chosen.workers}"
        )
    clock = Clock([_amount(run, chosen) for run in runs], progress)
    memory = chosen.max_memory // min(chosen.workers, len(runs))

    def one(number: int) -> list[Moved]:
        run, tell = runs[number], clock.of(number)
        passed = distances(run, chosen.subsets, chosen.forms, memory, tell, chosen.threads)
        found = []
        with ThreadPoolExecutor(chosen.threads or cores()) as several:
            for moved in several.map(lambda item: _moved(run, passed, item, chosen), passed.found):
                found.append(moved)
                tell(_measuring(len(run), chosen))
        clock.end(number)
        return found

    with threadpool_limits(1, user_api="blas"), ThreadPoolExecutor(chosen.workers) as pool:
        return [moved for found in pool.map(one, range(len(runs))) for moved in found]


def of_squares(squares: Array, steps: Array, updates: Array, directions: int = 3) -> dict[str, Array]:
    """The measures that squared distances [S, S] between snapshots give, each at every snapshot [S]."""
    found = _quick(squares, diffusion.lags(steps), updates)
    return {**found, "volume": paths.volume(squares, directions, paths.leading_points(len(squares)))}


def _quick(squares: Array, lags: Lags, updates: Array) -> dict[str, Array]:
    path, net = paths.path(squares), np.sqrt(squares[0])
    moved = np.concatenate([[np.nan], paths.lengths(squares)])
    with np.errstate(invalid="ignore", divide="ignore"):
        return {
            "net": net,
            "to_end": np.sqrt(squares[-1]),
            "path_snapshots": path,
            "ratio": path / net,
            "speed_steps": moved / np.diff(lags.steps, prepend=np.nan),
            "speed_updates": moved / np.diff(updates.astype(np.float64), prepend=np.nan),
            "turning": paths.mean_angle(squares),
            "exponent": lags.exponents(squares),
            "radius": paths.radius(squares),
            "dimension": paths.dimension(squares),
        }


def _moved(run: Trajectory, passed: Passed, item: Distances, chosen: Measuring) -> Moved:
    steps, updates = run.steps[passed.rows], run.updates[passed.rows]
    squares = item.squares
    values = {name: np.full(len(steps), np.nan) for name in MEASURES}
    displacements, null = None, None
    if squares is not None:
        values |= of_squares(squares, steps, updates, chosen.directions)
        if len(steps) > 1:
            lags = diffusion.lags(steps)
            walks = nulls.Walks(paths.lengths(squares), item.entries, chosen.draws, chosen.seed)
            drawn = nulls.draw(walks, lags, partial(_quick, lags=lags, updates=updates), chosen.directions)
            displacements = _displacements(run, item, lags, drawn)
            null = _null(run, item, steps, drawn) if chosen.draws else None
        scale = item.start_norm if isinstance(item.form, Relative) else 1.0
        if isinstance(item.form, Raw | Relative) and _names(item.subset, run.layout) == _names(Shared(), run.layout):
            values["path_steps"] = run.path_steps[passed.rows] / scale
            values["path_updates"] = run.path_updates[passed.rows] / scale
        if not passed.from_start:
            values |= {name: np.full(len(steps), np.nan) for name in NEED_START}
    return Moved(_movement(run, passed, item, values, chosen), displacements, null)


def _movement(
    run: Trajectory, passed: Passed, item: Distances, values: dict[str, Array], chosen: Measuring
) -> Movement:
    rows = passed.rows
    return Movement(
        run=run_of(run),
        subset=item.subset.label,
        form=item.form.label,
        measures=MEASURES,
        units=tuple(_unit(name, item.form.unit) for name in MEASURES),
        steps=run.steps[rows],
        updates=run.updates[rows],
        gradients=run.gradients[rows],
        seconds=run.seconds[rows],
        movement=run.movement[rows],
        tasks=run.tasks,
        losses=run.losses[rows],
        values=np.stack([values[name] for name in MEASURES], axis=1),
        parameters=item.entries,
        start_norm=item.start_norm if passed.from_start else float("nan"),
        directions=chosen.directions,
        error=passed.error,
        left_out=np.delete(run.steps, rows),
        notes=_notes(run, passed, item, values),
    )


def _notes(run: Trajectory, passed: Passed, item: Distances, values: dict[str, Array]) -> str:
    out = [str(step) for step in np.delete(run.steps, passed.rows)]
    few = f"{', '.join(out[:8])}{', ...' if len(out) > 8 else ''}"
    first = int(run.steps[passed.rows[0]])
    tensors = item.left_out
    parts = [
        (bool(out), f"{len(out)} of {len(run)} snapshots are not finite and left out: steps {few}."),
        (bool(item.why), f"Nothing is measured in this form: {item.why}."),
        (
            not passed.from_start,
            f"The first usable snapshot is of step {first}, not the start: {', '.join(NEED_START)} have no value, and "
            "neither have forms relative to the start.",
        ),
        (len(passed.rows) == 1, "One snapshot only: no path, no speed, no angle and no random walk."),
        (
            not item.why and not np.isfinite(values["path_steps"]).any(),
            "Path lengths over steps and updates are known of all shared parameters, in raw and relative units only.",
        ),
        (bool(tensors), f"{len(tensors)} tensors have no place in this form, as {tensors[0] if tensors else ''}."),
        (bool(item.units), f"{item.units} output units start at zero and are left out."),
        (
            len(passed.rows) > paths.PREFIXES,
            f"The volume is computed at {paths.PREFIXES} of {len(passed.rows)} snapshots.",
        ),
        (
            passed.error > 0,
            f"Distances are estimated from a random projection, with a relative standard error of {passed.error:.2g}.",
        ),
    ]
    return " ".join(text for holds, text in parts if holds)


def _displacements(run: Trajectory, item: Distances, lags: Lags, drawn: nulls.Drawn) -> Displacements:
    assert item.squares is not None
    fit = lags.fit(item.squares)
    angles = paths.angles(item.squares)
    low, high = nulls.angle_quantiles(item.entries)
    return Displacements(
        run=run_of(run),
        subset=item.subset.label,
        form=item.form.label,
        unit=item.form.unit,
        lags=lags.values,
        pairs=lags.pairs,
        msd=lags.curve(item.squares),
        walk_msd=drawn.expected_msd,
        walk_low=drawn.msd[0],
        walk_high=drawn.msd[2],
        fit_low=fit.low,
        fit_high=fit.high,
        exponent=fit.exponent,
        exponent_error=fit.error,
        intercept=fit.intercept,
        angle_steps=lags.steps[1:-1].astype(np.int64),
        angles=angles,
        angle_low=low,
        angle_high=high,
        steps=lags.steps.astype(np.int64),
        squares=item.squares,
        draws=drawn.draws,
        seed=drawn.seed,
    )


def _null(run: Trajectory, item: Distances, steps: Array, drawn: nulls.Drawn) -> WalkNull:
    low, median, high, expected = (
        np.stack([rows.get(name, np.full(len(drawn.points), np.nan)) for name in MEASURES], axis=1)
        for rows in (*drawn.quantiles, drawn.expected)
    )
    return WalkNull(
        run=run_of(run),
        subset=item.subset.label,
        form=item.form.label,
        measures=MEASURES,
        steps=steps[drawn.points],
        low=low,
        median=median,
        high=high,
        expected=expected,
        draws=drawn.draws,
        dimension=item.entries,
        seed=drawn.seed,
    )


def _unit(measure: str, unit: str) -> str:
    match measure:
        case "ratio" | "exponent" | "dimension":
            return "1"
        case "turning":
            return "degree"
        case "speed_steps":
            return f"{unit} / step"
        case "speed_updates":
            return f"{unit} / update"
        case "volume":
            return f"ln ({unit})^2"
        case _:
            return unit


def _names(subset: Subset, layout: Layout) -> set[str]:
    try:
        return {slot.name for slot in slots_of(subset, layout)}
    except LandscapeError:
        return set()


def _amount(run: Trajectory, chosen: Measuring) -> float:
    """About how long a run takes, in bytes read."""
    wanted = set().union(*(_names(subset, run.layout) for subset in chosen.subsets))
    columns = sum(slot.size for slot in run.layout.slots if slot.name in wanted)
    pairs = len(chosen.subsets) * len(chosen.forms)
    return float(len(run) * columns * run.theta.dtype.itemsize + pairs * _measuring(len(run), chosen))


def _measuring(count: int, chosen: Measuring) -> int:
    return 60 * count**2 * (chosen.draws + count)
