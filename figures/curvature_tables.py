"""Followed eigenvalues, sharpness and agreement at the last snapshot, as tables."""

from __future__ import annotations

import numpy as np

from analysis.results import EigenvalueTracks, Sharpness, TaskAgreement
from figures.scenes.barred import title_of
from figures.scenes.words import count
from figures.tables import Cell, Table, number, table, with_error


def tracks_table(tracks: EigenvalueTracks) -> Table:
    """How many curves each operator has, how many were lost, and its largest eigenvalue at the end beside the line."""
    rows: list[list[Cell | str]] = []
    for o, name in enumerate(tracks.tasks):
        last, error = float(tracks.values[-1, o, 0]), float(tracks.residuals[-1, o, 0])
        line = float(tracks.line[o])
        share = Cell(f"{number(100 * last / line, 3)} %", f"of {number(line)}") if np.isfinite(line) else "\u2013"
        sure = bool(tracks.converged[-1, o, 0])
        value = Cell(with_error(last, error), "" if sure else "not converged", "" if sure else "open")
        curves, lost = tracks.numbers(o), tracks.lost(o)
        weakest = tracks.match[:, o][np.isfinite(tracks.match[:, o])]
        least = number(float(weakest.min()), 3) if weakest.size else "\u2013"
        rows.append([title_of(name), value, share, str(len(curves)), str(len(lost)), least])
    matrix = tracks.matrix[:1].upper() + tracks.matrix[1:]
    note = (
        f"{matrix} on these parameters: {tracks.subset}. Value \u00b1 residual at step {int(tracks.steps[-1])}. "
        f"A curve goes on where the overlap of its vector with the next snapshot's is at least {tracks.threshold:.2f}. "
        f"{tracks.line_words}"
    )
    head = ("loss", "first eigenvalue", "of the step-size line", "curves", "lost", "weakest overlap")
    return table(f"Followed eigenvalues: {tracks.run.name}", head, rows, note)


def sharpness_table(found: Sharpness) -> Table:
    """Every measure of every loss at the last snapshot, with its error."""
    head = ["loss"]
    for form in found.forms:
        head += [f"largest eigenvalue, {form}", f"worst case, {form}", f"mean rise, {form}"]
    rows: list[list[Cell | str]] = []
    for o, name in enumerate(found.tasks):
        row: list[Cell | str] = [title_of(name)]
        for f in range(len(found.forms)):
            sure = bool(found.converged[-1, o, f])
            value = with_error(float(found.eigenvalue[-1, o, f]), float(found.residual[-1, o, f]))
            row.append(Cell(value, "" if sure else "not converged", "" if sure else "open"))
            step = f"one step {number(float(found.one_step[-1, o, f]), 3)}"
            row.append(Cell(number(float(found.worst[-1, o, f]), 3), step))
            row.append(with_error(float(found.mean_rise[-1, o, f]), float(found.mean_rise_stderr[-1, o, f])))
        row.append(with_error(float(found.trace[-1, o]), float(found.trace_stderr[-1, o])))
        with np.errstate(divide="ignore"):
            low, high = 2 / np.array([found.critical_high[-1, o, o], found.critical_low[-1, o, o]])
        row.append(f"{number(float(low), 3)} to {number(float(high), 3)}")
        rows.append(row)
    note = (
        f"At step {int(found.steps[-1])}, on these parameters: {found.subset}. Eigenvalue \u00b1 residual, mean rise "
        f"and trace \u00b1 standard error ({count(found.pairs, 'pair')} of draws). A worst case is a lower bound. "
        "Critical sharpness: 2 / the rate at which the loss along its own gradient is back at its start, as bounds."
    )
    return table(f"Sharpness: {found.run.name}", (*head, "trace", "critical sharpness"), rows, note)


def agreement_table(found: TaskAgreement) -> Table:
    """For every two tasks at the last snapshot: smallest principal angle beside that of random spaces, and the
    gradients' cosine and conflict.
    """
    rows: list[list[Cell | str]] = []
    for k, couple in enumerate(found.couples):
        place = found.pairs.index(couple)
        angle = number(float(found.angles[-1, place, 0]), 3)
        low, high = (100 * float(v[-1, k]) for v in (found.conflict_low, found.conflict_high))
        share = "\u2013" if np.isnan(low) else f"{number(100 * float(found.conflict[-1, k]), 3)} %"
        rows.append(
            [
                couple,
                Cell(f"{angle}\u00b0", f"random {number(float(found.null[0]), 3)}\u00b0"),
                with_error(float(found.cosine[-1, k]), float(found.cosine_stderr[-1, k])),
                Cell(share, "" if np.isnan(low) else f"{low:.0f} to {high:.0f} %"),
            ]
        )
    note = (
        f"At step {int(found.steps[-1])}, on {found.size} parameters ({found.subset}). Angle between the spaces of the "
        f"{count(found.angles.shape[2], 'sharpest direction')}. Cosine \u00b1 standard error; conflict: share of "
        f"{count(found.pieces, 'mini-batch', 'mini-batches')} with a negative cosine, 95 % interval."
    )
    head = ("tasks", "smallest angle", "cosine of gradients", "conflict")
    return table(f"Agreement of the tasks: {found.run.name}", head, rows, note)


def shares_table(found: TaskAgreement) -> Table:
    """What each task adds to the average's eigenvalues at the last snapshot."""
    rows: list[list[Cell | str]] = []
    for vector in range(found.values.shape[2]):
        value = float(found.values[-1, -1, vector])
        shares = [
            Cell(number(float(s), 3), f"{100 * float(s) / value:.0f} %" if value else "")
            for s in found.shares[-1, :, vector]
        ]
        rows.append([f"eigenvalue {vector + 1}", with_error(value, float(found.residuals[-1, -1, vector])), *shares])
    note = f"u' H_t u / {len(found.tasks) - 1} with the average's unit vectors u, at step {int(found.steps[-1])}."
    return table(f"Whose curvature the average's is: {found.run.name}", ("", "average", *found.tasks[:-1]), rows, note)
