"""A user's folder in which commands are given, and what came of them."""

import contextlib
import hashlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cli

ROOT = Path(__file__).parents[2]
MODELS = Path(__file__).with_name("models.py")
"""A user's own file of problems."""

SHORT = ("--steps", "6", "--every", "2", "--batch-size", "8")


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """stdout, which has to be one valid JSON document."""
        return json.loads(self.out, parse_constant=lambda name: (_ for _ in ()).throw(ValueError(name)))


class Desk:
    """Gives commands in a folder: `run` in this process, `start` in one of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *words: str | Path) -> Ran:
        """A command, whatever its end."""
        out, err = io.StringIO(), io.StringIO()
        with within(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            status = cli.run([str(word) for word in words])
        return Ran(status, out.getvalue(), err.getvalue())

    def do(self, *words: str | Path) -> Ran:
        """A command that has to succeed."""
        ran = self.run(*words)
        assert ran.status == 0, ran.err
        assert not temporary(self.folder)
        return ran

    def refuse(self, match: str, *words: str | Path, keeps: Sequence[str] = ()) -> str:
        """A command that has to be refused in one sentence, and may change no file but those that it `keeps`."""
        before = contents(self.folder)
        ran = self.run(*words)
        after = contents(self.folder)
        assert ran.out == ""
        require_sentence(ran.status, ran.err, match)
        assert {name for name in before | after if before.get(name) != after.get(name)} == set(keeps)
        return ran.err

    def start(
        self,
        *words: str | Path,
        stdout: Any = subprocess.PIPE,
        stderr: Any = subprocess.PIPE,
        file_size: int = 0,
        **variables: str,
    ) -> "subprocess.Popen[str]":
        """A command in a process group of its own, which may write files of `file_size` bytes, 0: any.

        Python puts bytecode that was cut short in the place of what was there (gh-126606), where every later process
        stumbles over it: on a full disk none is written.
        """
        limits = ["prlimit", f"--fsize={file_size}"] if file_size else []
        if file_size:
            variables = {"PYTHONDONTWRITEBYTECODE": "1", **variables}
        return subprocess.Popen(
            [*limits, sys.executable, "-m", "cli", *map(str, words)],
            cwd=self.folder,
            env=os.environ | {"PYTHONPATH": str(ROOT)} | variables,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            text=True,
            start_new_session=True,
        )

    def finish(self, *words: str | Path, file_size: int = 0, **variables: str) -> Ran:
        """A command in a process of its own, to its end."""
        process = self.start(*words, file_size=file_size, **variables)
        out, err = process.communicate(timeout=LONG_ENOUGH)
        return Ran(process.returncode, out, err)


@contextlib.contextmanager
def within(folder: Path) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def require_sentence(status: int, err: str, match: str) -> None:
    """One sentence on one line of stderr, and exit status 2; lines of progress may stand before it."""
    *_, last = err.splitlines()
    assert status == 2, err
    assert last.startswith("landscape: ")
    assert err.endswith(last + "\n")
    assert "Traceback" not in err
    assert not last.startswith("landscape: unexpected")
    assert re.search(match, last), f"{match!r} is not in {last!r}"


def contents(folder: Path) -> dict[str, str]:
    """Every file by its path, with a hash of its bytes; what Python caches of an imported file is not ours."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.parent.name != "__pycache__")
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def temporary(folder: Path) -> list[str]:
    """Files that only a command at work should have: hidden ones."""
    return [name for name in contents(folder) if Path(name).name.startswith(".")]


LONG_ENOUGH = 900.0
"""Seconds after which a process hangs for sure, also on a machine that others keep busy."""


@contextlib.contextmanager
def until(process: "subprocess.Popen[str]", happened: Callable[[], bool]) -> Iterator[None]:
    """Enters its body as soon as something happened, with the process held by SIGSTOP.

    The process works in short slices and is held while one looks, so that it never gets far beyond what is looked for,
    however busy the machine is.
    """
    end = time.monotonic() + LONG_ENOUGH
    try:
        while True:
            process.send_signal(signal.SIGSTOP)
            if happened():
                break
            process.send_signal(signal.SIGCONT)
            assert process.poll() is None, "the command ended before it could be stopped"
            assert time.monotonic() < end, "the command did not come as far as expected"
            time.sleep(0.02)
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
