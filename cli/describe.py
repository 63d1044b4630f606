"""What a file holds, in a few facts."""

from __future__ import annotations

from pathlib import Path

import h5py

from analysis import archive
from cli.console import duration

Facts = list[tuple[str, object]]


def describe(path: Path) -> tuple[str, Facts]:
    """A title and facts of a trajectory or a results file, by the format that the file states."""
    if _format(path) == archive.FORMAT:
        return f"{path}: results", _results(path)
    from landscape import store

    run = store.open(path)
    who = run.provenance
    facts: Facts = [
        ("problem", f"{who.problem} {dict(who.settings) or ''}".strip()),
        ("strategy", who.strategy),
        ("label, seed", f"{who.label}, {who.seed}"),
        ("state", "complete" if run.complete else "not complete: being written, or interrupted"),
        ("snapshots", f"{len(run)}, step {run.steps[0]} to {run.steps[-1]}"),
        ("updates, gradients", f"{run.updates[-1]}, {run.gradients[-1]}"),
        ("seconds of training", duration(float(run.seconds[-1]))),
        ("path length", f"{run.path_steps[-1]:.6g} over steps, {run.path_updates[-1]:.6g} over updates"),
        ("theta", run.layout.describe()),
        ("buffers", run.buffers.shape[1]),
    ]
    facts += [(f"loss of {name}", f"{value:.6g}") for name, value in zip(run.tasks, run.losses[-1], strict=True)]
    facts += [(name, f"{value:.6g}") for name, value in zip(who.metrics, run.metrics[-1], strict=True)]
    facts += [("evaluation data", who.data), ("created", who.created)]
    facts += [(name, version) for name, version in who.versions.items()]
    return f"{path}: trajectory", facts


def _format(path: Path) -> object:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return file.attrs.get("format")
    except OSError:
        return None


def _results(path: Path) -> Facts:
    facts: Facts = []
    for group, entry in archive.load_all(path).items():
        failed = [check.name for check in entry.checks if not check.passed]
        checks = (
            f", checks failed: {'; '.join(failed)}"
            if failed
            else f", {len(entry.checks)} checks passed"
            if entry.checks
            else ""
        )
        facts.append((group, f"{type(entry.record).__name__}, {duration(entry.provenance.seconds)}{checks}"))
    return facts
