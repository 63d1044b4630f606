"""Names decide nothing: every awkward label goes through every command, and no result takes another run's place."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from analysis import archive
from analysis.recipes import place
from analysis.results import Training
from cli import commands, gather
from figures.marks import Scene
from landscape import Trajectory, store
from tests.cli.desk import SHORT, Desk, contents

SMALL = ("--engine", "problem", "--nx", "3", "--ny", "3", "--quiet")
LABELS = (
    *("zz", "lr@0.1", "lr_0.1", "a/b", "a:b", "a b", "größe", "..", "-x", "it's", 'a"b', "<b>&", "@@@", "x" * 300),
    *("\u00e9", "e\u0301", "Aa", "aA"),
)
"""One that comes first and sorts last; safe in part or not at all; long; equal but for capitals or Unicode forms."""


@pytest.fixture(scope="module")
def awkward(tmp_path_factory: pytest.TempPathFactory) -> tuple[Desk, list[Path]]:
    desk = Desk(tmp_path_factory.mktemp("awkward"))
    files = []
    for number, label in enumerate(LABELS):
        files.append(Path(f"{number}.h5"))
        desk.do("train", "quadratic", *SHORT, f"--label={label}", "--out", files[-1], "--quiet")
    return desk, files


@pytest.fixture(scope="module")
def opened(awkward: tuple[Desk, list[Path]]) -> list[Trajectory]:
    desk, files = awkward
    return [store.open(desk.folder / file) for file in files]


def labels_of(path: Path, kind: str) -> list[str]:
    return [entry.record.run.label for group, entry in archive.load_all(path).items() if group.startswith(f"{kind}/")]


@pytest.mark.parametrize(
    ("words", "kinds"),
    [
        (("hessian", "--at", "last", "--top", "1"), ["eigenvalues"]),
        pytest.param(("theory", "--at", "last"), ["alternation"], marks=pytest.mark.slow),
        pytest.param(("explore", "--null", "9"), ["training", "movement", "walks"], marks=pytest.mark.slow),
        pytest.param(("surface", *SMALL), ["shadow", "feet"], marks=pytest.mark.slow),
    ],
    ids=["hessian", "theory", "explore", "surface"],
)
def test_every_awkward_label_has_results_of_its_own(
    awkward: tuple[Desk, list[Path]], words: tuple[str, ...], kinds: list[str], undrawn: None
) -> None:
    desk, files = awkward
    name, *options = words
    out = f"{name}.h5"
    desk.do(name, *files, *options, "--out", out, "--quiet")
    for kind in kinds:
        assert sorted(labels_of(desk.folder / out, kind)) == sorted(LABELS)
    desk.do("info", out, "--json")
    drawn = gather.drawings(desk.folder / out)
    assert len({figure.casefold() for figure in drawn}) == len(drawn)
    desk.do("report", out, "--out", f"{name}.html", "--quiet")
    page = (desk.folder / f"{name}.html").read_text(encoding="utf-8")
    assert "<b>&" not in page, "a label is text"


@pytest.mark.slow
def test_runs_stand_in_the_order_in_which_they_were_given_whatever_their_labels(
    awkward: tuple[Desk, list[Path]],
) -> None:
    desk, files = awkward
    desk.do("explore", *files, "--null", "0", "--out", "order.h5", "--quiet")
    assert [training.run.label for training in gather.contents(desk.folder / "order.h5").trainings] == list(LABELS)


@pytest.mark.parametrize("label", LABELS)
@pytest.mark.parametrize("step", ["@4", "@first", "@last", ""])
def test_every_label_can_be_named_as_a_run_at_a_step(opened: list[Trajectory], label: str, step: str) -> None:
    found = place(f"{label}-0{step}", opened)
    assert found.run.provenance.label == label
    assert found.run.steps[found.row] == {"@4": 4, "@first": 0}.get(step, 6)


def test_two_points_by_awkward_names_are_connected(awkward: tuple[Desk, list[Path]]) -> None:
    desk, files = awkward
    words = ("--between", "lr@0.1-0@4", "a/b-0@last", "--curve", "--curve-steps", "2", "--points", "3")
    desk.do("connect", *files[1:4], *words, "--engine", "problem", "--out", "between.h5", "--quiet")
    desk.do("connect", *files[1:4], "--engine", "problem", "--points", "3", "--out", "between.h5", "--quiet")
    kinds = {group.split("/")[0] for group in archive.groups(desk.folder / "between.h5")}
    assert {"paths", "barriers", "curve", "points", "separation"} <= kinds
    desk.do("surface", *files[1:3], "--plane", "line", "--through", "lr@0.1-0@first", "--through", "lr_0.1-0", *SMALL)


@pytest.mark.slow
def test_a_study_keeps_the_labels_that_its_settings_give(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "STUDY_FORMATS", ["svg"])
    labels = ["lr@0.1", "lr_0.1", "a/b"]
    strategies = "\n".join(f'[[strategies]]\nname = "averaged"\nlabel = "{label}"\nrate = 0.01' for label in labels)
    (desk.folder / "mine.toml").write_text(
        'problem = "quadratic"\nseeds = [0]\n' + strategies + "\n[training]\nsteps = 4\nevery = 2\nbatch_size = 4\n"
        '[surface]\nnx = 3\nny = 3\nengine = "problem"\n[hessian]\nsnapshots = 1\ntop = 1\n'
        '[explore]\nnull = 0\nbaseline = "lr_0.1"\n'
    )
    desk.do("study", "mine.toml", "--out", "study", "--jobs", "1", "--quiet")
    found = archive.load_all(desk.folder / "study" / "results.h5")
    trained = [entry.record for entry in found.values() if isinstance(entry.record, Training)]
    assert sorted(record.run.label for record in trained) == sorted(labels)
    compared = [e.record.baseline for g, e in found.items() if g.startswith(("comparison/", "contrast/"))]
    assert set(compared) == {"lr_0.1"}, "the baseline that the settings name, for both"
    before = contents(desk.folder / "study" / "runs")
    desk.do("study", "--out", "study", "--jobs", "1", "--quiet")
    assert contents(desk.folder / "study" / "runs") == before


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one label and seed with other rates, one of another seed, and one of another problem."""
    desk = Desk(tmp_path_factory.mktemp("two"))
    for name, words in {
        "a": (),
        "again": ("--rate", "0.1"),
        "b": ("--seed", "1"),
        "c": ("--label", "third"),
        "other": ("--set", "tasks=2", "--label", "other"),
    }.items():
        desk.do("train", "quadratic", *SHORT, *words, "--out", f"{name}.h5", "--quiet")
    return desk.folder


@pytest.fixture
def two(desk: Desk, trained: Path) -> Desk:
    """A desk with copies of them."""
    shutil.copytree(trained, desk.folder, dirs_exist_ok=True)
    return desk


COMMANDS = {
    "surface": SMALL,
    "hessian": ("--at", "last", "--top", "1", "--quiet"),
    "theory": ("--at", "last", "--quiet"),
    "explore": ("--null", "0", "--quiet"),
    "connect": ("--at", "0,6", "--points", "3", "--engine", "problem", "--quiet"),
}


@pytest.mark.parametrize(
    "command",
    [
        pytest.param(command, marks=[pytest.mark.slow] * (command not in ("surface", "hessian", "explore")))
        for command in COMMANDS
    ],
)
def test_results_of_another_run_of_the_same_name_and_of_another_problem_are_refused(two: Desk, command: str) -> None:
    two.do(command, "a.h5", *COMMANDS[command])
    two.do(command, "a.h5", *COMMANDS[command])  # and the same again is known
    match = r"results\.h5 holds .* of another run called averaged-0: expected one run of a name .* another file"
    for later, options in COMMANDS.items():
        two.refuse(match, later, "again.h5", *options)
    two.refuse(
        r"results\.h5 holds results of another problem \(settings \{\}, not \{\"tasks\": 2\}\): .* --out",
        *(command, "other.h5", *COMMANDS[command]),
    )


def test_a_surface_of_fewer_or_more_runs_stands_under_a_name_of_its_own(two: Desk) -> None:
    two.do("surface", "a.h5", "b.h5", "c.h5", "--conflict", *SMALL)
    before = archive.load_all(two.folder / "results.h5")
    for runs in (("a.h5",), ("a.h5", "b.h5")):
        two.refuse(r"holds plane/principal of averaged-0, averaged-1, third-0, and a result of averaged-0.*--label",
                   "surface", *runs, *SMALL)  # fmt: skip
    two.do("surface", "a.h5", "--label", "alone", *SMALL)
    after = archive.load_all(two.folder / "results.h5")
    assert {group: entry.record for group, entry in after.items() if group in before} == {
        group: entry.record for group, entry in before.items()
    }
    two.refuse(r"holds plane/alone of averaged-0, and a result of averaged-1 would", "surface", "b.h5",
               "--label", "alone", *SMALL)  # fmt: skip
    two.do("surface", "c.h5", "b.h5", "a.h5", *SMALL)  # the same runs in another order


def test_points_of_other_runs_are_connected_under_a_name_of_their_own(two: Desk) -> None:
    two.do("connect", "a.h5", "b.h5", *COMMANDS["connect"])
    two.refuse(r"holds paths/ends of averaged-0, averaged-1, and .*--label", "connect", "a.h5", "c.h5",
               *COMMANDS["connect"])  # fmt: skip
    two.do("connect", "a.h5", "c.h5", "--label", "others", *COMMANDS["connect"])
    assert {"paths/ends", "paths/others"} <= set(archive.groups(two.folder / "results.h5"))


def test_an_exploration_takes_no_run_out_of_the_file(two: Desk) -> None:
    two.do("explore", "a.h5", "b.h5", *COMMANDS["explore"])
    two.refuse(r"holds .*, of which averaged-1 is not among the runs given", "explore", "a.h5", *COMMANDS["explore"])
    two.do("explore", "a.h5", "b.h5", "c.h5", *COMMANDS["explore"])
    assert sorted(labels_of(two.folder / "results.h5", "training")) == ["averaged", "averaged", "third"]


def test_subsets_whose_safe_names_coincide_stand_beside_each_other(two: Desk) -> None:
    two.do("hessian", "a.h5", *COMMANDS["hessian"], "--on", "the?a", "--on", "the*a")
    two.do("hessian", "a.h5", *COMMANDS["hessian"], "--on", "t*a")
    entries = archive.load_all(two.folder / "results.h5")
    assert sorted(entry.record.subset for entry in entries.values()) == ["t*a", "the*a", "the?a"]
    drawn = gather.drawings(two.folder / "results.h5")
    assert len([name for name in drawn if name.startswith("tracks-")]) == 3


def test_a_subset_and_a_label_that_join_to_one_title_have_figures_of_their_own(two: Desk) -> None:
    two.do("hessian", "a.h5", "b.h5", *COMMANDS["hessian"])
    found = archive.load_all(two.folder / "results.h5")
    one, other = (found[f"eigenvalues/averaged-{seed}"] for seed in (0, 1))
    named = gather._curvatures({"eigenvalues-x-0/m-0": one, "eigenvalues/m-0-x-0": other})
    assert [about.title for about in named] == ["m-0-x-0", "m-0-x-0"]
    assert [about.tracks for about in named] == [one.record, other.record]


def test_another_label_of_a_finished_run_is_refused(two: Desk) -> None:
    two.refuse(r"a\.h5 holds a run with label averaged, expected mine", "train", "quadratic", *SHORT, "--label", "mine",
               "--out", "a.h5", "--quiet")  # fmt: skip


def test_a_label_that_is_a_variants_name_replaces_no_variant(two: Desk) -> None:
    two.do("surface", "a.h5", "--data", "evaluation", "--data", "training", *SMALL)
    two.refuse(r"holds surface/principal-training of averaged-0 .*under another label", "surface", "a.h5",
               "--label", "principal-training", *SMALL)  # fmt: skip


def test_figures_whose_names_coincide_are_all_drawn() -> None:
    drawn, scenes = gather._Drawn(), [Scene(str(number), "", ()) for number in range(5)]
    for name, scene in zip(("surface-a", "Surface-A", "surface-a", "surface-a-2", "x" * 300), scenes, strict=True):
        drawn.add(name, scene)
    assert list(drawn.scenes) == ["surface-a", "Surface-A-2", "surface-a-3", "surface-a-2-2", "x" * 200]
    assert [scene.title for scene in drawn.scenes.values()] == ["0", "1", "2", "3", "4"]


def test_a_surface_called_as_a_run_has_figures_of_its_own(two: Desk) -> None:
    two.do("surface", "a.h5", "--label", "averaged-0", *SMALL)
    two.do("hessian", "a.h5", *COMMANDS["hessian"], "--agreement")
    drawn = gather.drawings(two.folder / "results.h5")
    assert {"shares-averaged-0", "shares-averaged-0-2"} <= set(drawn)


def test_the_root_of_a_file_and_info_say_of_which_problem_its_results_are(two: Desk) -> None:
    two.do("hessian", "a.h5", *COMMANDS["hessian"])
    facts = two.do("info", "results.h5", "--json").json
    run = two.do("info", "a.h5", "--json").json
    assert facts["problem"] == "quadratic"
    assert facts["evaluation_data"] == run["evaluation_data"]
    assert re.search(r"problem +quadratic", two.do("info", "results.h5").out)
