"""landscape explore: what it prints, writes and refuses."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from analysis import archive
from analysis.results import BesideWalk, Contrast, Movement
from tests.cli.desk import Desk, contents

QUICK = ("--null", "9", "--resamples", "99", "--quiet")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three seeds of two strategies, the second of which has a name that is a formula."""
    desk = Desk(tmp_path_factory.mktemp("explored"))
    for seed in ("0", "1", "2"):
        words = ("--steps", "8", "--every", "2", "--batch-size", "8", "--seed", seed, "--quiet")
        desk.do("train", "quadratic", *words, "--out", f"a-{seed}.h5")
        desk.do("train", "quadratic", "--strategy", "independent", "--label", "=1+1", *words, "--out", f"b-{seed}.h5")
    return desk.folder


@pytest.fixture(scope="module")
def explored(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two forms of movement, of all of the runs."""
    desk = Desk(tmp_path_factory.mktemp("explored"))
    runs = sorted(trained.glob("*.h5"))
    desk.do("explore", *runs, *QUICK, "--form", "raw", "--form", "relative")
    return desk.folder / "results.h5"


@pytest.fixture
def known(here: tuple[Desk, list[Path]], explored: Path) -> tuple[Desk, list[Path]]:
    """The runs, and results in which their movement is known."""
    shutil.copy(explored, here[0].folder)
    return here


@pytest.fixture
def here(desk: Desk, trained: Path) -> tuple[Desk, list[Path]]:
    return desk, sorted(trained.glob("*.h5"))


def test_text_says_where_strategies_differ_and_what_it_rests_on(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    ran = desk.do("explore", *runs, *QUICK)
    assert "Exploration of shared (raw)" in ran.out
    assert "Runs beyond random walks" in ran.out
    (net,) = [line for line in ran.out.splitlines() if line.startswith("net distance of shared (raw): ")]
    assert "=1+1 against averaged, 3 seeds: " in net
    assert "at equal " in net
    assert "interval " in net
    assert "with these seeds no permutation test gives p below 0.25." in ran.out
    assert ran.out.endswith("results.h5\n")
    kept = [entry.record for entry in archive.load_all(desk.folder / "results.h5").values()]
    assert [sum(isinstance(r, kind) for r in kept) for kind in (Movement, BesideWalk, Contrast)] == [6, 6, 1]


def test_what_is_known_is_not_measured_again(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    words = ("explore", *runs, "--null", "0", "--resamples", "99")
    first = desk.do(*words)
    assert "movement: " in first.err
    before = contents(desk.folder)
    again = desk.do(*words)
    assert again.out == first.out
    assert again.err == ""
    assert contents(desk.folder) == before


def test_movement_is_drawn_against_every_budget_and_beside_walks(
    here: tuple[Desk, list[Path]], drawn_if_slow: None
) -> None:
    desk, runs = here
    desk.do("explore", *runs, "--out", "moves.h5")
    desk.do("figures", "moves.h5", "--out", "moves", "--format", "png")
    kinds = ("net", "path-steps", "path-updates", "ratio", "radius", "dimension", "displacement", "turning")
    drawn = {path.stem for path in (desk.folder / "moves").glob("*.png")}
    assert {f"movement-{kind}-shared-raw" for kind in kinds} <= drawn
    assert not any(name.startswith("exploration-") for name in drawn), "the same again, with less"
    desk.do("report", "moves.h5", "--out", "moves.html")
    page = (desk.folder / "moves.html").read_text()
    for title in ("Movement: net distance", "Displacement against lag", "Turning angles"):
        assert title in page


def test_fewer_than_three_seeds_have_no_verdict(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    two = [run for run in runs if not run.stem.endswith("-2")]
    out = desk.do("explore", *two, *QUICK).out
    assert "net of shared (raw): no verdict from 2 seeds, expected at least 3; train with more seeds" in out
    assert "correction: none: 3 seeds are the fewest for a verdict." in out


def test_csv_is_one_table_in_which_no_name_is_a_formula(known: tuple[Desk, list[Path]]) -> None:
    desk, runs = known
    out = desk.do("explore", *runs, *QUICK, "--measure", "net", "--budget", "steps", "--format", "csv").out
    (row,) = csv.DictReader(io.StringIO(out))
    assert row["strategy"] == "'=1+1"
    assert (row["measure"], row["budget"], row["tests"], row["samples"]) == ("net", "steps", "1", "3")
    assert float(row["low"]) < float(row["difference"]) < float(row["high"])
    alone = desk.do("explore", runs[0], *QUICK, "--format", "csv", "--out", "alone.h5").out
    assert [r["run"] for r in csv.DictReader(io.StringIO(alone))] == ["averaged-0"]


def test_json_has_every_number(known: tuple[Desk, list[Path]]) -> None:
    desk, runs = known
    found = desk.do("explore", *runs, *QUICK, "--json", "--budget", "movement", "--budget", "loss:task1").json
    (contrast,) = found["contrasts"]
    assert contrast["budgets"] == ["movement", "loss:task1"]
    assert len(contrast["outcomes"]) == len(contrast["measures"]) == len(contrast["verdicts"])
    assert len(contrast["strategy_values"][0][0]) == 3
    assert {run["run"] for run in found["movements"]} == {
        f"{label}-{s}" for label in ("averaged", "=1+1") for s in (0, 1, 2)
    }
    assert set(found["walks"][0]) >= {"above", "below", "values"}


def test_latex_is_tables_with_every_name_set_as_it_stands(known: tuple[Desk, list[Path]]) -> None:
    desk, runs = known
    out = desk.do("explore", *runs, *QUICK, "--on", "shared", "--on", "head:task1", "--format", "latex").out
    assert out.count(r"\begin{tabular}") == out.count(r"\end{tabular}") == 3
    assert r"\toprule" in out
    assert "head of task1" in out


@pytest.mark.parametrize(("form", "suffix"), [("text", "txt"), ("csv", "csv"), ("json", "json"), ("latex", "tex")])
def test_every_table_goes_into_a_folder(known: tuple[Desk, list[Path]], form: str, suffix: str) -> None:
    desk, runs = known
    desk.do("explore", *runs, *QUICK, "--form", "raw", "--form", "relative", "--format", form, "--tables", "new/tables")
    names = {f"{name}.{suffix}" for name in ("runs", "walks", "verdicts", "comparisons")}
    assert {path.name for path in (desk.folder / "new/tables").iterdir()} == names
    text = (desk.folder / f"new/tables/verdicts.{suffix}").read_text(encoding="utf-8")
    assert "relative" in text
    if form == "json":
        assert json.loads(text)["title"] == "Verdicts"


def test_layers_are_measured_by_themselves_and_add_up(desk: Desk) -> None:
    small = ("--set", "width=2", "--set", "features=4", "--set", "train=64", "--set", "evaluation=32")
    for label in ("a", "b"):
        words = ("--steps", "4", "--every", "2", "--label", label, "--quiet", "--out", f"{label}.h5")
        desk.do("train", "digits", *small, *words)
    words = ("--layers", "--without-norm", "--measure", "net", "--null", "0", "--resamples", "99", "--quiet")
    desk.do("explore", "a.h5", "b.h5", *small, *words)
    moved = [e.record for e in archive.load_all(desk.folder / "results.h5").values() if isinstance(e.record, Movement)]
    of_one = {m.subset: m.of("net") for m in moved if m.run.label == "a"}
    whole = of_one.pop("shared without norm layers")
    assert len(of_one) > 2
    assert all(name.startswith("layer trunk.") for name in of_one)
    np.testing.assert_allclose(sum(net**2 for net in of_one.values()), whole**2, rtol=1e-12)


def test_without_norm_layers_the_subset_says_so(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    out = desk.do("explore", runs[0], *QUICK, "--without-norm", "--format", "json").json
    assert out["movements"][0]["subset"] == "shared without norm layers"


def test_seeds_that_do_not_match_are_compared_unpaired_and_it_is_said(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    apart = [run for run in runs if run.name in ("a-0.h5", "b-1.h5", "b-2.h5")]
    out = desk.do("explore", *apart, *QUICK).out
    assert "Unpaired, by Welch's t test: =1+1 and averaged have no seed in common." in out


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (
            ("--form", "rwa"),
            "unknown form 'rwa': expected one of filterwise, invariant, raw, relative; did you mean 'raw'",
        ),
        (("--measure", "nett"), "unknown measure 'nett': expected one of .*did you mean 'net'"),
        (("--budget", "epochs"), "unknown budget 'epochs': expected one of .*steps"),
        (("--budget", "loss:tsk1"), "unknown budget 'loss:tsk1': .*did you mean 'loss:task1'"),
        (("--on", "head:nobody"), "unknown head 'nobody': expected one of"),
        (("--on", "trnk.*"), "no parameter matches 'trnk"),
        (("--baseline", "mean"), "unknown label of a baseline 'mean': expected one of =1.1, averaged"),
        (("--pairing", "pairs"), "unknown pairing 'pairs': expected one of auto, none, seed"),
        (("--format", "xlsx"), "unknown format 'xlsx': expected one of csv, json, latex, text"),
    ],
)
def test_unknown_words_are_refused_in_one_sentence(
    here: tuple[Desk, list[Path]], words: tuple[str, str], match: str
) -> None:
    desk, runs = here
    desk.refuse(match, "explore", *runs, *QUICK, *words)


def test_pairing_asked_for_without_pairs_is_refused(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    apart = [run for run in runs if run.name in ("a-0.h5", "b-1.h5")]
    ran = desk.run("explore", *apart, *QUICK, "--pairing", "seed")
    assert ran.status == 2
    assert ran.err.splitlines()[-1].startswith(
        "landscape: =1+1 and averaged have no seed in common: expected runs with"
    )


def test_a_folder_that_cannot_be_written_is_refused(here: tuple[Desk, list[Path]]) -> None:
    desk, runs = here
    (desk.folder / "file").write_text("")
    ran = desk.run("explore", runs[0], *QUICK, "--tables", "file/tables")
    assert ran.status == 2
    assert "cannot write into file/tables" in ran.err
