"""Records as tables of text, each number with its error."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from analysis.results import (
    BUDGETS,
    Array,
    Check,
    Comparison,
    EigenvalueHistory,
    Exploration,
    RateSearch,
    Run,
    Training,
    said_of_starts,
    starts_of,
)
from figures import table_formats
from figures.scenes.explorations import MEASURES
from figures.scenes.words import count, listed

NEAR = 0.05
"""Share of the loss below which two learning rates count as equally good."""
TONES = {"wider": "good", "longer": "good", "narrower": "bad", "shorter": "bad"}
MINUS = table_formats.MINUS
FACTOR_OF_TENS = 5
"""Numbers are written in full up to this many digits."""


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, a smaller line below it, and how it is set: `good`, `bad`, `open`, `words` or plain."""

    text: str
    note: str = ""
    tone: str = ""
    value: float | None = None
    """The number that the text rounds, for formats that computers read."""


@dataclass(frozen=True)
class Table:
    """A table; the first cell of each row is its heading."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    note: str = ""

    def to_text(self) -> str:
        """Aligned columns for a terminal."""
        return table_formats.text(self)

    def to_csv(self) -> str:
        """Comma-separated values with a heading line; no text can run as a formula of a spreadsheet."""
        return table_formats.comma_separated(self)

    def to_json(self) -> str:
        """A JSON object: `title`, `head`, `rows`, `note`."""
        return table_formats.as_json(self)

    def to_latex(self) -> str:
        """A LaTeX `table` with `booktabs` rules; every text is escaped."""
        return table_formats.latex(self)


def table(title: str, head: Iterable[str], rows: Iterable[Sequence[Cell | str]], note: str = "") -> Table:
    """A table from rows of cells or texts."""
    made = tuple(tuple(c if isinstance(c, Cell) else Cell(c) for c in row) for row in rows)
    return Table(title, tuple(head), made, note)


def number(value: float, digits: int = 4) -> str:
    """A number with this many significant digits."""
    if np.isnan(value):
        return "\u2013"
    if np.isinf(value):
        return "infinite" if value > 0 else f"{MINUS}infinite"
    if value == int(value) and abs(value) < 10.0**FACTOR_OF_TENS:
        text = str(int(value))
    else:
        text = (
            f"{value:#.{digits}g}".rstrip(".") if 1e-4 <= abs(value) < 10**FACTOR_OF_TENS else f"{value:.{digits - 1}e}"
        )
    return text.replace("-", MINUS)


def mean_and_error(values: Array) -> str:
    """Mean over seeds +- standard error (standard deviation with n - 1, over sqrt(n)); without it for one seed."""
    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if values.size < 2 or not np.isfinite(values).all():
        return number(mean)
    error = float(values.std(ddof=1) / np.sqrt(values.size))
    return with_error(mean, error)


def with_error(value: float, error: float) -> str:
    """Value +- error, with the error to two significant digits and the value to the same decimal place."""
    if (
        not np.isfinite([value, error]).all()
        or error <= 0
        or abs(value) >= 10.0**FACTOR_OF_TENS
        or error < 10.0**-FACTOR_OF_TENS
    ):
        return f"{number(value)} \u00b1 {number(error, 2)}"
    places = max(0, 1 - int(np.floor(np.log10(error))))
    return f"{value:.{places}f} \u00b1 {error:.{places}f}".replace("-", MINUS)


def labels_of(runs: Iterable[Run]) -> tuple[str, ...]:
    """Labels in order of first appearance."""
    return tuple(dict.fromkeys(run.label for run in runs))


def verdicts(comparisons: Sequence[Comparison]) -> Table:
    """Measure by budget: the paired difference, its 95 % interval, and the verdict in a word."""
    budgets = tuple(b for b in BUDGETS if any(c.budget == b for c in comparisons))
    budgets += tuple(dict.fromkeys(c.budget for c in comparisons if c.budget not in BUDGETS))
    keys = tuple(dict.fromkeys((c.strategy, c.baseline, c.measure) for c in comparisons))
    found = {(c.strategy, c.baseline, c.measure, c.budget): c for c in comparisons}
    rows = [
        [
            Cell(f"{strategy} against {baseline}", MEASURES.get(measure, (measure,))[0]),
            *(_verdict(found.get((strategy, baseline, measure, budget))) for budget in budgets),
        ]
        for strategy, baseline, measure in keys
    ]
    note = (
        "Mean of the paired differences over seeds, strategy minus baseline, with its 95 % interval (Student's t). "
        "Distances are in parameter units."
    )
    note = " ".join([note, *dict.fromkeys(c.note for c in comparisons if c.note)])
    return table("Verdicts", ("", *(f"equal {b}" for b in budgets)), rows, note)


def _verdict(comparison: Comparison | None) -> Cell:
    if comparison is None:
        return Cell("\u2013")
    difference = f"{comparison.difference:+#.3g}".rstrip(".").replace("-", MINUS)
    interval = f"\n[{number(comparison.low, 3)}, {number(comparison.high, 3)}]" if np.isfinite(comparison.low) else ""
    return Cell(comparison.verdict, difference + interval, TONES.get(comparison.verdict, "open"))


def scores(trainings: Sequence[Training]) -> Table:
    """Metrics at the last snapshot: mean +- standard error over seeds, by strategy."""
    metrics = tuple(dict.fromkeys(metric for t in trainings for metric in t.metrics))
    ends = {
        m: [(t.run.label, float(t.scores[-1, t.metrics.index(m)])) for t in trainings if m in t.metrics]
        for m in metrics
    }
    return _by_strategy("Metrics at the end of training", trainings, ends)


def losses(trainings: Sequence[Training]) -> Table:
    """Losses at the last snapshot: mean +- standard error over seeds, by strategy."""
    tasks = tuple(dict.fromkeys(task for t in trainings for task in t.tasks))
    ends = {k: [(t.run.label, float(t.losses[-1, t.tasks.index(k)])) for t in trainings if k in t.tasks] for k in tasks}
    return _by_strategy("Losses at the end of training", trainings, ends)


def _by_strategy(title: str, trainings: Sequence[Training], ends: dict[str, list[tuple[str, float]]]) -> Table:
    rows = []
    for label in labels_of(t.run for t in trainings):
        columns = [np.array([value for name, value in column if name == label]) for column in ends.values()]
        seeds = sum(t.run.label == label for t in trainings)
        rows.append([label, str(seeds), *(mean_and_error(c) if c.size else "\u2013" for c in columns)])
    note = "Mean \u00b1 standard error over seeds, on the evaluation set."
    note = _and_starts(note, (t.run for t in trainings))
    return table(title, ("strategy", "seeds", *ends), rows, note)


def distances(explorations: Sequence[Exploration]) -> Table:
    """Net distance, paths and their ratio at the end: mean +- standard error over seeds, by strategy."""
    rows = []
    for label in labels_of(e.run for e in explorations):
        group = [e for e in explorations if e.run.label == label]
        ends = [[e.net[-1] for e in group], [e.net[-1] / e.start_norm for e in group]]
        ends += [[getattr(e, name)[-1] for e in group] for name in ("path_steps", "path_updates", "ratio")]
        rows.append([label, str(len(group)), *(mean_and_error(np.array(end)) for end in ends)])
    head = (
        "strategy",
        "seeds",
        "net distance",
        "net / start norm",
        "path over steps",
        "path over updates",
        "path / net",
    )
    note = (
        "Mean \u00b1 standard error over seeds at each run's last snapshot; distances on the shared parameters, in "
        "parameter units."
    )
    note = _and_starts(note, (e.run for e in explorations))
    return table("Exploration at the end", head, rows, note)


def _and_starts(note: str, runs: Iterable[Run]) -> str:
    """A note, and what can be said of the starts of the seeds that it counts."""
    return f"{note} {said_of_starts(starts_of(runs))}".strip()


def runs(explorations: Sequence[Exploration]) -> Table:
    """Budgets spent and distances reached by every run."""
    rows = [
        [
            e.run.name,
            *(number(float(e.budget(name)[-1])) for name in BUDGETS),
            *(number(float(np.asarray(getattr(e, name))[-1])) for name in MEASURES),
        ]
        for e in explorations
    ]
    head = ("run", *BUDGETS, *(words[0] for words in MEASURES.values()))
    return table("Every run at its last snapshot", head, rows)


def eigenvalues(histories: Sequence[EigenvalueHistory]) -> Table:
    """Top eigenvalues at the last snapshot of every run, each with its residual."""
    operators = tuple(dict.fromkeys(task for h in histories for task in h.tasks))
    rows: list[list[Cell | str]] = [
        [f"{h.run.name}, eigenvalue {pair + 1}", *(_eigenvalue(h, task, pair) for task in operators)]
        for h in histories
        for pair in range(h.values.shape[2])
    ]
    note = (
        "Value \u00b1 residual ||H v \u2212 value v||, in loss per squared parameter unit: a true eigenvalue lies "
        "within the residual."
    )
    return table("Top eigenvalues at the end", ("run", *operators), rows, note)


def _eigenvalue(history: EigenvalueHistory, task: str, pair: int) -> Cell:
    if task not in history.tasks:
        return Cell("\u2013")
    at = (-1, history.tasks.index(task), pair)
    text = with_error(float(history.values[at]), float(history.residuals[at]))
    return Cell(text) if history.converged[at] else Cell(text, "not converged", "open")


def checks(found: Sequence[Check]) -> Table:
    """The checks that the study made on its own numbers."""
    rows: list[list[Cell | str]] = [
        [
            Cell(c.name, tone="words"),
            Cell("passed", "", "good") if c.passed else Cell("failed", "", "bad"),
            number(c.value, 3),
            number(c.limit, 3),
            Cell(c.reason, tone="words"),
        ]
        for c in found
    ]
    failed = sum(not c.passed for c in found)
    title = f"{failed} of {count(len(found), 'check')} failed" if failed else f"All {count(len(found), 'check')} passed"
    return table(title, ("check", "result", "value", "limit", "why this limit"), rows)


def rates(searches: Sequence[RateSearch]) -> Table:
    """The loss that every learning rate reached, by strategy."""
    every = sorted({float(rate) for search in searches for rate in search.rates})
    rows: list[list[Cell | str]] = [[search.label, *(_rate(search, rate) for rate in every)] for search in searches]
    note = "Averaged evaluation loss at the end of a short run with one seed; the chosen rate is marked."
    unfinished = [s.label for s in searches if not s.done.all()]
    if unfinished:
        note += f" Not finished, nothing is chosen yet: {listed(unfinished)}."
    near = [f"{s.label} {rate:.3g}" for s in searches for rate in _near(s)]
    if near:
        note += f" Within {NEAR:.0%} of it, which one seed cannot tell apart: {listed(near)}."
    return table("Learning rates tried", ("strategy", *(f"{rate:.3g}" for rate in every)), rows, note)


def _near(search: RateSearch) -> tuple[float, ...]:
    """Rates that did nearly as well as the chosen one."""
    if not np.isfinite(search.chosen):
        return ()
    best = float(search.losses[search.rates == search.chosen].min())
    return tuple(
        float(r)
        for r, loss in zip(search.rates, search.losses, strict=True)
        if r != search.chosen and loss <= best + NEAR * abs(best)
    )


def _rate(search: RateSearch, rate: float) -> Cell:
    found = np.flatnonzero(search.rates == rate)
    if found.size == 0:
        return Cell("\u2013")
    if not search.done[found[0]]:
        return Cell("not tried yet", "", "open")
    loss = float(search.losses[found[0]])
    if not np.isfinite(loss):
        return Cell("diverged", "", "open")
    chosen = bool(np.isclose(rate, search.chosen))
    return Cell(number(loss), "chosen" if chosen else "", "good" if chosen else "")


def pairs(title: str, head: tuple[str, str], rows: Sequence[tuple[str, object]]) -> Table:
    """Names with values."""
    return table(title, head, [[name, Cell(str(value), tone="words")] for name, value in rows])
