"""Results go to stdout and nothing else does; progress goes to stderr; `--json` is one valid document."""

import contextlib
import os
import pty

import pytest

import landscape
from landscape.errors import LandscapeError
from landscape.problems import load
from landscape.strategies import Averaged
from tests.cli.desk import LONG_ENOUGH, MODELS, SHORT, Desk, require_sentence

HIDDEN, SHOWN = "\x1b[?25l", "\x1b[?25h"
"""What makes a terminal hide its cursor and show it again."""

COMMANDS = ("study", "train", "surface", "hessian", "theory", "explore", "figures", "report", "info")


LINES = {
    "train": ("train", "quadratic", "--seed", "1", *SHORT, "--out", "new.h5"),
    "surface": ("surface", "run.h5", "--nx", "3", "--ny", "4", "--out", "new.h5"),
    "hessian": ("hessian", "run.h5", "--at", "last", "--top", "1", "--out", "new.h5"),
    "theory": ("theory", "run.h5", "--at", "last", "--orders", "none", "--out", "new.h5"),
    "explore": ("explore", "run.h5", "--out", "new.h5"),
    "figures": ("figures", "results.h5", "--out", "new", "--format", "svg"),
    "report": ("report", "results.h5", "--out", "new.html"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example(desk: Desk, command: str) -> None:
    ran = desk.do(command, "--help")
    assert f"Example: landscape {command} " in " ".join(ran.out.split())
    assert ran.err == ""


def test_help_alone_lists_the_commands(desk: Desk) -> None:
    for words in ((), ("--help",), ("-h",)):
        ran = desk.do(*words)
        assert all(f" {command} " in ran.out for command in COMMANDS)
        assert ran.err == ""


def test_version(desk: Desk) -> None:
    assert desk.do("--version").out.startswith("landscape ")


@pytest.mark.parametrize("command", LINES)
def test_a_command_says_where_it_wrote(full: Desk, command: str) -> None:
    ran = full.do(*LINES[command])
    written = full.folder / ran.out.splitlines()[-1]
    assert written.exists()
    assert written.stem == "new"
    assert ran.err


@pytest.mark.parametrize("command", LINES)
def test_quiet_and_json_leave_one_document_and_nothing_else(full: Desk, command: str, undrawn: None) -> None:
    ran = full.do(*LINES[command], "--quiet", "--json")
    assert ran.json
    assert ran.err == ""


@pytest.mark.parametrize("command", LINES)
def test_quiet_leaves_no_progress(full: Desk, command: str, undrawn: None) -> None:
    assert full.do(*LINES[command], "--quiet").err == ""


def test_json_has_null_where_a_number_is_not_finite(desk: Desk) -> None:
    desk.do("train", "quadratic", "--rate", "0", *SHORT, "--out", "run.h5")
    (run,) = desk.do("explore", "run.h5", "--json").json["runs"]
    assert run["net"][-1] == 0
    assert run["ratio"][-1] is None


def test_tables_are_never_cut(full: Desk) -> None:
    ran = full.do("hessian", "run.h5", "--at", "last", "--top", "8", "--out", "new.h5")
    assert "…" not in ran.out
    rows = [line for line in ran.out.splitlines() if line.startswith("6 ")]
    assert [line.count("±") for line in rows] == [8, 8, 8, 8]


def test_info_on_each_kind(full: Desk) -> None:
    run = full.do("info", "run.h5", "--json").json
    assert (run["holds"], run["problem"], run["label"], run["seed"]) == ("trajectory", "quadratic", "averaged", 0)
    assert (run["complete"], run["snapshots"], run["first_step"], run["last_step"]) == (True, 4, 0, 6)
    assert set(run["loss"]) == {"task1", "task2", "task3"}
    found = full.do("info", "results.h5", "--json").json
    assert found["holds"] == "results"
    assert found["surface/principal"]["kind"] == "Surface"
    assert found["surface/principal"]["checks_failed"] == []
    assert full.do("info", ".", "--json").json == found
    assert "surface/principal" in full.do("info", "results.h5").out
    assert "Averaged(optimiser=Adam(lr=0.001)" in full.do("info", "run.h5").out


def test_info_of_a_run_that_is_not_complete(desk: Desk) -> None:
    def stops(step: int) -> None:
        if step == 4:
            raise LandscapeError("enough")

    plan = landscape.Plan(6, 8, landscape.Every(2))
    with pytest.raises(LandscapeError, match="enough"):
        landscape.record(load("quadratic"), Averaged(), plan, desk.folder / "run.h5", progress=stops)
    facts = desk.do("info", "run.h5", "--json").json
    assert (facts["complete"], facts["last_step"]) == (False, 4)
    assert "being written or was interrupted" in desk.do("info", "run.h5").out


@pytest.mark.parametrize("words", [("info", "results.h5", "--json"), ("surface", "--help"), ("--help",)], ids=" ".join)
def test_a_reader_that_has_read_enough_is_no_error(full: Desk, words: tuple[str, ...]) -> None:
    with full.start(*words) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == ""
    assert process.returncode == 0


@pytest.mark.parametrize("command", ["report", pytest.param("train", marks=pytest.mark.slow)])
def test_progress_that_nobody_reads_stops_nothing(full: Desk, command: str) -> None:
    with full.start(*LINES[command]) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stderr.close()
        assert process.stdout.read() == f"{LINES[command][-1]}\n"
    assert process.returncode == 0
    if command == "train":
        assert full.do("info", "new.h5", "--json").json["complete"]


@pytest.mark.parametrize("name", ["results.h5", pytest.param("run.h5", marks=pytest.mark.slow)])
def test_results_that_cannot_be_written_to_stdout_are_an_error(full: Desk, name: str) -> None:
    with open("/dev/full", "w", encoding="utf-8") as nowhere:
        process = full.start("info", name, "--json", stdout=nowhere)
        _, err = process.communicate(timeout=LONG_ENOUGH)
    require_sentence(process.returncode, err, "no room left on the disk")


@pytest.mark.parametrize(
    ("problem", "status"), [("make", 0), pytest.param("fails_in_training", 2, marks=pytest.mark.slow)]
)
def test_a_terminal_gets_a_progress_bar_that_is_taken_away(desk: Desk, problem: str, status: int) -> None:
    screen, terminal = pty.openpty()
    words = ("train", f"{MODELS}:{problem}", "--rate", "0.05", "--steps", "400", "--every", "10")
    process = desk.start(*words, stderr=terminal, TERM="xterm", COLUMNS="200")
    os.close(terminal)
    said = b""
    with contextlib.suppress(OSError):  # how a terminal ends
        while chunk := os.read(screen, 4096):
            said += chunk
    os.close(screen)
    assert process.communicate(timeout=LONG_ENOUGH)[0] == ("" if status else "run.h5\n")
    assert process.returncode == status
    text = said.decode()
    assert "training averaged" in text
    assert "left" in text
    assert text.rfind(SHOWN) > text.rfind(HIDDEN) >= 0, "the cursor stays hidden"
    last = text[text.rfind(SHOWN) :]
    assert ("landscape: the training loss of task 'down' became" if status else "training averaged: ") in last
    assert "left" not in last


OWN = """
import torch
from torch.utils.data import TensorDataset

from landscape import Problem
from tests.landscape.test_owners import LATE, Branching, flagged, pair


def make():
    return Problem(Branching, pair(), flagged(), flagged(first=60))
"""


@pytest.mark.filterwarnings("default::landscape.errors.LandscapeWarning")
def test_a_warning_of_the_toolkit_is_one_line(desk: Desk) -> None:
    (desk.folder / "own.py").write_text(OWN)
    train = ("train", "own.py:make", "--strategy", "averaged", "--rate", "1e-2", "--steps", "3", "--batch-size", "60")
    ran = desk.do(*train, "--out", "run.h5", "--quiet")
    (line,) = [line for line in ran.err.splitlines() if "gradient" in line]
    assert line.startswith("landscape: note: a gradient reaches 'branch.weight', 'branch.bias', but no evaluation exa")
