"""The theory of alternating steps at snapshots of a run: predicted to second order, measured by taking the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import scipy
import torch
from torch import Tensor

from analysis import examples as of
from analysis.cross_curvature import CrossCurvature, cross_curvature, products_needed
from analysis.examples import Examples
from analysis.passes import Orders, Usual, agreement, averaged, difference, sequential, with_average
from analysis.preconditioners import Ground, Plain, Preconditioner
from analysis.results import AVERAGE, Alternation, Array, Run
from analysis.stated import stated
from analysis.subspaces import run_of
from analysis.task_losses import TaskLosses, block_count
from landscape.errors import LandscapeError
from landscape.modules import index_tensor
from landscape.problem import Problem
from landscape.trajectory import Trajectory

POINT = Run("point", "", 0)
"""What a record names that belongs to no run."""


@dataclass(frozen=True)
class Trial:
    """Which steps are compared: their rate, the order of the tasks (empty: first to last), how many rates the ladder
    has (each half the one before), which orders the random-order mean is taken over, and the diagonals P_t.
    """

    rate: float
    order: tuple[int, ...] = ()
    rungs: int = 3
    orders: Orders = field(default_factory=Usual)
    preconditioner: Preconditioner = field(default_factory=Plain)

    def __post_init__(self) -> None:
        if not (self.rate > 0 and math.isfinite(self.rate)) or self.rungs < 1:
            raise LandscapeError(
                f"expected a rate above 0 and a ladder of 1 or more rates, got {self.rate} and {self.rungs}"
            )

    def turn(self, tasks: int) -> tuple[int, ...]:
        """The order of this many tasks."""
        if self.order and sorted(self.order) != list(range(tasks)):
            raise LandscapeError(f"expected an order of the task numbers 0 to {tasks - 1}, got {list(self.order)}")
        return self.order or tuple(range(tasks))


def usual_trial(run: Trajectory) -> Trial:
    """The steps that a run took: its own learning rate, and its order where it kept to one.

    A run on the mean of T losses at rate r moves as one on their sum at r / T, which is then the rate.

    Raises:
        LandscapeError: a run that states no rate, or that climbs.
    """
    said, rate = stated(run.provenance.strategy), run.provenance.rate
    if said.settings.get("maximize"):
        raise LandscapeError(
            f"{run.path} climbs (maximize=True): expected a run that goes down; give a rate, as --rate 1e-3"
        )
    least, largest = run.rates
    if least < largest:
        raise LandscapeError(
            f"{run.path} was trained at learning rates from {least:g} to {largest:g}: expected one for all snapshots; "
            "give one, as --rate 1e-3"
        )
    if not rate > 0 or not math.isfinite(rate):
        raise LandscapeError(f"{run.path} states no learning rate above 0, got {rate}: give one, as --rate 1e-3")
    return Trial(rate / len(run.tasks) if said.mean else rate, said.order)


@dataclass(frozen=True)
class Work:
    """What one snapshot takes over all examples: products and gradients of one task each, and forward passes."""

    products: int
    gradients: int
    forwards: int

    @property
    def counted(self) -> int:
        """What `along` tells of: products and gradients."""
        return self.products + self.gradients


def work(tasks: int, examples: int, trial: Trial, seed: int = 0) -> Work:
    """What one snapshot takes."""
    orders, blocks = len(trial.orders.drawn(tasks, seed)), block_count(examples)
    again = blocks if blocks > 1 else 0
    return Work(
        products_needed(tasks, isinstance(trial.preconditioner, Plain)),
        3 * tasks + (trial.rungs + again) * (tasks - 1) + orders * (2 * tasks - 1),
        1 + 2 * (trial.rungs + again) + orders,
    )


def along(
    problem: Problem,
    run: Trajectory,
    rows: Sequence[int],
    trial: Trial | None = None,
    examples: Examples | None = None,
    before: Alternation | None = None,
    seed: int = 0,
    told: Callable[[int], None] = lambda amount: None,
) -> Iterator[Alternation]:
    """Predicts and measures at some snapshots of a run, by row, and yields the record after each of them, its mask
    saying which are done.

    `trial` is by default `usual_trial(run)`, `examples` the whole evaluation set. `before`, an unfinished record of the
    same run, rows, trial, examples and seed, is gone on with. `told` hears of every product and every gradient over
    all examples as it is done; `work` says how many there will be.

    All is computed in float64, whatever the model's type: a difference of order rate^2 drowns in float32.

    Cost a snapshot: `work(T, trial)`, for T = 3 and plain steps 12 products and 65 gradients; see `cross_curvature` for
    the memory.

    Raises:
        LandscapeError: a run of another model, no shared parameters, a gradient or product that is not finite (with the
            task and the block of examples), a loss that cannot be differentiated twice, a record of something else to
            go on with.
    """
    problem.layout.require(run.layout, str(run.path))
    trial, found = trial or usual_trial(run), examples or of.evaluation(problem)
    places = [range(len(run))[row] for row in rows]
    record = _empty(problem, trial, found, seed, run_of(run), run.steps[places])
    if before is not None:
        _require_same(before, record)
        record = before
    exact = problem.to(dtype=torch.float64)
    for place, row in enumerate(places):
        if not record.done[place]:
            point = _Point(exact, trial, found, run.theta[row], run.buffers[row], seed, told, run, row)
            record = _with(record, place, point.values())
            yield record
    if not places or (before is not None and before.done.all()):
        yield record


def at(
    problem: Problem,
    theta: Array,
    buffers: Array,
    trial: Trial,
    examples: Examples | None = None,
    seed: int = 0,
    run: Run = POINT,
) -> Alternation:
    """The same at one theta [P] with buffers [Q], as a record with one snapshot."""
    found = examples or of.evaluation(problem)
    record = _empty(problem, trial, found, seed, run, np.zeros(1, np.int64))
    exact = problem.to(dtype=torch.float64)
    point = _Point(exact, trial, found, theta, buffers, seed, lambda amount: None, None, -1)
    return _with(record, 0, point.values())


class _Point:
    """Predicts and measures at one theta."""

    def __init__(
        self,
        problem: Problem,
        trial: Trial,
        examples: Examples,
        theta: Array,
        buffers: Array,
        seed: int,
        told: Callable[[int], None],
        run: Trajectory | None,
        row: int,
    ) -> None:
        if not problem.layout.count():
            raise LandscapeError(
                "the problem has no shared parameters: expected some that several tasks' gradients reach, for steps of "
                "one task that another one feels"
            )
        tasks = len(problem.tasks)
        self._trial, self._order = trial, trial.turn(tasks)
        self._tries = trial.orders.drawn(tasks, seed)
        self._shared = index_tensor(problem.layout.index(), problem.device)
        self._theta = torch.tensor(theta, dtype=torch.float64, device=problem.device)
        self._losses = TaskLosses(problem, buffers, examples, seed, told)
        rank = torch.tensor([self._order.index(t) for t in range(tasks)], device=problem.device)
        self._before = (rank[:, None] < rank[None]).double()
        self._half = 0.5 * (1 - torch.eye(tasks, dtype=torch.float64, device=problem.device))
        self._seen = cross_curvature(
            problem, self._losses, self._theta, self._before, self._ground(problem, run, row), trial.preconditioner
        )

    def _ground(self, problem: Problem, run: Trajectory | None, row: int) -> Callable[[Tensor], Ground]:
        return lambda squares: Ground(problem, squares, run, row)

    def values(self) -> dict[str, Array | float]:
        """What the record holds of this snapshot, by field."""
        values, _ = self._losses.values(self._theta)
        found: dict[str, Tensor | float] = {
            "loss": with_average(values).mean(1),
            "curvature": self._seen.shared,
            "head_curvature": self._seen.head,
            **self._predicted(),
            **self._agreement(self._seen),
            **self._measured(),
        }
        return {name: v.cpu().numpy() if isinstance(v, Tensor) else v for name, v in found.items()}

    def _predicted(self) -> dict[str, Tensor | float]:
        found: dict[str, Tensor | float] = {}
        for name, before in (("predicted", self._before), ("predicted_mean", self._half)):
            spread = with_average(self._seen.contracted_influence(before).T).T
            found[name] = self._trial.rate**2 * with_average(self._seen.contracted(before))
            found[f"{name}_stderr"] = self._trial.rate**2 * self._losses.stderr(spread)
        return found

    def _agreement(self, seen: CrossCurvature) -> dict[str, Tensor | float]:
        rate, slope = self._trial.rate, seen.agreement_gradient
        in_order, every = seen.turns
        return {
            "products": seen.products,
            "agreement": float((seen.products.sum() - seen.products.trace()) / 2),
            "agreement_stderr": float(self._losses.stderr(seen.agreement_influence)),
            "agreement_slope": float(-rate * slope @ seen.steps.sum(0)),
            "agreement_gain": float(rate**2 * slope @ in_order),
            "agreement_gain_mean": float(rate**2 / 2 * slope @ every),
        }

    def _measured(self) -> dict[str, Tensor | float]:
        rate = self._trial.rate
        rates = [rate / 2**rung for rung in range(self._trial.rungs)]
        ends = [(self._pass(self._order, r), averaged(self._theta, self._seen.steps, r)) for r in rates]
        rungs = [difference(self._losses.values(one), self._losses.values(other)) for one, other in ends]
        start = agreement(self._seen.gradients, self._shared)
        (turned, joint), *_ = ends
        mean, error, shuffled = self._over_orders(joint)
        return {
            "measured": torch.stack([value for value, _ in rungs]),
            "measured_stderr": self._jackknife(),
            "rounding": rungs[0][1],
            "measured_mean": mean,
            "measured_mean_stderr": error,
            "agreement_averaged": self._agreement_at(joint) - start,
            "agreement_sequential": self._agreement_at(turned) - start,
            "agreement_shuffled": shuffled - start,
        }

    def _jackknife(self) -> Tensor:
        """Standard error of the measured difference: both steps are taken anew, and looked at, without each block."""
        losses, seen, rate, found = self._losses, self._seen, self._trial.rate, []
        count = len(seen.blocks)
        for block in range(count if count > 1 else 0):
            steps = losses.without(seen.blocks, block)
            steps = steps if seen.diagonals is None else seen.diagonals * steps
            first = steps[self._order[0]]
            turned = sequential(losses, self._theta, self._order, rate, first, seen.diagonals, block)
            joint = averaged(self._theta, steps, rate)
            found.append(difference(losses.values(turned, block), losses.values(joint, block))[0])
        if not found:
            return torch.full((len(self._order) + 1,), torch.nan, dtype=torch.float64)
        return math.sqrt((count - 1) ** 2 / count) * torch.stack(found).std(0)

    def _over_orders(self, joint: Tensor) -> tuple[Tensor, Tensor, float]:
        """Mean and standard error of the measured difference over the orders tried, and the mean agreement after."""
        if not self._tries:
            nothing = torch.full((len(self._order) + 1,), torch.nan, dtype=torch.float64)
            return nothing, nothing, math.nan
        beside = self._losses.values(joint)
        found, after = [], []
        for order in self._tries:
            end = self._pass(order, self._trial.rate)
            found.append(difference(self._losses.values(end), beside)[0])
            after.append(self._agreement_at(end))
        rows = torch.stack(found)
        if _is_every(self._tries):
            error = torch.zeros_like(rows[0])
        else:
            pairs = (rows[::2] + rows[1::2]) / 2
            error = pairs.std(0) / math.sqrt(len(pairs)) if len(pairs) > 1 else torch.full_like(rows[0], torch.nan)
        return rows.mean(0), error, float(np.mean(after))

    def _pass(self, order: Sequence[int], rate: float) -> Tensor:
        first = self._seen.steps[order[0]]
        return sequential(self._losses, self._theta, order, rate, first, self._seen.diagonals)

    def _agreement_at(self, theta: Tensor) -> float:
        return agreement(self._losses.gradients(theta), self._shared)


def _is_every(orders: Sequence[tuple[int, ...]]) -> bool:
    return bool(orders) and len(set(orders)) == len(orders) == math.factorial(len(orders[0]))


def _empty(problem: Problem, trial: Trial, examples: Examples, seed: int, run: Run, steps: Array) -> Alternation:
    """A record in which nothing is done yet."""
    tasks, count = len(problem.tasks), len(steps)
    orders = trial.orders.drawn(tasks, seed)
    blocks = block_count(len(examples))
    sizes = {
        "snapshot": count,
        "rung": trial.rungs,
        "objective": tasks + 1,
        **dict.fromkeys(("task", "task_", "earlier", "later"), tasks),
    }
    values = {
        name: np.full([sizes[dim] for dim in spec.metadata["dims"]], np.nan)
        for name, spec in Alternation.__dataclass_fields__.items()
        if "dims" in spec.metadata and name not in ("order", "rates", "steps", "done")
    }
    return Alternation(
        run=run,
        tasks=problem.names,
        losses=(*problem.names, AVERAGE),
        order=np.array(trial.turn(tasks), np.int64),
        rates=trial.rate / 2.0 ** np.arange(trial.rungs),
        steps=np.array(steps),
        done=np.zeros(count, bool),
        **values,
        orders=len(orders),
        every_order=_is_every(orders),
        preconditioner=trial.preconditioner.word,
        quantile=float(scipy.stats.t.ppf(0.975, blocks - 1)) if blocks > 1 else math.nan,
        blocks=blocks,
        examples=len(examples),
        split=examples.split,
        data=examples.hash,
        seed=seed,
    )


def _with(record: Alternation, place: int, values: dict[str, Array | float]) -> Alternation:
    """The record with one snapshot done."""
    changed = {name: getattr(record, name).copy() for name in (*values, "done")}
    for name, value in {**values, "done": True}.items():
        changed[name][place] = value
    return replace(record, **changed)


SAME = ("run", "tasks", "order", "rates", "steps", "preconditioner", "orders", "examples", "data", "split", "seed")


def _require_same(before: Alternation, record: Alternation) -> None:
    for name in SAME:
        mine, theirs = getattr(record, name), getattr(before, name)
        same = np.array_equal(mine, theirs) if isinstance(mine, np.ndarray) else mine == theirs
        if not same:
            raise LandscapeError(
                f"the record to go on with has another {name}: expected the same run, snapshots, steps and examples; "
                "measure anew"
            )
