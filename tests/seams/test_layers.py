"""Every layer kind with everything that is done to a network, against torch alone on a plain twin."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import landscape
from analysis import directions, surfaces
from analysis.engines import Engine, Sequential, Together
from analysis.examples import training
from analysis.normalisation import Reestimated, has_statistics
from analysis.operators import Location, hessians
from analysis.points import Conditions
from analysis.products import (
    CentralDifferences,
    ForwardOverReverse,
    KeptGraph,
    Linearised,
    Recorded,
    ReverseOverReverse,
    Way,
)
from analysis.subsets import Everything, Shared
from analysis.subspaces import Place, point
from landscape import AtSteps, Averaged, Batch, Every, LandscapeError, Optimiser, Plan, Problem, Recorder, Trajectory
from landscape.randomness import seeded
from landscape.workspace import Batches
from tests.landscape.examples import untouched
from tests.seams import plain
from tests.seams.layers import CASES, REFUSED, Case, Refusal

RATE, STEPS, BATCH, SEED = 0.1, 4, 4, 3
SGD = Averaged(Optimiser("SGD", lr=RATE))

# Sums of some tens of terms of order one in float64, in another order: 1e-16 each, 1e-12 leaves room for a few layers.
ROUNDED = 1e-11


class Seam:
    """A layer kind's problem, its twin, and a short run of both; each made when it is first asked for."""

    def __init__(self, case: Case, folder: Path) -> None:
        self.case, self._folder = case, folder

    @functools.cached_property
    def problem(self) -> Problem:
        return self.case.problem()

    @functools.cached_property
    def run(self) -> Trajectory:
        """Four steps of gradient descent, a snapshot every other one."""
        plan = Plan(STEPS, BATCH, Every(2))
        return landscape.record(self.problem, SGD, plan, self._folder / "run.h5", SEED)

    @property
    def place(self) -> Place:
        """The run's end: other weights than the module's own."""
        return Place(self.run)

    @property
    def theta(self) -> Tensor:
        return torch.tensor(self.place.theta)

    @property
    def buffers(self) -> Tensor:
        return torch.tensor(self.place.buffers)

    def twin(self) -> nn.Module:
        """The plain module at the run's end, in evaluation mode."""
        return plain.put(self.case.plain(), self.theta, self.buffers)

    @functools.cached_property
    def free(self) -> Tensor:
        """[P] one where torch gives a gradient, zero where it gives none by its own convention."""
        return (torch.arange(len(self.theta)) >= self.case.still).double()

    @functools.cached_property
    def gradients(self) -> Tensor:
        """[T, P] by plain autograd."""
        return plain.gradients(self.twin(), self.problem.evaluation)

    def product(self, vector: Tensor, step: float = 1e-5) -> Tensor:
        """The averaged loss's Hessian times a vector [P], by central differences of plain gradients."""
        ends = [
            plain.gradients(
                plain.put(self.case.plain(), self.theta + h * vector, self.buffers), self.problem.evaluation
            )
            for h in (step, -step)
        ]
        return (ends[0] - ends[1]).mean(0) / (2 * step)


def _quick_or_slow(case: Case) -> Any:
    return pytest.param(case, id=case.name, marks=[pytest.mark.slow] if case.slow else [])


def _normalised(case: Case) -> list[str]:
    """The layers of a kind that have running statistics."""
    return [name for name, part in case.plain().named_modules() if has_statistics(part)]


@pytest.fixture(scope="module", params=map(_quick_or_slow, CASES))
def seam(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Seam:
    return Seam(request.param, tmp_path_factory.mktemp("seam"))


def _drawn(count: int, seed: int) -> Tensor:
    return torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def close(found: Tensor, expected: Tensor, relative: float = ROUNDED) -> bool:
    """Whether two vectors differ by little, relative to the length of the second."""
    assert found.shape == expected.shape
    return float((found.double() - expected).norm()) <= relative * float(expected.norm()) + 1e-14


# Making a problem


def test_theta_is_that_of_the_plain_module(seam: Seam) -> None:
    twin = seam.case.plain()
    trained = [(name, tuple(p.shape)) for name, p in twin.named_parameters() if p.requires_grad]
    assert [slot.shape for slot in seam.problem.layout.slots] == [shape for _, shape in trained]
    for slot, (name, _) in zip(seam.problem.layout.slots, trained, strict=True):
        assert slot.name.endswith(name)  # in front of it, a wrapper's prefix
        assert slot.owner == next((task for task in ("one", "two") if name.startswith(f"{task}.")), "shared")
    theta, buffers = seam.problem.initial(0)
    assert torch.equal(theta, plain.flat(twin))
    assert torch.equal(buffers, plain.flat_buffers(twin))


def test_nothing_touches_the_module(seam: Seam) -> None:
    problem = seam.problem
    theta, buffers = problem.initial(0)
    with untouched(problem.model):
        problem.evaluate(theta, buffers)
        for _ in landscape.train(problem, SGD, Plan(2, BATCH)):
            pass
        operator = hessians(problem, theta, buffers, product=CentralDifferences())["average"]
        operator @ torch.ones(operator.size, dtype=theta.dtype)
        plane = directions.random(seam.place)
        surfaces.measure(problem, plane, surfaces.Grid(3))


# Training


def test_training_is_a_plain_loop(seam: Seam) -> None:
    problem, run = seam.problem, seam.run
    module = seam.case.plain().train()
    optimiser = torch.optim.SGD(plain.parameters(module), lr=RATE)
    batches = Batches(problem, BATCH, SEED)
    for step in range(1, STEPS + 1):
        with seeded(SEED, "step", step):
            total = plain.losses(module, batches[step - 1]).sum()
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        if step in run.steps:
            row = run.at(step)
            assert close(torch.tensor(run.theta[row]), plain.flat(module))
            assert close(torch.tensor(run.buffers[row]), plain.flat_buffers(module))


def test_recorded_losses_are_those_of_the_plain_module_in_evaluation_mode(seam: Seam) -> None:
    run = seam.run
    for row in range(len(run)):
        theta, buffers = (torch.tensor(rows[row]) for rows in (run.theta, run.buffers))
        with torch.no_grad():
            expected = plain.losses(plain.put(seam.case.plain(), theta, buffers), seam.problem.evaluation)
        assert close(torch.tensor(run.losses[row]), expected)


# Derivatives, at other weights than the module's own


def test_gradients_are_those_of_plain_autograd(seam: Seam) -> None:
    for task in range(2):
        assert close(torch.tensor(directions.full_gradient(seam.problem, seam.place, task)), seam.gradients[task])
    location = Location(seam.problem, seam.theta, seam.buffers)
    assert close(location.gradient("average", Everything()), seam.gradients.mean(0))


def test_gradients_are_central_differences_of_evaluated_losses(seam: Seam) -> None:
    direction = _drawn(len(seam.theta), 7) * seam.free
    h = 1e-5
    after, before = (seam.problem.evaluate(seam.theta + s * h * direction, seam.buffers).losses for s in (1, -1))
    found = torch.stack([torch.tensor(directions.full_gradient(seam.problem, seam.place, t)) for t in range(2)])
    # Truncation h^2 times a third derivative, and rounding 1e-16 / h: both about 1e-10.
    assert close(found @ direction, (after - before) / (2 * h), 1e-7)


WAYS = (
    ReverseOverReverse(),
    ForwardOverReverse(),
    CentralDifferences(),
    pytest.param(Linearised(), marks=pytest.mark.slow),
    pytest.param(KeptGraph(), marks=pytest.mark.slow),
    pytest.param(Recorded(), marks=pytest.mark.slow),
)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: type(way).__name__)
def test_hessian_products_are_differences_of_plain_gradients(seam: Seam, way: Way) -> None:
    index = torch.tensor(seam.problem.layout.index("shared"))
    vector = _drawn(len(index), 8) * seam.free[index]
    operator = hessians(seam.problem, seam.theta, seam.buffers, Shared(), product=way)["average"]
    expected = seam.product(torch.zeros_like(seam.theta).index_copy_(0, index, vector))[index]
    # Central differences of plain gradients: h^2 times a fourth derivative, and rounding 1e-15 / h.
    assert close(operator @ vector, expected, 1e-6)


# Surfaces


@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")  # torch's, of what it runs one by one
@pytest.mark.parametrize("engine", [Sequential(3), Together(2, 3)], ids=["sequential", "together"])
def test_a_surface_is_a_plain_loop_over_its_points(seam: Seam, engine: Engine) -> None:
    plane, grid = directions.random(seam.place, seed=4), surfaces.Grid([-0.5, 0.0, 1.0], [-1.0, 0.0])
    if isinstance(engine, Together) and not seam.case.vectorises:
        with pytest.raises(LandscapeError, match="vectorised"):
            surfaces.measure(seam.problem, plane, grid, Conditions(engine))
        return
    found = surfaces.measure(seam.problem, plane, grid, Conditions(engine))
    for (j, y), (i, x) in ((a, b) for a in enumerate(grid.y) for b in enumerate(grid.x)):
        with torch.no_grad():
            module = plain.put(seam.case.plain(), torch.tensor(point(plane, x, y)), seam.buffers)
            assert close(torch.tensor(found.loss[:, j, i]), plain.losses(module, seam.problem.evaluation))


@pytest.mark.parametrize("case", [_quick_or_slow(case) for case in CASES if _normalised(case)])
def test_statistics_estimated_again_are_those_of_training_examples(case: Case, tmp_path: Path) -> None:
    seam = Seam(case, tmp_path)
    (name,) = _normalised(case)
    plane, x = directions.random(seam.place, seed=4), (0.0, 0.5)
    conditions = Conditions(statistics=Reestimated(examples=8, batch_size=4))
    found = surfaces.measure(seam.problem, plane, surfaces.Grid(x, x), conditions)
    batch = training(seam.problem, 8, 0).batch
    for j, i in np.ndindex(2, 2):
        module = plain.put(seam.case.plain(), torch.tensor(point(plane, x[i], x[j])), seam.buffers)
        layer = module.get_submodule(name)
        pieces = torch.tensor_split(_entering(layer, module, batch), 2)
        layer.running_mean.copy_(torch.stack([_moments(layer, piece)[0] for piece in pieces]).mean(0))
        layer.running_var.copy_(torch.stack([_moments(layer, piece)[1] for piece in pieces]).mean(0))
        with torch.no_grad():
            assert close(torch.tensor(found.loss[:, j, i]), plain.losses(module, seam.problem.evaluation))


def _entering(layer: nn.Module, module: nn.Module, batch: Batch) -> Tensor:
    """What a normalisation layer is given of some examples [N, C, ...]."""
    seen: list[Tensor] = []
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    module(batch.inputs)
    handle.remove()
    return seen[0]


def _moments(layer: nn.Module, given: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and unbiased variance [C] of a mini-batch: over all examples and positions, or, of an instance norm, the
    mean over examples of each one's own.
    """
    whole = given.flatten(2) if given.dim() > 2 else given[..., None]  # [N, C, positions]
    if isinstance(layer, nn.InstanceNorm2d):
        return whole.mean(2).mean(0), whole.var(2).mean(0)
    return whole.mean((0, 2)), whole.transpose(0, 1).flatten(1).var(1)


# A loop of the user's own


def test_a_loop_of_ones_own_reads_back_what_it_was(seam: Seam, tmp_path: Path) -> None:
    problem, batches = seam.case.problem(), Batches(seam.problem, BATCH, SEED)
    module = problem.model.train()
    optimiser = torch.optim.SGD([p for p in module.parameters() if p.requires_grad], lr=RATE)
    seen: list[tuple[Tensor, Tensor]] = []

    def look() -> None:
        seen.append((plain.flat(module), plain.flat_buffers(module)))

    with Recorder(problem, tmp_path / "own.h5", AtSteps([1, 3])) as recorder:
        look()
        for step in range(3):
            optimiser.zero_grad()
            with torch.random.fork_rng():
                plain.losses(module, batches[step]).sum().backward()
            optimiser.step()
            recorder.step()
            look()
        assert all(part.training for part in module.modules())
    run = landscape.open(tmp_path / "own.h5")
    assert list(run.steps) == [0, 1, 3]
    index = torch.tensor(problem.layout.index("shared"))
    moved = [(a[0] - b[0])[index].norm() for a, b in zip(seen[1:], seen, strict=False)]
    assert close(torch.tensor(run.history.shared_update_norm), torch.stack(moved))
    for row, step in enumerate(run.steps):
        theta, buffers = seen[step]
        assert np.array_equal(run.theta[row], theta.numpy())
        assert np.array_equal(run.buffers[row], buffers.numpy())
        with torch.no_grad():
            expected = plain.losses(plain.put(seam.case.plain(), theta, buffers), problem.evaluation)
        assert close(torch.tensor(run.losses[row]), expected)


def test_a_module_given_back_computes_the_same(seam: Seam) -> None:
    module = seam.problem.module(seam.theta, seam.buffers).eval()
    with torch.no_grad():
        expected = plain.losses(seam.twin(), seam.problem.evaluation)
        assert close(plain.losses(module, seam.problem.evaluation), expected)


# What is refused


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad:UserWarning")  # torch's, of checkpoints
@pytest.mark.parametrize("refused", REFUSED, ids=lambda refused: refused.case.name)
def test_what_cannot_be_right_is_refused_when_the_problem_is_made(refused: Refusal) -> None:
    with pytest.raises(LandscapeError, match=refused.match) as caught:
        refused.case.problem()
    assert "\n" not in str(caught.value)
