"""The command `hessian` as its users call it: facts for scripts, a plan, figures and report, mistakes."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import archive
from tests.cli.desk import Desk


def test_the_table_and_the_facts_are_those_of_the_record(full: Desk) -> None:
    ran = full.do("hessian", "run.h5", "--at", "n=2", "--top", "2", "--intervals", "20", "--out", "new.h5")
    record = archive.load(full.folder / "new.h5", "eigenvalues/averaged-0").record
    assert record.steps.tolist() == [0, 6]
    value = record.values[0, 0, 0]
    assert f"{value:.4g} ± " in ran.out
    assert f"[{record.low[0, 0, 0]:.3g} to {record.high[0, 0, 0]:.3g}]" in ran.out
    assert "Hessian eigenvalues" in ran.err
    (told,) = full.do(
        "hessian", "run.h5", "--at", "n=2", "--top", "2", "--intervals", "20", "--out", "new.h5", "--json"
    ).json
    np.testing.assert_array_equal(told["values"], record.values)
    np.testing.assert_array_equal(told["high"], record.high)
    assert (told["matrix"], told["subset"], told["products"]) == ("Hessian", "shared", record.products)


def test_a_plan_measures_nothing(full: Desk) -> None:
    ran = full.do("hessian", "run.h5", "--at", "last", "--density", "--plan", "--out", "none.h5")
    assert ran.out.startswith("eigenvalues, spectrum: snapshots 1, runs 1, subsets of the parameters 1; at most ")
    assert not (full.folder / "none.h5").exists()


def test_everything_is_saved_drawn_and_reported(full: Desk, drawn_if_slow: None) -> None:
    words = [
        "--density",
        "--agreement",
        "--sharpness",
        "--layers",
        "--probes",
        "2",
        "--degree",
        "6",
        "--trace-products",
        "12",
    ]
    full.do("hessian", "run.h5", "--at", "n=2", "--top", "2", "--pairs", "2", *words, "--out", "new.h5")
    full.do("figures", "new.h5", "--out", "figs", "--format", "png")
    drawn = {path.stem for path in (full.folder / "figs").glob("*.png")}
    kinds = ("tracks", "layers", "density", "cumulative", "densities", "numbers", "angles", "cross-curvature")
    kinds += ("shares", "gradients", "sharpness", "updates")
    assert {f"{kind}-averaged-0" for kind in kinds} | {"eigenvalues"} == drawn
    full.do("report", "new.h5", "--out", "new.html")
    page = (full.folder / "new.html").read_text()
    for title in ("Eigenvalues followed along training", "Spectral density", "Sharpness along training"):
        assert title in page


def test_traces_are_told_saved_drawn_and_not_measured_twice(full: Desk, drawn_if_slow: None) -> None:
    words = [
        "hessian",
        "run.h5",
        "--at",
        "n=2",
        "--top",
        "1",
        "--trace",
        "--trace-products",
        "12",
        "--out",
        "traces.h5",
    ]
    ran = full.do(*words)
    record = archive.load(full.folder / "traces.h5", "trace/averaged-0").record
    value, error = record.trace[0, 0], record.trace_stderr[0, 0]
    assert "averaged-0: ± standard error, Hessian, shared" in ran.out
    assert f"{value:.4g} ± {error:.1g}" in ran.out
    before = (full.folder / "traces.h5").read_bytes()
    (told,) = full.do(*words, "--json").json
    for field in ("trace", "trace_stderr", "frobenius", "frobenius_stderr", "participation", "participation_stderr"):
        np.testing.assert_array_equal(told[field], getattr(record, field))
    assert (full.folder / "traces.h5").read_bytes() == before
    full.do("figures", "traces.h5", "--out", "traced", "--format", "png")
    assert "numbers-averaged-0" in {path.stem for path in (full.folder / "traced").glob("*.png")}
    full.do("report", "traces.h5", "--out", "traces.html")
    assert "Traces of averaged-0" in (full.folder / "traces.html").read_text()
    # A density brings the same numbers with it.
    full.do(*words, "--density", "--probes", "2", "--degree", "6")
    whole = archive.load(full.folder / "traces.h5", "spectrum/averaged-0").record
    np.testing.assert_array_equal(whole.trace, record.trace)


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (("--top", "99"), r"expected at most \d+ eigenvalues on shared, got 99: ask for fewer"),
        (("--on", "thta"), r"no parameter matches 'thta': expected a pattern of one of .*; the nearest is 'theta'"),
        (("--on", "head"), r"expected the task whose head is meant, as head:TASK, got 'head'"),
        (("--task", "tsk1"), r"unknown task 'tsk1': expected one of .*; did you mean 'task1'\?"),
        (("--at", "5"), r"has no snapshot at step 5; the nearest is at step \d+"),
        (("--end", "top"), r"unknown end 'top': expected one of both, largest, magnitude, smallest"),
        (("--matrix", "hesian"), r"unknown matrix 'hesian': expected one of .*; did you mean 'hessian'\?"),
        (("--matrix", "fisher", "--agreement"), r"expected the matrix hessian for intervals, agreement and sharpness"),
        (("--max-memory", "much"), r"expected an amount of memory above zero, such as 2GiB"),
        (("--density", "--trace-products", "3"), r"expected .* products"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_mistakes_are_one_sentence(full: Desk, words: tuple[str, ...], match: str) -> None:
    full.refuse(match, "hessian", "run.h5", *words, "--out", "never.h5")


def test_threads_and_processes_together_are_refused(full: Desk) -> None:
    full.refuse(
        r"expected more threads in one process or several processes of one thread each, got --threads 2 and 3",
        *("hessian", "run.h5", "--threads", "2", "--jobs", "3"),
    )
