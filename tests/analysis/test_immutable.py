"""Every record class keeps the numbers it was made from, whatever becomes of the arrays that held them."""

from __future__ import annotations

import typing
from dataclasses import fields, replace

import numpy as np
import pytest

from analysis import results
from analysis.results import Record, handed_over
from figures import marks
from landscape import trajectory
from landscape.trajectory import History, Snapshot, Trajectory


def kinds(module):
    found = [kind for kind in vars(module).values() if isinstance(kind, type) and issubclass(kind, Record)]
    return [kind for kind in found if any("dims" in spec.metadata for spec in fields(kind))]


RECORDS = [kind for kind in dict.fromkeys([*kinds(results), *kinds(marks)]) if kind is not results.Subspace]
OTHERS = (History, Snapshot, Trajectory)
"""The records of `landscape.trajectory` that hold arrays."""


def filled(kind):
    """A record of this kind, and the arrays that went in: two or more entries along every dimension."""
    hints, sizes, given, values = typing.get_type_hints(kind), {"axis": getattr(kind, "DIMENSIONS", 2)}, {}, {}
    for spec in fields(kind):
        if "dims" in spec.metadata:
            shape = [sizes.setdefault(dim, 2 + len(sizes) % 3) for dim in spec.metadata["dims"]]
            values[spec.name] = given[spec.name] = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)
    for spec in fields(kind):
        hint = hints[spec.name]
        if "labels" in spec.metadata:
            values[spec.name] = tuple(str(k) for k in range(sizes.get(spec.metadata["labels"], 0)))
        elif isinstance(hint, type) and issubclass(hint, Record):
            values[spec.name] = filled(hint)[0]
        elif spec.name not in given:
            values[spec.name] = {int: 1, float: 0.5, str: "x", bool: True}.get(hint, ())
    return kind(**values), given


def check(record, given):
    """Whether a record stays the same while everything that went in changes, and cannot be changed itself."""
    kept = {name: np.array(getattr(record, name)) for name in given}
    for source in given.values():
        assert source.flags.writeable  # the caller's array is still the caller's
        source[...] = -7
    for name, value in kept.items():
        np.testing.assert_array_equal(getattr(record, name), value)
        assert not np.shares_memory(getattr(record, name), given[name])
        with pytest.raises(ValueError, match="read-only"):
            getattr(record, name)[...] = 0
        with pytest.raises(ValueError, match="cannot set WRITEABLE flag to True"):
            getattr(record, name).setflags(write=True)


def test_all_records_are_here():
    assert len(RECORDS) > 40
    held = {kind for kind in vars(trajectory).values() if isinstance(kind, type) and hasattr(kind, "__match_args__")}
    held.remove(trajectory.Sketch)  # it reads its rows from the file
    with_arrays = {kind for kind in held if "Array" in kind.__annotations__.values()}
    assert with_arrays == set(OTHERS)


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_a_record_keeps_its_numbers_when_the_arrays_it_was_made_from_change(kind):
    check(*filled(kind))


@pytest.mark.parametrize("kind", RECORDS, ids=lambda kind: kind.__name__)
def test_a_changed_copy_of_a_record_shares_the_arrays(kind):
    record, given = filled(kind)
    again = replace(record)
    assert all(np.shares_memory(getattr(again, name), getattr(record, name)) for name in given)


@pytest.mark.parametrize("kind", OTHERS, ids=lambda kind: kind.__name__)
def test_snapshots_and_trajectories_keep_their_numbers_too(kind):
    hints, given = typing.get_type_hints(kind, vars(trajectory)), {}
    values = {}
    for spec in fields(kind):
        if hints[spec.name] is trajectory.Array or "ndarray" in str(hints[spec.name]):
            values[spec.name] = given[spec.name] = np.arange(1.0, 7.0)
        else:
            values[spec.name] = None
    check(kind(**values), given)


def test_read_only_views_of_arrays_that_can_be_written_to_are_copied():
    mine = np.zeros((2, 2))
    seen = mine.view()
    seen.setflags(write=False)
    record = results.DistanceMatrix(labels=("a", "b"), distance=seen, what="x")
    mine[0, 0] = 3.0
    assert record.distance[0, 0] == 0.0


def test_labels_are_copied_in_too():
    names = ["a", "b"]
    record = results.DistanceMatrix(labels=names, distance=np.zeros((2, 2)), what="x")  # type: ignore[arg-type]
    names[0] = "c"
    assert record.labels == ("a", "b")


def test_what_its_maker_hands_over_is_taken_without_a_copy():
    large = np.zeros((2, 2))
    record = results.DistanceMatrix(labels=("a", "b"), distance=handed_over(large), what="x")
    assert np.shares_memory(record.distance, large)
    with pytest.raises(ValueError, match="read-only"):
        large[0, 0] = 1.0
