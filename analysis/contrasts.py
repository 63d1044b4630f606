"""Two strategies in every measure at every fair budget, over seeds, with a verdict that can say no."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from analysis import differences, readings
from analysis.multiplicity import benjamini_hochberg, holm
from analysis.pairing import PAIRED, Pairing, Sides, WhereSeedsMatch
from analysis.readings import Measured
from analysis.results import ERROR_RATE, FAIR_BUDGETS, FEWEST_SEEDS, Array, Contrast, said_of_starts
from analysis.signflips import exchanged, sign_flips, smallest_exchange_p, smallest_p
from analysis.verdicts import verdict
from landscape.errors import LandscapeError, unknown
from landscape.randomness import generator

Runs: TypeAlias = dict[tuple[str, int], Measured]
"""Runs by label and seed."""
SEVERAL = 2
"""From so many values on there is a spread."""
FOUND = (
    *("samples", "difference", "low", "high", "bootstrap_low", "bootstrap_high", "p_value"),
    *("effect", "effect_low", "effect_high", "superiority", "detectable"),
)
"""What is found of every row by itself."""


@dataclass(frozen=True)
class Question:
    """What is compared, how runs are paired, and how often they are resampled."""

    budgets: tuple[str, ...] = FAIR_BUDGETS
    """Any of `FAIR_BUDGETS`, and `loss:TASK` for an equal loss of one task."""
    measures: tuple[str, ...] = ()
    """By default all."""
    pairing: Pairing = WhereSeedsMatch()
    resamples: int = 9999
    seed: int = 0


def contrast(
    runs: Sequence[Measured],
    strategy: str,
    baseline: str,
    question: Question = Question(),
    starts: Mapping[tuple[str, int], str] | None = None,
) -> tuple[Contrast, ...]:
    """A strategy against a baseline: one record for each subset and form that the runs were measured in.

    Every run is read where it has spent what all of them have: at the largest position that all reach on a budget, at
    the smallest loss that all reach where losses are equal (`analysis.readings.place`). Differences are taken between
    runs of the same seed, which have the same start and batches, or between means where seeds do not match.

    A verdict calls a difference clear where its 95 % interval (Student's t) leaves out zero and its p, corrected for
    all measures, budgets, subsets and forms of this call, is at most 0.05. That p is the step-down maximum over sign
    flips of whole seeds (Westfall and Young, 1993) where flipping can show anything: from six seeds on. With fewer, or
    unpaired, it is the t test's, corrected by Holm: exact only for normal differences. Several strategies are several
    families. `starts` are hashes of the runs' starts by label and seed: runs known to start apart are no pair, and of
    seeds that share a start the record says so.

    Cost: resamples x rows x seeds operations, where rows = measures x budgets x subsets x forms; no file is read.

    Raises:
        LandscapeError: an unknown strategy, baseline, measure or budget; runs measured differently; pairing by seed
            asked for where starts differ.
    """
    groups = _groups(runs, strategy, baseline)
    tasks = next(iter(groups[0].values())).tasks
    for budget in question.budgets:
        readings.require_budget(budget, tasks)
    every = dict.fromkeys(name for group in groups for name in next(iter(group.values())).measures)
    for measure in question.measures:
        if measure not in every:
            raise unknown("measure", measure, every)
    there = dict.fromkeys(key for group in groups for key in group)
    seeds = [sorted(seed for label, seed in there if label == side) for side in (strategy, baseline)]
    sides = question.pairing.sides((strategy, baseline), (seeds[0], seeds[1]), starts or {})
    sides = _with_starts((strategy, baseline), sides, starts or {})
    read = [_Read(group, (strategy, baseline), sides, question) for group in groups]
    mine, theirs = (np.concatenate([one.rows[side] for one in read]) for side in (0, 1))
    rng = generator(question.seed, "contrast", strategy, baseline)
    tested = (_paired if sides.design == PAIRED else _unpaired)(mine, theirs, question.resamples, rng)
    ends = np.cumsum([len(one.rows[0]) for one in read])
    return tuple(
        one.record(tested, slice(end - len(one.rows[0]), end)) for one, end in zip(read, ends.tolist(), strict=True)
    )


def contrasts(
    runs: Sequence[Measured],
    baseline: str,
    question: Question = Question(),
    starts: Mapping[tuple[str, int], str] | None = None,
) -> tuple[Contrast, ...]:
    """Every other strategy against the baseline, each as `contrast` does it."""
    others = [label for label in dict.fromkeys(run.run.label for run in runs) if label != baseline]
    return tuple(found for other in others for found in contrast(runs, other, baseline, question, starts))


def _groups(runs: Sequence[Measured], strategy: str, baseline: str) -> list[Runs]:
    """The runs of both strategies, for each subset and form."""
    labels = dict.fromkeys(run.run.label for run in runs)
    for label in (strategy, baseline):
        if label not in labels:
            raise unknown("label of a strategy", label, labels)
    if strategy == baseline:
        raise LandscapeError(f"expected two strategies to compare, got {strategy!r} twice")
    groups: dict[tuple[str, str], Runs] = {}
    for run in runs:
        if run.run.label in (strategy, baseline):
            group = groups.setdefault((run.subset, run.form), {})
            if (run.run.label, run.run.seed) in group:
                raise LandscapeError(
                    f"two runs are called {run.run.name}: expected another label or seed for each of them"
                )
            group[run.run.label, run.run.seed] = run
    for group in groups.values():
        readings.require_alike(list(group.values()))
    return list(groups.values())


class _Read:
    """The values of one subset and form at every equal budget: rows of [measure x budget, seed] for both sides."""

    def __init__(self, group: Runs, labels: tuple[str, str], sides: Sides, question: Question) -> None:
        self._labels, self._sides, self._question = labels, sides, question
        self._first = next(iter(group.values()))
        chosen = question.measures or self._first.measures
        self._kept = [k for k, name in enumerate(self._first.measures) if name in chosen]
        keys = [[(label, seed) for seed in seeds] for label, seeds in zip(labels, _seeds(sides), strict=True)]
        present = [group[key] for side in keys for key in side if key in group]
        self._levels = [readings.level(present, budget) for budget in question.budgets]
        self.rows = tuple(self._values(group, side) for side in keys)

    def _values(self, group: Runs, keys: Sequence[tuple[str, int]]) -> Array:
        values = np.full((len(self._kept), len(self._levels), len(keys)), np.nan)
        for n, key in enumerate(keys):
            for b, (budget, level) in enumerate(zip(self._question.budgets, self._levels, strict=True)):
                if key in group:
                    values[:, b, n] = readings.values_at(group[key], budget, level)[self._kept]
        return values.reshape(-1, len(keys))

    def record(self, tested: _Tested, rows: slice) -> Contrast:
        first, shape = self._first, (len(self._kept), len(self._levels))
        mine, theirs = (side.reshape(*shape, -1) for side in self.rows)
        found = Contrast(
            strategy=self._labels[0],
            baseline=self._labels[1],
            subset=first.subset,
            form=first.form,
            design=self._sides.design,
            note=self._sides.note,
            measures=tuple(first.measures[k] for k in self._kept),
            units=tuple(first.units[k] for k in self._kept),
            verdicts=("",) * len(self._kept),
            budgets=self._question.budgets,
            levels=np.array(self._levels),
            seeds=np.array(self._sides.seeds, np.int64),
            baseline_seeds=np.array(self._sides.baseline_seeds, np.int64),
            strategy_values=mine,
            baseline_values=theirs,
            correction=tested.correction,
            tests=tested.tests,
            smallest_p=tested.smallest_p,
            resamples=self._question.resamples,
            resampling_seed=self._question.seed,
            starts=self._sides.starts,
            **{name: values[rows].reshape(shape) for name, values in tested.columns.items()},
        )
        return replace(found, verdicts=tuple(verdict(found, m) for m in range(len(found.measures))))


def _seeds(sides: Sides) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return sides.seeds, sides.baseline_seeds


def _with_starts(labels: tuple[str, str], sides: Sides, starts: Mapping[tuple[str, int], str]) -> Sides:
    """The same sides, with what can be said of the starts of the runs in them."""
    keys = [[(label, seed) for seed in seeds] for label, seeds in zip(labels, _seeds(sides), strict=True)]
    known = {key: starts[key] for side in keys for key in side if starts.get(key)}
    counts = [len({known[key] for key in side}) if all(key in known for key in side) else 0 for side in keys]
    said = said_of_starts(known) if sides.design == PAIRED else " ".join(_each_side(keys, known))
    return replace(sides, note=f"{sides.note} {said}".strip(), starts=min(counts))


def _each_side(keys: Sequence[Sequence[tuple[str, int]]], starts: Mapping[tuple[str, int], str]) -> dict[str, None]:
    """Where sides are not paired, it does not matter that a seed begins elsewhere on the other one."""
    parts = [said_of_starts({key: starts[key] for key in side if key in starts}) for side in keys]
    return dict.fromkeys(part for part in parts if part)


@dataclass(frozen=True, eq=False)
class _Tested:
    """What was found of every row of the family."""

    columns: Mapping[str, Array]
    correction: str
    tests: int
    smallest_p: float


def _paired(mine: Array, theirs: Array, resamples: int, rng: np.random.Generator) -> _Tested:
    """Tests of paired values [row, n]."""
    with np.errstate(invalid="ignore"):
        apart = mine - theirs

    def each(kept: Array) -> dict[str, Array]:
        shift, effect = differences.paired(kept), differences.paired_effect(kept)
        resampled = differences.bootstrap((kept,), resamples, rng)
        return _columns(shift, effect, resampled, differences.superiority(kept), kept.shape[1])

    columns = _by_what_is_finite(apart, each)
    flipped = sign_flips(apart, resamples, rng)
    seeds = apart.shape[1]
    return _corrected(
        columns, flipped.p_value, flipped.p_family, flipped.smallest, smallest_p(seeds, resamples) <= ERROR_RATE, seeds
    )


def _unpaired(mine: Array, theirs: Array, resamples: int, rng: np.random.Generator) -> _Tested:
    """Tests of independent values [row, n] and [row, m]."""
    n, m = mine.shape[1], theirs.shape[1]
    exchange = np.full(len(mine), np.nan)
    columns = _nothing(len(mine))
    for rows, kept in _patterns(np.hstack([mine, theirs])):
        ones, others = mine[rows][:, kept[:n]], theirs[rows][:, kept[n:]]
        if not ones.shape[1] or not others.shape[1]:
            continue
        shift, effect = differences.welch(ones, others), differences.unpaired_effect(ones, others)
        resampled = differences.bootstrap((ones, others), resamples, rng)
        over = differences.superiority_of_all(ones, others)
        _fill(columns, rows, _columns(shift, effect, resampled, over, min(ones.shape[1], others.shape[1])))
        if min(ones.shape[1], others.shape[1]) >= SEVERAL:
            exchange[rows] = exchanged(ones, others, resamples, rng)
    return _corrected(columns, exchange, exchange, smallest_exchange_p(n, m, resamples), False, min(n, m))


def _columns(
    shift: differences.Shift,
    effect: differences.Effect,
    resampled: tuple[Array, Array],
    superiority: Array,
    samples: int,
) -> dict[str, Array]:
    low, high = shift.interval()
    return {
        "samples": np.full(len(low), float(samples)),
        "difference": shift.mean,
        "low": low,
        "high": high,
        "bootstrap_low": resampled[0],
        "bootstrap_high": resampled[1],
        "p_value": shift.p_value,
        "effect": effect.size,
        "effect_low": effect.low,
        "effect_high": effect.high,
        "superiority": superiority,
        "detectable": differences.detectable(shift),
    }


def _corrected(
    columns: dict[str, Array], alone: Array, family: Array, smallest: float, flipping: bool, seeds: int
) -> _Tested:
    tested = columns["p_value"]
    tests = int(np.isfinite(tested).sum())
    by_holm = holm(tested)
    return _Tested(
        {
            **columns,
            "samples": np.nan_to_num(columns["samples"]).astype(np.int64),
            "p_permutation": alone,
            "p_holm": by_holm,
            "p_hochberg": benjamini_hochberg(tested),
            "p_corrected": family if flipping else by_holm,
        },
        _words(tests, smallest, flipping, seeds),
        tests,
        smallest,
    )


def _words(tests: int, smallest: float, flipping: bool, seeds: int) -> str:
    """How p was corrected, and what that rests on."""
    family = f"{tests} tests: all measures, budgets, subsets and forms of this pair of strategies"
    if flipping:
        return f"sign flips of whole seeds, step-down maximum (Westfall and Young) over {family}"
    if seeds < FEWEST_SEEDS:
        return f"none: {FEWEST_SEEDS} seeds are the fewest for a verdict"
    weak = f"; with these seeds no permutation test gives p below {smallest:.2g}" if smallest > ERROR_RATE else ""
    return f"t tests, which assume normal differences, by Holm over {family}{weak}"


def _by_what_is_finite(samples: Array, each: Callable[[Array], dict[str, Array]]) -> dict[str, Array]:
    """Rows that lack the same values are tested together, without them."""
    found = _nothing(len(samples))
    for rows, kept in _patterns(samples):
        if kept.any():
            _fill(found, rows, each(samples[rows][:, kept]))
    return found


def _patterns(samples: Array) -> Iterator[tuple[Array, Array]]:
    """Numbers of rows [row] that are finite at the same places [column], and those places."""
    finite = np.isfinite(samples)
    kinds, which = np.unique(finite, axis=0, return_inverse=True)
    for k, kept in enumerate(kinds):
        yield np.flatnonzero(which.ravel() == k), kept


def _fill(found: dict[str, Array], rows: Array, columns: Mapping[str, Array]) -> None:
    for name, values in columns.items():
        found[name][rows] = values


def _nothing(count: int) -> dict[str, Array]:
    return {name: np.full(count, np.nan) for name in FOUND}
