"""Subsets of theta by word, owner and name."""

from __future__ import annotations

import numpy as np
import pytest

from analysis.subsets import Everything, Head, Named, Shared, parse
from landscape.errors import LandscapeError
from tests.analysis.synthetic import layout_of

LAYOUT = layout_of(
    ("trunk.0.weight", (2, 3), "shared"),
    ("trunk.0.bias", (2,), "shared"),
    ("one.weight", (4,), "one"),
    ("trunk.1.weight", (5,), "shared"),
    ("two.weight", (3,), "two"),
)


def positions(subset):
    return [i for span in subset.spans(LAYOUT) for i in range(span.start, span.stop)]


def test_neighbours_are_merged_and_owners_told_apart():
    assert Everything().spans(LAYOUT) == (slice(0, 20),)
    assert Shared().spans(LAYOUT) == (slice(0, 8), slice(12, 17))
    assert Head("two").spans(LAYOUT) == (slice(17, 20),)
    assert Named("trunk.*").spans(LAYOUT) == Shared().spans(LAYOUT)
    assert positions(Named("*.bias", "two.*")) == [6, 7, 17, 18, 19]


@pytest.mark.parametrize(
    ("text", "subset"),
    [
        ("all", Everything()),
        ("shared", Shared()),
        ("head:one", Head("one")),
        ("trunk.*, one.weight", Named("trunk.*", "one.weight")),
    ],
)
def test_words_are_subsets_and_labels_say_which(text, subset):
    assert parse(text) == subset
    assert parse(text).label == subset.label


@pytest.mark.parametrize(
    ("subset", "message"),
    [
        (Named("trunc.0.*"), r"no parameter matches 'trunc\.0\.\*'.*the nearest is 'trunk\.0\.(bias|weight)'"),
        (Named("trunk.*", "three.bias"), r"no parameter matches 'three\.bias'"),
        (Head("three"), r"unknown head 'three': expected one of one, two"),
    ],
)
def test_what_matches_nothing_names_the_nearest(subset, message):
    with pytest.raises(LandscapeError, match=message):
        subset.spans(LAYOUT)


def test_no_shared_parameters_and_no_word_are_refused():
    with pytest.raises(LandscapeError, match="no shared parameters"):
        Shared().spans(layout_of(("w", (3,), "one")))
    with pytest.raises(LandscapeError, match="expected all, shared, head:TASK or patterns"):
        parse(" , ")


def test_a_subset_of_a_trajectory_is_its_columns(tmp_path):
    from tests.analysis.synthetic import write_run

    theta = np.random.default_rng(0).standard_normal((4, 20))
    run = write_run(tmp_path / "run.h5", theta, LAYOUT)
    part = run.part(Named("*.bias", "two.*").spans(LAYOUT))
    np.testing.assert_array_equal(part[:], theta[:, [6, 7, 17, 18, 19]])
    np.testing.assert_array_equal(part[2, 1:4], theta[2, [7, 17, 18]])
