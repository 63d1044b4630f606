"""Whether alternation helps, as tables and in words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import AVERAGE, HELPS, HURTS, UNDECIDED, Alternation, Array, said_of_starts, starts_of
from figures.scenes.words import count, listed
from figures.tables import Cell, Table, number, table

THIRD = (2.7, 3.3)
"""Powers of the rate between which a remainder counts as one of third order."""
CLOSE = 0.5
"""Share of the prediction below which a remainder counts as small."""
STUDENT = (4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131)
"""Quantiles of Student's t for 95 % intervals from 3, 4, ... 16 values; scipy, which has them, is slow to import."""
FEWEST_RUNS = 3
"""No interval over runs is given from fewer."""


def alternation_table(records: Sequence[Alternation]) -> Table:
    """For every run and loss: at how many snapshots a sequential pass helped, hurt, or neither; the mean difference
    over rate^2, predicted and measured, with the remainder and the power of the rate that it falls with.
    """
    rows: list[list[Cell | str]] = []
    for record in records:
        known, scale = record.done.astype(bool), record.rate**2
        for k, name in enumerate(record.losses):
            verdicts = record.verdicts[known, k]
            shares = [Cell(str(int((verdicts == word).sum())), tone=tone) for word, tone in TONES.items()]
            rows.append(
                [
                    Cell(record.run.name, "average of the tasks" if name == AVERAGE else name),
                    *shares,
                    number(_mean(record.predicted[known, k] / scale), 3),
                    number(_mean(record.predicted_mean[known, k] / scale), 3),
                    number(_mean(record.measured[known, 0, k] / scale), 3),
                    _percent(_median(record.relative_remainder[known, k])),
                    number(_median(record.remainder_order[known, k]), 3),
                ]
            )
    head = (
        "run, loss",
        *TONES,
        "predicted / rate\u00b2",
        "all orders",
        "measured / rate\u00b2",
        "remainder",
        "its power",
    )
    note = (
        "Number of snapshots whose 95 % interval of the measured difference, sequential minus averaged, is below zero, "
        "above zero, or holds it. Means over snapshots; remainder: median of |measured \u2212 predicted| / "
        "|predicted|, its power of the rate: median, 3 in theory. Snapshots of a run are not independent of each other."
    )
    return table("Does alternation help?", head, rows, note)


TONES = {HELPS: "good", HURTS: "bad", UNDECIDED: "open"}


def verdict_words(records: Sequence[Alternation]) -> tuple[str, ...]:
    """What came out, in sentences: where alternation helps which loss, whether the theory foretells it, and whether
    gradient agreement grows as predicted.
    """
    groups: dict[tuple[str, str, float], list[Alternation]] = {}
    for record in records:
        if record.done.any() and len(record.tasks) > 1:
            groups.setdefault((record.run.label, record.preconditioner, record.rate), []).append(record)
    words: list[str] = []
    for (label, preconditioner, rate), group in groups.items():
        words.append(f"{label}, steps at rate {rate:g}, {preconditioner}: {_answer(group)}")
        words += [_over_runs(group), _theory(group), _agreement(group)]
    return tuple(word for word in words if word)


def _answer(group: Sequence[Alternation]) -> str:
    parts = []
    for k, name in enumerate(group[0].losses):
        verdicts = np.concatenate([record.verdicts[record.done.astype(bool), k] for record in group])
        helps, hurts = int((verdicts == HELPS).sum()), int((verdicts == HURTS).sum())
        loss = "the average" if name == AVERAGE else name
        parts.append(f"{loss} {_word(helps, hurts, len(verdicts))}")
    total = sum(int(record.done.sum()) for record in group)
    return f"of {count(total, 'snapshot')}, a sequential pass beside one summed step leaves {listed(parts)}."


def _word(helps: int, hurts: int, total: int) -> str:
    if not helps and not hurts:
        return "undecided everywhere"
    parts = [f"lower at {helps}"] * bool(helps) + [f"higher at {hurts}"] * bool(hurts)
    left = total - helps - hurts
    return " and ".join(parts) + (f" (undecided at {left})" if left else "")


def _over_runs(group: Sequence[Alternation]) -> str:
    """The average loss over runs, each run's mean over its snapshots being one value."""
    values = np.array([_mean(record.measured[record.done.astype(bool), 0, -1]) for record in group])
    if len(values) < FEWEST_RUNS or not np.isfinite(values).all():
        return f"From {count(len(values), 'run')} there is no interval over seeds; one needs {FEWEST_RUNS} or more."
    half = float(STUDENT[min(len(values), 16) - FEWEST_RUNS] * values.std(ddof=1) / np.sqrt(len(values)))
    mean = float(values.mean())
    said = "which leaves out zero" if abs(mean) > half else "which holds zero"
    return (
        f"Over {len(values)} runs the average loss differs by {mean:+.2e} on average over snapshots, with the 95 % "
        f"interval {mean - half:+.2e} to {mean + half:+.2e}, {said}. {said_of_starts(starts_of(r.run for r in group))}"
    ).strip()


def _theory(group: Sequence[Alternation]) -> str:
    predicted, measured, relative, power = (
        np.concatenate([values[record.above_rounding[:, :-1]] for record, values in pairs])
        for pairs in (
            [(r, r.predicted[:, :-1]) for r in group],
            [(r, r.measured[:, 0, :-1]) for r in group],
            [(r, r.relative_remainder[:, :-1]) for r in group],
            [(r, r.remainder_order[:, :-1]) for r in group],
        )
    )
    same = int((np.sign(predicted) == np.sign(measured)).sum())
    near = int((relative < CLOSE).sum())
    number_of = count(len(predicted), "difference")
    below = sum(int(r.done.sum()) * (r.measured.shape[2] - 1) for r in group) - len(predicted)
    if not len(predicted):
        return "No difference of a single task is finite and larger than rounding, which tells nothing of the theory."
    text = (
        f"The second-order prediction has the sign of the measurement in {same} of {number_of} of single tasks, and is "
        f"within {CLOSE:.0%} of itself in {near} (median remainder {_median(relative):.0%})."
    )
    text += f" Left out: {count(below, 'difference')} no larger than rounding, or not finite." if below else ""
    known = power[np.isfinite(power)]
    if not known.size:
        return text
    third = int(((known >= THIRD[0]) & (known <= THIRD[1])).sum())
    text += f" At the end of the ladder the remainder falls with the third power of the rate in {third} of {known.size}"
    if 2 * third < known.size:
        text += (
            ": elsewhere the rate is too large for an expansion to second order, or the losses have kinks (ReLU, max "
            "pooling), which a Hessian at one point does not see"
        )
    return text + "."


def _agreement(group: Sequence[Alternation]) -> str:
    every = np.concatenate([(r.agreement_shuffled - r.agreement_averaged)[r.done.astype(bool)] for r in group])
    used = np.concatenate([(r.agreement_sequential - r.agreement_averaged)[r.done.astype(bool)] for r in group])
    gain = np.concatenate([r.agreement_gain[r.done.astype(bool)] for r in group])
    same = int((np.sign(used) == np.sign(gain)).sum())
    text = (
        f"After a pass in the order in use the task gradients agree more than after the averaged step at "
        f"{int((used > 0).sum())} of {count(len(used), 'snapshot')}, with the predicted sign at {same}"
    )
    known = every[np.isfinite(every)]
    if known.size:
        text += f"; on the mean over orders they agree more at {int((known > 0).sum())} of {known.size}"
    return text + "."


def _percent(share: float) -> str:
    return number(share) if np.isnan(share) else f"{number(100 * share, 3)} %"


def _mean(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if kept.size else float("nan")


def _median(values: Array) -> float:
    kept = values[np.isfinite(values)]
    return float(np.median(kept)) if kept.size else float("nan")
