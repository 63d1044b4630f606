"""A signal ends a command wherever it comes, also where Python or a library drops what a signal raises."""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import archive
from cli import commands, signals
from landscape.errors import LandscapeError
from tests.cli.desk import LONG_ENOUGH, ROOT, Desk, require_sentence, temporary, until
from tests.cli.test_interruptions import GO_ON, no_process_left
from tests.cli.test_study import datasets


class Object:
    """Something that weak references can point to."""


class Ended(Object):
    """A signal comes while it is taken away."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))


def in_a_weak_reference(folder: Path) -> None:
    thing = Object()
    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGINT))
    del thing
    assert kept() is None


def in_a_weak_reference_by_sigterm(folder: Path) -> None:
    thing = Object()
    kept = weakref.ref(thing, lambda _: os.kill(os.getpid(), signal.SIGTERM))
    del thing
    assert kept() is None


def while_an_object_is_taken_away(folder: Path) -> None:
    Ended()
    gc.collect()


def in_a_library_that_drops_everything(folder: Path) -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
    except BaseException:
        pass


def in_a_library_that_makes_another_error_of_it(folder: Path) -> None:
    try:
        os.kill(os.getpid(), signal.SIGINT)
        sum(range(1000))
    except KeyboardInterrupt:
        raise ImportError("numpy._core.multiarray failed to import") from None


def in_an_import(folder: Path) -> None:
    (folder / "interrupted.py").write_text(
        "import os, signal\n"
        "try:\n    os.kill(os.getpid(), signal.SIGINT)\n    sum(range(1000))\n"
        "except BaseException as error:\n    raise ImportError('half imported') from error\n",
        encoding="utf-8",
    )
    sys.path.insert(0, str(folder))
    try:
        importlib.import_module("interrupted")
    finally:
        sys.modules.pop("interrupted", None)


def where_it_is_raised(folder: Path) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    sum(range(1000))


PLACES = [
    in_a_weak_reference,
    in_a_weak_reference_by_sigterm,
    while_an_object_is_taken_away,
    in_a_library_that_drops_everything,
    in_a_library_that_makes_another_error_of_it,
    in_an_import,
    where_it_is_raised,
]


@pytest.mark.parametrize("place", PLACES, ids=lambda place: place.__name__)
def test_a_signal_ends_a_command_wherever_it_comes(
    desk: Desk, place: Callable[[Path], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    went_on = []

    def work(path: Path) -> None:
        place(desk.folder)
        if place is in_a_library_that_drops_everything:  # nothing says so: the next word of progress finds out
            commands.Stages(quiet=True).tell(1)
        for _ in range(3000):  # far longer than it takes until what was dropped is raised again
            time.sleep(0.01)
        went_on.append(path)

    monkeypatch.setattr("cli.describe.describe", work)
    before = handlers()
    ran = desk.run("info", "run.h5")
    require_sentence(ran.status, ran.err, f"^landscape: {GO_ON}$")
    assert ran.err.count("\n") == 1
    assert not went_on
    assert handlers() == before
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def handlers() -> list[object]:
    return [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGALRM)]


def test_what_fails_while_files_are_put_in_order_is_said(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(path: Path) -> None:
        try:
            where_it_is_raised(path)
        finally:
            commands.Stages(quiet=True).say("what is put in order meanwhile is not interrupted again")
            raise LandscapeError("expected room for what was done")

    monkeypatch.setattr("cli.describe.describe", work)
    ran = desk.run("info", "run.h5")
    require_sentence(ran.status, ran.err, "^landscape: expected room for what was done$")


def test_errors_without_a_signal_stay_what_they_are(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    def work(path: Path) -> None:
        raise ImportError("numpy._core.multiarray failed to import")

    monkeypatch.setattr("cli.describe.describe", work)
    ran = desk.run("info", "run.h5")
    assert ran.status == 2
    assert ran.err.startswith("landscape: unexpected ImportError (numpy._core.multiarray failed to import)")


SLOW_TO_END = """
import sys, time
from cli.signals import _BURST, interruption
interruption.install()
try:
    print("begun", flush=True)
    time.sleep(600)
finally:
    time.sleep(1.5 * _BURST)
    print("in order", flush=True)
    time.sleep(600)
"""


def test_a_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    pipe = subprocess.PIPE
    with subprocess.Popen(
        [sys.executable, "-c", SLOW_TO_END], cwd=tmp_path, env=environment, stdout=pipe, stderr=pipe, text=True
    ) as process:
        try:
            assert process.stdout is not None
            for word in ("begun\n", "in order\n"):
                assert process.stdout.readline() == word
                process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=LONG_ENOUGH)
        finally:
            process.kill()
    assert (process.returncode, err) == (2, signals.AT_ONCE + "\n")


LATE = """
import os, signal, sys

import cli
from cli.signals import interruption


class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), numbers=(signal.SIGALRM, signal.SIGTERM)):
        for number in numbers:
            kill(me, number)


kept = Late()
cli._ended = lambda words: 2 if interruption.finish() is None and not interruption._raise_soon() else 0
sys.exit(cli.main())
"""


def test_a_signal_while_python_takes_itself_down_leaves_the_status(tmp_path: Path) -> None:
    """At that time Python has given all signals their default back, which ends a process."""
    variables = {**os.environ, "PYTHONPATH": str(ROOT)}
    ran = subprocess.run([sys.executable, "-c", LATE], env=variables, cwd=tmp_path, capture_output=True, check=False)
    assert (ran.returncode, ran.stderr) == (2, b"")


def heeds_signals(process: subprocess.Popen[str]) -> bool:
    """Whether a command has come so far that it catches SIGTERM; false once it has ended."""
    with contextlib.suppress(OSError, IndexError):
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> (signal.SIGTERM - 1) & 1)
    return False


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "jobs"), [(0, "1"), (1, "1"), (2, "2")])
def test_signals_at_any_moment_end_a_study_that_goes_on_with_the_same_bytes(
    studied: Path, desk: Desk, seed: int, jobs: str
) -> None:
    chance = random.Random(seed)
    study = desk.folder / "study"
    shutil.copy(studied / "study.toml", desk.folder / "mine.toml")
    words = ("study", "mine.toml", "--quiet", "--jobs", jobs)
    for _ in range(8):
        process = desk.start(*words)
        with until(process, lambda process=process: heeds_signals(process)):  # type: ignore[misc]
            process.send_signal(signal.SIGCONT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(chance.uniform(0, 8))
            ended = process.poll()
            process.send_signal(chance.choice([signal.SIGINT, signal.SIGTERM, signal.SIGHUP]))
            out, err = process.communicate(timeout=LONG_ENOUGH)
            if ended is None and process.returncode:  # else it was done before the signal came
                assert out == ""
                require_sentence(process.returncode, err, f"^landscape: {GO_ON}$")
                assert err.count("\n") == 1
            assert no_process_left(process.pid)
        assert temporary(desk.folder) == []
    desk.do(*words)
    for run in (studied / "runs").iterdir():
        assert datasets(study / "runs" / run.name) == datasets(run)
    mine, whole = (archive.load_all(folder / "results.h5") for folder in (study, studied))
    assert sorted(mine) == sorted(whole)
    for name in whole:
        if name.split("/")[0] in ("search", "plane", "surface", "eigenvalues", "distances"):  # the others hold seconds
            assert mine[name].record == whole[name].record, name
