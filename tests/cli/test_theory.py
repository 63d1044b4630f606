"""The command `theory` as its users call it: steps by word, facts for scripts, figures and report, mistakes."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from analysis import alternation, archive, task_losses
from cli import theory
from tests.cli.desk import MODELS, SHORT, Desk

QUICK = ("--orders", "none", "--ladder", "2")


@pytest.fixture(autouse=True)
def few_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Errors take most of the time, and three blocks will do here."""
    monkeypatch.setattr(task_losses, "BLOCKS", 3)


def test_a_run_gets_a_record_a_table_and_a_verdict(full: Desk) -> None:
    ran = full.do("theory", "run.h5", "--at", "n=2", "--rate", "0.01", "--out", "new.h5")
    entry = archive.load(full.folder / "new.h5", "alternation/averaged-0")
    record = entry.record
    assert record.done.all()
    assert record.steps.tolist() == [0, 6]
    assert record.rate == 0.01
    assert [check.passed for check in entry.checks] == [True]
    for words in ("task1", "average", "verdict", "second-order prediction", "gradients agree more", "new.h5"):
        assert words in ran.out
    assert re.search(r"averaged-0: 2 snapshots, each 12 Hessian products, 51 gradients and 19 forward passes", ran.err)


def test_a_remainder_of_nothing_is_a_dash() -> None:
    assert [theory._known(value, ".1%") for value in (float("nan"), 0.25, float("inf"))] == ["\u2013", "25.0%", "inf%"]


def test_facts_for_scripts_are_those_of_the_record(full: Desk) -> None:
    (told,) = json.loads(full.do("theory", "run.h5", "--at", "0,6", *QUICK, "--json", "--out", "new.h5").out)
    record = archive.load(full.folder / "new.h5", "alternation/averaged-0").record
    np.testing.assert_allclose(told["predicted"], record.predicted)
    np.testing.assert_allclose(told["measured"], record.measured)
    assert told["verdicts"] == record.verdicts.tolist()
    assert told["losses"] == ["task1", "task2", "task3", "average"]
    assert told["measured_mean"] == [[None] * 4] * 2


@pytest.mark.parametrize(
    ("words", "field", "value"),
    [
        (("--order", "2,0,1"), "order", [2, 0, 1]),
        (("--orders", "4"), "orders", 4),
        (("--preconditioner", "adam"), "preconditioner", r"Adam's 1 / \(sqrt\(v\) \+ 1e-08\), v from gradients .*"),
        (("--preconditioner", "stored"), "preconditioner", "1 / .*the run's stored second moments"),
        (("--data", "training", "--examples", "5"), "examples", 5),
        (("--ladder", "1"), "rates", [0.001]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_words_choose_the_steps(full: Desk, words: tuple[str, ...], field: str, value: object) -> None:
    full.do("theory", "run.h5", "--at", "last", *QUICK, *words, "--out", "new.h5")
    found = getattr(archive.load(full.folder / "new.h5", "alternation/averaged-0").record, field)
    if isinstance(value, str):
        assert re.fullmatch(value, found)
    else:
        assert np.asarray(found).tolist() == value


def test_what_is_known_is_not_done_again(full: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("theory", "run.h5", "--at", "n=3", *QUICK, "--out", "new.h5")
    real, calls = alternation.cross_curvature, []

    def counted(*given: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    monkeypatch.setattr(alternation, "cross_curvature", counted)
    ran = full.run(*words)
    assert ran.status == 2
    assert "interrupted: what was finished is kept" in ran.err
    begun = archive.load(full.folder / "new.h5", "alternation/averaged-0").record
    assert begun.done.tolist() == [True, False, False]
    full.do(*words)
    assert len(calls) == 4, "the first snapshot is not done again"
    full.do(*words)
    assert len(calls) == 4


def test_figures_and_report_show_it(full: Desk, drawn_if_slow: None) -> None:
    full.do("theory", "run.h5", "--at", "n=2", "--rate", "0.01", "--out", "new.h5")
    full.do("figures", "new.h5", "--format", "svg", "--out", "drawn")
    assert {path.stem for path in (full.folder / "drawn").iterdir()} == {
        "alternation",
        "alternation-prediction",
        "alternation-remainder",
        "agreement-growth",
        "curvature-tensor-averaged-0",
    }
    full.do("report", "new.h5", "--out", "new.html")
    page = (full.folder / "new.html").read_text(encoding="utf-8")
    for text in ("Is alternation helping?", "Does alternation help?", "The second-order prediction has the sign"):
        assert text in page


def test_a_users_own_problem(desk: Desk) -> None:
    own = f"{MODELS}:make"
    desk.do("train", own, "--strategy", "independent", *SHORT, "--out", "own.h5")
    desk.do("theory", "own.h5", "--problem", own, "--at", "last", *QUICK, "--out", "new.h5")
    record = archive.load(desk.folder / "new.h5", "alternation/independent-0").record
    assert record.tasks == ("up", "down")
    assert np.isfinite(record.measured).all()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--at 3", r"no snapshot at step 3; the nearest is at step (2|4)"),
        ("--at foo", "expected --at as n=COUNT, all, last or steps .* got 'foo'"),
        ("--rate -1", "rate: .*greater than or equal to 0.*-1"),
        ("--ladder 0", "ladder: .*greater than or equal to 1.*0"),
        ("--order 0,1", r"expected an order of the task numbers 0 to 2, got \[0, 1\]"),
        ("--order one", "expected --order as task numbers such as 2,0,1, got 'one'"),
        ("--orders some", "expected orders as usual, all, none or a number of them, got 'some'"),
        ("--orders 3", "expected an even number of orders, 2 or more"),
        ("--preconditioner adams", "unknown preconditioner 'adams': expected one of adam, none, stored; did you mean"),
        ("--preconditioner stored --at 0", "keeps no optimiser state of step 0: expected the last snapshot, at step 6"),
        ("--data train", "unknown data 'train'"),
    ],
)
def test_mistakes_are_one_sentence(full: Desk, words: str, message: str) -> None:
    ran = full.run("theory", "run.h5", *words.split(), "--out", "broken.h5")
    assert ran.status == 2
    assert re.search(message, ran.err), ran.err
    assert "Traceback" not in ran.err
    assert not (full.folder / "broken.h5").exists()
