"""Eigenvalues along runs whose Hessians are known, and the step-size line against steps that really diverge."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis import archive, tracking
from analysis.archive import Entry
from analysis.matching import Matching
from analysis.operators import hessians
from analysis.scaling import ScaledOperator
from analysis.spectra import Accuracy
from analysis.stability import step_line
from analysis.subsets import Everything, Head, Named, Shared
from analysis.tracking import Preconditioned, Spectrum
from landscape import problems, training
from landscape.optimisers import Optimiser
from landscape.strategies import Alternating, Averaged, Independent, Mean, Weights
from landscape.trajectory import Provenance
from tests.analysis import cases, turning
from tests.analysis.matrices import operator_with
from tests.analysis.synthetic import write_run
from tests.analysis.turning import Law

TIGHT = Accuracy(1e-10, 100)
CROSSING = Law([9.0, 5.0, 3.0, 1.0, 0.5, 0.2], [-5.0, 2.0, 0.0, 0.0, 0.0, 0.0], [(0, 3, 0.3)], seed=1)
STEADY = Law([8.0, 4.0, 2.0, 1.0, 0.5, 0.1], [0.0] * 6, [(0, 4, 0.4), (1, 5, 0.3)], seed=2)


@pytest.fixture(scope="module")
def crossed(tmp_path_factory):
    problem = turning.make(CROSSING, STEADY)
    clocks = np.linspace(0, 1, 9)
    trajectory = turning.run(tmp_path_factory.mktemp("runs") / "run.h5", problem, clocks)
    return problem, trajectory, clocks, tracking.along(problem, trajectory, range(9), Spectrum(3, accuracy=TIGHT))


def test_curves_follow_the_known_eigenvalues_through_the_crossing(crossed):
    problem, _, clocks, tracks = crossed
    assert tracks.tasks == (*problem.names, "average")
    exact = np.stack([CROSSING.values(clock) for clock in clocks])
    assert np.sign(exact[[0, -1], 0] - exact[[0, -1], 1]).tolist() == [1, -1], "planned to cross"
    assert tracks.numbers(0) == (0, 1, 2)
    assert tracks.lost(0) == ()
    for number in range(3):
        rows, pairs = tracks.curve(0, number)
        assert rows.tolist() == list(range(9))
        # Lanczos to a residual of 1e-10 of 9; values are better than that.
        np.testing.assert_allclose(tracks.values[rows, 0, pairs], exact[:, number], atol=1e-8)
    assert tracks.track[0, 0].tolist() == [0, 1, 2]
    assert tracks.track[-1, 0].tolist() == [1, 0, 2]


def test_overlaps_are_those_of_the_known_vectors(crossed):
    _, _, clocks, tracks = crossed
    assert np.isnan(tracks.overlaps[0]).all()
    for place in range(1, len(clocks)):
        before, now = (STEADY.vectors(clock)[:, :3] for clock in clocks[place - 1 : place + 1])
        np.testing.assert_allclose(np.abs(tracks.overlaps[place, 1]), np.abs(now.T @ before), atol=1e-7)
        np.testing.assert_allclose(tracks.match[place, 1], np.abs(np.diag(now.T @ before)), atol=1e-7)


def test_the_average_is_tracked_beside_the_tasks(crossed):
    _, _, clocks, tracks = crossed
    for place, clock in enumerate(clocks):
        mean = (CROSSING.matrix(clock) + STEADY.matrix(clock)) / 2
        np.testing.assert_allclose(tracks.values[place, 2], np.linalg.eigvalsh(mean)[::-1][:3], atol=1e-8)


def test_a_planted_jump_is_a_lost_curve(tmp_path):
    law = Law([9.0, 5.0, 1.0, 0.5, 0.2], [0.0] * 5, [(0, 4, 1.0)])
    problem = turning.make(law)
    clocks = [0.0, 0.1, 0.2, 1.5, 1.6]  # between the third and the fourth the first vector turns by 74 degrees
    trajectory = turning.run(tmp_path / "run.h5", problem, clocks)
    chosen = Spectrum(2, on=Named("theta"), accuracy=TIGHT)  # a single task's clock is shared as well
    tracks = tracking.along(problem, trajectory, range(5), chosen)
    assert tracks.track[:, 0].tolist() == [[0, 1]] * 3 + [[2, 1]] * 2
    assert tracks.lost(0) == (0,)
    assert np.isnan(tracks.match[3, 0, 0])
    assert abs(tracks.overlaps[3, 0, 0, 0]) == pytest.approx(np.cos(1.3), abs=1e-8), "and the file says why"


def test_no_curve_goes_through_a_snapshot_that_is_not_finite(tmp_path):
    problem = turning.make(STEADY)
    trajectory = turning.run(tmp_path / "run.h5", problem, [0.0, np.nan, 0.0])
    tracks = tracking.along(problem, trajectory, range(3), Spectrum(2, accuracy=TIGHT))
    assert tracks.track[:, 0].tolist() == [[0, 1], [-1, -1], [2, 3]]
    assert np.isnan(tracks.values[1]).all()
    assert tracks.numbers(0) == (0, 1, 2, 3)


def test_records_come_back_from_a_file(crossed, tmp_path):
    tracks = crossed[3]
    archive.save(tmp_path / "results.h5", {"tracks": Entry(tracks)})
    assert archive.load(tmp_path / "results.h5", "tracks").record == tracks


def test_products_are_counted_told_and_bounded(crossed):
    problem, trajectory, _, _ = crossed
    chosen, told = Spectrum(2, accuracy=Accuracy(1e-6, 20)), []
    tracks = tracking.along(problem, trajectory, [0, 4, 8], chosen, tell=told.append)
    assert sum(told) == tracks.products
    assert len(told) == 3 * 3
    assert tracks.products <= tracking.most_products(trajectory, [0, 4, 8], chosen) == 9 * 21


def test_a_warm_start_takes_no_more_products_than_cold_ones(crossed):
    problem, trajectory, _, _ = crossed
    chosen = Spectrum(1, accuracy=Accuracy(1e-4, 50))
    warm = tracking.along(problem, trajectory, range(9), chosen).products
    cold = sum(tracking.along(problem, trajectory, [row], chosen).products for row in range(9))
    assert warm <= cold


def test_the_smallest_values_and_one_task_alone(tmp_path):
    problem = turning.make(Law([5.0, 1.0, -2.0], [0.0, 0.0, 1.0]))
    trajectory = turning.run(tmp_path / "run.h5", problem, [0.0, 0.5])
    tracks = tracking.along(problem, trajectory, [0, 1], Spectrum(9, "smallest", accuracy=TIGHT))
    assert tracks.values.shape == (2, 2, 4), "as many pairs as parameters: with one task its clock is shared"
    whole = Spectrum(1, "smallest", Named("theta"), TIGHT)
    np.testing.assert_allclose(tracking.along(problem, trajectory, [0, 1], whole).values[:, 0, 0], [-2, -1.5])


@pytest.mark.parametrize("on", [Shared(), Everything(), Head("two"), Named("second.*")], ids=lambda on: on.label)
def test_subsets_are_principal_blocks_of_the_whole_hessian(on, tmp_path):
    problem = cases.make()
    theta, buffers = (part.numpy() for part in problem.initial(0))
    whole = dense(hessians(problem, theta, buffers, Everything())["two"])
    index = np.concatenate([np.arange(s.start, s.stop) for s in on.spans(problem.layout)])
    block = dense(hessians(problem, theta, buffers, on)["two"])
    np.testing.assert_allclose(block, whole[np.ix_(index, index)], atol=1e-14)
    trajectory = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    tracks = tracking.along(problem, trajectory, [0], Spectrum(2, on=on, accuracy=TIGHT))
    # "two" is blind to the head of "one": its block has zeros there.
    np.testing.assert_allclose(tracks.values[0, 1], np.linalg.eigvalsh(block)[::-1][:2], atol=1e-9)
    assert tracks.subset == on.label


def dense(operator):
    return torch.stack([operator @ e for e in torch.eye(operator.size, dtype=operator.dtype)]).numpy()


def test_every_layer_is_tracked_by_itself_and_is_no_sharper_than_the_whole(tmp_path):
    problem = cases.make()
    theta = problem.initial(0)[0].numpy()
    trajectory = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    chosen = Spectrum(1, accuracy=TIGHT)
    found = tracking.by_layer(problem, trajectory, [0], chosen)
    whole = tracking.along(problem, trajectory, [0], chosen)
    assert list(found) == ["first", "second"]
    for module, tracks in found.items():
        assert tracks.subset == f"layer {module}"
        assert (tracks.values <= whole.values + 1e-9).all(), "eigenvalues of a block interlace"


def test_a_scaled_operator_is_the_scaled_matrix():
    operator, matrix = operator_with(np.linspace(-1, 3, 7))
    d = torch.linspace(0.5, 2, 7, dtype=torch.float64)
    scaled = ScaledOperator(operator, d)
    block = torch.randn(7, 3, dtype=torch.float64)
    exact = torch.diag(d) @ torch.from_numpy(matrix) @ torch.diag(d)
    torch.testing.assert_close(scaled @ block, exact @ block, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(scaled @ block[:, 0], exact @ block[:, 0], rtol=1e-13, atol=1e-13)


def test_a_preconditioned_hessian_has_the_spectrum_of_p_h(crossed):
    problem, trajectory, clocks, _ = crossed
    p = np.linspace(0.5, 2.0, 18).reshape(3, 6)
    seen = Preconditioned(lambda row: p * (1 + row), "a ramp")
    tracks = tracking.along(problem, trajectory, [0, 3], Spectrum(2, accuracy=TIGHT), preconditioned=seen)
    assert tracks.preconditioner == "a ramp"
    for place, row in enumerate((0, 3)):
        exact = np.linalg.eigvals(np.diag(p[0] * (1 + row)) @ CROSSING.matrix(clocks[row])).real
        np.testing.assert_allclose(tracks.values[place, 0], np.sort(exact)[::-1][:2], atol=1e-7)


def stated(strategy, tasks=1):
    names = tuple(f"t{t}" for t in range(tasks))
    return Provenance(repr(strategy), strategy.label, 0, strategy.optimiser.rate, "", {}, names, (), "", "")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.9},
        {"momentum": 0.5, "dampening": 0.3},
        {"momentum": 0.8, "nesterov": True},
        {"weight_decay": 0.7},
        {"momentum": 0.9, "weight_decay": 0.7},
    ],
)
@pytest.mark.parametrize("strategy", [Averaged, Alternating, Independent])
def test_steps_diverge_just_beyond_the_line_and_not_just_below(settings, strategy):
    chosen = strategy(Optimiser("SGD", lr=0.05, **settings))
    line = step_line(stated(chosen)).values[0]
    for factor, diverges in ((0.98, False), (1.02, True)):
        problem = problems.load(
            "quadratic", {"hessians": [[[line * factor]]], "minima": [[0.0]], "heads": 0, "examples": 2}
        )
        *_, last = training.train(problem, chosen, training.Plan(200, 2), seed=0)
        assert (abs(last.theta[0]) > 10) == diverges, (line, last.theta)


@pytest.mark.parametrize("strategy", [Averaged(Optimiser("SGD", lr=0.05)), Averaged(Optimiser("SGD", lr=0.05), Mean())])
def test_the_averages_line_is_that_of_the_steps_really_taken(strategy):
    line = step_line(stated(strategy, 3)).values[-1]
    assert line == pytest.approx(40 / 3 if strategy.reduction != Mean() else 40)
    for factor, diverges in ((0.98, False), (1.02, True)):
        curvatures = np.array([0.5, 0.7, 1.8]) * line * factor  # their mean is the line
        settings = {"hessians": curvatures[:, None, None].tolist(), "minima": [[0.0]] * 3, "heads": 0, "examples": 2}
        *_, last = training.train(problems.load("quadratic", settings), strategy, training.Plan(200, 2), seed=0)
        assert (abs(last.theta[0]) > 10) == diverges


def test_where_there_is_no_line_it_says_why():
    adam = step_line(stated(Independent(Optimiser("Adam", lr=0.01)), 2))
    assert np.isnan(adam.values).all()
    assert adam.words == (
        "No step-size line: trained with Adam, for which none is known that concerns the Hessian itself."
    )
    weighted = step_line(stated(Averaged(Optimiser("SGD", lr=0.1), Weights(1.0, 2.0)), 2))
    assert weighted.values[:2].tolist() == [20, 20]
    assert np.isnan(weighted.values[2])
    assert "tasks are weighted" in weighted.words
    own = replace(stated(Averaged()), strategy="my loop")
    assert "does not say which optimiser" in step_line(own).words
    assert "the Hessian" in step_line(stated(Averaged(Optimiser("RMSprop", lr=0.1))), False).words


def test_adams_line_is_that_of_the_preconditioned_hessian():
    chosen = Averaged(Optimiser("Adam", lr=0.01, betas=(0.5, 0.999)))
    assert step_line(stated(chosen), preconditioned=True).values[0] == pytest.approx(2 * 1.5 / (0.01 * 0.5))
    assert step_line(stated(Averaged(Optimiser("Adam", lr=0.01))), True).values[0] == pytest.approx(3800)
    assert np.isnan(step_line(stated(Averaged(Optimiser("SGD", lr=0.01))), True).values).all()


def test_a_part_of_what_a_step_moves_has_no_line(crossed):
    problem, trajectory, _, tracks = crossed
    part = tracking.along(problem, trajectory, [0], Spectrum(1, on=Named("theta")), Matching())
    assert "all parameters that a step moves" in part.line_words
    assert "does not say" in tracks.line_words
