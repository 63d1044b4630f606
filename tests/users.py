"""A shared folder and another user in it, for tests that run as root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

NOBODY = 65534
root_only = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")


@contextlib.contextmanager
def open_to_all(folder: Path) -> Iterator[None]:
    """Everybody can come to a folder and write there meanwhile, in whatever of pytest's own folders it lies."""
    closed = {above: above.stat().st_mode for above in folder.parents if above.stat().st_mode & 0o077 == 0}
    mode = folder.stat().st_mode
    folder.chmod(0o777)
    for above in closed:
        above.chmod(0o711)
    try:
        yield
    finally:
        for above, before in {**closed, folder: mode}.items():
            above.chmod(before)


@contextlib.contextmanager
def another_user() -> Iterator[None]:
    """This process belongs to nobody meanwhile."""
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
