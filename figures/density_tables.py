"""Spectra as tables: numbers of every operator with their errors."""

from __future__ import annotations

import numpy as np

from analysis.results import SpectrumSummary, Traces
from figures.scenes.barred import title_of
from figures.scenes.words import count
from figures.tables import Cell, Table, number, table, with_error


def spectrum_table(record: SpectrumSummary, snapshot: int = -1) -> Table:
    """Trace, norms, negative shares and effective ranks of every operator at one snapshot, by default the last."""
    head = (
        "loss",
        "trace",
        "Frobenius norm",
        "largest |\u03bb| or more",
        "share below zero",
        "negative share of \u03a3|\u03bb|",
        "tr\u00b2 / \u2016H\u2016\u00b2",
        "by entropy",
        "tr / largest",
        "density's error",
    )
    rows = [_row(record, snapshot, k) for k in range(len(record.operators))]
    note = (
        f"{_about(record)} \u00b1: standard error over probes ({record.way}; shares "
        "and entropy by stochastic Lanczos quadrature). Below the share: where it can lie for the number of nodes, and "
        "what is surely negative, further from zero than the resolution. The density's error is a Wasserstein-1 "
        "distance: of few probes, and at most of few nodes. In loss / parameter\u00b2 where no unit is said. "
        f"{count(record.products, 'product')} in all."
    )
    return table(f"Spectra of {record.run.name} at step {int(record.steps[snapshot])}", head, rows, note)


def traces_table(record: Traces) -> Table:
    """Trace, Frobenius norm and the effective rank that they give, of every operator at every snapshot."""
    rows = [
        [
            Cell(f"{step:,}"),
            Cell(title_of(name)),
            *(Cell(_both(record, field, s, k)) for field in ("trace", "frobenius", "participation")),
        ]
        for s, step in enumerate(record.steps.tolist())
        for k, name in enumerate(record.operators)
    ]
    note = (
        f"{_about(record)} \u00b1: standard error over probes ({record.way}). In "
        f"loss / parameter\u00b2 where no unit is said. {count(record.products, 'product')} in all."
    )
    head = ("step", "loss", "trace", "Frobenius norm", "tr\u00b2 / \u2016H\u2016\u00b2")
    return table(f"Traces of {record.run.name}", head, rows, note)


def _about(record: Traces) -> str:
    return (
        f"{record.matrix} on {record.subset}, {count(record.size, 'parameter')}, "
        f"{count(record.examples, 'evaluation example')}."
    )


def _both(record: Traces, field: str, s: int, k: int, digits: int = 4) -> str:
    value, error = (float(getattr(record, name)[s, k]) for name in (field, f"{field}_stderr"))
    return with_error(value, error) if error > 0 else number(value, digits)


def _row(record: SpectrumSummary, s: int, k: int) -> list[Cell]:
    low, high, sure = (100 * float(v[s, k]) for v in (record.negative_low, record.negative_high, record.resolved))
    return [
        Cell(title_of(record.operators[k])),
        Cell(_both(record, "trace", s, k)),
        Cell(_both(record, "frobenius", s, k)),
        Cell(number(float(record.norm[s, k]))),
        Cell(
            _percent(record.negative[s, k]),
            f"{low:.0f} to {high:.0f} %, surely {sure:.0f} %" if np.isfinite(low) else "",
        ),
        Cell(_percent(record.negative_mass[s, k])),
        Cell(_both(record, "participation", s, k)),
        Cell(_both(record, "entropy", s, k)),
        Cell(_both(record, "intrinsic", s, k)),
        Cell(
            number(float(record.sampling[s, k]), 2), f"at most {number(float(record.discretisation[s, k]), 2)} of nodes"
        ),
    ]


def _percent(share: float) -> str:
    return f"{share:.1%}" if np.isfinite(share) else "\u2013"
