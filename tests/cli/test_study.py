"""A study in one folder: nothing is done twice, and every number can be had by hand from the same runs."""

import base64
import os
import re
import shutil
from pathlib import Path
from xml.etree import ElementTree

import h5py
import pytest

from analysis import archive
from cli import commands
from tests.cli.conftest import TOML
from tests.cli.desk import ROOT, Desk, contents

NAMES = ("averaged-0", "averaged-1", "independent-0", "independent-1")


@pytest.fixture
def copied(desk: Desk, studied: Path) -> Desk:
    shutil.copytree(studied, desk.folder / "study")
    return desk


def datasets(path: Path) -> dict[str, bytes]:
    """Every dataset of a trajectory file but the seconds, which no two runs share, and the checksums over them."""
    found: dict[str, bytes] = {}
    with h5py.File(path, "r") as file:
        file.visititems(
            lambda name, item: (
                found.__setitem__(name, item[()].tobytes() if item.dtype.kind != "O" else repr(item[()]))
                if isinstance(item, h5py.Dataset)
                else None
            )
        )
    return {name: value for name, value in found.items() if name not in ("snapshots/seconds", "snapshots/checksum")}


def require_same_records(mine: Path, group: str, theirs: Path, other: str = "") -> None:
    assert archive.load(mine, group).record == archive.load(theirs, other or group).record


def test_a_study_writes_what_its_folder_is_said_to_hold(studied: Path) -> None:
    assert {path.name for path in studied.iterdir()} == {"study.toml", "runs", "results.h5", "figures", "report.html"}
    assert {path.stem for path in (studied / "runs").iterdir()} == set(NAMES)
    assert {path.suffix for path in (studied / "figures").iterdir()} == {".svg"}
    failed = [
        c.name for entry in archive.load_all(studied / "results.h5").values() for c in entry.checks if not c.passed
    ]
    assert failed == []


def test_the_same_study_again_does_nothing_twice(copied: Desk, undrawn: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "STUDY_FORMATS", ["svg"])
    before = contents(copied.folder)
    ran = copied.do("study", "--out", "study", "--jobs", "1", "--json")
    assert contents(copied.folder) == before
    assert not [
        line for line in ran.err.splitlines() if line.startswith(("search", "plane", "surface", "Hessian", "expl"))
    ]
    assert ran.json["report"] == "study/report.html"
    assert ran.json["results"] == "study/results.h5"
    assert all((copied.folder / drawn).exists() for drawn in ran.json["figures"])


def test_a_plan_writes_nothing(desk: Desk) -> None:
    (desk.folder / "mine.toml").write_text(TOML, encoding="utf-8")
    before = contents(desk.folder)
    stages = desk.do("study", "mine.toml", "--out", "new", "--plan", "--json").json
    assert {stage["name"]: stage["amount"] for stage in stages} == {
        "search of learning rates": 2 * 2,
        "training": 2 * 2,
        "surface": 2 * 5 * 4,
        "true losses beside the plane's": 4 * (4 + 2),
        "Hessian eigenvalues": 2 * 2 * (3 + 1) * 2,
        "figures and report": 25,
    }
    assert "Hessian eigenvalues" in desk.do("study", "mine.toml", "--out", "new", "--plan").out
    assert contents(desk.folder) == before
    assert not (desk.folder / "new").exists()


def test_the_plan_of_a_finished_study_is_the_drawing_alone(copied: Desk) -> None:
    before = contents(copied.folder)
    stages = copied.do("study", "--out", "study", "--plan", "--json").json
    assert [stage["name"] for stage in stages if stage["amount"]] == ["figures and report"]
    assert contents(copied.folder) == before
    drawn = list((copied.folder / "study" / "figures").iterdir())
    assert stages[-1]["amount"] == len(drawn), "in one format here"
    said = copied.do("study", "--out", "study", "--plan").out
    assert "for what is left" in said
    assert "0 short runs" in said


@pytest.mark.parametrize(("strategy", "seed"), [("averaged", 0), ("independent", 1)])
def test_training_by_hand_gives_the_study_s_trajectory(desk: Desk, studied: Path, strategy: str, seed: int) -> None:
    rate = archive.load(studied / "results.h5", f"search/{strategy}").record.chosen
    words = ("train", "quadratic", "--strategy", strategy, "--rate", rate, "--seed", seed)
    words = (*words, "--steps", "30", "--every", "10", "--batch-size", "8")
    for out in ("run.h5", "again.h5"):
        desk.do(*map(str, words), "--out", out)
    assert datasets(desk.folder / "run.h5") == datasets(studied / "runs" / f"{strategy}-{seed}.h5")
    assert datasets(desk.folder / "run.h5") == datasets(desk.folder / "again.h5")


def test_a_finished_run_is_left_alone(desk: Desk) -> None:
    words = ("train", "quadratic", "--steps", "4", "--every", "2", "--json")
    first = desk.do(*words).json
    before = contents(desk.folder)
    assert desk.do(*words).json == first
    assert contents(desk.folder) == before


@pytest.mark.slow
def test_analyses_by_hand_give_the_study_s_numbers(desk: Desk, studied: Path) -> None:
    runs = [studied / "runs" / f"{name}.h5" for name in NAMES]
    first = [path for path in runs if path.stem.endswith("-0")]
    desk.do("surface", *runs, "--nx", "5", "--ny", "4", "--out", "all.h5")
    desk.do("surface", *first, "--nx", "5", "--ny", "4", "--out", "first.h5")
    desk.do("hessian", *first, "--at", "n=2", "--top", "2", "--out", "all.h5")
    desk.do("explore", *runs, "--null", "9", "--resamples", "99", "--out", "all.h5")
    mine, theirs = desk.folder / "all.h5", studied / "results.h5"
    theirs_alone = {g for g in archive.groups(theirs) if g.startswith("search/") or "/seed-0" in g}
    assert set(archive.groups(mine)) == set(archive.groups(theirs)) - theirs_alone
    for group in archive.groups(mine):
        require_same_records(mine, group, theirs)
    for group in archive.groups(desk.folder / "first.h5"):
        require_same_records(desk.folder / "first.h5", group, theirs, group.replace("principal", "seed-0"))


def test_figures_and_report_by_hand_are_the_study_s(desk: Desk, studied: Path, undrawn: None) -> None:
    desk.do("figures", studied, "--out", "drawn", "--format", "svg")
    desk.do("report", studied, "--out", "new folder/page.html")
    drawn = {path.name: path.read_bytes() for path in (desk.folder / "drawn").iterdir()}
    assert drawn == {path.name: path.read_bytes() for path in (studied / "figures").glob("*.svg")}
    assert (desk.folder / "new folder" / "page.html").read_bytes() == (studied / "report.html").read_bytes()


SMALLEST = """\
problem = "quadratic"
seeds = [0]
strategies = [{name = "averaged", rate = 0.01}]
training = {steps = 2, every = 1, batch_size = 4}
surface = {nx = 3, ny = 3, engine = "problem"}
hessian = {snapshots = 1, top = 1}
explore = {null = 0}
"""


@pytest.mark.slow
def test_the_pictures_of_a_study_are_drawn(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "STUDY_FORMATS", ["svg"])
    (desk.folder / "mine.toml").write_text(SMALLEST, encoding="utf-8")
    told = desk.do("study", "mine.toml", "--out", "study", "--jobs", "1", "--quiet", "--json").json
    pictures = [ElementTree.parse(desk.folder / path).getroot() for path in told["figures"]]
    paths = "{http://www.w3.org/2000/svg}path"
    assert pictures
    assert all(len(list(picture.iter(paths))) > 10 for picture in pictures)
    page = (desk.folder / told["report"]).read_text(encoding="utf-8")
    drawn = [base64.b64decode(text) for text in re.findall(r"data:image/svg\+xml;base64,([A-Za-z0-9+/=]+)", page)]
    assert len(drawn) >= len(pictures)
    assert all(len(list(ElementTree.fromstring(picture).iter(paths))) > 10 for picture in drawn)


@pytest.mark.slow
def test_a_study_of_more_seeds_keeps_its_runs(copied: Desk) -> None:
    runs = copied.folder / "study" / "runs"
    before = contents(runs)
    copied.do("study", "--out", "study", "--seed", "0", "--seed", "1", "--seed", "2", "--jobs", "1", "--quiet")
    after = contents(runs)
    assert set(after) - set(before) == {"averaged-2.h5", "independent-2.h5"}
    assert {name: after[name] for name in before} == before


@pytest.mark.slow
def test_numbers_of_two_workers_are_those_of_one(desk: Desk, studied: Path) -> None:
    (desk.folder / "mine.toml").write_text(TOML, encoding="utf-8")
    desk.do("study", "mine.toml", "--out", "study", "--jobs", "2", "--quiet")
    for name in NAMES:
        assert datasets(desk.folder / f"study/runs/{name}.h5") == datasets(studied / "runs" / f"{name}.h5")
    drawn = list((desk.folder / "study" / "figures").iterdir())
    assert {path.suffix for path in drawn} == {".png", ".pdf", ".svg"}
    for group in ("surface/principal", "surface/seed-0", "eigenvalues/averaged-0", "distances/last"):
        require_same_records(desk.folder / "study/results.h5", group, studied / "results.h5")


WITHOUT_TORCH = """\
import sys

class Refuses:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "torch":
            raise ImportError("torch is not installed here")

sys.meta_path.insert(0, Refuses())
"""


def test_results_are_drawn_and_described_where_torch_is_not_installed(desk: Desk, runs: Path) -> None:
    (desk.folder / "first").mkdir()
    (desk.folder / "first" / "sitecustomize.py").write_text(WITHOUT_TORCH, encoding="utf-8")
    path = os.pathsep.join([str(desk.folder / "first"), str(ROOT)])
    torch = desk.finish("train", "quadratic", PYTHONPATH=path)
    assert "torch is not installed here" in torch.err
    for words in (
        ("report", runs / "results.h5", "--out", "page.html", "--quiet"),
        ("info", runs / "results.h5"),
    ):
        ran = desk.finish(*words, PYTHONPATH=path)
        assert (ran.status, ran.err) == (0, "")
    desk.do("report", runs / "results.h5", "--out", "with torch.html")
    assert (desk.folder / "page.html").read_bytes() == (desk.folder / "with torch.html").read_bytes()


def test_a_user_s_own_analysis_and_figures_do_no_harm(desk: Desk, runs: Path) -> None:
    for name in ("analysis", "figures"):
        (desk.folder / name).mkdir()
        (desk.folder / name / "__init__.py").write_text("raise SystemExit('my own')\n", encoding="utf-8")
    path = os.pathsep.join([".", str(ROOT)])
    ran = desk.finish("report", runs / "results.h5", "--quiet", PYTHONPATH=path)
    assert (ran.status, ran.out, ran.err) == (0, "report.html\n", "")
    ran = desk.finish("surface", runs / "run.h5", "--nx", "3", "--ny", "3", "--quiet", PYTHONPATH=path)
    assert (ran.status, ran.out, ran.err) == (0, "results.h5\n", "")


def test_a_problem_of_a_package_module(desk: Desk) -> None:
    package = desk.folder / "mine"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "problems.py").write_text(
        "from landscape.problems.quadratic import make as made\n\n\ndef make(size=4):\n    return made(size=size)\n"
    )
    words = ("mine.problems:make", "--set", "size=5", "--steps", "4", "--every", "2", "--json", "--quiet")
    assert desk.do("train", *words).json["snapshots"] == 3
    own = ("explore", "run.h5", "--problem", "mine.problems:make", "--json")
    assert desk.do(*own, "--set", "size=5").json["runs"][0]["net"][-1] > 0
    desk.refuse("expected theta with 10 entries .* but run.h5 has 11", *own)
