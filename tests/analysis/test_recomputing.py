"""Analyses of networks that run modules once more in the backward pass, against the same networks without."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis import conflicts, directions, planes, surfaces
from analysis.curvature import Fisher, GaussNewton, Hessian, Location
from analysis.products import KeptGraph, Linearised, Recorded, ReverseOverReverse
from analysis.subspaces import Place
from landscape import Averaged, Every, Optimiser, Plan, record
from tests.analysis import dense
from tests.recomputing import RECOMPUTING, TWICE, Plain, problem

ROUNDING = {"rtol": 1e-10, "atol": 1e-12}
"""The same operations in float64, run a second time and perhaps summed in another order."""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of the plain network, some way from its module's own weights."""
    path = tmp_path_factory.mktemp("recomputing") / "run.h5"
    return record(problem(Plain), Averaged(Optimiser("Adam", lr=3e-2)), Plan(30, 16, Every(10)), path)


@pytest.mark.parametrize("kind", TWICE.values(), ids=TWICE)
@pytest.mark.parametrize("matrix", [Hessian(), GaussNewton(), Fisher()], ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("way", [ReverseOverReverse(), KeptGraph()], ids=repr)
def test_products_are_those_of_the_network_without_recomputing(run, kind, matrix, way):
    plain, other = (
        Location(problem(make), torch.tensor(run.theta[-1]), torch.tensor(run.buffers[-1])).operator(
            kind=matrix, product=ReverseOverReverse() if make is Plain else way
        )
        for make in (Plain, kind)
    )
    v = torch.randn(plain.size, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = plain @ v
    assert expected.norm() > 0.1
    torch.testing.assert_close(other @ v, expected, **ROUNDING)


@pytest.mark.parametrize("way", [Recorded(ReverseOverReverse()), Linearised(ReverseOverReverse())], ids=repr)
def test_recorded_products_of_a_checkpointed_network_hold_at_another_theta(run, way):
    recomputing = problem(TWICE["checkpointed"])
    v = torch.randn(112, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for row in (-1, 0):
        place = torch.tensor(run.theta[row]), torch.tensor(run.buffers[row])
        expected = Location(problem(Plain), *place).operator(product=ReverseOverReverse()) @ v
        torch.testing.assert_close(Location(recomputing, *place).operator(product=way) @ v, expected, **ROUNDING)


@pytest.mark.parametrize("kind", RECOMPUTING.values(), ids=RECOMPUTING)
def test_gradients_and_conflicts_are_those_of_the_network_without_recomputing(run, kind):
    plain, other = problem(Plain), problem(kind)
    place = Place(run, -1)
    exact = [
        dense.gradient(plain, torch.tensor(place.theta), torch.tensor(place.buffers), weights).numpy()
        for weights in ((1.0, 0.0), (0.0, 1.0))
    ]
    found = [directions.full_gradient(other, place, task) for task in (0, 1)]
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-12)
    plane = planes.principal([run])
    grid = surfaces.Grid.around([planes.shadow(run, plane)], nx=4, ny=3)
    expected, measured = (conflicts.measure(one, plane, grid) for one in (plain, other))
    np.testing.assert_allclose(measured.cosine, expected.cosine, rtol=1e-8)
    assert np.ptp(expected.cosine) > 0.1


@pytest.mark.parametrize("kind", RECOMPUTING.values(), ids=RECOMPUTING)
def test_surfaces_are_those_of_the_network_without_recomputing(run, kind):
    plane = planes.principal([run])
    grid = surfaces.Grid.around([planes.shadow(run, plane)], nx=4, ny=3)
    expected, measured = (surfaces.measure(one, plane, grid) for one in (problem(Plain), problem(kind)))
    np.testing.assert_allclose(measured.loss, expected.loss, rtol=1e-12)
