"""Bad input ends with status 2 and one sentence: what was expected, what came, what to do. No file changes."""

import shutil
from pathlib import Path

import pytest

from tests.cli.desk import MODELS, SHORT, Desk, require_sentence

OWN = f"{MODELS}:"


@pytest.fixture
def full(desk: Desk, runs: Path) -> Desk:
    """A desk with runs, results and files that are not ours."""
    shutil.copytree(runs, desk.folder, dirs_exist_ok=True)
    (desk.folder / "text.h5").write_text("not ours\n", encoding="utf-8")
    (desk.folder / "empty.h5").touch()
    (desk.folder / "folder.h5").mkdir()
    (desk.folder / "wrong.py").write_text("def make(:\n", encoding="utf-8")
    (desk.folder / "needs.py").write_text("import a_package_that_nobody_has\n", encoding="utf-8")
    (desk.folder / "study.toml").write_text("[training]\nstepss = 3\n", encoding="utf-8")
    (desk.folder / "broken.toml").write_text("[training\n", encoding="utf-8")
    return desk


@pytest.mark.parametrize(
    ("line", "match"),
    [
        (
            "studdy",
            r"unknown command 'studdy': expected one of study, train.*did you mean study\?; see landscape --help",
        ),
        ("train quadratic --stpes 3", r"unknown option --stpes; did you mean --steps\?; see landscape train --help"),
        (
            "surface run.h5 --maring 1",
            r"unknown option --maring; did you mean --margin\?; see landscape surface --help",
        ),
        ("train", "missing argument 'problem'; see landscape train --help"),
        ("hessian", "missing argument 'RUN...'; see landscape hessian --help"),
        ("train quadratic twice", r"unexpected extra argument\(s\) \(twice\)"),
        ("train quadratic --steps", "'--steps' requires an argument"),
        ("train quadratic --steps many", "'--steps': .*valid integer.*'many'"),
        ("train quadratic --steps 0", "'--steps': .*1.*'0'"),
        ("train quadratic --batch-size -4", "'--batch-size': .*1.*'-4'"),
        ("train quadratic --every 0", "'--every': .*1.*'0'"),
        ("train quadratic --seed -1", "'--seed': .*0.*'-1'"),
        ("train quadratic --rate -1", "'--rate': .*0.*'-1'"),
        ("surface run.h5 --nx 2", "'--nx': .*3.*'2'"),
        ("surface run.h5 --margin inf", "margin: .*finite.*inf"),
        ("surface run.h5 --reach -1", "'--reach': .*0.*'-1'"),
        ("hessian run.h5 --top 0", "'--top': .*1.*'0'"),
        ("hessian run.h5 --tolerance -1", "tolerance: .*greater than 0.*-1"),
        ("study --steps 0", "'--steps': .*1.*'0'"),
        ("study --problem quadratic --seed -1", r"distinct seeds of 0 or more, got \[-1\]"),
        ("study --problem quadratic --jobs -1", "'--jobs': .*0.*'-1'"),
    ],
)
def test_words_that_do_not_fit_a_command(full: Desk, line: str, match: str) -> None:
    full.refuse(match, *line.split())


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("train digist", "unknown problem 'digist': expected one of digits, .* did you mean 'digits'"),
        ("train quadratic --strategy averged", "unknown strategy 'averged': expected one of .* 'averaged'"),
        ("train quadratic --optimiser Adm", "unknown optimiser 'Adm': expected one of .* 'Adam'"),
        ("train quadratic --device cud", "cannot use the device 'cud': expected one of cpu"),
        ("train quadratic --device meta", "cannot use the device 'meta': expected one of cpu"),
        ("train quadratic --set tsks=2", "unknown setting of the problem quadratic 'tsks': .* 'tasks'"),
        ("train quadratic --set tasks", "expected --set as KEY=VALUE, got 'tasks'"),
        ("train quadratic --set tasks=two", "expected tasks as a whole number, got 'two'"),
        ("train quadratic --rate inf", "expected finite settings of Adam, got lr=inf"),
        ("train quadratic --rate nan", "'--rate': .*0.*'nan'"),
        ("train quadratic --reduction 1,inf,1", r"expected finite weights, not all of them 0, got \[1.0, inf, 1.0\]"),
        ("train quadratic --reduction 0,0,0", "expected finite weights, not all of them 0"),
        ("study --problem quadratic --seed 1000", "search.seed: expected a seed that the study does not use, got 1000"),
        ("train quadratic --set tasks=-1", "expected 1 or more tasks .* got -1"),
        ("train quadratic --set size=0", "a size of 1 or more, got 3 and 0"),
        ("train digits --set width=0", "expected width, .* of 1 or more"),
        ("train quadratic --reduction 1,x", "expected --reduction as sum, mean or weights such as .* got '1,x'"),
        ("train quadratic --reduction 1,2", "expected a weight for each of the 3 tasks, got 2"),
        ("train quadratic --reduction 1,2,3,4", "expected a weight for each of the 3 tasks, got 4"),
        ("train quadratic --strategy grouped --reduction 1,2", "expected a weight for each of the 3 tasks, got 2"),
        ("train quadratic --reduction summ", "unknown reduction 'summ': .* 'sum'"),
        ("train quadratic --strategy grouped --groups 9", "expected 1 to 3 groups for 3 tasks, got 9"),
        ("train quadratic --strategy grouped --size 9", "expected groups of 1 to 3 of the 3 tasks, got 9"),
        ("train quadratic --strategy grouped --groups 2 --size 2", "groups or their size, got both: leave one out"),
        ("train quadratic --strategy grouped --states owm", "unknown states 'owm': .* 'own'"),
        ("train quadratic --strategy adatask --order fixed", "adatask takes no order: .* independent"),
        ("train quadratic --strategy independent --order fixd", "unknown order 'fixd': .* 'fixed'"),
        ("train quadratic --strategy independent --batches nxt", "unknown batches 'nxt': .* 'next'"),
        ("surface run.h5 --plane principle", "unknown plane 'principle': .* 'principal'"),
        ("hessian run.h5 --at foo", "expected --at as n=COUNT, all, last or steps .* got 'foo'"),
        ("hessian run.h5 --at n=0", "expected --at as n=COUNT, all, last or steps .* got 'n=0'"),
        ("hessian run.h5 --at 3", "no snapshot at step 3; the nearest is at step (2|4)"),
        ("hessian run.h5 --at -2", "no snapshot at step -2; the nearest is at step 0"),
        ("explore run.h5 --baseline averged", "unknown label of a baseline 'averged': .* 'averaged'"),
        ("figures results.h5 --format jpg", "unknown format 'jpg': expected one of png, pdf, svg, html"),
        ("report results.h5 --out report.pdf", "expected a report that ends with .html, got 'report.pdf'"),
        ("study --problem digist", "unknown problem 'digist': .* 'digits'"),
        ("study --problem quadratic --strategy averged", "unknown strategy 'averged': .* 'averaged'"),
        ("study --problem quadratic --set tsks=2", "unknown setting of the problem quadratic 'tsks': .* 'tasks'"),
        ("study study.toml", "study.toml: unknown setting 'training.stepss': .* 'training.steps'"),
        ("study broken.toml", "cannot read broken.toml: expected settings in TOML"),
        ("study nowhere.toml", "there is no file nowhere.toml: expected the settings of a study in TOML"),
        ("study folder.h5", "cannot read folder.h5: expected settings in TOML"),
    ],
)
def test_names_and_values_that_do_not_exist(full: Desk, line: str, match: str) -> None:
    if line.startswith("study --"):
        (full.folder / "study.toml").unlink()
    full.refuse(match, *line.split())


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("nowhere.py:make", "there is no file nowhere.py: expected a Python file"),
        (OWN + "mkae", "unknown function in .*models.py 'mkae': .* did you mean 'make'"),
        (str(MODELS), "expected the function that makes the problem after the file, as .*models.py:FUNCTION, got"),
        (OWN + "needs_a_width", "needs a value for 'width', which has no default: set it with --set width="),
        (OWN + "mixed_loss", "the loss of task 'up' mixes the examples of a batch: .* 2 of 8 examples .* take no mean"),
        (OWN + "raises", r"raises failed with FileNotFoundError at .*models.py:\d+ \(the pictures are not here\)"),
        (OWN + "ends", r"ends failed with SystemExit at .*models.py:\d+ \(no more\)"),
        ("wrong.py:make", r"wrong.py failed with SyntaxError at .*wrong.py:1 "),
        ("needs.py:make", r"needs.py failed with ModuleNotFoundError at .*needs.py:1 .*a_package_that_nobody_has"),
        ("no.such.package:make", "cannot import no.such.package .*expected an importable module, or a file as"),
        ("tests.cli.models:mkae", "unknown function in tests.cli.models 'mkae': .* did you mean 'make'"),
        (OWN + "returns_something_else", "returned int: expected a landscape.Problem"),
        (OWN + "other_outputs", "output does not match the 2 tasks: .* names up, down .* got a dict with left"),
        (OWN + "averaged_loss", r"loss of task 'up' is not per example: expected shape \[8\] .* reduction='none'"),
        (OWN + "unreached", "task 'down' reaches no trainable parameter: .*frozen or detached"),
        (OWN + "empty", "the training data set is empty: expected at least one example"),
        (OWN + "not_numbers", "NaN in the training data, in the targets of task 'down' of example 5"),
        (OWN + "dropout_in_evaluation", r"module 'dropout' \(Always\) draws random numbers in evaluation mode"),
    ],
)
@pytest.mark.parametrize("command", ["train", "study", "surface"])
def test_problems_of_a_users_own_that_cannot_be_used(full: Desk, command: str, name: str, match: str) -> None:
    (full.folder / "study.toml").unlink()
    words = {"train": (name,), "study": ("--problem", name), "surface": ("run.h5", "--problem", name)}[command]
    full.refuse(match, command, *words)


def test_a_setting_that_a_users_own_problem_does_not_take(desk: Desk) -> None:
    desk.refuse(
        "unknown setting of the problem .* 'widht': .* did you mean 'width'", "train", OWN + "make", "--set", "widht=3"
    )


def test_a_loss_that_becomes_nan_stops_the_run_and_keeps_its_snapshots(desk: Desk) -> None:
    words = ("train", OWN + "fails_in_training", "--rate", "0.05", "--steps", "400", "--every", "10", "--out", "run.h5")
    said = desk.refuse(
        "training loss of task 'down' became inf at step [0-9]+; .* smaller learning rate", *words, keeps=["run.h5"]
    )
    step = int(said.split("at step ")[1].split(";")[0])
    facts = desk.do("info", "run.h5", "--json").json
    assert not facts["complete"]
    assert 0 < facts["last_step"] < step <= facts["last_step"] + 25
    assert desk.refuse("at step", *words) == said


def test_a_loss_that_becomes_nan_stops_a_study_and_keeps_its_runs(desk: Desk) -> None:
    (desk.folder / "study.toml").write_text(
        f'problem = "{OWN}fails_in_training"\nseeds = [0]\n'
        'strategies = [{name = "averaged", rate = 0.001}, {name = "independent", rate = 0.05}]\n'
        "[training]\nsteps = 400\nevery = 10\n",
        encoding="utf-8",
    )
    ran = desk.run("study", "study.toml", "--out", "s", "--jobs", "1", "--quiet")
    require_sentence(ran.status, ran.err, "training loss of task 'down' became inf at step")
    states = [desk.do("info", f"s/runs/{name}-0.h5", "--json").json["complete"] for name in ("averaged", "independent")]
    assert states == [True, False]


def test_an_error_in_a_loss_of_ones_own_stops_training_with_its_line(desk: Desk) -> None:
    desk.refuse(
        r"training at step 3 failed with IndexError at .*models.py:[0-9]+ \(no such class\): expected the model",
        *("train", OWN + "raises_in_training", *SHORT, "--out", "run.h5"),
        keeps=["run.h5"],
    )


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write into")
@pytest.mark.parametrize("line", ["train quadratic --steps 2", "hessian run.h5 --at last", "explore run.h5"])
def test_a_folder_in_which_no_file_can_be_made_is_refused_before_the_work(full: Desk, line: str) -> None:
    full.refuse(
        "cannot write /proc/x.h5 .*: expected a folder that can be written", *line.split(), "--out", "/proc/x.h5"
    )


def test_results_cut_short_are_described_as_either(full: Desk) -> None:
    (full.folder / "cut.h5").write_bytes((full.folder / "results.h5").read_bytes()[:3000])
    full.refuse("cannot read cut.h5: expected a trajectory, a results file or a study's folder", "info", "cut.h5")


@pytest.mark.parametrize(
    ("line", "match"),
    [
        ("info nowhere.h5", "there is no file nowhere.h5: expected a trajectory, a results file or a study's folder"),
        ("info folder.h5", "there is no file folder.h5/results.h5: expected a trajectory, a results file or a study's"),
        (
            "info text.h5",
            "cannot read text.h5: expected a trajectory, a results file or .* cut short or of another kind",
        ),
        ("surface folder.h5", "cannot read folder.h5: expected a landscape-trajectory file, got a folder"),
        ("figures nowhere.h5", "there is no file nowhere.h5: expected results of a study"),
        ("report folder.h5", "there is no file folder.h5/results.h5: expected results of a study"),
        ("report run.h5", "run.h5 is not a results file: expected .*'landscape-results', got 'landscape-trajectory'"),
        ("surface results.h5", "results.h5 is not a trajectory: expected .*'landscape-trajectory', got 'landscape-res"),
        ("explore run.h5 --out run.h5", "run.h5 is not a results file: expected .* got 'landscape-trajectory'"),
        ("explore run.h5 --out text.h5", "cannot read text.h5: expected a whole landscape-results file"),
        ("train quadratic --out results.h5", "results.h5 is not a trajectory: .* got 'landscape-results'"),
        ("train quadratic --out text.h5", "cannot read text.h5: expected a landscape-trajectory file"),
        ("train quadratic --out run.h5", 'run.h5 holds a run with training .*"steps": 6.* choose another file'),
        ("surface run.h5 two-tasks.h5", r"theta with 16 entries .* but two-tasks.h5 has 14 entries in 3 tensors"),
        ("surface two-tasks.h5 run.h5", r"theta with 14 entries .* but run.h5 has 16 entries in 4 tensors"),
        ("surface run.h5 --problem digits", "theta with 27412 entries .* but run.h5 has 16 entries"),
        ("surface run.h5 other-data.h5", "other-data.h5 was recorded with other evaluation data: expected the hash"),
        ("explore run.h5 run.h5", "two trajectories are called averaged-0: expected another label or seed"),
    ],
)
def test_files_of_another_kind_or_of_another_run(full: Desk, line: str, match: str) -> None:
    full.refuse(match, *line.split())


@pytest.mark.parametrize("command", ["info", "surface", "figures", "report"])
@pytest.mark.parametrize("name", ["text.h5", "empty.h5", "foreign.h5", "cut.h5"])
def test_files_that_are_not_ours_or_cut_short(full: Desk, command: str, name: str) -> None:
    import h5py

    with h5py.File(full.folder / "foreign.h5", "w") as file:
        file["numbers"] = [1, 2]
    source = "run.h5" if command in ("info", "surface") else "results.h5"
    (full.folder / "cut.h5").write_bytes((full.folder / source).read_bytes()[:3000])
    full.refuse(f"{name}.*expected", command, name)


def test_a_trajectory_of_a_users_own_problem_is_never_imported(desk: Desk) -> None:
    own = desk.folder / "own.py"
    own.write_text(f"import sys; sys.path.append({str(MODELS.parents[2])!r})\nfrom tests.cli.models import make\n")
    desk.do("train", "own.py:make", *SHORT, "--out", "run.h5")
    own.write_text("open('imported', 'w')\n", encoding="utf-8")
    for command in ("surface", "hessian", "explore"):
        desk.refuse(
            r"a problem of your own \(own.py:make\): expected it as --problem FILE.py:FUNCTION", command, "run.h5"
        )
    assert desk.do("info", "run.h5", "--json").json["problem"] == "own.py:make"


@pytest.mark.parametrize(
    "line",
    [
        "study --problem quadratic --out text.h5",
        "study --problem quadratic --out text.h5/study",
        "train quadratic --steps 2 --out text.h5/run.h5",
        "surface run.h5 --out text.h5/results.h5",
        "hessian run.h5 --at last --out text.h5/results.h5",
        "explore run.h5 --out text.h5/results.h5",
        "figures results.h5 --out text.h5",
        "figures results.h5 --out text.h5/figures",
        "report results.h5 --out text.h5/report.html",
    ],
)
def test_an_output_below_a_file_cannot_be_written(full: Desk, line: str) -> None:
    (full.folder / "study.toml").unlink()
    full.refuse("cannot write .*text.h5.*: expected a folder that can be written; choose another", *line.split())


def test_a_study_does_not_go_on_with_runs_of_other_settings(desk: Desk, studied: Path) -> None:
    shutil.copytree(studied, desk.folder / "study")
    for words in (("--steps", "60"), ("--set", "size=4"), ("--strategy", "independent", "--set", "seed=5")):
        desk.refuse(
            "choose another file, or remove that one|use the problem that it was recorded with"
            "|holds results of another problem .*: expected one problem and one evaluation set",
            "study",
            *words,
        )
