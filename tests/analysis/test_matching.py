"""Curves through crossings, groups and losses, on eigenvectors that are known at every moment."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import ortho_group

from analysis.matching import Matching, begin, follow
from landscape.errors import LandscapeError

EXACT = np.zeros(8)


def solved(matrix, count):
    """Largest eigenvalues and vectors of a matrix by numpy's dense solver, with arbitrary signs."""
    values, vectors = np.linalg.eigh(matrix)
    signs = np.where(np.arange(count) % 2, -1.0, 1.0)
    return values[::-1][:count], (vectors[:, ::-1].T[:count]) * signs[:, None]


def tracked(matrices, count, how=Matching()):
    """The curves at every moment, and the values."""
    found, values = [], []
    for matrix in matrices:
        value, vectors = solved(matrix, count)
        residuals = EXACT[:count]
        found.append(
            follow(found[-1], value, vectors, residuals, how) if found else begin(value, vectors, residuals, how)
        )
        values.append(value)
    return found, np.array(values)


def crossing(levels, turn=None, size=5):
    """Matrices with these values [moment, curve] on fixed vectors, and small other ones; turned by `turn(moment)`."""
    basis = ortho_group.rvs(size, random_state=1)
    for moment, row in enumerate(levels):
        vectors = basis if turn is None else basis @ turn(moment)
        spectrum = np.concatenate([row, 0.01 * np.arange(size - len(row))])
        yield vectors @ np.diag(spectrum) @ vectors.T


def by_curve(found, values):
    """The values that every curve took, in its order."""
    curves = {}
    for one, row in zip(found, values, strict=True):
        for number, value in zip(one.track, row, strict=True):
            curves.setdefault(int(number), []).append(float(value))
    return curves


def test_curves_go_straight_through_a_crossing():
    moments = np.linspace(0, 1, 8)
    levels = np.stack([3 - moments, 2 + 0.9 * moments], 1)  # cross between two moments
    found, values = tracked(crossing(levels), 2)
    curves = by_curve(found, values)
    assert list(curves) == [0, 1]
    np.testing.assert_allclose(curves[0], levels[:, 0], rtol=1e-12)
    np.testing.assert_allclose(curves[1], levels[:, 1], rtol=1e-12)
    assert found[0].track.tolist() == [0, 1], "in the spectrum's order the first value belongs to curve 0 at first,"
    assert found[-1].track.tolist() == [1, 0], "and to curve 1 in the end"
    for one in found[1:]:
        np.testing.assert_allclose(one.match, 1.0, rtol=1e-12)


@pytest.mark.parametrize("values_meet", [0.0, 1e-9, 1e-3])
def test_curves_keep_their_identity_through_a_snapshot_at_which_the_values_are_one(values_meet):
    levels = np.array([[3.0, 2.0], [2.8, 2.3], [2.5 + values_meet, 2.5], [2.2, 2.7], [2.0, 3.0]])
    found, values = tracked(crossing(levels), 2)
    assert [one.grouped.tolist() for one in found] == [[False] * 2] * 2 + [[True] * 2] + [[False] * 2] * 2
    assert found[-1].track.tolist() == [1, 0], "the space of the group carried both"
    assert sorted(by_curve(found, values)) == [0, 1]
    assert found[2].match == pytest.approx([1, 1]), "the overlap of the group's space"


def rotation(angle, first=0, second=1, size=5):
    turn = np.eye(size)
    turn[[first, first, second, second], [first, second, first, second]] = (
        np.cos(angle),
        -np.sin(angle),
        np.sin(angle),
        np.cos(angle),
    )
    return turn


def test_slowly_turning_vectors_are_followed_and_their_overlap_is_the_cosine():
    levels = np.tile([3.0, 2.0], (12, 1))
    found, _ = tracked(crossing(levels, lambda moment: rotation(0.2 * moment)), 2)
    for one in found[1:]:
        assert one.track.tolist() == [0, 1]
        np.testing.assert_allclose(one.match, np.cos(0.2), rtol=1e-12)


def test_a_vector_that_jumps_ends_its_curve_and_another_begins():
    levels = np.tile([5.0, 4.0, 3.0], (4, 1))
    # From the second moment on the first direction is another one, at 80 degrees, out of the space that is seen.
    jump = lambda moment: rotation(np.radians(80) * (moment >= 2), first=0, second=4)  # noqa: E731
    found, _ = tracked(crossing(levels, jump), 3)
    assert [one.track.tolist() for one in found] == [[0, 1, 2], [0, 1, 2], [3, 1, 2], [3, 1, 2]]
    assert np.isnan(found[2].match[0])
    assert found[3].match[0] == pytest.approx(1)


def test_two_vectors_that_mix_evenly_lose_both_curves():
    levels = np.tile([5.0, 3.0], (2, 1))
    found, _ = tracked(crossing(levels, lambda moment: rotation(np.radians(47) * moment)), 2)
    # At 47 degrees each new vector is nearer to the other one, by cos 43 = 0.73: the values are followed by vector.
    assert found[1].track.tolist() == [1, 0]
    found, _ = tracked(crossing(levels, lambda moment: rotation(np.radians(47) * moment)), 2, Matching(overlap=0.8))
    assert found[1].track.tolist() == [2, 3]


def test_a_group_is_lost_as_a_whole_when_its_space_turns_away():
    levels = np.tile([5.0, 5.0, 1.0], (2, 1))
    found, _ = tracked(crossing(levels, lambda moment: rotation(np.radians(60) * moment, 0, 3)), 3)
    # One direction of the group's plane stays, the other leaves by 60 degrees: one curve may go on, not both.
    assert (found[1].track >= 3).sum() >= 1
    assert found[1].track[2] == 2
    turned, _ = tracked(crossing(levels, lambda moment: rotation(np.radians(30) * moment, 0, 3)), 3)
    assert sorted(turned[1].track.tolist()) == [0, 1, 2]
    assert turned[1].match[:2] == pytest.approx(np.cos(np.radians(30))), "the largest angle between the spaces"


def test_vectors_inside_a_group_may_turn_freely():
    levels = np.tile([5.0, 5.0 - 1e-12, 1.0], (5, 1))
    found, _ = tracked(crossing(levels, lambda moment: rotation(1.1 * moment)), 3)
    for one in found[1:]:
        assert sorted(one.track.tolist()) == [0, 1, 2]
        assert one.match == pytest.approx(1)
        assert one.grouped.tolist() == [True, True, False]


@pytest.mark.parametrize("seed", range(3))
def test_curves_do_not_depend_on_the_basis_of_the_parameters_nor_on_signs(seed):
    moments = np.linspace(0, 1, 6)
    levels = np.stack([3 - moments, 2 + moments, 1 + 0 * moments], 1)
    plain = list(crossing(levels, lambda moment: rotation(0.1 * moment, 0, 3)))
    turn = ortho_group.rvs(5, random_state=seed)
    one, values = tracked(plain, 3)
    other, same = tracked([turn @ matrix @ turn.T for matrix in plain], 3)
    np.testing.assert_allclose(values, same, rtol=1e-12)
    for a, b in zip(one, other, strict=True):
        assert a.track.tolist() == b.track.tolist()
        np.testing.assert_allclose(a.match, b.match, rtol=1e-9)


def test_residuals_join_values_into_a_group():
    values, sure, unsure = np.array([5.0, 4.8, 1.0]), np.full(3, 1e-3), np.array([0.06, 0.06, 1e-3])
    how = Matching(closeness=0.01)
    assert [g.tolist() for g in how.groups(values, sure)] == [[0], [1], [2]]
    assert [g.tolist() for g in how.groups(values, unsure)] == [[0, 1], [2]]
    assert [g.tolist() for g in Matching(closeness=0.05).groups(values, sure)] == [[0, 1], [2]]


def test_settings_that_let_two_vectors_compete_are_refused():
    with pytest.raises(LandscapeError, match=r"between 0.7071 and 1.* got 0.5"):
        Matching(overlap=0.5)
    with pytest.raises(LandscapeError, match="closeness and residual gaps of 0 or more, got -1 and 2"):
        Matching(closeness=-1)
