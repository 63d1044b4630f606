"""Agreement of tasks against scipy's angles, dense Hessians, closed forms and the noise of known examples."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from scipy.linalg import subspace_angles
from scipy.stats import binomtest

from analysis import agreement, archive
from analysis.agreement import Compared, random_angles
from analysis.archive import Entry
from analysis.gradients import _Inner, _norms_and_cosines, gradients_at, pieces_of
from analysis.neighbourhood import Neighbourhood
from analysis.operators import hessians
from analysis.spectra import Accuracy
from analysis.subsets import Named
from landscape import problems
from landscape.errors import LandscapeError
from tests.analysis import cases, turning
from tests.analysis.synthetic import write_run
from tests.analysis.turning import Law

TIGHT = Accuracy(1e-10, 100)


def dense(operator):
    return torch.stack([operator @ e for e in torch.eye(operator.size, dtype=operator.dtype)]).numpy()


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A network of two tasks with the dense Hessians of both and of the average, and the record of one snapshot."""
    problem = cases.make()
    theta, buffers = (part.numpy() for part in problem.initial(0))
    run = write_run(tmp_path_factory.mktemp("runs") / "run.h5", theta[None], problem.layout, tasks=problem.names)
    chosen = Compared(3, batch=2, accuracy=TIGHT, draws=50)
    matrices = [dense(op) for op in hessians(problem, theta, buffers, chosen.on).values()]
    return problem, theta, buffers, matrices, agreement.along(problem, run, [0], chosen)


def leading(matrix, count):
    values, vectors = np.linalg.eigh(matrix)
    return values[::-1][:count], vectors[:, ::-1][:, :count]


def test_angles_are_those_of_scipy_between_dense_eigenspaces(network):
    *_, matrices, found = network
    assert found.pairs == ("one and two", "one and average", "two and average")
    for k, (a, b) in enumerate(combinations(matrices, 2)):
        exact = np.degrees(subspace_angles(leading(a, 3)[1], leading(b, 3)[1]))[::-1]
        # Spaces are known to residual / gap, here below 1e-6 of a degree.
        np.testing.assert_allclose(found.angles[0, k], exact, atol=1e-5)
    assert (found.space_error < 1e-5).all()


def test_gaps_and_values_are_those_of_the_dense_hessians(network):
    *_, matrices, found = network
    for number, matrix in enumerate(matrices):
        values = leading(matrix, 4)[0]
        np.testing.assert_allclose(found.values[0, number], values[:3], atol=1e-10)
        assert found.gap[0, number] == pytest.approx(values[2] - values[3], abs=1e-8)


def test_cross_curvature_is_u_h_u(network):
    *_, matrices, found = network
    for i, own in enumerate(matrices):
        vectors = leading(own, 3)[1]
        for j, other in enumerate(matrices):
            exact = np.einsum("nk,nm,mk->k", vectors, other, vectors)
            np.testing.assert_allclose(found.cross[0, i, j], exact, atol=1e-8)


def test_shares_of_the_tasks_sum_to_the_eigenvalues_of_the_average(network):
    found = network[-1]
    assert found.shares.shape == (1, 2, 3)
    np.testing.assert_allclose(found.shares.sum(1), found.values[:, -1], atol=1e-12)
    check = agreement.shares_check(found)
    assert check.passed
    assert check.value < 1e-10


def test_shares_that_do_not_sum_to_a_converged_eigenvalue_fail_by_the_largest_difference(network):
    found = network[-1]
    cross = found.cross.copy()
    cross[0, -1, 0, 1] += 0.1 * found.values[0, -1, 0] * 2  # of two tasks, each has half of the average
    check = agreement.shares_check(replace(found, cross=cross))
    assert not check.passed
    assert check.value == pytest.approx(0.1)  # relative to the largest of the average's eigenvalues
    converged = found.converged.copy()
    converged[0, -1, 1] = False
    assert agreement.shares_check(replace(found, cross=cross, converged=converged)).passed


def test_the_most_products_are_counted_for_a_subset_smaller_than_the_space_asked_for(network, tmp_path):
    problem, theta, *_ = network
    run = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    whole, five = Compared(3, accuracy=TIGHT), Compared(9, on=Named("first.bias"), accuracy=TIGHT)
    # T + 1 = 3 searches of 100 products and of as many fresh ones as pairs, T k a space for the cross-curvature.
    assert agreement.most_products(run, [0, 0], whole) == 2 * 3 * (100 + 4 + 2 * 3)
    assert agreement.most_products(run, [0], five) == 3 * (100 + 5 + 2 * 5)


def test_norms_and_cosines_are_those_of_the_whole_set(network):
    problem, theta, buffers, _, found = network
    gradients = Neighbourhood(problem, theta, buffers).every_gradient().numpy()
    gradients = np.concatenate([gradients, gradients.mean(0, keepdims=True)])
    np.testing.assert_allclose(found.norm[0], np.linalg.norm(gradients, axis=1), rtol=1e-12)
    a, b = gradients[:2]
    assert found.cosine[0, 0] == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), rel=1e-12)
    assert found.couples == ("one and two",)
    assert (found.pieces, found.piece) == (8, 2), "13 examples in 8 pieces, the largest of 2"


def test_the_record_counts_its_products_and_comes_back_from_a_file(network, tmp_path):
    problem, theta, _, _, found = network
    run = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    told: list[int] = []
    again = agreement.along(problem, run, [0], Compared(3, batch=2, accuracy=TIGHT, draws=50), told.append)
    assert again == found
    assert sum(told) == found.products
    assert found.products <= agreement.most_products(run, [0], Compared(3, accuracy=TIGHT))
    archive.save(tmp_path / "results.h5", {"agreement": Entry(found)})
    assert archive.load(tmp_path / "results.h5", "agreement").record == found


def test_planted_spaces_have_the_planted_angle(tmp_path):
    # The second task's sharpest direction leaves the first one's by clock radians; all else is small.
    first, second = Law([5.0, 0.3, 0.2, 0.1], [0.0] * 4), Law([7.0, 0.3, 0.2, 0.1], [0.0] * 4, [(0, 2, 1.0)])
    problem = turning.make(first, second)
    clocks = [0.0, 0.4, 1.2]
    run = turning.run(tmp_path / "run.h5", problem, clocks)
    found = agreement.along(problem, run, range(3), Compared(1, accuracy=TIGHT, draws=20))
    # An angle near 0 has half the digits of its cosine; scipy takes it from the sine.
    np.testing.assert_allclose(found.angles[:, 0, 0], np.degrees(clocks), atol=1e-5)
    c = np.cos(clocks) ** 2
    np.testing.assert_allclose(found.cross[:, 0, 1, 0], 7 * c + 0.2 * (1 - c), atol=1e-8)
    np.testing.assert_allclose(found.shares[0, :, 0], [2.5, 3.5], atol=1e-9)


def test_one_task_has_an_average_and_no_couples(tmp_path):
    problem = turning.make(Law([5.0, 3.0, 1.0], [0.0] * 3))
    run = turning.run(tmp_path / "run.h5", problem, [0.0])
    found = agreement.along(problem, run, [0], Compared(3, on=Named("theta"), draws=5, accuracy=TIGHT))
    assert found.couples == ()
    assert found.cosine.shape == (1, 0)
    assert found.gap.tolist() == [[np.inf] * 2], "the space is everything"
    assert found.space_error.tolist() == [[0.0] * 2]
    np.testing.assert_allclose(found.angles, 0, atol=1e-6)
    np.testing.assert_allclose(found.null, 0, atol=1e-5)


@pytest.mark.parametrize(("size", "count"), [(40, 3), (5, 3), (200, 1)])
def test_random_angles_are_those_of_random_orthonormal_frames(size, count):
    rng = np.random.default_rng(3)
    frames = np.linalg.qr(rng.standard_normal((3000, 2, size, count)))[0]
    cosines = np.linalg.svd(frames[:, 0].transpose(0, 2, 1) @ frames[:, 1], compute_uv=False)
    exact = np.degrees(np.arccos(np.clip(cosines, 0, 1)))
    mean, low, high = random_angles(size, count, 3000, seed=0)
    # Standard errors of both means: below 0.3 of a degree for spreads up to 12; quantiles are noisier.
    np.testing.assert_allclose(mean, exact.mean(0), atol=1.2)
    np.testing.assert_allclose(low, np.quantile(exact, 0.025, axis=0), atol=3.5)
    np.testing.assert_allclose(high, np.quantile(exact, 0.975, axis=0), atol=3.5)


def test_one_random_direction_has_the_known_mean_square_cosine():
    mean, low, high = random_angles(10**9, 1, 200)
    assert 89.99 < mean[0] <= 90
    assert low[0] > 89.9
    assert high[0] <= 90


class Noisy:
    """Two tasks with gradients a + e_i and b + D e_i at theta 0 for examples i: their noise is known."""

    def __init__(self, examples, noise, signs=(1.0, 1.0, 1.0, 1.0)):
        self.problem = problems.load(
            "quadratic",
            {
                "hessians": [np.eye(4).tolist(), np.diag(signs).tolist()],
                "minima": [[-1.0, 0, 0, 0], [-0.6, -0.8, 0, 0]],
                "heads": 0,
                "spread": noise,
                "examples": examples,
            },
        )
        self.near = Neighbourhood(self.problem, np.zeros(4), np.zeros(0))


def test_jackknife_errors_are_those_of_fresh_examples():
    noisy = Noisy(400, 0.5)
    found = gradients_at(noisy.near, pieces_of(noisy.problem, 10, 0))
    np.testing.assert_allclose(found.norm[:2], 1.0)
    assert found.cosine[0] == pytest.approx(0.6)
    # Examples e, -e cancel: the mean has no noise; pieces at random do not know, and give 0.5 / sqrt(400) an entry.
    assert found.norm_stderr[0] == pytest.approx(0.025, rel=0.35)
    rng = np.random.default_rng(0)
    means = 0.025 * rng.standard_normal((4000, 4))
    a, b = means + np.array([1, 0, 0, 0]), means + np.array([0.6, 0.8, 0, 0])
    cosines = (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)
    # 40 pieces give a standard error to about 1 / sqrt(2 * 40) = 11 %, three of them.
    assert found.cosine_stderr[0] == pytest.approx(cosines.std(), rel=0.35)


def test_the_conflict_is_the_share_of_mini_batches_with_a_negative_cosine():
    signs = np.array([1.0, 1.0, -1.0, -1.0])  # the second task's curvature, which turns its examples' noise around
    noisy = Noisy(200, 3.0, signs)
    pieces = pieces_of(noisy.problem, 2, 0)
    assert len(pieces) == 64
    found = gradients_at(noisy.near, pieces)
    inputs = noisy.problem.evaluation.inputs.numpy()
    counted = 0
    for rows in pieces:
        e = inputs[rows.numpy()].mean(0)
        counted += (e + np.array([1, 0, 0, 0])) @ (signs * e + np.array([0.6, 0.8, 0, 0])) < 0
    assert 0 < counted < 64
    assert found.conflict[0] == counted / 64
    exact = binomtest(int(counted), 64).proportion_ci(method="wilson")
    assert found.conflict_low[0] == pytest.approx(exact.low, rel=1e-4)  # 1.96 for 1.959964
    assert found.conflict_high[0] == pytest.approx(exact.high, rel=1e-4)


def test_opposite_gradients_conflict_everywhere_and_a_zero_one_has_no_cosine():
    settings = {"hessians": [np.eye(2).tolist()] * 3, "minima": [[1, 0], [-2, 0], [0, 0]], "heads": 0, "examples": 16}
    problem = problems.load("quadratic", settings)
    found = gradients_at(Neighbourhood(problem, np.zeros(2), np.zeros(0)), pieces_of(problem, 4, 0))
    assert found.cosine[0] == -1
    assert np.isnan(found.cosine[1:]).all()
    assert (found.conflict[0], found.conflict_high[0]) == (1, 1)
    assert found.conflict_low[0] > 0.6
    assert found.norm.tolist() == pytest.approx([1, 2, 0, 1 / 3])
    assert np.isnan(found.conflict[1:]).all()


def test_a_task_that_is_not_finite_spoils_its_own_numbers_only(tmp_path):
    problem = cases.make()
    theta, _ = (part.numpy() for part in problem.initial(0))
    theta[problem.layout.slots[4].span] = np.nan  # the head of task one
    run = write_run(tmp_path / "run.h5", theta[None], problem.layout, tasks=problem.names)
    found = agreement.along(problem, run, [0], Compared(2, batch=4, draws=5))
    assert np.isfinite(found.values[0, :, 0]).tolist() == [False, True, False]
    assert np.isfinite(found.norm[0]).tolist() == [False, True, False]
    assert np.isnan(found.cosine).all()
    assert np.isnan(found.angles).all()
    assert np.isnan(found.space_error[0, 0])
    assert np.isfinite(found.cross[0, 1, 1]).all()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(LandscapeError, match="1 or more directions, examples in a mini-batch and draws, got 0, 64"):
        Compared(0)


def test_norms_keep_their_digits_where_pieces_or_tasks_cancel():
    # Sums of +-1 + 2^-30 are exact; from the products of the pieces, of order 1, norms below 1e-8 are noise.
    tiny = 2.0**-30
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0], dtype=torch.float64)
    one = (signs + tiny)[:, None] * torch.ones(3, dtype=torch.float64)
    two = (signs - tiny)[:, None] * torch.ones(3, dtype=torch.float64)
    inner = _Inner.of(torch.stack([one, two], 1), np.full(4, 0.25))
    norm, cosine = _norms_and_cosines(inner.whole)
    np.testing.assert_allclose(norm, [tiny * np.sqrt(3), tiny * np.sqrt(3), 0.0], rtol=1e-12)
    assert cosine[0] == pytest.approx(-1.0, rel=1e-12)
    for k in range(4):
        left = [i for i in range(4) if i != k]
        expected = [np.linalg.norm(part[left].mean(0)) for part in (one.numpy(), two.numpy())]
        np.testing.assert_allclose(_norms_and_cosines(inner.without(k))[0][:2], expected, rtol=1e-12)
        np.testing.assert_allclose(
            _norms_and_cosines(inner.alone[k])[0][:2], [np.linalg.norm(part[k]) for part in (one.numpy(), two.numpy())]
        )
