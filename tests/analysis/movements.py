"""Runs with made-up measures, so that every comparison has a known answer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import Array, Movement, Run


def movement(
    label: str = "averaged",
    seed: int = 0,
    values: Sequence[Sequence[float]] | Array = ((0.0,), (1.0,), (2.0,)),
    measures: tuple[str, ...] = ("net",),
    *,
    losses: Sequence[float] | Sequence[Sequence[float]] | Array | None = None,
    updates: int = 1,
    rate: float = 0.1,
    steps: Sequence[int] | None = None,
    subset: str = "shared",
    form: str = "raw",
) -> Movement:
    """Measures [snapshot, measure] at steps 0, 10, 20, ...; two tasks with the losses given, or 1 / (1 + snapshot)."""
    values = np.asarray(values, np.float64).reshape(-1, len(measures))
    count = len(values)
    at = np.arange(count) * 10 if steps is None else np.asarray(steps)
    given = 1 / (1.0 + np.arange(count)) if losses is None else np.asarray(losses, np.float64)
    return Movement(
        run=Run(label, f"{label.capitalize()}()", seed),
        subset=subset,
        form=form,
        measures=measures,
        units=("parameter",) * len(measures),
        steps=at,
        updates=updates * at,
        gradients=3 * at,
        seconds=0.5 * at,
        movement=rate * updates * at,
        tasks=("one", "two"),
        losses=np.stack([given, given], axis=1) if given.ndim == 1 else given,
        values=values,
    )


def paired(differences: Array, baseline: Array | None = None, **choices: object) -> list[Movement]:
    """Two snapshots a run; at the end strategy minus baseline is this, [seed] or [seed, measure]."""
    apart = np.asarray(differences, np.float64)
    apart = apart.reshape(len(apart), -1)
    base = np.linspace(1, 2, apart.size).reshape(apart.shape) if baseline is None else np.asarray(baseline)
    names = tuple(f"m{k}" for k in range(apart.shape[1])) if apart.shape[1] > 1 else ("net",)
    found = []
    for seed, (b, d) in enumerate(zip(base, apart, strict=True)):
        for label, end in (("independent", b + d), ("averaged", b)):
            found.append(movement(label, seed, np.stack([0 * end, end]), names, **choices))  # type: ignore[arg-type]
    return found
