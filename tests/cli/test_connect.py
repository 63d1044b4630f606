"""The command `connect` as its users call it: what it saves, a plan, facts for scripts, sentences for mistakes."""

from __future__ import annotations

import json
import re

import h5py
import numpy as np
import pytest

from analysis import archive, connecting
from tests.cli.desk import MODELS, SHORT, Desk

PROBLEM = ("--problem", f"{MODELS}:make")
QUICK = ("--points", "5", "--engine", "problem")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """Two strategies and two seeds of a user's own problem; nobody writes into it but for new results."""
    desk = Desk(tmp_path_factory.mktemp("connect"))
    for strategy in ("averaged", "independent"):
        for seed in ("0", "1"):
            name = f"{strategy}-{seed}.h5"
            words = ("--strategy", strategy, "--seed", seed, "--rate", "0.02", *SHORT)
            desk.do("train", f"{MODELS}:make", *words, "--out", name)
    return desk


def four() -> list[str]:
    return [f"{strategy}-{seed}.h5" for strategy in ("averaged", "independent") for seed in (0, 1)]


def test_everything_between_the_ends_is_saved_and_told(trained: Desk) -> None:
    words = (*QUICK, "--align", "--curve", "--curve-steps", "30", "--out", "all.h5")
    ran = trained.do("connect", *four(), *PROBLEM, *words)
    assert "Barriers: straight lines\n" in ran.out
    assert "Barriers: straight lines, hidden units matched" in ran.out
    assert "Barriers: Bezier curves" in ran.out
    assert ran.out.endswith("all.h5\n")
    groups = set(archive.groups(trained.folder / "all.h5"))
    assert groups >= {
        *(
            "points/ends",
            "functions/ends",
            "paths/ends",
            "barriers/ends",
            "paths/ends-aligned",
            "barriers/ends-aligned",
        ),
        *("paths/ends-curve", "barriers/ends-curve", "separation/averaged-0-independent-0"),
        *("separation/averaged-1-independent-1", "curve/ends/averaged-0_6-averaged-1_6"),
    }
    entries = archive.load_all(trained.folder / "all.h5")
    assert sum(group.startswith("curve/") for group in entries) == 6
    assert all(check.passed for entry in entries.values() for check in entry.checks)
    assert entries["barriers/ends"].record.points == tuple(f"{path[:-3]}@6" for path in four())
    near, far = (entries["points/ends"].record.aligned, entries["points/ends"].record.distance)
    assert (near <= far * (1 + 1e-6)).all()


def test_what_is_saved_is_drawn_and_reported(trained: Desk, drawn_if_slow: None) -> None:
    trained.do("connect", *four(), *PROBLEM, *QUICK, "--out", "drawn.h5")
    trained.do("figures", "drawn.h5", "--format", "svg", "--out", "drawn")
    assert {path.stem for path in (trained.folder / "drawn").iterdir()} == {
        *("barriers-ends-straight-lines", "paths-ends", "disagreement-ends", "points-ends", "separation"),
    }
    trained.do("report", "drawn.h5", "--out", "drawn.html")
    page = (trained.folder / "drawn.html").read_text(encoding="utf-8")
    for title in ("Are the ends connected?", "Where runs of one seed part", "What the points compute differently"):
        assert title in page


def test_two_snapshots_by_name(trained: Desk) -> None:
    words = ("--between", "averaged-0@first", "averaged-0@4", "--out", "two.h5")
    told = json.loads(trained.do("connect", *four(), *PROBLEM, *QUICK, *words, "--json").out)
    (barriers,) = told["barriers"]
    assert barriers["points"] == ["averaged-0@0", "averaged-0@4"]
    assert barriers["losses"] == ["up", "down", "average"]
    assert np.array(barriers["barrier"]).shape == (3, 2, 2)
    assert "paths/averaged-0_first-to-averaged-0_4" in archive.groups(trained.folder / "two.h5")


def test_snapshots_along_one_run(trained: Desk) -> None:
    trained.do("connect", "averaged-0.h5", *PROBLEM, *QUICK, "--at", "0,2,6", "--out", "along.h5")
    found = archive.load(trained.folder / "along.h5", "barriers/ends").record
    assert found.points == ("averaged-0@0", "averaged-0@2", "averaged-0@6")


def test_a_plan_says_pairs_points_and_curves_and_writes_nothing(trained: Desk) -> None:
    words = (*QUICK, "--curve", "--curve-steps", "50", "--plan", "--out", "planned.h5")
    ran = trained.do("connect", *four(), *PROBLEM, *words)
    assert re.fullmatch(
        r"4 points, 6 pairs; 60 points, about [0-9.]+ s, [0-9]+ MiB beyond model and data, by Sequential"
        r"\(micro_batch=[0-9]+\); 6 curves of 50 steps, about [0-9]+ s\n",
        ran.out,
    )
    assert not (trained.folder / "planned.h5").exists()


def test_an_interrupted_command_goes_on_to_the_same_numbers(trained: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*QUICK, "--curve", "--curve-steps", "60")
    trained.do("connect", *four(), *PROBLEM, *words, "--out", "whole.h5")
    measuring, training, seen = connecting.connectivity.measuring, connecting.curves.training, []

    def stopped(function):  # type: ignore[no-untyped-def]
        def steps(*given):  # type: ignore[no-untyped-def]
            for record in function(*given):
                yield record
                seen.append(record)
                if len(seen) in (2, 9):
                    raise KeyboardInterrupt

        return steps

    with monkeypatch.context() as patch:
        patch.setattr(connecting.connectivity, "measuring", stopped(measuring))
        patch.setattr(connecting.curves, "training", stopped(training))
        for _ in range(2):
            ran = trained.run("connect", *four(), *PROBLEM, *words, "--out", "parts.h5")
            assert ran.status == 2
            assert "interrupted: what was finished is kept" in ran.err
    trained.do("connect", *four(), *PROBLEM, *words, "--out", "parts.h5")
    whole, parts = (archive.load_all(trained.folder / name) for name in ("whole.h5", "parts.h5"))
    assert list(whole) == list(parts)
    for group, entry in whole.items():
        assert entry.record == parts[group].record, group


def test_what_is_known_is_not_done_again(trained: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    words = (*four(), *PROBLEM, *QUICK, "--curve", "--curve-steps", "25", "--out", "known.h5")
    first = trained.do("connect", *words)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    for module, name in (
        (connecting.connectivity, "measuring"),
        (connecting.curves, "training"),
        (connecting.function_space, "measure"),
        (connecting.separation, "separation"),
        (connecting.separation, "distances"),
    ):
        monkeypatch.setattr(module, name, refuse)
    assert trained.do("connect", *words).out == first.out


def test_statistics_are_frozen_and_estimated_again_where_the_model_has_some(desk: Desk) -> None:
    words = ("--set", "norm=batch", "--set", "width=4", "--set", "features=8", "--set", "train=64")
    for seed in ("0", "1"):
        desk.do("train", "digits", *words, "--set", "evaluation=16", "--seed", seed, *SHORT, "--out", f"{seed}.h5")
    ran = desk.do("connect", "0.h5", "1.h5", *QUICK, "--align", "--examples", "64", "--json", "--out", "norms.h5")
    told = {(b["alignment"] != "none", b["batch_norm"]): b["barrier"] for b in ran.json["barriers"]}
    again = "estimated again at each point, from 64 training examples, 128 at a time at most"
    assert set(told) == {(aligned, norm) for aligned in (False, True) for norm in ("interpolated", again)}
    assert "barriers/ends-aligned-reestimated" in archive.groups(desk.folder / "norms.h5")
    checks = archive.load(desk.folder / "norms.h5", "paths/ends-aligned").checks
    assert [check.passed for check in checks] == [True]


def test_a_curve_that_diverges_is_told_and_the_other_results_stand(trained: Desk) -> None:
    words = ("averaged-0.h5", "averaged-1.h5", *PROBLEM, *QUICK, "--curve", "--rate", "1e30", "--out", "far.h5")
    ran = trained.run("connect", *words)
    assert ran.status == 2
    assert re.search(r"the loss on the curve from averaged-0@6 to averaged-1@6 became .* try a smaller", ran.err)
    assert "barriers/ends" in archive.groups(trained.folder / "far.h5")
    assert "barriers/ends-curve" not in archive.groups(trained.folder / "far.h5")


def test_a_missing_snapshot_is_refused_when_the_rest_is_saved(trained: Desk) -> None:
    short = ("--strategy", "averaged", "--seed", "2", "--steps", "4", "--every", "2", "--batch-size", "8")
    trained.do("train", f"{MODELS}:make", *short, "--out", "short.h5")
    ran = trained.run("connect", *four(), "short.h5", *PROBLEM, *QUICK, "--at", "6", "--out", "rest.h5")
    assert ran.status == 2
    assert re.search(
        r"short\.h5 has no snapshot at step 6; the nearest is at step 4; what could be computed is saved in rest\.h5",
        ran.err,
    )
    assert len(archive.load(trained.folder / "rest.h5", "barriers/ends").record.points) == 4


def test_different_starts_are_told_and_refused_where_pairing_was_asked(trained: Desk) -> None:
    with h5py.File(trained.folder / "averaged-0.h5") as file:
        assert file["snapshots/theta"].shape[0] == 4
    own = ("--strategy", "grouped", "--groups", "2", "--seed", "0", "--set", "width=4", *SHORT)
    trained.do("train", f"{MODELS}:shifted", *own, "--out", "shifted.h5")
    words = ("averaged-0.h5", "shifted.h5", *PROBLEM, *QUICK, "--out", "starts.h5")
    ran = trained.do("connect", *words)
    assert re.search(r"not paired: averaged-0 and grouped-0 have different starts, .* apart", ran.err)
    assert not [group for group in archive.groups(trained.folder / "starts.h5") if group.startswith("separation")]
    refused = trained.run("connect", *words, "--paired")
    assert refused.status == 2
    assert "have different starts" in refused.err.splitlines()[-1]
    assert "barriers/ends" in archive.groups(trained.folder / "starts.h5")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("", r"expected two or more points to connect, got 1: give more runs, more snapshots with --at"),
        ("averaged-1.h5 --at 5", r"averaged-0\.h5 has no snapshot at step 5; the nearest is at step [46]"),
        ("--between averaged-0@last averaged-0@6", r"expected two different points, got averaged-0@6 twice"),
        ("--between averaged-0@last nobody@6", r"unknown run 'nobody': expected one of averaged-0"),
        ("averaged-1.h5 --heads fitted", r"unknown heads 'fitted': expected one of interpolated, refitted"),
        ("averaged-1.h5 --batch-norm reestimated", r"no normalisation layer with running statistics"),
        ("averaged-1.h5 --groups none.json", r"cannot read none\.json .*: expected groups of units as JSON"),
        ("averaged-1.h5 --on trunc.*", r"no parameter matches 'trunc\.\*'"),
        ("averaged-1.h5 --points 2", r"--points': input should be greater than or equal to 3, got '2'"),
        ("averaged-1.h5 --threshold 3", r"threshold: input should be less than 1\.414.*, got 3"),
    ],
)
def test_mistakes_are_one_sentence(trained: Desk, words: str, message: str) -> None:
    engine = () if "--points" in words else QUICK
    ran = trained.run("connect", "averaged-0.h5", *words.split(), *PROBLEM, *engine, "--out", "broken.h5")
    assert ran.status == 2
    assert re.search(message, ran.err), ran.err
    assert "Traceback" not in ran.err
    (trained.folder / "broken.h5").unlink(missing_ok=True)


def test_units_of_ones_own_are_matched(trained: Desk) -> None:
    axes = [["shared.weight", 0], ["shared.bias", 0], ["up.weight", 1], ["down.weight", 1]]
    (trained.folder / "units.json").write_text(json.dumps({"hidden": axes}), encoding="utf-8")
    words = ("averaged-0.h5", "averaged-1.h5", *PROBLEM, *QUICK, "--groups", "units.json", "--out", "own.h5")
    trained.do("connect", *words)
    found = archive.load(trained.folder / "own.h5", "paths/ends-aligned").record
    assert found.alignment.endswith("(groups: hidden 4)")
    (trained.folder / "units.json").write_text(json.dumps({"hidden": axes[:2]}), encoding="utf-8")
    ran = trained.run("connect", *words)
    assert ran.status == 2
    assert "exchanging hidden units of hidden changes losses" in ran.err
