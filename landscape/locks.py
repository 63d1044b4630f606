"""One writer at a time: a lock file beside the file that is written.

The lock dies with its holder, so that a file which a killed process left over holds nobody up. Whoever takes a lock
file away holds its lock meanwhile, and whoever gets a lock looks whether its file still stands.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from landscape.errors import LandscapeError

_PROBED = 0.5
"""Seconds that a writer allows for processes which only look whether a lock is left over."""


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """The right to write a file, in a folder that is made where it is missing.

    Raises:
        LandscapeError: another process is writing the file, its folder cannot be written, or its lock cannot be had.
    """
    name = _lock_file(path)
    lock = FileLock(name, mode=0o666)  # whoever may write the folder may take over what a killed writer left
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent):  # a lock that cannot be made looks like one that another holds
            pass
    except OSError as error:
        raise LandscapeError(
            f"cannot write {path} ({error.strerror}): expected a folder that can be written; choose another"
        ) from error
    try:
        clear_stale(path)
        lock.acquire(timeout=_PROBED)
    except Timeout as error:
        raise LandscapeError(
            f"{path} is being written by another process: expected to be the only writer; wait for it or "
            "choose another file"
        ) from error
    except OSError as error:
        raise LandscapeError(
            f"cannot lock {path} with {name} ({error.strerror}): expected a lock file of your own, or none; remove "
            "it if nobody writes, or choose another folder"
        ) from error
    mine = name.stat()
    try:
        yield
    finally:
        uninterrupted(lambda: _take_away(name, mine), lock.release)


def _take_away(name: Path, mine: os.stat_result) -> None:
    with contextlib.suppress(OSError):  # gone already; or another user's, in a folder where each removes his own only
        if os.path.samestat(name.stat(), mine):
            name.unlink()


def clear_stale(path: Path) -> None:
    """Takes away the lock file that a killed writer of `path` left, whoever that was. A lock that is held stays."""
    name = _lock_file(path)
    with contextlib.suppress(OSError):
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(handle), name.stat()):
                name.unlink()
        finally:
            os.close(handle)


def uninterrupted(*steps: Callable[[], object]) -> None:
    """Calls every step. One that Ctrl-C interrupts is called again, and the interruption raised after the last."""
    todo, interruption = list(steps), None
    while todo:
        try:
            todo[0]()
            del todo[0]
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption


def _lock_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.lock")
