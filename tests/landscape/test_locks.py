"""One writer at a time, whatever became of the last one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from landscape.errors import LandscapeError
from landscape.locks import clear_stale, only_writer, uninterrupted
from tests.users import NOBODY, another_user, open_to_all, root_only

WRITTEN = r"run\.h5 is being written by another process"


def lock_of(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[Path]:
    """A folder that everybody may write."""
    folder = tmp_path / "shared"
    folder.mkdir()
    with open_to_all(folder):
        yield folder


def test_nothing_is_left_of_a_lock(tmp_path: Path) -> None:
    with only_writer(tmp_path / "run.h5"):
        assert os.listdir(tmp_path) == [".run.h5.lock"]
    assert os.listdir(tmp_path) == []


def test_a_lock_that_is_held_is_neither_had_nor_taken_away(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    with only_writer(path):
        clear_stale(path)
        assert lock_of(path).exists()
        with pytest.raises(LandscapeError, match=WRITTEN), only_writer(path):
            pass
        assert lock_of(path).exists()


def test_the_lock_of_a_killed_writer_holds_nobody_up(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    code = (
        "import fcntl, os, sys\n"
        "handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\nprint('locked', flush=True)\nsys.stdin.read()"
    )
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", code, lock_of(path)], stdin=pipe, stdout=pipe) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        clear_stale(path)
        with pytest.raises(LandscapeError, match=WRITTEN), only_writer(path):
            pass
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert lock_of(path).exists()
    with only_writer(path):
        pass
    assert not lock_of(path).exists()


@root_only
@pytest.mark.parametrize("mode", [0o644, 0o444, 0o600])
def test_another_users_lock_that_is_left_over_is_taken_away_in_a_shared_folder(shared: Path, mode: int) -> None:
    path = shared / "run.h5"
    lock_of(path).touch()
    lock_of(path).chmod(mode)
    with another_user():
        if mode == 0o600:  # whether somebody holds it cannot be found out
            with pytest.raises(
                LandscapeError, match=r"cannot lock .*run\.h5 with .*\.lock \(Permission denied\): expect"
            ):
                only_writer(path).__enter__()
            return
        with only_writer(path):
            assert lock_of(path).stat().st_uid == NOBODY
    assert os.listdir(shared) == []


@root_only
def test_where_each_removes_his_own_only_a_lock_is_taken_over_and_stays(shared: Path) -> None:
    shared.chmod(0o1777)
    path = shared / "run.h5"
    with only_writer(path):
        left = os.stat(lock_of(path)).st_mode & 0o777
    lock_of(path).touch()
    lock_of(path).chmod(left)
    with another_user(), only_writer(path):
        pass
    assert lock_of(path).exists()
    lock_of(path).chmod(0o644)
    with another_user(), pytest.raises(LandscapeError, match=r"remove it if nobody writes, or choose another folder$"):
        only_writer(path).__enter__()


def test_no_two_hold_a_lock_at_once_while_others_take_left_ones_away(tmp_path: Path) -> None:
    path, holders, most, had = tmp_path / "run.h5", [0], [0], [0]
    done = threading.Event()

    def write() -> None:
        for _ in range(40):
            try:
                with only_writer(path):
                    holders[0] += 1
                    most[0] = max(most[0], holders[0])
                    had[0] += 1
                    holders[0] -= 1
            except LandscapeError as error:
                assert "is being written" in str(error)  # noqa: PT017

    def tidy() -> None:
        while not done.is_set():
            clear_stale(path)

    tidier, writers = threading.Thread(target=tidy), [threading.Thread(target=write) for _ in range(3)]
    tidier.start()
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    tidier.join()
    assert most == [1]
    assert had[0] > 3
    assert os.listdir(tmp_path) == []


def test_steps_that_an_interruption_meets_are_done_and_it_is_raised_afterwards() -> None:
    done: list[str] = []

    def interrupted() -> None:
        done.append("first")
        if len(done) == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        uninterrupted(interrupted, lambda: done.append("second"))
    assert done == ["first", "first", "second"]
