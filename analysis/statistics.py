"""Comparing strategies at equal budgets, paired over seeds, with intervals that can say no."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import scipy

from analysis.results import BUDGETS, Array, Comparison, Estimate, Exploration, said_of_starts, starts_of

FEWEST_SEEDS = 3
"""No verdict is given from fewer."""

MEASURES = {"net": ("wider", "narrower"), "path_steps": ("longer", "shorter"), "path_updates": ("longer", "shorter")}
"""What is compared: attributes of `Exploration`, with the words for a larger and for a smaller value."""


def estimate(values: Array) -> Estimate:
    """Mean and standard error (n - 1 in the variance); the error of a single value is NaN."""
    count = len(values)
    error = float(np.std(values, ddof=1) / np.sqrt(count)) if count > 1 else float("nan")
    return Estimate(float(np.mean(values)), error, count)


def at_level(run: Exploration, measure: str, budget: str, level: float) -> float:
    """A run's measure where its budget reaches `level`, linear between snapshots; NaN beyond its end or for an
    unknown budget.
    """
    place = run.budget(budget)
    if not np.isfinite(place).all() or not place[0] <= level <= place[-1]:
        return float("nan")
    return float(np.interp(level, place, getattr(run, measure)))


def common_level(runs: Iterable[Exploration], budget: str) -> float:
    """The largest budget that every run reaches."""
    return float(min(run.budget(budget)[-1] for run in runs))


def compare(runs: Sequence[Exploration], strategy: str, baseline: str, measure: str, budget: str) -> Comparison:
    """The difference of one measure between two strategies at one equal budget, paired over the seeds both have; runs
    of one seed that are known to start apart are no pair, and left out.

    Both are read at the largest budget that all their runs reach. d_i = strategy - baseline for seed i; the interval is
    mean(d) +- t(0.975; n - 1) s / sqrt(n). The verdict is `wider` or `narrower` (`longer` or `shorter` for a path)
    where the interval leaves out zero, `undecided` where it does not, `too few seeds` below three.
    """
    by = {(run.run.label, run.run.seed): run for run in runs}
    common = sorted(s for label, s in by if label == strategy and (baseline, s) in by)
    starts = starts_of(run.run for run in by.values())
    seeds = [s for s in common if not _apart(starts.get((strategy, s)), starts.get((baseline, s)))]
    pairs = [(by[strategy, s], by[baseline, s]) for s in seeds]
    level = common_level([run for pair in pairs for run in pair], budget) if pairs else float("nan")
    mine, theirs = (np.array([at_level(pair[side], measure, budget, level) for pair in pairs]) for side in (0, 1))
    difference, low, high = _interval(mine - theirs)
    return Comparison(
        measure=measure,
        budget=budget,
        strategy=strategy,
        baseline=baseline,
        seeds=np.array(seeds, np.int64),
        strategy_values=mine,
        baseline_values=theirs,
        level=level,
        difference=difference,
        low=low,
        high=high,
        verdict=_verdict(MEASURES[measure], len(seeds), low, high),
        note=said_of_starts(
            {key: starts[key] for s in common for key in ((strategy, s), (baseline, s)) if key in starts}
        ),
    )


def compare_all(runs: Sequence[Exploration], baseline: str = "averaged") -> tuple[Comparison, ...]:
    """Every other strategy against the baseline, in every measure at every budget that is known."""
    labels = list(dict.fromkeys(run.run.label for run in runs))
    if baseline not in labels:
        return ()
    known = [b for b in BUDGETS if all(np.isfinite(run.budget(b)).all() for run in runs)]
    others = [label for label in labels if label != baseline]
    return tuple(compare(runs, s, baseline, m, b) for s in others for m in MEASURES for b in known)


def _apart(one: str | None, other: str | None) -> bool:
    """Whether two starts are known, and are not one."""
    return one is not None and other is not None and one != other


def _interval(differences: Array) -> tuple[float, float, float]:
    found = estimate(differences) if len(differences) else Estimate(float("nan"), float("nan"), 0)
    half = float(scipy.stats.t.ppf(0.975, found.samples - 1)) * found.stderr if found.samples > 1 else float("nan")
    return found.value, found.value - half, found.value + half


def _verdict(words: tuple[str, str], seeds: int, low: float, high: float) -> str:
    if seeds < FEWEST_SEEDS:
        return "too few seeds"
    if not np.isfinite([low, high]).all():
        return "undecided"
    larger, smaller = words
    return larger if low > 0 else smaller if high < 0 else "undecided"
