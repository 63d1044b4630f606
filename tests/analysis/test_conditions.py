"""Statistics estimated again against torch's own, heads fitted again against least squares, examples by seed."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from analysis import examples, surfaces
from analysis.heads import CentreHeads, RefittedHeads
from analysis.normalisation import Frozen, Reestimated
from analysis.points import Conditions
from analysis.subsets import Named
from analysis.surfaces import Grid
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.test_surfaces import plane_for


def expected_statistics(problem, theta, count, batch_size):
    """Buffers after `torch.optim.swa_utils.update_bn` on the same training examples, in the same mini-batches."""
    module = problem.module(torch.as_tensor(theta))
    inputs = examples.training(problem, count).batch.inputs
    ends = np.linspace(0, len(inputs), -(-len(inputs) // batch_size) + 1).astype(int)
    sampler = [list(range(a, b)) for a, b in itertools.pairwise(ends)]  # 13 in fours: 3, 3, 3, 4
    loader = DataLoader(TensorDataset(inputs), batch_sampler=sampler)
    torch.optim.swa_utils.update_bn(loader, module)
    return module


@pytest.mark.parametrize(("count", "batch_size"), [(13, 13), (13, 4), (12, 6), (8, 128)])
def test_statistics_estimated_again_are_those_of_update_bn(count, batch_size):
    problem = cases.make("batch norm")
    theta, buffers = problem.initial(0)
    moved = theta + 0.3 * torch.randn(theta.shape, dtype=theta.dtype, generator=torch.Generator().manual_seed(1))
    before = copy.deepcopy(problem.model.state_dict())
    found = Reestimated(count, batch_size).build(problem)(moved, buffers)
    module = expected_statistics(problem, moved, count, batch_size)
    state = problem.buffers(found)
    np.testing.assert_allclose(state["norm.running_mean"], module.norm.running_mean, rtol=1e-12)
    np.testing.assert_allclose(state["norm.running_var"], module.norm.running_var, rtol=1e-12)
    assert all(torch.equal(t, before[name]) for name, t in problem.model.state_dict().items())


def test_one_batch_gives_the_mean_and_the_unbiased_variance_of_all_examples():
    problem = cases.make("batch norm")
    theta, buffers = problem.initial(0)
    state = problem.buffers(Reestimated(1000, 1000).build(problem)(theta, buffers))
    early = torch.tanh(problem.model.first(examples.training(problem, 1000).batch.inputs)).detach()
    np.testing.assert_allclose(state["norm.running_mean"], early.mean(0), rtol=1e-12)
    np.testing.assert_allclose(state["norm.running_var"], early.var(0), rtol=1e-12)


def test_a_surface_with_statistics_estimated_again_is_that_of_update_bn_at_every_point():
    problem = cases.make("batch norm")
    plane, grid = plane_for(problem), Grid(3, 4)
    conditions = Conditions(statistics=Reestimated(13, 5))
    surface = surfaces.measure(problem, plane, grid, conditions)
    for j, y in enumerate(grid.y):
        for i, x in enumerate(grid.x):
            theta = plane.origin + x * plane.basis[0] + y * plane.basis[1]
            module = expected_statistics(problem, theta, 13, 5).eval()
            output = module(problem.evaluation.inputs)
            rows = zip(problem.tasks, problem.evaluation.targets, strict=True)
            losses = [float(task.loss(output[task.name].detach(), target).mean()) for task, target in rows]
            np.testing.assert_allclose(surface.loss[:, j, i], losses, rtol=1e-11)
    assert surface.batch_norm == "estimated again at each point, from 13 training examples, 5 at a time at most"
    frozen = surfaces.measure(problem, plane, grid)
    assert np.abs(frozen.loss - surface.loss).max() > 1e-3


def test_a_model_without_running_statistics_has_none_to_estimate_again():
    with pytest.raises(LandscapeError, match="no normalisation layer with running statistics: expected one"):
        Reestimated().build(cases.make("plain"))
    with pytest.raises(LandscapeError, match="mini-batches of 2 or more examples for statistics, got 1"):
        Reestimated(8, 1).build(cases.make("batch norm"))


class Linear(nn.Module):
    """A shared layer and two linear heads: heads by least squares are known in closed form."""

    def __init__(self):
        super().__init__()
        self.trunk = nn.Linear(3, 4)
        self.one, self.two = nn.Linear(4, 1), nn.Linear(4, 2)

    def forward(self, inputs):
        shared = torch.tanh(self.trunk(inputs))
        return {"one": self.one(shared), "two": self.two(shared)}


def linear_problem(micro_batch=7):
    rng = torch.Generator().manual_seed(0)
    x, y, z = (torch.randn(40, n, generator=rng, dtype=torch.float64) for n in (3, 1, 2))
    data = TensorDataset(x, y, z)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        model = Linear().double()
    tasks = [Task("one", cases.squared_error), Task("two", cases.squared_error)]
    return Problem(model, tasks, data, data, micro_batch=micro_batch)


def test_heads_fitted_again_are_least_squares():
    problem = linear_problem()
    theta, buffers = problem.initial(0)
    found = RefittedHeads(200, 40).build(problem)(theta, buffers)
    shared = problem.layout.index()
    np.testing.assert_array_equal(found.numpy()[shared], theta.numpy()[shared])
    module = problem.module(found)
    fitted = examples.training(problem, 40).batch
    features = torch.tanh(module.trunk(fitted.inputs)).detach().numpy()
    design = np.concatenate([features, np.ones((40, 1))], 1)
    for head, target in zip((module.one, module.two), fitted.targets, strict=True):
        solution = np.linalg.lstsq(design, target.numpy(), rcond=None)[0]
        np.testing.assert_allclose(head.weight.detach().numpy(), solution[:-1].T, atol=1e-5)
        np.testing.assert_allclose(head.bias.detach().numpy(), solution[-1], atol=1e-5)


def test_a_surface_of_the_shared_parameters_with_fitted_heads_lies_below_the_one_with_the_centres():
    problem = linear_problem()
    plane = plane_for(problem, size=0.5)
    heads = np.concatenate([problem.layout.index(name) for name in problem.names])
    basis = plane.basis.copy()
    basis[:, heads] = 0
    plane = type(plane)(**{**vars(plane), "basis": basis, "gram": basis @ basis.T})
    fitted = surfaces.measure(problem, plane, Grid(3), Conditions(heads=RefittedHeads(60, 40)))
    centre = surfaces.measure(problem, plane, Grid(3))
    assert (fitted.loss < centre.loss).all(), "training and evaluation data are the same here"
    assert fitted.heads == "fitted again at each point, 60 iterations on 40 training examples"
    assert centre.heads == "as the plane's"


def test_a_head_that_the_plane_moves_itself_is_not_fitted_again():
    problem = linear_problem()
    theta, buffers = problem.initial(0)
    one, two = problem.layout.index("one"), problem.layout.index("two")
    moved = np.array([[s.start, s.stop] for s in Named("one.*").spans(problem.layout)])
    found = RefittedHeads(60, 40).build(problem, moved)(theta, buffers).numpy()
    np.testing.assert_array_equal(found[one], theta.numpy()[one])
    alone = RefittedHeads(60, 40).build(problem)(theta, buffers).numpy()
    np.testing.assert_allclose(found[two], alone[two], atol=1e-4)  # both at the minimum, as far as L-BFGS goes
    both = np.array([[0, problem.layout.size]])
    with pytest.raises(LandscapeError, match="the plane moves all heads itself: expected some outside its subset"):
        RefittedHeads().build(problem, both)


def test_a_surface_over_a_head_with_the_others_fitted_again_shows_its_own_movement():
    problem = linear_problem()
    plane = plane_for(problem, size=0.5)
    spans = Named("one.*").spans(problem.layout)
    basis = CentreHeads().follow(plane.basis, spans)
    plane = replace(plane, basis=basis, gram=basis @ basis.T, spans=np.array([[s.start, s.stop] for s in spans]))
    fitted = surfaces.measure(problem, plane, Grid(3), Conditions(heads=RefittedHeads(60, 40)))
    centre = surfaces.measure(problem, plane, Grid(3))
    np.testing.assert_allclose(fitted.loss[0], centre.loss[0], rtol=1e-12)
    assert (fitted.loss[1] < centre.loss[1]).all()


def test_words_state_the_examples_that_there_are():
    problem = cases.make("batch norm")
    there = len(problem.train)
    assert f"on {there} training examples" in RefittedHeads().words(problem)
    assert f"from {there} training examples" in Reestimated().words(problem)


class WithPositions(nn.Linear):
    """A model with a buffer that is no statistic."""

    def __init__(self):
        super().__init__(4, 1)
        self.register_buffer("positions", torch.arange(4.0))


def test_other_buffers_are_no_statistics():
    data = TensorDataset(torch.randn(9, 4), torch.randn(9, 1))
    problem = Problem(WithPositions(), [Task("one", cases.squared_error)], data, data)
    assert problem.buffer_layout.size == 4
    assert Frozen().words(problem) == "none"
    assert Frozen().words(cases.make("batch norm")) == "frozen"


def test_one_example_has_no_statistics():
    with pytest.raises(LandscapeError, match="expected 2 or more training examples for statistics, got 1: one has no"):
        Reestimated(examples=1).build(cases.make("batch norm"))


def test_heads_whose_loss_is_not_finite_stay_as_they_are():
    problem = linear_problem()
    theta, buffers = problem.initial(0)
    broken = torch.full_like(theta, torch.nan)
    assert torch.isnan(RefittedHeads(3, 40).build(problem)(broken, buffers)).all()


def test_a_model_of_one_task_has_no_heads_to_fit_again():
    problem = cases.make("plain")
    single = Problem(
        nn.Linear(4, 1), [Task("one", cases.squared_error)], *[TensorDataset(torch.randn(9, 4), torch.randn(9, 1))] * 2
    )
    assert RefittedHeads().build(problem) is not None
    with pytest.raises(LandscapeError, match="no heads to fit again: expected parameters that one task alone reaches"):
        RefittedHeads().build(single)
    with pytest.raises(LandscapeError, match="1 or more iterations of fitting heads, got 0"):
        RefittedHeads(0)


def test_training_examples_are_drawn_once_by_their_seed():
    problem = cases.make("plain")
    few, again, other = (examples.training(problem, 6, seed) for seed in (0, 0, 1))
    assert few.hash == again.hash != other.hash
    assert (len(few), few.split) == (6, "training")
    every = examples.training(problem, 1000)
    assert len(every) == len(problem.train) == 13
    with pytest.raises(LandscapeError, match="1 or more training examples, got 0"):
        examples.training(problem, 0)
    surface = surfaces.measure(problem, plane_for(problem), Grid(3), Conditions(examples=few))
    assert (surface.examples, surface.data, surface.split) == (6, few.hash, "training")
    theta, buffers = problem.initial(0)
    expected = problem.losses(theta, few.batch, buffers).mean(1)
    np.testing.assert_allclose(surface.loss[:, 1, 1], expected, rtol=1e-14)
