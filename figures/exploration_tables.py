"""Movements, comparisons and random walks as tables."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import (
    ERROR_RATE,
    FEW,
    LARGER,
    SMALLER,
    UNCORRECTED,
    UNDECIDED,
    BesideWalk,
    Contrast,
    Movement,
    measure_name,
)
from figures.tables import MINUS, Cell, Table, number, table

TONES = {LARGER: "good", SMALLER: "bad", UNDECIDED: "open", UNCORRECTED: "open", FEW: "open"}
TAIL = 0.025
NUMBERS = (
    *("difference", "low", "high", "bootstrap_low", "bootstrap_high"),
    *("p_value", "p_permutation", "p_holm", "p_hochberg", "p_corrected"),
    *("effect", "effect_low", "effect_high", "superiority", "detectable"),
)
"""What a comparison knows of each measure at each budget."""


def movement_table(movements: Sequence[Movement]) -> Table:
    """Every measure of every run at its last snapshot; measures that no run has are left out."""
    measures = dict.fromkeys(name for m in movements for name in m.measures)
    ends = [{name: float(m.values[-1, k]) for k, name in enumerate(m.measures)} for m in movements]
    kept = [name for name in measures if any(np.isfinite(end.get(name, np.nan)) for end in ends)]
    rows: list[list[Cell | str]] = [
        [m.run.name, m.subset, m.form, *(_number(end.get(name, np.nan)) for name in kept)]
        for m, end in zip(movements, ends, strict=True)
    ]
    return table("Exploration at the end", ("run", "parameters", "form", *map(measure_name, kept)), rows)


def contrast_table(contrasts: Sequence[Contrast]) -> Table:
    """One row a strategy, subset, form, measure and budget, with every number that there is."""
    head = ("strategy", "baseline", "parameters", "form", "measure", "unit", "budget", "level", "design", "samples")
    rows: list[list[Cell | str]] = [
        [
            *(c.strategy, c.baseline, c.subset, c.form, c.measures[m], c.units[m], c.budgets[b]),
            _number(float(c.levels[b])),
            c.design,
            str(int(c.samples[m, b])),
            *(_number(float(getattr(c, name)[m, b])) for name in NUMBERS),
            str(c.tests),
            Cell(c.outcome(m, b), tone=TONES.get(c.outcome(m, b), "")),
        ]
        for c in contrasts
        for m in range(len(c.measures))
        for b in range(len(c.budgets))
    ]
    return table("Comparisons", (*head, *NUMBERS, "tests", "outcome"), rows)


def verdict_table(contrasts: Sequence[Contrast], measures: Sequence[str] = ()) -> Table:
    """Measure by budget: the outcome, the difference and its interval; by default of every measure."""
    budgets = tuple(dict.fromkeys(budget for c in contrasts for budget in c.budgets))
    rows: list[list[Cell | str]] = [
        [
            Cell(f"{c.strategy} against {c.baseline}", f"{measure_name(measure)} of {c.subset}, {c.form}"),
            *(_outcome(c, m, budget) for budget in budgets),
        ]
        for c in contrasts
        for m, measure in enumerate(c.measures)
        if np.isfinite(c.difference[m]).any() and (not measures or measure in measures)
    ]
    note = (
        "Mean of the differences over seeds, strategy minus baseline, with its 95 % interval (Student's t, Welch's "
        "where unpaired). Larger and smaller: the interval leaves out zero and p, corrected for all tests of the pair "
        f"of strategies, is at most {ERROR_RATE:g}."
    )
    note = " ".join([note, *dict.fromkeys(c.note for c in contrasts if c.note)])
    return table("Verdicts", ("", *(f"equal {budget}" for budget in budgets)), rows, note)


def words_table(contrasts: Sequence[Contrast]) -> Table:
    """Every verdict in words, and what each pair of strategies rests on."""
    rows: list[list[Cell | str]] = [
        [measure_name(measure), Cell(c.verdicts[m], tone="words")]
        for c in contrasts
        for m, measure in enumerate(c.measures)
    ]
    basis = dict.fromkeys(f"{c.strategy} against {c.baseline}: {c.correction}." for c in contrasts)
    notes = dict.fromkeys(c.note for c in contrasts if c.note)
    return table(
        "Verdicts in words", ("measure", "verdict"), rows, " ".join([f"Correction, {' '.join(basis)}", *notes])
    )


def walk_counts(walks: Sequence[BesideWalk]) -> Table:
    """How many runs of each strategy lie beyond 97.5 % of their random walks, on either side."""
    measures = tuple(dict.fromkeys(name for w in walks for name in w.measures))
    keys = dict.fromkeys((w.run.label, w.subset, w.form) for w in walks)
    rows = [
        [*key, *(_beyond([w for w in walks if (w.run.label, w.subset, w.form) == key], name) for name in measures)]
        for key in keys
    ]
    note = "Runs beyond 97.5 % of random walks with their step lengths in as many dimensions, above or below."
    return table(
        "Runs beyond random walks", ("strategy", "parameters", "form", *map(measure_name, measures)), rows, note
    )


def _beyond(walks: Sequence[BesideWalk], measure: str) -> str:
    known = [(float(w.above[k]), float(w.below[k])) for w in walks for k in [w.measures.index(measure)]]
    known = [shares for shares in known if np.isfinite(shares).all()]
    if not known:
        return "\u2013"
    sides = {"above": sum(a <= TAIL for a, _ in known), "below": sum(b <= TAIL for _, b in known)}
    said = [f"{number} above" if side == "above" else f"{number} below" for side, number in sides.items() if number]
    return f"{' and '.join(said) or 'none'} of {len(known)}"


def walk_table(walks: Sequence[BesideWalk]) -> Table:
    """Every run's measures at its end beside those of random walks with its step lengths."""
    measures = tuple(dict.fromkeys(name for w in walks for name in w.measures))
    rows: list[list[Cell | str]] = [
        [w.run.name, w.subset, w.form, *(_walk(w, name) for name in measures)] for w in walks
    ]
    counts = sorted({len(w.draws) for w in walks})
    note = (
        "The run's value and, below it, the median of random walks with the same step lengths in as many dimensions, "
        f"and the share of walks ({' to '.join(map(str, dict.fromkeys((*counts[:1], *counts[-1:]))))} drawn) that go "
        "at least as far to the run's side of it."
    )
    return table("Beside random walks", ("run", "parameters", "form", *map(measure_name, measures)), rows, note)


def _outcome(c: Contrast, measure: int, budget: str) -> Cell:
    if budget not in c.budgets:
        return Cell("\u2013")
    at = (measure, c.budgets.index(budget))
    if not np.isfinite(c.difference[at]):
        return Cell("\u2013")
    interval = f"\n[{number(float(c.low[at]), 3)}, {number(float(c.high[at]), 3)}]" if np.isfinite(c.low[at]) else ""
    difference = f"{c.difference[at]:+#.3g}".rstrip(".").replace("-", MINUS)
    outcome = c.outcome(*at)
    return Cell(outcome, difference + interval, TONES.get(outcome, ""))


def _walk(w: BesideWalk, measure: str) -> Cell:
    if measure not in w.measures or not np.isfinite(w.values[w.measures.index(measure)]):
        return Cell("\u2013")
    k = w.measures.index(measure)
    share = min(float(w.above[k]), float(w.below[k]))
    side = "above" if w.above[k] <= w.below[k] else "below"
    middle = float(np.median(w.draws[:, k]))
    return Cell(number(float(w.values[k])), f"walks {number(middle, 3)}, {share:.2g} {side}")


def _number(value: float) -> Cell:
    return Cell(number(value), value=value)
