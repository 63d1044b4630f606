"""Every kind of recording with every command: it works with the right content, or it is refused in one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import landscape
from analysis import archive, task_losses
from analysis.results import Alternation, EigenvalueTracks, Movement, PathLosses, Surface
from landscape import Averaged, Every, Optimiser, Plan, Problem, Projected, Recorder, Trajectory, Whole
from landscape.workspace import Batches
from tests.cli.desk import Desk, contents
from tests.seams import mine

STEPS, BATCH, RATE, SEEDS = 6, 8, 0.05, (0, 1)
EVERY = Every(2)
SGD = Averaged(Optimiser("SGD", lr=RATE))

# Recordings


@dataclass(frozen=True)
class Kind:
    """A kind of recording: how a file of it comes about, and what each command that does not take it says."""

    name: str
    write: Callable[[Path, int], None]
    refused: dict[str, str]
    problem: str = "make"
    complete: bool = True
    rate: bool = True
    """Whether the file states a learning rate."""
    slow: bool = False

    def make(self) -> Problem:
        return getattr(mine, self.problem)()


def trained(path: Path, seed: int) -> None:
    landscape.record(mine.make(), SGD, Plan(STEPS, BATCH, EVERY), path, seed)


def trained_in_float64(path: Path, seed: int) -> None:
    landscape.record(mine.make_double(), SGD, Plan(STEPS, BATCH, EVERY), path, seed)


class Stopped(BaseException):
    """As Ctrl-C: no Exception."""


def stop(step: int) -> None:
    if step == 2:
        raise Stopped


def resumed(path: Path, seed: int) -> None:
    with pytest.raises(Stopped):
        landscape.record(mine.make(), SGD, Plan(STEPS, BATCH, EVERY), path, seed, progress=stop)
    trained(path, seed)


def interrupted(path: Path, seed: int) -> None:
    with pytest.raises(Stopped):
        landscape.record(mine.make(), SGD, Plan(STEPS, BATCH, EVERY), path, seed, progress=stop)


def own_loop(path: Path, seed: int, label: str = "mine", rate: float = RATE, **more: Any) -> None:
    """One update a task and step on a module with weights of this seed."""
    problem = mine.make()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        module = mine.Net()
    batches, optimiser = Batches(problem, BATCH, seed), torch.optim.SGD(module.parameters(), lr=RATE)
    with Recorder(problem, path, EVERY, label=label, seed=seed, rate=rate, model=module, **more) as recorder:
        for step in range(STEPS):
            batch = batches[step]
            for task, target in zip(problem.tasks, batch.targets, strict=True):
                optimiser.zero_grad()
                task.loss(module(batch.inputs)[task.name], target).mean().backward()
                optimiser.step()
                recorder.update()
            recorder.step()


def whole(path: Path, seed: int) -> None:
    own_loop(path, seed, keep=Whole())


def projected(path: Path, seed: int) -> None:
    own_loop(path, seed, keep=Projected(dimensions=8))


def without_rate(path: Path, seed: int) -> None:
    own_loop(path, seed, rate=float("nan"))


def awkward(path: Path, seed: int) -> None:
    own_loop(path, seed, label="lr@0.1/β, <b>=1+1")


def killed(path: Path, seed: int) -> None:
    """What lies on the disk in the middle of a recording, with the marks of the writer that is gone."""
    problem = mine.make()
    with Recorder(problem, path.with_suffix(".going"), EVERY, label="mine", seed=seed, rate=RATE) as recorder:
        for step in range(STEPS):
            with torch.no_grad():
                for parameter in problem.model.parameters():
                    parameter.mul_(0.9).add_(0.01 * seed)
            recorder.step()
            if step == 3:
                shutil.copyfile(path.with_suffix(".going"), path)
    path.with_suffix(".going").unlink()


ACCURATE = 1e-3
"""Of an eigenvalue in float32 with a residual of 1e-4."""
NEEDS_RATE = "states no learning rate above 0, got nan: give one"
NEEDS_THETA = "keeps a random projection of theta on 8 dimensions a tensor, which this needs"
KINDS = (
    Kind("record", trained, {}, slow=True),
    Kind("recorder", whole, {}),
    Kind("projected", projected, dict.fromkeys(("surface", "hessian", "connect", "theory"), NEEDS_THETA)),
    Kind(
        "without a rate",
        without_rate,
        {"theory": "states no learning rate above 0, got nan: give one"},
        rate=False,
        slow=True,
    ),
    Kind("awkward label", awkward, {}, slow=True),
    Kind("resumed", resumed, {}, slow=True),
    Kind("float64", trained_in_float64, {}, problem="make_double"),
    Kind("interrupted", interrupted, {}, complete=False, slow=True),
    Kind("killed", killed, {}, complete=False),
)

WORDS: dict[str, tuple[str, ...]] = {
    "surface": ("--nx", "3", "--ny", "3", "--engine", "problem", "--plane", "random"),
    "hessian": ("--at", "last", "--top", "1", "--tolerance", "1e-4"),
    "connect": ("--points", "3", "--engine", "problem"),
    "theory": ("--at", "last", "--orders", "none", "--ladder", "2"),
    "explore": ("--null", "0", "--resamples", "99"),
}


@dataclass(frozen=True)
class Folder:
    """Two runs of one kind, of two seeds; nobody writes into it but results of its own."""

    kind: Kind
    desk: Desk

    @property
    def runs(self) -> list[Trajectory]:
        return [landscape.open(self.desk.folder / f"{seed}.h5") for seed in SEEDS]

    def command(self, command: str, *words: str) -> list[Any]:
        """The command's words."""
        problem = ("--problem", f"{mine.__file__}:{self.kind.problem}")
        return [command, "0.h5", "1.h5", *WORDS[command], *problem, *words]

    def records(self, command: str, kind: type) -> list[Any]:
        """What a command that has to succeed saved, or nothing where the kind of recording is refused."""
        out = f"{command}-{kind.__name__}.h5"
        match = self.kind.refused.get(command)
        if match is not None:
            self.desk.refuse(match, *self.command(command, "--out", out))
            return []
        self.desk.do(*self.command(command, "--quiet", "--out", out))
        found = [entry.record for entry in archive.load_all(self.desk.folder / out).values()]
        chosen = [record for record in found if isinstance(record, kind)]
        assert chosen
        return chosen


def _quick_or_slow(kind: Kind) -> Any:
    return pytest.param(kind, id=kind.name, marks=[pytest.mark.slow] if kind.slow else [])


@pytest.fixture(scope="module", params=map(_quick_or_slow, KINDS))
def there(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Folder:
    desk = Desk(tmp_path_factory.mktemp("recorded"))
    for seed in SEEDS:
        request.param.write(desk.folder / f"{seed}.h5", seed)
    return Folder(request.param, desk)


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors of the theory take most of the time, and three blocks will do here."""
    monkeypatch.setattr(task_losses, "BLOCKS", 3)


def plain_losses(problem: Problem, theta: Any, buffers: Any) -> np.ndarray:
    """Mean evaluation loss of each task with the weights put into a plain module."""
    dtype = problem.dtype
    module = mine.Net().to(dtype).eval()
    start = 0
    for parameter in module.parameters():
        there = torch.tensor(theta[start : start + parameter.numel()], dtype=dtype)
        parameter.data = there.reshape(parameter.shape).clone()
        start += parameter.numel()
    mean, variance, _ = torch.tensor(buffers).split([4, 4, 1])
    module.body[1].running_mean.copy_(mean)
    module.body[1].running_var.copy_(variance)
    return np.array([float(loss) for loss in _mean_losses(module, problem)])


def _mean_losses(module: Any, problem: Problem) -> list[Tensor]:
    with torch.no_grad():
        made = module(problem.evaluation.inputs)
    rows = zip(problem.tasks, problem.evaluation.targets, strict=True)
    return [task.loss(made[task.name], target).double().mean() for task, target in rows]


def rounded(kind: Kind) -> float:
    """Ten examples' losses in float32, in another order; or in float64."""
    return 1e-12 if kind.problem == "make_double" else 1e-5


# Commands


def test_info_says_what_the_file_holds(there: Folder) -> None:
    told = there.desk.do("info", "0.h5", "--json").json
    run = there.runs[0]
    assert told["snapshots"] == len(run)
    assert told["complete"] is there.kind.complete
    assert run.provenance.label in told.values()
    assert there.desk.do("info", "0.h5").out


def test_a_surface_is_that_of_a_plain_module(there: Folder) -> None:
    for found in there.records("surface", Surface):
        assert found.done.all()
        for j, i in ((0, 0), (1, 2)):
            theta = found.plane.origin + found.x[i] * found.plane.basis[0] + found.y[j] * found.plane.basis[1]
            expected = plain_losses(there.kind.make(), theta, found.plane.buffers)
            np.testing.assert_allclose(found.loss[:, j, i], expected, rtol=rounded(there.kind))


def test_the_largest_eigenvalue_is_that_of_the_dense_hessian(there: Folder) -> None:
    found = there.records("hessian", EigenvalueTracks)
    if there.kind.refused.get("hessian"):
        return
    assert len(found) == len(SEEDS)
    for record, run in zip(found, there.runs, strict=True):
        problem = there.kind.make().to(dtype=torch.float64)
        theta, buffers = torch.tensor(run.theta[-1], dtype=torch.float64), torch.tensor(run.buffers[-1])
        whole = torch.autograd.functional.hessian(
            lambda t, p=problem, b=buffers: p.losses(t, p.evaluation, b).mean(), theta
        )
        shared = run.layout.index()
        expected = torch.linalg.eigvalsh(whole[shared][:, shared])[-1]
        assert record.values[0, -1, 0] == pytest.approx(float(expected), rel=1e-3)


def test_exploration_measures_are_distances_between_snapshots(there: Folder) -> None:
    found = [record for record in there.records("explore", Movement) if record.form == "raw"]
    assert len(found) == len(SEEDS)
    for record, seed in zip(found, SEEDS, strict=True):
        reference = there.desk.folder / f"{seed}-whole.h5"
        if there.kind.name == "projected":
            own_loop(reference, seed)
        run = landscape.open(reference if reference.exists() else there.desk.folder / f"{seed}.h5")
        theta = np.asarray(run.theta[:], np.float64)[:, run.layout.index()]
        net = np.linalg.norm(theta - theta[0], axis=1)
        # Of a projection on 8 numbers a tensor, two of four tensors are kept whole: within half its length.
        near = 0.5 if there.kind.name == "projected" else 1e-3
        np.testing.assert_allclose(record.of("net"), net, rtol=near, atol=1e-6)
        np.testing.assert_allclose(record.of("path_steps"), run.path_steps, rtol=1e-9)
        np.testing.assert_array_equal(record.updates, run.updates)
        reference.unlink(missing_ok=True)


def test_losses_between_the_ends_are_those_of_a_plain_module(there: Folder) -> None:
    for found in there.records("connect", PathLosses)[:1]:
        ends = [run.theta[-1] for run in there.runs]
        buffers = [run.buffers[-1] for run in there.runs]
        for k in (0, 1):
            expected = plain_losses(there.kind.make(), ends[k], buffers[k])
            np.testing.assert_allclose(found.loss[0, :2, -k], expected, rtol=10 * rounded(there.kind))


def test_theory_begins_at_the_recorded_losses(there: Folder) -> None:
    found = there.records("theory", Alternation)
    if there.kind.refused.get("theory"):
        if not there.kind.rate:
            there.desk.do(*there.command("theory", "--rate", "0.01", "--quiet", "--out", "rated.h5"))
        return
    for record, run in zip(found, there.runs, strict=True):
        assert record.done.all()
        assert record.rates[0] == RATE
        np.testing.assert_allclose(record.loss[0, :-1], run.losses[-1], rtol=rounded(there.kind))


@pytest.mark.slow
def test_figures_and_the_report_have_whatever_was_measured(there: Folder) -> None:
    kept = ("0.h5", "1.h5")
    for command in WORDS:
        if command not in there.kind.refused:
            there.desk.do(*there.command(command, "--quiet", "--out", "all.h5"))
    there.desk.do("figures", "all.h5", "--out", "drawn", "--format", "svg")
    drawn = list((there.desk.folder / "drawn").iterdir())
    assert drawn
    assert all(path.stat().st_size for path in drawn)
    there.desk.do("report", "all.h5", "--out", "page.html")
    page = (there.desk.folder / "page.html").read_text(encoding="utf-8")
    assert page.rstrip().endswith("</html>")
    assert set(kept) <= set(contents(there.desk.folder))
