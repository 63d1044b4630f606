"""What was acknowledged survives: killed writers, full disks, readers at work."""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import landscape
from landscape import LandscapeError, Trajectory, record
from tests.landscape import writing
from tests.landscape.examples import everything

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    """The run that was never interrupted."""
    return record(*writing.settings(), tmp_path_factory.mktemp("whole") / "run.h5")


@contextmanager
def a_writer(path: Path, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "tests.landscape.writing", str(path), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, cwd=path.parent, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def go_on(process: subprocess.Popen[str]) -> None:
    """Lets a paced writer take its next three steps."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        os.write(process.stdin.fileno(), b"\n")


def killed(path: Path, after: float) -> int:
    """Kills a writer so many seconds after its first word; the last step that it acknowledged, -1 for none."""
    with a_writer(path) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        time.sleep(after)
        process.send_signal(signal.SIGKILL)
        said, errors = process.communicate(timeout=900)
    assert errors == ""
    steps = [int(line) for line in (first + said).split()]
    return max(steps, default=-1)


def assert_prefix(path: Path, whole: Trajectory, acknowledged: int) -> int:
    """The file holds at least what was acknowledged, and nothing but what the whole run holds."""
    there = landscape.open(path)
    assert len(there) > acknowledged
    assert there.theta[:].tobytes() == whole.theta[: len(there)].tobytes()
    assert there.buffers[:].tobytes() == whole.buffers[: len(there)].tobytes()
    assert there.losses.tobytes() == whole.losses[: len(there)].tobytes()
    assert there.history.losses.tobytes() == whole.history.losses[: there.steps[-1]].tobytes()
    return len(there)


def finish(path: Path, whole: Trajectory) -> None:
    """Gives the same command once more: the file ends as if nothing had happened, and nothing lies beside it."""
    resumed = record(*writing.settings(), path)
    assert everything(resumed) == everything(whole)
    assert (np.diff(resumed.seconds) > 0).all()
    assert os.listdir(path.parent) == [path.name]


def survive(path: Path, whole: Trajectory, kills: int, seed: int) -> None:
    delays = random.Random(seed)
    for _ in range(kills):
        assert_prefix(path, whole, killed(path, delays.uniform(0, 0.3)))
    finish(path, whole)


def test_what_was_acknowledged_survives_a_kill(whole: Trajectory, tmp_path: Path) -> None:
    survive(tmp_path / "run.h5", whole, 1, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_what_was_acknowledged_survives_many_kills(seed: int, whole: Trajectory, tmp_path: Path) -> None:
    survive(tmp_path / "run.h5", whole, 6, seed)


@pytest.mark.slow
def test_a_writer_killed_before_its_first_snapshot_leaves_no_file_of_that_name(
    whole: Trajectory, tmp_path: Path
) -> None:
    path, seen = tmp_path / "run.h5", 0
    delays = random.Random(0)
    for trial in range(10):
        with a_writer(path) as process:
            while process.poll() is None and not any(tmp_path.iterdir()):
                time.sleep(0.001)
            if trial:  # the first is killed as soon as anything is there
                time.sleep(delays.uniform(0, 0.02))
            process.send_signal(signal.SIGKILL)
        if path.exists():
            assert_prefix(path, whole, -1)
            path.unlink()
        else:
            seen += 1
            with pytest.raises(LandscapeError, match="there is no file"):
                landscape.open(path)
    assert seen
    finish(path, whole)


@pytest.mark.slow
def test_the_lock_of_a_killed_writer_goes_when_its_file_is_read(whole: Trajectory, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    killed(path, 0)
    if not landscape.open(path).complete:
        assert os.listdir(tmp_path) == [path.name]
    finish(path, whole)


def test_a_file_can_be_read_while_it_is_written(whole: Trajectory, tmp_path: Path) -> None:
    path, lengths = tmp_path / "run.h5", [0]
    with a_writer(path, "paced") as process:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.005)
        early = landscape.open(path)
        while process.poll() is None:
            lengths.append(assert_prefix(path, whole, lengths[-1] - 1))
            if lengths[-1] > lengths[-2]:  # the writer works while this reads, and does not end before it has
                go_on(process)
    assert len(set(lengths)) > 5
    assert landscape.open(path).complete
    # What was opened stays as it was while the file grew.
    assert early.theta[:].tobytes() == whole.theta[: len(early)].tobytes()
    assert early.theta[-1].tobytes() == whole.theta[len(early) - 1].tobytes()
    assert len(early) < len(whole)
    assert not early.complete


@pytest.mark.slow
def test_a_file_never_counts_as_complete_before_it_is(whole: Trajectory, tmp_path: Path) -> None:
    path, seen, last = tmp_path / "run.h5", 0, 0
    with a_writer(path, "paced") as process:
        while not path.exists():
            assert process.poll() is None
        while process.poll() is None:
            there = landscape.open(path)
            assert not there.complete or len(there) == len(whole)
            if len(there) > last:
                last, seen = len(there), seen + 1
                go_on(process)
    assert seen > 10


def test_a_full_disk_keeps_what_was_acknowledged(whole: Trajectory, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with a_writer(path, str(1_200_000)) as process:
        said, errors = process.communicate(timeout=900)
    acknowledged = [int(line) for line in said.split()]
    assert process.returncode == 1
    kept = f"{len(acknowledged)} snapshots are kept, the last at step {len(acknowledged) - 1}"
    expected = rf"refused: no room to go on writing .*run\.h5 \(.*\): expected \d+ more bytes; {kept}; free some space"
    assert re.match(expected, errors), errors
    assert len(errors.splitlines()) == 1
    assert assert_prefix(path, whole, acknowledged[-1]) == len(acknowledged)
    assert os.listdir(tmp_path) == [path.name]
    finish(path, whole)


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", [1, 20, 300, 500])
def test_a_disk_full_from_the_start_leaves_nothing(kilobytes: int, tmp_path: Path) -> None:
    with a_writer(tmp_path / "run.h5", str(kilobytes * 1000)) as process:
        said, errors = process.communicate(timeout=900)
    assert (process.returncode, said) == (1, "")
    assert re.match(r"refused: (no room to go on writing|cannot write) .*; (free some space|choose another)", errors)
    assert len(errors.splitlines()) == 1
    assert os.listdir(tmp_path) == []


@pytest.mark.slow
def test_a_full_disk_after_a_kill_changes_nothing(whole: Trajectory, tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    acknowledged = killed(path, 0.1)
    before = path.read_bytes()
    with a_writer(path, "100000") as process:
        said, errors = process.communicate(timeout=900)
    assert (process.returncode, said) == (1, "")
    assert re.match(r"refused: (no room to go on writing|cannot go on with)", errors), errors
    assert path.read_bytes() == before
    assert_prefix(path, whole, acknowledged)
    finish(path, whole)
