"""Folders for a user's commands, and one study that many tests look at."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from cli import commands
from figures import static
from tests import undrawn as stand_in
from tests.cli.desk import SHORT, Desk

TOML = """\
problem = "quadratic"
seeds = [0, 1]
strategies = ["averaged", "independent"]

[training]
steps = 30
every = 10
batch_size = 8

[search]
rates = [0.003, 0.01]
steps = 10

[surface]
nx = 5
ny = 4

[hessian]
snapshots = 2
top = 2

[explore]
null = 9
resamples = 99
"""


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands set torch's threads, put a user's folders on the path and heed some variables."""
    for name in ("LANDSCAPE_DEBUG", "COLUMNS", "FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    threads, path = torch.get_num_threads(), list(sys.path)
    yield
    torch.set_num_threads(threads)
    sys.path[:] = path


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture(scope="session")
def studied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished study, whose pictures are empty; nobody writes into it."""
    desk = Desk(tmp_path_factory.mktemp("a user's ünïcode folder"))
    (desk.folder / "my settings.toml").write_text(TOML, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "STUDY_FORMATS", ["svg"])
        patch.setattr(static, "render", stand_in.render)
        desk.do("study", "my settings.toml", "--out", "my study", "--jobs", "1", "--quiet")
    return desk.folder / "my study"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with short runs of several problems, and with results; nobody writes into it."""
    desk = Desk(tmp_path_factory.mktemp("runs"))
    for name, words in {
        "run": (),
        "two-tasks": ("--set", "tasks=2"),
        "other-data": ("--set", "examples=4"),
    }.items():
        desk.do("train", "quadratic", *words, *SHORT, "--out", f"{name}.h5")
    desk.do("surface", "run.h5", "--nx", "3", "--ny", "3", "--out", "results.h5")
    return desk.folder


@pytest.fixture
def full(desk: Desk, runs: Path) -> Desk:
    """A desk with runs and results of its own."""
    shutil.copytree(runs, desk.folder, dirs_exist_ok=True)
    return desk
