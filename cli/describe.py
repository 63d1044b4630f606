"""What a file holds, in a few facts."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py

from analysis import archive
from cli.console import duration

Facts = dict[str, Any]


def describe(path: Path) -> Facts:
    """The facts of a trajectory or of a results file, told apart by the format that the file states."""
    if not path.exists():
        raise ValueError(f"there is no file {path}: expected a trajectory, a results file or a study's folder with one")
    if _format(path) == archive.FORMAT:
        return _results(path)
    from landscape.errors import LandscapeError

    try:
        return _trajectory(path)
    except LandscapeError as error:
        if _is_trajectory(path):
            raise
        raise ValueError(
            f"cannot read {path}: expected a trajectory, a results file or a study's folder, got something that is "
            "empty, cut short or of another kind; choose another"
        ) from error


def _is_trajectory(path: Path) -> bool:
    """Whether a file says that it is a trajectory, also one whose writer was killed."""
    from landscape.store import FORMAT
    from landscape.unclosed import AsClosed

    try:
        with AsClosed(path) as raw, h5py.File(raw, "r") as file:
            return bool(file.attrs.get("format") == FORMAT)
    except (OSError, RuntimeError):
        return False


def lines(facts: Facts) -> list[list[str]]:
    """Facts as rows of a name and a text; of a trajectory's facts that have parts, a row a part."""
    rows: list[list[str]] = []
    for key, value in facts.items():
        name = key.replace("_", " ")
        if isinstance(value, Mapping) and "kind" in value:
            rows.append([key, _result(value)])
        elif isinstance(value, Mapping):
            rows += [[f"{name} {part}", _text(text)] for part, text in value.items()]
        elif key not in ("file", "holds"):
            rows.append([name, _text(value)])
    return rows


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no, it is being written or was interrupted"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _result(facts: Mapping[str, Any]) -> str:
    passed, failed = facts["checks_passed"], facts["checks_failed"]
    parts = [facts["kind"], duration(facts["seconds"])]
    parts += [f"{passed} check{'s' if passed > 1 else ''} passed"] * bool(passed)
    return ", ".join([*parts, *(f"check failed: {name}" for name in failed)])


def _format(path: Path) -> object:
    try:
        with h5py.File(path, "r", locking=False) as file:
            return file.attrs.get("format")
    except OSError:
        return None


def _trajectory(path: Path) -> Facts:
    from landscape import store

    run = store.open(path)
    who = run.provenance
    return {
        "file": path,
        "holds": "trajectory",
        "complete": run.complete,
        "problem": who.problem,
        "setting": dict(who.settings),
        "strategy": who.strategy,
        "label": who.label,
        "seed": who.seed,
        "start": run.start or "not known",
        "snapshots": len(run),
        "first_step": int(run.steps[0]),
        "last_step": int(run.steps[-1]),
        "updates": int(run.updates[-1]),
        "gradients": int(run.gradients[-1]),
        "seconds": float(run.seconds[-1]),
        "path_length": {"steps": float(run.path_steps[-1]), "updates": float(run.path_updates[-1])},
        "theta": run.layout.describe(),
        "buffers": run.buffers.shape[1],
        "loss": dict(zip(run.tasks, run.losses[-1].tolist(), strict=True)),
        "metric": dict(zip(who.metrics, run.metrics[-1].tolist(), strict=True)),
        "evaluation_data": who.data,
        "created": who.created,
        "version": dict(who.versions),
    }


def _results(path: Path) -> Facts:
    of = archive.problem_of(path)
    stated = {"problem": "problem", "settings": "setting", "data": "evaluation_data"}
    return {
        "file": path,
        "holds": "results",
        **{word: of[key] for key, word in stated.items() if of.get(key)},
        **{
            group: {
                "kind": type(entry.record).__name__,
                "seconds": entry.provenance.seconds,
                "checks_passed": sum(check.passed for check in entry.checks),
                "checks_failed": [check.name for check in entry.checks if not check.passed],
            }
            for group, entry in archive.load_all(path).items()
        },
    }
