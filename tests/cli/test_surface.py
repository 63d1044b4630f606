"""The command `surface` as its users call it: planes by word, a plan, facts for scripts, sentences for mistakes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from analysis import archive
from tests.cli.desk import Desk

SMALL = ("--nx", "5", "--ny", "4", "--engine", "problem")


@pytest.mark.parametrize(
    ("words", "group", "kind"),
    [
        (("--plane", "gradients"), "surface/gradients", "Surface"),
        (("--plane", "local", "--on", "all"), "surface/local", "Surface"),
        (
            ("--plane", "line", "--through", "averaged-0@first", "--through", "averaged-0@last"),
            "profile/line",
            "Profile",
        ),
        (("--conflict",), "conflict/principal", "ConflictMap"),
        (("--on", "shared", "--heads", "interpolated"), "surface/principal", "Surface"),
        (("--data", "evaluation", "--data", "training"), "surface/principal-training", "Surface"),
        (("--rise", "2", "--label", "mine"), "surface/mine", "Surface"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_words_make_the_groups_they_ask_for(full: Desk, words: tuple[str, ...], group: str, kind: str) -> None:
    full.do("surface", "run.h5", *SMALL, *words, "--out", "new.h5")
    record = archive.load(full.folder / "new.h5", group).record
    assert type(record).__name__ == kind
    assert record.done.all()


def test_everything_that_was_asked_is_drawn_and_reported(full: Desk, drawn_if_slow: None) -> None:
    full.do("surface", "run.h5", *SMALL, "--conflict", "--data", "evaluation", "--data", "training", "--out", "new.h5")
    full.do("surface", "run.h5", "--plane", "line", "--engine", "problem", "--nx", "5", "--out", "new.h5")
    full.do("figures", "new.h5", "--format", "svg", "--out", "drawn")
    assert {path.stem for path in (full.folder / "drawn").iterdir()} == {
        "surface-principal",
        "surface-principal-3d",
        "surface-principal-significant",
        "surface-principal-training",
        "surface-principal-training-3d",
        "surface-principal-training-significant",
        "conditions-1",
        "conflict-principal",
        "gap-principal",
        "line-line",
        "shares-principal",
    }
    full.do("report", "new.h5", "--out", "new.html")
    page = (full.folder / "new.html").read_text(encoding="utf-8")
    for title in (
        "How far the surfaces can be trusted",
        "Where tasks disagree",
        "Shape of the surface",
        "Loss along a line",
    ):
        assert title in page


def test_a_plan_says_points_time_and_memory_and_writes_nothing(full: Desk) -> None:
    ran = full.do("surface", "run.h5", *SMALL, "--plan", "--out", "planned.h5")
    assert re.fullmatch(
        r"20 points, about [0-9.]+ s, [0-9]+ MiB beyond model and data, by Sequential\(micro_batch=[0-9]+\)\n", ran.out
    )
    assert not (full.folder / "planned.h5").exists()
    told = json.loads(full.do("surface", "run.h5", *SMALL, "--plan", "--json", "--out", "planned.h5").out)
    assert told["plan"].startswith("20 points")


def test_facts_for_scripts_name_what_was_measured(full: Desk) -> None:
    told = json.loads(full.do("surface", "run.h5", *SMALL, "--json", "--out", "new.h5").out)
    record = archive.load(full.folder / "new.h5", "surface/principal").record
    assert (told["kind"], told["points"], told["measured"]) == ("Surface", 20, 20)
    np.testing.assert_allclose(told["least"], record.loss.min((1, 2)))
    np.testing.assert_allclose(told["largest"], record.loss.max((1, 2)))
    assert told["engine"] == record.engine


def test_a_tolerance_that_cannot_be_met_is_said_and_stored_and_no_error(full: Desk) -> None:
    words = ("--nx", "15", "--ny", "15", "--adaptive", "1e-9", "--budget", "0.6")
    ran = full.do("surface", "run.h5", *words, "--out", "new.h5")
    found = archive.load(full.folder / "new.h5", "interpolation/principal").record
    if not found.reached:  # a quadratic is met to rounding or not at all
        assert "was not met within 60% of the points" in ran.err
    assert found.surface.done.mean() <= 0.6


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--on trunc.*", r"no parameter matches 'trunc\.\*'"),
        ("--centre nobody@last", r"unknown run 'nobody': expected one of averaged-0"),
        ("--plane random --draws 2 --adaptive 0.1", r"expected an adaptive surface of one plane, got several draws"),
        ("--draws 2", r"expected several draws of a random plane or line, got the plane 'principal'"),
        ("--heads interpolated", r"expected a subset of the parameters for interpolated heads, as shared, got all"),
        ("--heads fitted", r"unknown heads 'fitted': expected one of .*refitted"),
        ("--data train", r"unknown data 'train': expected one of evaluation, training; did you mean 'training'"),
        ("--batch-norm reestimated", r"no normalisation layer with running statistics"),
        ("--plane given --vectors none.npy", r"there is no file none\.npy"),
        ("--max-memory 1e999", r"expected an amount of memory above zero, such as 2GiB or 500MiB, got '1e999'"),
        ("--max-memory lots", r"expected an amount of memory above zero, such as 2GiB or 500MiB, got 'lots'"),
        ("--engine fast", r"engine 'fast'"),
        ("--plane line --conflict", r"expected a plane for an adaptive surface or a conflict map, got a line"),
        ("--adaptive 0.01", r"allows [0-9]+ evaluations: expected [0-9]+ or more"),
    ],
)
def test_mistakes_are_one_sentence_and_leave_nothing(full: Desk, words: str, message: str) -> None:
    ran = full.run("surface", "run.h5", *SMALL, *words.split(), "--out", "broken.h5")
    assert ran.status == 2
    assert re.search(message, ran.err), ran.err
    assert ran.err.count("\n") <= 3, "one sentence, after the stages that were done"
    assert "Traceback" not in ran.err
    assert not (full.folder / "broken.h5").exists()
