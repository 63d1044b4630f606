"""What was chosen by timing, kept for the machine in the user's cache folder.

Chosen anew each time, the same command could give other last digits.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from filelock import FileLock, Timeout

from landscape.problem import Problem
from landscape.provenance import versions

Entry: TypeAlias = dict[str, str | float]

PATIENCE = 120.0
"""Seconds to wait for another process that is choosing, before choosing all the same."""
_KEEPING = 10.0
"""Seconds to wait for another process that is writing down what it chose."""


def key_of(problem: Problem, more: Mapping[str, Any]) -> str:
    """Sixteen hex digits of a hash of all that a timing depends on: problem, machine, versions, and `more`."""
    device = problem.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    parts = {
        "layout": [problem.layout.hash, problem.buffer_layout.size, str(problem.dtype), problem.names],
        "model": str(problem.model),
        "device": [str(device), name, platform.node(), os.cpu_count(), torch.get_num_threads()],
        "versions": versions(),
        **more,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def find(kind: str, key: str) -> Entry:
    """What is kept of a kind under a key; empty where there is nothing, or it cannot be read."""
    found = _read(_path(kind)).get(key)
    return found if isinstance(found, dict) else {}


def keep(kind: str, key: str, entry: Entry) -> None:
    """Whole or not at all, and without losing what another process keeps at the same time. A cache that cannot be
    written costs time only.
    """
    path = _path(kind)
    fresh = path.with_name(f".{path.name}.new")
    with _held(path.with_suffix(".keep.lock"), _KEEPING) as held, contextlib.suppress(OSError, RuntimeError):
        if held:
            fresh.write_text(json.dumps({**_read(path), key: entry}, indent=1), encoding="utf-8")
            os.replace(fresh, path)


@contextlib.contextmanager
def one_at_a_time(kind: str) -> Iterator[None]:
    """Processes that choose at the same time wait for each other, so that the first one's choice is everybody's."""
    with _held(_path(kind).with_suffix(".lock"), PATIENCE):
        yield


@contextlib.contextmanager
def _held(name: Path, patience: float) -> Iterator[bool]:
    """Whether the lock was had within some seconds. Its file stays, in the user's own cache folder."""
    lock = FileLock(name)
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError, RuntimeError, Timeout):
            name.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=patience)
            stack.callback(lock.release)
        yield lock.is_locked


def _path(kind: str) -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "landscape" / f"{kind}.json"


def _read(path: Path) -> dict[str, Entry]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
