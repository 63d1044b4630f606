"""One pass over a file against everything in memory at once, in float64, pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import onepass
from analysis.forms import Filterwise, Invariant, Raw, Relative
from analysis.subsets import Everything, Head, Layer, Named, Shared, WithoutNorms, heads, layers
from landscape import LandscapeError
from tests.analysis.synthetic import layout_of, write_run

LAYOUT = layout_of(
    ("conv.weight", (6, 4, 3, 3), "shared"),
    ("norm.weight", (6,), "shared"),
    ("norm.bias", (6,), "shared"),
    ("deep.linear.weight", (5, 70), "shared"),
    ("deep.linear.bias", (5,), "shared"),
    ("a.weight", (3, 5), "one"),
    ("b.weight", (2, 5), "two"),
)
FORMS = (Raw(), Relative(), Filterwise(), Invariant(("conv.*",)))
SUBSETS = (Everything(), Shared(), WithoutNorms(Shared()), Head("two"), Named("*.bias", "a.*"), Layer("deep.linear"))
MEMORY = 1 << 26


def snapshots(count=9, apart=1e-2, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(LAYOUT.size) + apart * np.cumsum(rng.standard_normal((count, LAYOUT.size)), axis=0)


def slots(subset):
    inside = np.zeros(LAYOUT.size, bool)
    for span in subset.spans(LAYOUT):
        inside[span] = True
    return [slot for slot in LAYOUT.slots if inside[slot.offset]]


def pairwise(rows):
    return ((rows[:, None] - rows[None]) ** 2).sum(-1)


def in_memory(theta, subset, form):
    """Every form from its definition, tensor by tensor, without a Gram matrix."""
    parts = [(slot, theta[:, slot.span].reshape(len(theta), *slot.shape)) for slot in slots(subset)]
    flat = [(slot, rows.reshape(len(theta), -1)) for slot, rows in parts]
    wide = [(slot, rows) for slot, rows in flat if len(slot.shape) > 1]
    match form:
        case Raw():
            return sum(pairwise(rows) for _, rows in flat)
        case Relative():
            return sum(pairwise(rows) for _, rows in flat) / sum((rows[0] ** 2).sum() for _, rows in flat)
        case Filterwise():
            units = [
                rows[:, u].reshape(len(theta), -1)
                for slot, rows in parts
                if len(slot.shape) > 1
                for u in range(slot.shape[0])
            ]
            return np.mean([pairwise(unit) / (unit[0] ** 2).sum() for unit in units], axis=0)
        case _:
            found = [
                pairwise(rows / np.linalg.norm(rows, axis=1, keepdims=True))
                if form.has(slot.name)
                else pairwise(rows) / (rows[0] ** 2).sum()
                for slot, rows in wide
            ]
            return np.mean(found, axis=0)


def found(trajectory, subsets=SUBSETS, forms=FORMS, **more):
    passed = onepass.distances(trajectory, subsets, forms, more.pop("max_memory", MEMORY), **more)
    return passed, {(d.subset.label, d.form.label): d for d in passed.found}


@pytest.mark.parametrize("apart", [3, 50_000])
@pytest.mark.parametrize("width", [7, 64, 1 << 18])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_subset_and_form_agrees_with_its_definition(monkeypatch, tmp_path, apart, width, threads):
    monkeypatch.setattr(onepass, "APART", apart)
    monkeypatch.setattr(onepass, "PIECE", min(width, 50))
    monkeypatch.setattr(onepass, "_width", lambda stored, memory: width)
    theta = snapshots()
    _, by = found(write_run(tmp_path / "run.h5", theta, LAYOUT), threads=threads)
    upper = np.triu_indices(len(theta), 1)
    for subset in SUBSETS:
        for form in FORMS:
            made = by[subset.label, form.label]
            if made.squares is None:
                assert form.label == "invariant"
                assert made.why == "no tensor of the subset is known to be followed by a norm"
                assert not any(slot.name == "conv.weight" for slot in slots(subset))
                continue
            # Snapshots a hundredth of their norm apart: float64 differences hold 14 digits of it, the chord 12.
            np.testing.assert_allclose(made.squares[upper], in_memory(theta, subset, form)[upper], rtol=1e-10)
            np.testing.assert_array_equal(made.squares, made.squares.T)
            assert (np.diag(made.squares) == 0).all()
    assert by["all", "raw"].start_norm == pytest.approx(np.linalg.norm(theta[0]), rel=1e-13)
    assert by["shared", "raw"].entries == LAYOUT.count()
    assert by["shared", "filterwise"].left_out == ("norm.weight", "norm.bias", "deep.linear.bias")


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_snapshots_a_ten_thousandth_of_their_norm_apart_agree_to_nine_digits(tmp_path, dtype):
    # Also far from the start: the first snapshot is another network, the others cluster around a second one.
    rng = np.random.default_rng(4)
    theta = rng.standard_normal(LAYOUT.size) + 1e-4 * rng.standard_normal((8, LAYOUT.size))
    theta[0] = rng.standard_normal(LAYOUT.size)
    theta = theta.astype(dtype).astype(np.float64)
    _, by = found(write_run(tmp_path / "run.h5", theta, LAYOUT, dtype=dtype))
    upper = np.triu_indices(8, 1)
    for form in FORMS:
        exact = np.sqrt(in_memory(theta, Everything(), form))[upper]
        np.testing.assert_allclose(np.sqrt(by["all", form.label].squares)[upper], exact, rtol=1e-9)


def test_the_invariant_form_does_not_see_the_scale_of_a_followed_tensor(tmp_path):
    theta = snapshots()
    scaled = theta.copy()
    scaled[:, LAYOUT.slots[0].span] *= np.geomspace(1, 100, len(theta))[:, None]
    one, other = (found(write_run(tmp_path / f"{i}.h5", rows, LAYOUT))[1] for i, rows in enumerate((theta, scaled)))
    # Angles of 0.01 from norms that differ by a factor of 100: squares of 1e-4 beside 1e4 in float64.
    np.testing.assert_allclose(one["shared", "invariant"].squares, other["shared", "invariant"].squares, atol=1e-10)
    assert np.abs(one["shared", "raw"].squares - other["shared", "raw"].squares).max() > 1


def test_relative_forms_do_not_see_the_scale_of_everything(tmp_path):
    one, other = (found(write_run(tmp_path / f"{k}.h5", k * snapshots(), LAYOUT))[1] for k in (1, 1000))
    for form in ("relative", "filterwise", "invariant"):
        np.testing.assert_allclose(one["shared", form].squares, other["shared", form].squares, rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(1e6 * one["shared", "raw"].squares, other["shared", "raw"].squares, rtol=1e-9)


@pytest.mark.parametrize("late", [False, True])
def test_snapshots_that_are_not_finite_are_left_out_wherever_they_are_found(monkeypatch, tmp_path, late):
    monkeypatch.setattr(onepass, "_width", lambda stored, memory: 40)
    theta = snapshots()
    theta[3, LAYOUT.size - 1 if late else 0] = np.nan
    theta[5, 100], theta[5, 0] = np.inf, 1e150
    told = []
    passed, by = found(write_run(tmp_path / "run.h5", theta, LAYOUT), subsets=(Everything(),), tell=told.append)
    assert passed.rows.tolist() == [0, 1, 2, 4, 6, 7, 8]
    assert 0 in told
    for form in FORMS:
        exact = in_memory(theta[passed.rows], Everything(), form)
        np.testing.assert_allclose(by["all", form.label].squares, exact, rtol=1e-10, atol=1e-15)


def test_only_the_columns_asked_for_are_read(tmp_path):
    theta = snapshots()
    theta[4, LAYOUT.slots[-1].offset] = np.nan  # in the head of the second task
    run = write_run(tmp_path / "run.h5", theta, LAYOUT)
    assert found(run, subsets=(Shared(),))[0].rows.tolist() == list(range(9))
    told: list[int] = []
    found(run, subsets=(Shared(), Head("one")), tell=told.append)
    assert sum(told) == 9 * 8 * (LAYOUT.count() + 15)


def test_nothing_finite_is_refused(tmp_path):
    run = write_run(tmp_path / "run.h5", np.full((2, LAYOUT.size), np.nan), LAYOUT)
    with pytest.raises(LandscapeError, match="holds no snapshot that is finite in shared: expected at least one"):
        found(run, subsets=(Shared(),))


def test_more_memory_than_allowed_is_refused_before_reading(tmp_path):
    run = write_run(tmp_path / "run.h5", snapshots(), LAYOUT)
    with pytest.raises(
        LandscapeError, match="distances between 9 snapshots for 6 subsets in 4 forms take 23,328 bytes"
    ):
        found(run, max_memory=1 << 18)


def test_units_and_tensors_that_start_at_zero_are_left_out(tmp_path):
    theta = snapshots()
    theta[0, LAYOUT.slots[0].span][:36] = 0
    theta[0, LAYOUT.slots[5].span] = 0
    _, by = found(write_run(tmp_path / "run.h5", theta, LAYOUT), subsets=(Everything(), Head("one")))
    assert by["all", "filterwise"].units == 1 + 3
    assert "a.weight" in by["all", "invariant"].left_out
    assert np.isfinite(by["all", "filterwise"].squares).all()
    assert (by["head of one", "relative"].squares, by["head of one", "relative"].why) == (
        None,
        "the subset starts at zero",
    )


def test_a_block_has_whole_chunks_of_the_file_where_memory_allows():
    assert onepass._width(800, 1 << 30) == 1 << 18
    assert onepass._width(80, 1 << 30) == 12 << 18
    assert onepass._width(8000, 1 << 26) == 4096
    assert onepass._width(8000, 1 << 28) == 1 << 14


def test_subsets_by_layer_and_head():
    assert list(layers(LAYOUT, Shared())) == ["conv", "norm", "deep.linear"]
    assert [head.task for head in heads(LAYOUT)] == ["one", "two"]
    assert [slot.name for slot in slots(WithoutNorms(Shared()))] == [
        "conv.weight",
        "deep.linear.weight",
        "deep.linear.bias",
    ]
    assert [slot.name for slot in slots(WithoutNorms(Shared(), ("*.bias",)))] == [
        "conv.weight",
        "norm.weight",
        "deep.linear.weight",
    ]
    with pytest.raises(
        LandscapeError, match=r"no layer is called 'deep': expected one of conv, norm, deep\.linear, a, b"
    ):
        Layer("deep").spans(LAYOUT)
    with pytest.raises(LandscapeError, match="nothing is left of the subset 'layer norm' without norm layers"):
        WithoutNorms(Layer("norm")).spans(LAYOUT)


def test_a_subset_that_cuts_a_tensor_is_refused(tmp_path):
    class Cut:
        label = "some"

        def spans(self, layout):
            return (slice(3, 50),)

    run = write_run(tmp_path / "run.h5", snapshots(), LAYOUT)
    with pytest.raises(
        LandscapeError, match=r"'some' takes 47 of the 216 entries of 'conv\.weight': expected whole tensors"
    ):
        found(run, subsets=(Cut(),))
