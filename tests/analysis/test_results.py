"""Records: what is equal, what is refused, what cannot be changed."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest

from analysis.results import Check, DistanceMatrix, Estimate, Run
from tests.analysis.records import surface


def test_records_are_equal_where_every_number_is_and_nan_equals_nan():
    assert surface() == surface()
    assert surface() != surface(fill=0.25)
    assert surface() != replace(surface(), plane=replace(surface().plane, seed=3))
    assert Estimate(float("nan"), 1.0, 2) == Estimate(float("nan"), 1.0, 2)
    assert Estimate(0.0, 1.0, 2) != Estimate(0.0, 1.0, 3)
    assert Run("a", "A()", 0) != Estimate(0.0, 1.0, 3)
    one = replace(surface(), examples=13)
    assert one != surface()


def test_the_type_of_the_numbers_counts():
    wide = DistanceMatrix(labels=("a",), distance=np.zeros((1, 1)), what="x")
    assert wide != replace(wide, distance=np.zeros((1, 1), np.float32))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"loss": np.zeros((2, 2))}, r"Surface\.loss needs dimensions \('task', 'y', 'x'\), got shape \(2, 2\)"),
        ({"loss": np.zeros((2, 3, 2))}, r"Surface\.loss has 3 entries along 'y', others have 2"),
        ({"done": np.ones((3, 2), bool)}, r"Surface\.done has 3 entries along 'y', others have 2"),
        ({"x": np.zeros(4)}, r"Surface\.loss has 3 entries along 'x', others have 4"),
        ({"tasks": ("one",)}, r"Surface\.tasks has 1 labels along 'task', its arrays have 2 entries"),
    ],
)
def test_arrays_and_labels_that_do_not_fit_together_are_refused(change, text):
    with pytest.raises(ValueError, match=text):
        replace(surface(), **change)


def test_a_record_cannot_be_changed_and_cannot_be_hashed():
    record = surface()
    with pytest.raises(FrozenInstanceError):
        record.examples = 3
    with pytest.raises(ValueError, match="read-only"):
        record.loss[0, 0, 0] = 1.0
    with pytest.raises(TypeError, match="unhashable"):
        hash(record)


def test_making_a_record_leaves_the_callers_array_writable():
    mine = np.zeros((1, 1))
    DistanceMatrix(labels=("a",), distance=mine, what="x")
    mine[0, 0] = 1.0
    assert mine[0, 0] == 1.0


@pytest.mark.parametrize(
    ("value", "passed"), [(0.0, True), (1.0, True), (1.1, False), (np.nan, False), (np.inf, False)]
)
def test_a_check_passes_up_to_its_limit_and_never_without_a_number(value, passed):
    assert Check("x", value, 1.0, "").passed is passed
