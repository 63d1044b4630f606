"""Records of a run's movement: what is in them, what is missing and why, and what random walks are beside it."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from analysis import archive, movement, nulls, paths
from analysis.archive import Entry
from analysis.forms import Filterwise, Invariant, Raw, Relative
from analysis.movement import Measuring
from analysis.subsets import Everything, Head, Shared
from landscape import LandscapeError
from tests.analysis.synthetic import layout_of, write_run

LAYOUT = layout_of(("trunk.weight", (8, 5), "shared"), ("trunk.bias", (8,), "shared"), ("a.weight", (3, 8), "one"))
RAW = Measuring(forms=(Raw(),), draws=20)


def theta(count=12, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(LAYOUT.size) + 0.1 * np.cumsum(rng.standard_normal((count, LAYOUT.size)), axis=0)


def test_a_record_holds_every_measure_at_every_snapshot_with_its_budgets(tmp_path):
    rows = theta()
    losses = np.column_stack([np.linspace(3, 1, 12), np.linspace(2, 1, 12)])
    run = write_run(tmp_path / "a.h5", rows, LAYOUT, losses=losses, steps=range(0, 120, 10), updates=range(0, 240, 20))
    (moved,) = movement.measure([run], RAW)
    found = moved.movement
    shared = rows[:, : LAYOUT.count()]
    assert (found.run.name, found.subset, found.form) == ("walk-0", "shared", "raw")
    assert found.measures == movement.MEASURES
    np.testing.assert_allclose(found.of("net"), np.linalg.norm(shared - shared[0], axis=1), rtol=1e-12)
    np.testing.assert_allclose(found.of("to_end"), np.linalg.norm(shared - shared[-1], axis=1), rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(found.of("path_snapshots"), run.path_steps, rtol=1e-12)
    np.testing.assert_array_equal(found.of("path_steps"), run.path_steps)
    moves = np.linalg.norm(np.diff(shared, axis=0), axis=1)
    np.testing.assert_allclose(found.of("speed_steps")[1:], moves / 10, rtol=1e-12)
    np.testing.assert_allclose(found.of("speed_updates")[1:], moves / 20, rtol=1e-12)
    np.testing.assert_array_equal(found.budget("movement"), 0.1 * run.updates)
    np.testing.assert_allclose(found.budget("loss"), -losses.mean(1))
    assert (found.parameters, found.error, found.directions, found.notes) == (48, 0.0, 3, "")
    assert dict(zip(found.measures, found.units, strict=True))["speed_updates"] == "parameter / update"
    for wrong in ("budget", "of"):
        with pytest.raises(ValueError, match=r"expected a .* among .*, got 'colour'"):
            getattr(found, wrong)("colour")


def test_the_budget_of_equal_loss_is_the_least_loss_reached_so_far(tmp_path):
    losses = np.array([[4.0, 4.0], [1.0, 3.0], [6.0, 6.0], [1.0, 1.0]])
    run = write_run(tmp_path / "a.h5", theta(4), LAYOUT, losses=losses)
    assert movement.measure([run], RAW)[0].movement.budget("loss").tolist() == [-4, -2, -2, -1]


def test_recorded_paths_are_those_of_all_shared_parameters_in_raw_and_relative_units(tmp_path):
    rows = theta()
    run = write_run(tmp_path / "a.h5", rows, LAYOUT, paths=(np.arange(12.0), 2 * np.arange(12.0)))
    chosen = Measuring((Shared(), Everything()), (Raw(), Relative(), Filterwise()), draws=0)
    by = {(m.movement.subset, m.movement.form): m.movement for m in movement.measure([run], chosen)}
    np.testing.assert_array_equal(by["shared", "raw"].of("path_updates"), 2 * np.arange(12.0))
    norm = np.linalg.norm(rows[0, : LAYOUT.count()])
    np.testing.assert_allclose(by["shared", "relative"].of("path_steps"), np.arange(12.0) / norm, rtol=1e-12)
    for other in (("shared", "filterwise"), ("all", "raw")):
        assert np.isnan(by[other].of("path_steps")).all()
        assert "are known of all shared parameters, in raw and relative units only" in by[other].notes
    assert "1 tensors have no place in this form, as trunk.bias." in by["shared", "filterwise"].notes


def test_without_a_start_what_needs_it_is_missing_and_the_rest_is_there(tmp_path):
    run = write_run(tmp_path / "a.h5", theta(), LAYOUT, steps=range(40, 160, 10))
    raw, relative = movement.measure([run], Measuring(forms=(Raw(), Relative()), draws=5))
    for name in movement.NEED_START:
        assert np.isnan(raw.movement.of(name)).all()
    for name in ("to_end", "path_steps", "radius", "dimension"):
        assert np.isfinite(raw.movement.of(name)[1:]).all()
    assert np.isfinite(raw.displacements.exponent)
    assert np.isnan(raw.movement.start_norm)
    assert raw.movement.notes.startswith("The first usable snapshot is of step 40, not the start: net, path_snapshots")
    assert np.isnan(relative.movement.values).all()
    assert "Nothing is measured in this form: the start is missing." in relative.movement.notes
    assert (relative.displacements, relative.null) == (None, None)


def test_directions_of_layers_need_no_start(tmp_path):
    run = write_run(tmp_path / "a.h5", theta(), LAYOUT, steps=range(40, 160, 10))
    (moved,) = movement.measure([run], Measuring(forms=(Invariant(("trunk.*",)),), draws=0))
    assert np.isfinite(moved.movement.of("radius")).all()


def test_one_snapshot_is_a_place_and_nothing_else(tmp_path):
    run = write_run(tmp_path / "a.h5", theta(1), LAYOUT)
    (moved,) = movement.measure([run], RAW)
    assert moved.movement.of("net").tolist() == [0]
    assert np.isnan(moved.movement.of("dimension")).all()
    assert moved.movement.notes == "One snapshot only: no path, no speed, no angle and no random walk."
    assert (moved.displacements, moved.null) == (None, None)


def test_snapshots_that_are_not_finite_are_named_left_out_and_counted(tmp_path):
    rows = theta()
    rows[[3, 7], 4] = np.nan
    run = write_run(tmp_path / "a.h5", rows, LAYOUT, steps=range(0, 120, 10))
    (moved,) = movement.measure([run], RAW)
    assert moved.movement.left_out.tolist() == [30, 70]
    assert "2 of 12 snapshots are not finite and left out: steps 30, 70." in moved.movement.notes
    assert len(moved.movement.steps) == 10
    kept = np.delete(rows, [3, 7], axis=0)[:, : LAYOUT.count()]
    np.testing.assert_allclose(moved.movement.of("net"), np.linalg.norm(kept - kept[0], axis=1), rtol=1e-12)
    rows[0, 0] = np.inf
    (lost,) = movement.measure([write_run(tmp_path / "b.h5", rows, LAYOUT)], RAW)
    assert np.isnan(lost.movement.of("net")).all()


def test_several_runs_at_once_give_what_each_gives_alone(tmp_path):
    runs = [write_run(tmp_path / f"{seed}.h5", theta(9, seed), LAYOUT, seed=seed) for seed in range(3)]
    told: list[movement.Advance] = []
    together = movement.measure(runs, Measuring(forms=(Raw(), Filterwise()), draws=5, workers=3), told.append)
    alone = [
        moved for run in runs for moved in movement.measure([run], Measuring(forms=(Raw(), Filterwise()), draws=5))
    ]
    assert [m.movement.run.seed for m in together] == [0, 0, 1, 1, 2, 2]
    for one, other in zip(together, alone, strict=True):
        assert (one.movement, one.displacements, one.null) == (other.movement, other.displacements, other.null)
    shares = [advance.done for advance in told]
    assert all(a <= b for a, b in itertools.pairwise(shares))
    assert shares[-1] == pytest.approx(1)
    assert told[-1].left == pytest.approx(0, abs=1e-9)


def test_records_come_back_from_the_archive(tmp_path):
    rows = theta()
    rows[5, 0] = np.nan
    (moved,) = movement.measure([write_run(tmp_path / "a.h5", rows, LAYOUT)], RAW)
    records = {"a": moved.movement, "b": moved.displacements, "c": moved.null}
    archive.save(tmp_path / "r.h5", {group: Entry(record) for group, record in records.items()})
    for group, record in records.items():
        assert archive.load(tmp_path / "r.h5", group).record == record


def test_everything_is_shared_parameters_norms_out_heads_and_layers():
    layout = layout_of(("c.weight", (4, 3), "shared"), ("n.weight", (4,), "shared"), ("h.weight", (2, 4), "one"))
    labels = [subset.label for subset in movement.everything(layout).subsets]
    assert labels == ["shared", "shared without norm layers", "head of one", "layer c", "layer n"]
    assert [form.label for form in movement.everything(layout, ["c.*"]).forms] == [
        "raw",
        "relative",
        "filterwise",
        "invariant",
    ]
    assert [subset.label for subset in movement.everything(LAYOUT).subsets] == ["shared", "head of one", "layer trunk"]


def test_what_cannot_be_measured_is_refused(tmp_path):
    with pytest.raises(LandscapeError, match="expected at least one trajectory, got none"):
        movement.measure([])
    run = write_run(tmp_path / "a.h5", theta(), LAYOUT)
    with pytest.raises(LandscapeError, match="unknown head 'two': expected one of one"):
        movement.measure([run], Measuring((Head("two"),)))
    with pytest.raises(LandscapeError, match="expected one direction or more, no draws or more, one worker or more"):
        movement.measure([run], Measuring(directions=0))


def test_the_same_seed_gives_the_same_walks(tmp_path):
    run = write_run(tmp_path / "a.h5", theta(), LAYOUT)
    one, same, other = (movement.measure([run], Measuring(forms=(Raw(),), draws=9, seed=s))[0] for s in (0, 0, 1))
    assert one.null == same.null
    assert one.null != other.null


def test_walks_keep_the_step_lengths_and_spread_as_their_dimension_says():
    # E||x_n||^2 = sum l^2 in every dimension; in d dimensions its variance is 4 sum_{k<m} l_k^2 l_m^2 / d.
    lengths = np.array([3.0, 1.0, 2.0, 0.5, 4.0])
    rng = np.random.default_rng(0)
    for dimension in (2, 7):
        drawn = [nulls.one(nulls.Walks(lengths, dimension, 1, 0), rng) for _ in range(4000)]
        np.testing.assert_allclose([paths.lengths(s) for s in drawn], np.broadcast_to(lengths, (4000, 5)), rtol=1e-9)
        ends = np.array([s[0, -1] for s in drawn])
        squares = lengths**2
        variance = 4 * np.triu(np.outer(squares, squares), 1).sum() / dimension
        assert ends.mean() == pytest.approx(squares.sum(), abs=4 * np.sqrt(variance / 4000))
        assert ends.var() == pytest.approx(variance, rel=0.2)
    np.testing.assert_allclose(nulls.orthogonal(lengths)[0, -1], (lengths**2).sum())


def test_a_walk_lies_within_the_quantiles_and_a_line_does_not(tmp_path):
    rng = np.random.default_rng(3)
    wide = layout_of(
        ("w", (40, 50), "shared"),
    )
    walk = np.cumsum(rng.standard_normal((30, 2000)), axis=0)
    line = np.arange(30.0)[:, None] * rng.standard_normal(2000)
    inside, outside = (
        movement.measure([write_run(tmp_path / f"{k}.h5", rows, wide)], Measuring(forms=(Raw(),), draws=200))[0]
        for k, rows in enumerate((walk, line))
    )
    for name in ("net", "ratio", "turning", "exponent", "radius", "dimension", "volume"):
        low, high = (getattr(inside.null, key)[-1, inside.null.measures.index(name)] for key in ("low", "high"))
        # One draw is outside of its 95 % range one time in twenty; this one is inside, or a little beside it.
        assert low - (high - low) < inside.movement.of(name)[-1] < high + (high - low)
        far = outside.null
        low, high = (getattr(far, key)[-1, far.measures.index(name)] for key in ("low", "high"))
        assert not low - 3 * (high - low) < outside.movement.of(name)[-1] < high + 3 * (high - low)
    np.testing.assert_allclose(
        inside.displacements.walk_msd[0], np.mean(paths.lengths(inside.displacements.squares) ** 2)
    )


@pytest.mark.parametrize("dimension", [2, 3, 50, 10**7])
def test_quantiles_of_one_angle_are_those_of_drawn_directions(dimension):
    low, high = nulls.angle_quantiles(dimension)
    assert low + high == pytest.approx(180)
    if dimension == 3:  # Archimedes: the cosine is uniform
        assert np.cos(np.radians(low)) == pytest.approx(0.95, rel=1e-9)
    if dimension == 2:  # the angle is
        assert low == pytest.approx(4.5, rel=1e-9)
    if dimension >= 50:  # nearly Gaussian with standard deviation 1 / sqrt(d)
        assert 90 - low == pytest.approx(np.degrees(1.96 / np.sqrt(dimension)), rel=0.02)
    assert nulls.angle_quantiles(1) == (0.0, 180.0)
