"""Errors of points against numpy on every example's loss: plain, paired with the centre, of the average; metrics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis import points, surfaces
from analysis.engines import Together
from analysis.points import Conditions
from analysis.surfaces import Grid
from landscape import problems
from tests.analysis import cases
from tests.analysis.test_surfaces import plane_for


def every_loss(problem, theta):
    """Losses of every example, [T, N]."""
    there = torch.tensor(theta, dtype=problem.dtype)
    return problem.losses(there, problem.evaluation, problem.initial(0)[1]).detach().double().numpy()


@pytest.mark.parametrize("kind", ["plain", "shallow task", "batch norm"])
@pytest.mark.parametrize("block", [1 << 16, 4])
def test_errors_are_those_of_every_examples_losses_and_of_their_differences_from_the_centre(monkeypatch, kind, block):
    monkeypatch.setattr(points, "BLOCK", block)
    problem = cases.make(kind)
    plane, grid = plane_for(problem), Grid(3, 4)
    surface = surfaces.measure(problem, plane, grid)
    centre = every_loss(problem, plane.origin)
    count = centre.shape[1]
    for j, y in enumerate(grid.y):
        for i, x in enumerate(grid.x):
            each = every_loss(problem, plane.origin + x * plane.basis[0] + y * plane.basis[1])
            rows = {
                "loss": each.mean(1),
                "stderr": each.std(1, ddof=1) / np.sqrt(count),
                "difference_stderr": (each - centre).std(1, ddof=1) / np.sqrt(count),
                "average_stderr": each.mean(0).std(ddof=1) / np.sqrt(count),
                "average_difference_stderr": (each - centre).mean(0).std(ddof=1) / np.sqrt(count),
            }
            for name, expected in rows.items():
                np.testing.assert_allclose(getattr(surface, name)[..., j, i], expected, rtol=1e-11, atol=1e-16)


def test_what_examples_have_in_common_cancels_in_paired_errors():
    # Each example's loss is its own offset, of spread 100, plus the same small function of theta.
    problem = problems.load("quadratic", {"tasks": 1, "size": 3, "heads": 0, "examples": 16})
    offsets = torch.linspace(-100, 100, 16, dtype=torch.float64)
    (task,) = problem.tasks
    problem.tasks = (replace(task, loss=lambda p, y: task.loss(p, y) + offsets[: len(p)]),)
    problem.micro_batch = 16
    surface = surfaces.measure(problem, plane_for(problem), Grid(3))
    assert (surface.stderr > 10).all()
    np.testing.assert_allclose(surface.difference_stderr, 0, atol=1e-12)  # rounding of losses of 100


def test_metrics_and_their_errors_come_from_the_same_pass():
    problem = problems.load("digits", {"width": 2, "features": 8, "train": 64, "evaluation": 50})
    calls = []
    problem.model.register_forward_hook(lambda *_: calls.append(1))
    plane = plane_for(problem, size=0.01)
    surface = surfaces.measure(problem, plane, Grid(3))
    assert len(calls) == 10, "one for each of nine points, one for the centre: 50 examples are one micro-batch"
    assert surface.metrics == ("first.accuracy", "second.accuracy", "picture.absolute error")
    assert surface.scores.shape == (3, 3, 3)
    theta = torch.tensor(plane.origin + plane.basis[0], dtype=torch.float32)
    scores = problem.evaluate(theta).metrics.numpy()
    np.testing.assert_allclose(surface.scores[:, 1, 2], scores, rtol=1e-6)
    right = surface.scores[0, 1, 2]  # a share of 50: its standard error is the binomial one with n - 1
    assert surface.score_stderr[0, 1, 2] == pytest.approx(np.sqrt(right * (1 - right) / 49), rel=1e-6)


def test_an_infinite_loss_in_one_block_makes_the_mean_infinite_whatever_comes_after(monkeypatch):
    monkeypatch.setattr(points, "BLOCK", 4)
    problem = cases.make("plain")
    first = problem.tasks[0]
    problem.tasks = (
        replace(first, loss=lambda p, y: torch.where(torch.arange(len(p)) == 0, torch.inf, first.loss(p, y))),
        problem.tasks[1],
    )
    surface = surfaces.measure(problem, plane_for(problem), Grid(3))
    assert np.isposinf(surface.loss[0]).all()
    assert np.isfinite(surface.loss[1]).all()
    assert np.isfinite(surface.stderr[1]).all()


def test_conditions_name_the_engine_asked_for_and_otherwise_the_problems_own_micro_batches():
    problem = cases.make("plain", micro_batch=5)
    assert Conditions().words(problem)["engine"] == "Sequential(micro_batch=5)"
    assert Conditions(Together(2, 3)).words(problem)["engine"] == "Together(points=2, micro_batch=3)"
