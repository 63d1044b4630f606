"""Ctrl-C, SIGTERM, kill -9, a full disk: what was done is kept, and the same command goes on."""

import contextlib
import os
import pty
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from analysis import archive
from cli import commands
from landscape import store
from landscape.errors import LandscapeError
from tests.cli.desk import LONG_ENOUGH, SHORT, Desk, contents, require_sentence, temporary, until
from tests.cli.test_study import datasets

LONG = ("--steps", "600", "--every", "20", "--batch-size", "8", "--seed", "3")
SNAPSHOTS = 31
GO_ON = "interrupted: what was finished is kept; give the same command again to go on"


def snapshots(path: Path) -> int:
    """How many snapshots a file holds, none if it cannot be read yet."""
    try:
        return len(store.open(path))
    except LandscapeError:
        return 0


def to_process(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGINT)


def to_group(process: "subprocess.Popen[str]") -> None:
    """As a terminal does."""
    os.killpg(process.pid, signal.SIGINT)


def by_scheduler(process: "subprocess.Popen[str]") -> None:
    process.send_signal(signal.SIGTERM)


def stopped(process: "subprocess.Popen[str]", how: Callable[["subprocess.Popen[str]"], None]) -> None:
    how(process)
    process.send_signal(signal.SIGCONT)
    out, err = process.communicate(timeout=LONG_ENOUGH)
    assert out == ""
    require_sentence(process.returncode, err, GO_ON)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run that was never interrupted."""
    desk = Desk(tmp_path_factory.mktemp("whole"))
    desk.do("train", "quadratic", *LONG)
    return desk.folder / "run.h5"


@pytest.mark.parametrize("how", [to_group, pytest.param(by_scheduler, marks=pytest.mark.slow)])
def test_training_goes_on_after_an_interruption(
    desk: Desk, whole: Path, how: Callable[["subprocess.Popen[str]"], None]
) -> None:
    run = desk.folder / "run.h5"
    process = desk.start("train", "quadratic", *LONG, "--quiet")
    with until(process, lambda: snapshots(run) > 1):
        stopped(process, how)
    assert temporary(desk.folder) == []
    assert 1 < snapshots(run) < SNAPSHOTS
    desk.do("train", "quadratic", *LONG)
    assert datasets(run) == datasets(whole)


@pytest.mark.slow
def test_training_goes_on_after_kill_9(desk: Desk, whole: Path) -> None:
    run = desk.folder / "run.h5"
    process = desk.start("train", "quadratic", *LONG, "--quiet")
    with until(process, lambda: snapshots(run) > 1):
        process.kill()
        process.communicate()
    assert 1 < snapshots(run) < SNAPSHOTS
    assert not desk.run("info", "run.h5", "--json").json["complete"]
    desk.do("train", "quadratic", *LONG)
    assert datasets(run) == datasets(whole)


def test_a_run_that_is_being_written_can_be_read_but_not_written(desk: Desk) -> None:
    process = desk.start("train", "quadratic", *LONG, "--quiet")
    with until(process, lambda: snapshots(desk.folder / "run.h5") > 1):
        facts = desk.run("info", "run.h5", "--json").json
        assert (facts["complete"], facts["snapshots"] > 1) == (False, True)
        ran = desk.run("train", "quadratic", *LONG)
        require_sentence(ran.status, ran.err, "run.h5 is being written by another process: .* wait for it or choose")
        process.send_signal(signal.SIGCONT)
        process.communicate(timeout=LONG_ENOUGH)
        assert process.returncode == 0
    assert desk.do("info", "run.h5", "--json").json["complete"]


@pytest.mark.slow
def test_a_surface_goes_on_after_an_interruption(desk: Desk, runs: Path) -> None:
    shutil.copy(runs / "run.h5", desk.folder)
    words = ("surface", "run.h5", "--nx", "61", "--ny", "61", "--quiet")
    results = desk.folder / "results.h5"
    process = desk.start(*words)
    with until(process, results.exists):
        stopped(process, to_group)
    assert temporary(desk.folder) == []
    unfinished = archive.find(results, "surface/principal")
    assert unfinished is None or not unfinished.record.done.all()
    desk.do(*words)
    desk.do(*words, "--out", "whole.h5")
    found = archive.load(results, "surface/principal").record
    assert found.done.all()
    assert found == archive.load(desk.folder / "whole.h5", "surface/principal").record


@pytest.mark.slow
def test_eigenvalues_can_be_interrupted(desk: Desk) -> None:
    desk.do("train", "quadratic", "--set", "size=200", "--set", "tasks=9", *SHORT)
    desk.do("explore", "run.h5")
    words = ("hessian", "run.h5", "--at", "all", "--top", "50", "--tolerance", "1e-14", "--products", "200")
    screen, terminal = pty.openpty()
    said = b""
    with desk.start(*words, stderr=terminal, TERM="xterm", COLUMNS="200") as process:
        os.close(terminal)
        with contextlib.suppress(OSError):  # how a terminal ends
            while chunk := os.read(screen, 4096):
                if b"Hessian eigenvalues" in chunk and b"Hessian eigenvalues" not in said:
                    os.killpg(process.pid, signal.SIGINT)
                said += chunk
    os.close(screen)
    assert process.returncode == 2
    assert GO_ON in said.decode()
    assert b"Traceback" not in said
    assert temporary(desk.folder) == []
    assert [g for g in archive.groups(desk.folder / "results.h5") if g.startswith("eigen")] == []
    assert "exploration/averaged-0" in archive.groups(desk.folder / "results.h5")


@pytest.fixture
def settings(desk: Desk) -> Desk:
    (desk.folder / "mine.toml").write_text(
        'problem = "quadratic"\nseeds = [0, 1]\n'
        'strategies = [{name = "averaged", rate = 0.003}, {name = "independent", rate = 0.003}]\n'
        "[training]\nsteps = 1500\nevery = 20\nbatch_size = 8\n"
        "[surface]\nnx = 5\nny = 4\n[hessian]\nsnapshots = 1\ntop = 1\n",
        encoding="utf-8",
    )
    return desk


def begun(folder: Path) -> bool:
    return any(snapshots(path) > 1 for path in folder.glob("study/runs/*.h5"))


@pytest.mark.slow
@pytest.mark.parametrize(("jobs", "how"), [("1", to_group), ("2", to_process), ("2", to_group), ("2", by_scheduler)])
def test_a_study_goes_on_after_an_interruption(
    settings: Desk, jobs: str, how: Callable[["subprocess.Popen[str]"], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(commands, "STUDY_FORMATS", ["svg"])
    words = ("study", "mine.toml", "--quiet", "--jobs", jobs)
    process = settings.start(*words)
    with until(process, lambda: begun(settings.folder)):
        stopped(process, how)
        assert no_process_left(process.pid)
    assert temporary(settings.folder) == []
    assert not (settings.folder / "study" / "results.h5").exists()
    settings.do("study", "--jobs", "1", "--quiet")


@pytest.mark.slow
def test_workers_that_start_while_ctrl_c_comes_print_no_traceback(settings: Desk) -> None:
    process = settings.start("study", "mine.toml", "--quiet", "--jobs", "2")
    with until(process, lambda: children(process.pid) >= 2):
        stopped(process, to_group)
        assert no_process_left(process.pid)
    assert temporary(settings.folder) == []


@pytest.mark.slow
def test_a_study_goes_on_after_kill_9_with_the_same_numbers(settings: Desk) -> None:
    process = settings.start("study", "mine.toml", "--quiet", "--jobs", "2")
    with until(process, lambda: begun(settings.folder)):
        process.kill()
        process.communicate()
        assert no_process_left(process.pid)
    settings.do("study", "mine.toml", "--quiet", "--jobs", "2")
    settings.do("study", "mine.toml", "--quiet", "--jobs", "1", "--out", "whole")
    mine, theirs = (settings.folder / name / "results.h5" for name in ("study", "whole"))
    for run in (settings.folder / "study" / "runs").iterdir():
        whole = settings.folder / "whole" / "runs" / run.name
        assert datasets(run) == datasets(whole)
    for group in ("surface/principal", "eigenvalues/averaged-0", "distances/last"):
        assert archive.load(mine, group).record == archive.load(theirs, group).record
    assert temporary(settings.folder) == []


def children(parent: int) -> int:
    return len(Path(f"/proc/{parent}/task/{parent}/children").read_text(encoding="ascii").split())


def no_process_left(group: int) -> bool:
    """Whether every process of a group has ended, if not at once then soon."""
    for _ in range(1000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.slow
def test_a_full_disk_loses_nothing(desk: Desk) -> None:
    words = ("train", "digits", "--set", "train=64", "--set", "evaluation=16", "--batch-size", "8")
    words = (*words, "--steps", "24", "--every", "2", "--quiet")
    desk.do(*words, "--out", "whole.h5")
    whole = desk.folder / "whole.h5"
    full = desk.finish(*words, file_size=whole.stat().st_size * 2 // 3)
    require_sentence(
        full.status, full.err, "run.h5.*[0-9]+ snapshots are kept, the last at step [0-9]+; .* the same command"
    )
    assert temporary(desk.folder) == []
    assert 1 < snapshots(desk.folder / "run.h5") < snapshots(whole)
    desk.do(*words)
    assert datasets(desk.folder / "run.h5") == datasets(whole)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param("train quadratic --out new.h5", marks=pytest.mark.slow),
        pytest.param("surface run.h5 --nx 3 --ny 3 --out new.h5", marks=pytest.mark.slow),
        pytest.param("explore run.h5 --out results.h5", marks=pytest.mark.slow),
        pytest.param("figures results.h5 --out new --format png", marks=pytest.mark.slow),
        "report results.h5 --out new.html",
        pytest.param("study --problem quadratic --out new", marks=pytest.mark.slow),
    ],
)
def test_a_disk_that_is_full_at_once_leaves_nothing_half_written(desk: Desk, runs: Path, line: str) -> None:
    shutil.copytree(runs, desk.folder, dirs_exist_ok=True)
    before = contents(desk.folder)
    full = desk.finish(*line.split(), "--quiet", file_size=100)
    require_sentence(full.status, full.err, "(no room|File too large).*the same command|cannot write .*File too large")
    assert full.out == ""
    assert contents(desk.folder) == before
