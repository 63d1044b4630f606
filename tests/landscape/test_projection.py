"""A recorder that keeps a random projection: what it stores, that it is the seed's, and that theta is refused."""

from __future__ import annotations

import os
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch

import landscape
from landscape import Every, LandscapeError, Projected, Recorder, Trajectory, Whole
from landscape import projection as module
from tests.analysis.synthetic import layout_of
from tests.landscape.examples import problem

LAYOUT = layout_of(("a", (30, 40), "shared"), ("b", (7,), "shared"), ("c", (50,), "one"))


def recorded(path: Path, keep: Whole | Projected, steps: int = 4) -> Trajectory:
    found = problem()
    with Recorder(found, path, Every(1), keep=keep) as recorder:
        for step in range(steps):
            with torch.no_grad():
                for parameter in found.model.parameters():
                    parameter.add_(0.1 * (step + 1))
            recorder.step()
    return landscape.open(path)


def matrix(kept: Projected) -> np.ndarray:
    """The projection as a matrix, from the rows of unit vectors."""
    rows = [kept.row(LAYOUT, unit)[: kept.width(LAYOUT) - len(LAYOUT.slots)] for unit in np.eye(LAYOUT.size)]
    return np.stack(rows, axis=1)


def test_every_entry_is_added_with_a_sign_to_one_sum_of_its_tensor() -> None:
    made = matrix(Projected(16, seed=3))
    assert made.shape == (16 + 7 + 16, LAYOUT.size)
    assert set(np.unique(made)) == {-1.0, 0.0, 1.0}
    assert (np.count_nonzero(made, axis=0) == 1).all()
    np.testing.assert_array_equal(made[16:23, 1200:1207], np.eye(7))  # small enough to be kept as it is
    assert not made[:16, 1200:].any()
    # 1200 entries over 32 places of equal chance: chi-square with 31 degrees of freedom, 0.1 % beyond 61.
    counts = np.concatenate([(made[:16] == sign).sum(1) for sign in (1, -1)])
    assert ((counts - 37.5) ** 2 / 37.5).sum() < 61


def test_a_row_is_linear_and_ends_with_exact_norms(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(LAYOUT.size)
    kept = Projected(16, seed=3)
    row = kept.row(LAYOUT, theta)
    np.testing.assert_allclose(row[:39], matrix(kept) @ theta, rtol=1e-12, atol=1e-12)  # sums of a hundred numbers
    norms = [float((theta[slot.span] ** 2).sum()) for slot in LAYOUT.slots]
    np.testing.assert_allclose(row[39:], norms, rtol=1e-13)
    assert kept.width(LAYOUT) == len(row) == 42
    assert row.tobytes() == kept.row(LAYOUT, theta).tobytes()
    assert not np.allclose(row[:16], Projected(16, seed=4).row(LAYOUT, theta)[:16])
    monkeypatch.setattr(module, "BLOCK", 500)
    several = np.stack([kept.row(LAYOUT, unit)[:16] for unit in np.eye(LAYOUT.size)], axis=1)
    assert (np.count_nonzero(several[:, :1200], axis=0) == 1).all()


def test_squared_distances_are_right_on_average_with_the_stated_error() -> None:
    rng = np.random.default_rng(1)
    moved = np.zeros(LAYOUT.size)
    moved[:1200] = rng.standard_normal(1200)
    exact = (moved**2).sum()
    found = np.array([(Projected(32, seed).row(LAYOUT, moved)[:32] ** 2).sum() / exact for seed in range(400)])
    error = np.sqrt(2 / 32)
    # Mean of 400: a twentieth of the error each, four of them; the spread of 400 is known to 3.5 %, four of those.
    assert found.mean() == pytest.approx(1, abs=4 * error / 20)
    assert found.std() == pytest.approx(error, rel=0.15)


def test_a_projected_recording_is_marked_and_says_so_where_theta_is_asked_for(tmp_path: Path) -> None:
    whole, there = recorded(tmp_path / "w.h5", Whole()), recorded(tmp_path / "p.h5", Projected(8, seed=5))
    assert whole.sketch is None
    assert there.sketch is not None
    assert (there.sketch.dimensions, there.sketch.seed) == (8, 5)
    assert there.layout == whole.layout
    assert there.theta.shape == whole.theta.shape
    message = (
        r"p\.h5 keeps a random projection of theta on 8 dimensions a tensor, which this needs whole: expected a file "
        r"with theta; record it without `keep=Projected"
    )
    for read in (lambda: there.theta[0], lambda: there.shared[:, :3], lambda: np.asarray(there.theta)):
        with pytest.raises(LandscapeError, match=message):
            read()
    for name in ("steps", "losses", "path_steps", "path_updates", "updates"):
        np.testing.assert_array_equal(getattr(there, name), getattr(whole, name))
    spans = there.sketch.spans(there.layout)
    for number, slot in enumerate(there.layout.slots):
        exact = whole.theta[:, slot.span].astype(np.float64)
        np.testing.assert_allclose(there.sketch.norms[:, number], (exact**2).sum(1), rtol=1e-12)
        if slot.size <= 8:
            np.testing.assert_array_equal(there.sketch.rows[:, spans[slot.name]], exact)
    with h5py.File(tmp_path / "p.h5") as file, h5py.File(tmp_path / "w.h5") as other:
        assert (file.attrs["format_version"], other.attrs["format_version"]) == (2, 1)
        assert file.attrs["projection"] == b'{"dimensions": 8, "seed": 5}'
        assert "projection" not in other.attrs
    assert sorted(os.listdir(tmp_path)) == ["p.h5", "w.h5"]


def test_too_few_dimensions_are_refused() -> None:
    with pytest.raises(LandscapeError, match="expected a projection on 8 or more dimensions a tensor, got 3"):
        Projected(3)
