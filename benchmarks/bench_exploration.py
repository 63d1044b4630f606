"""All weight-space measures of a run in one pass over its file, against plain reads of the same file.

200 snapshots of a ResNet-18's 11.2 million float32 parameters (9 GB) are written by the toolkit's own writer into a
temporary folder, which takes a minute or two, and removed. Each pass runs in a process of its own, so that its peak
memory is its own. Processor seconds tell what a busy machine would hide: they are divided by the cores that are free.
*Warm*: the file is in the system's memory; *cold*: the system was asked to forget it before.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from analysis import movement, onepass
from analysis.forms import Filterwise, Invariant, Raw, Relative
from analysis.subsets import Everything, Head, Shared, WithoutNorms
from landscape import store
from landscape.errors import LandscapeError
from landscape.modules import BufferLayout
from landscape.trajectory import SHARED, History, Layout, Provenance, Slot, Snapshot

SNAPSHOTS, CLASSES = 200, 10
ROWS = 1 << 18
ROOM = 1.2
"""Free disk space asked for, over the size of the file."""


def run() -> list[dict[str, Any]]:
    """Seconds, share of the plain reading rate and peak memory of one pass, cold and warm."""
    return measured(residual_network(), SNAPSHOTS)


def measured(layout: Layout, snapshots: int) -> list[dict[str, Any]]:
    """The rows of the table for a file of so many snapshots of this layout."""
    size = 4 * layout.size * snapshots
    with tempfile.TemporaryDirectory() as folder:
        free = shutil.disk_usage(folder).free
        if free < ROOM * size:
            raise LandscapeError(
                f"{folder} has {free:,} bytes free: expected {int(ROOM * size):,} for the benchmark; "
                "name a larger folder in TMPDIR"
            )
        path = Path(folder) / "run.h5"
        begun = time.perf_counter()
        write(path, layout, snapshots)
        written = time.perf_counter() - begun
        rows = []
        for state in ("cold", "warm"):
            reads = {how: _child(path, how, state) for how in ("rows", "blocks")}
            plain = min(reads.values(), key=lambda read: float(read["seconds"]))
            for what in ("distances", "all measures", "all measures and random walks"):
                found = _child(path, what, state)
                rows.append(
                    {
                        "file": f"{path.stat().st_size / 1e9:.2f} GB, {snapshots} x {layout.size:,}, {state}",
                        "what": what,
                        "seconds": found["seconds"],
                        "plain read, s": plain["seconds"],
                        "share of reading rate": plain["seconds"] / found["seconds"],
                        "processor seconds": found["processor"],
                        "of a plain read": plain["processor"],
                        "peak memory, GiB": found["peak"] / 2**30,
                        "writing, s": written,
                    }
                )
    return rows


def residual_network() -> Layout:
    """The tensors of a ResNet-18 for small images, with two heads."""
    slots: list[Slot] = []

    def add(name: str, shape: tuple[int, ...], owner: str = SHARED) -> None:
        slots.append(Slot(name, shape, owner, slots[-1].span.stop if slots else 0))

    def normed(name: str, shape: tuple[int, ...]) -> None:
        add(f"{name}.conv.weight", shape)
        add(f"{name}.norm.weight", shape[:1])
        add(f"{name}.norm.bias", shape[:1])

    normed("stem", (64, 3, 3, 3))
    inputs = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for block in range(2):
            normed(f"stage{stage}.{block}.first", (width, inputs, 3, 3))
            normed(f"stage{stage}.{block}.second", (width, width, 3, 3))
            if inputs != width:
                normed(f"stage{stage}.{block}.skip", (width, inputs, 1, 1))
            inputs = width
    for task in ("one", "two"):
        add(f"heads.{task}.weight", (CLASSES, inputs), task)
        add(f"heads.{task}.bias", (CLASSES,), task)
    return Layout(tuple(slots))


def write(path: Path, layout: Layout, snapshots: int) -> None:
    """A random walk through the toolkit's writer: steps of a thousandth of an entry's size."""
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(layout.size, np.float32)
    noise = 1e-3 * rng.standard_normal(layout.size, np.float32)
    who = Provenance("Walk()", "walk", 0, 0.1, "made up", {}, ("one", "two"), (), "0" * 16, "0" * 16)
    history = History(np.zeros(0, np.int64), np.zeros((0, 2)), np.zeros(0), np.zeros(0))
    with store.writer(path, who, layout, BufferLayout((), ()), np.dtype(np.float32)) as writer:
        for step in range(snapshots):
            losses = np.full(2, 1 / (1 + step))
            writer.append(
                Snapshot(step, step, 2 * step, step, step, step, theta, np.zeros(0), losses, np.zeros(0), history)
            )
            theta = theta + np.roll(noise, 7919 * step)
        writer.finish()


def _child(path: Path, what: str, state: str) -> dict[str, float]:
    if state == "cold":
        _forget(path)
    command = [sys.executable, "-m", "benchmarks.bench_exploration", str(path), what]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def _forget(path: Path) -> None:
    """Asks the system to drop the file from its memory."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _peak() -> int:
    """Bytes that this program held at most. `getrusage` also counts what the process held before it was this program,
    when it was a copy of the one that started it; it is asked only where the system tells nothing else.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _work(path: Path, what: str) -> None:
    if what == "rows":
        with h5py.File(path, "r") as file:
            for row in range(file["snapshots/theta"].shape[0]):
                file["snapshots/theta"][row]
        return
    if what == "blocks":
        with h5py.File(path, "r") as file:
            theta = file["snapshots/theta"]
            for first in range(0, theta.shape[1], ROWS):
                theta[:, first : first + ROWS]
        return
    trajectory = store.open(path)
    subsets = (Everything(), Shared(), WithoutNorms(Shared()), Head("one"), Head("two"))
    forms = (Raw(), Relative(), Filterwise(), Invariant(("*.conv.weight",)))
    if what == "distances":
        onepass.distances(trajectory, subsets, forms, 1 << 30)
    else:
        movement.measure([trajectory], movement.Measuring(subsets, forms, draws=99 if "walks" in what else 0))


if __name__ == "__main__":
    start, busy = time.perf_counter(), time.process_time()
    _work(Path(sys.argv[1]), sys.argv[2])
    used = _peak()
    seconds, processor = time.perf_counter() - start, time.process_time() - busy
    print(json.dumps({"seconds": seconds, "processor": processor, "peak": used}))
