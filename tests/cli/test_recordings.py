"""Recordings of a loop of one's own in every command: whole, projected, and of seeds that are none."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import landscape
from analysis import archive
from analysis.results import Contrast, Movement
from landscape import Every, Projected, Recorder
from tests.cli.desk import Desk

QUICK = ("--null", "9", "--resamples", "99", "--measure", "net", "--quiet")


def record(
    path: Path, label: str, seed: int, *, model: bool = True, batches: int | None = None, **choices: object
) -> None:
    """A short loop of plain gradient steps on a built-in problem, with noise that `batches` draws."""
    problem = landscape.problems.load("quadratic")
    module = problem.model_for(seed) if model else problem.model
    noise = torch.Generator().manual_seed(1000 * (label == "other") + (seed if batches is None else batches))
    with Recorder(problem, path, Every(2), label=label, seed=seed, rate=0.05, model=module, **choices) as recorder:
        for _ in range(8):
            with torch.no_grad():
                for parameter in module.parameters():
                    parameter.add_(0.05 * torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype))
            recorder.step()


@pytest.fixture(scope="module")
def projected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("projected")
    for label in ("averaged", "other"):
        for seed in range(3):
            record(folder / f"{label}-{seed}.h5", label, seed, keep=Projected(8, seed=1))
    return folder


def test_explore_works_with_projections_and_says_what_it_leaves_out(projected: Path, desk: Desk, undrawn: None) -> None:
    runs = sorted(projected.glob("*.h5"))
    ran = desk.do("explore", *runs, *QUICK[:-1])
    assert "Distances are estimated from a random projection, with a relative standard error of 0.25." in ran.out
    assert "net distance of shared (raw): other against averaged, 3 seeds: " in ran.out
    assert "keeps a random projection of theta: its distances are estimates, with their errors" in ran.err
    kept = [entry.record for entry in archive.load_all(desk.folder / "results.h5").values()]
    assert [sum(isinstance(r, kind) for r in kept) for kind in (Movement, Contrast)] == [6, 1]
    again = desk.do("explore", *runs, *QUICK)
    assert again.out == ran.out
    desk.do("report", "results.h5", "--out", "page.html")
    assert "estimated from a random projection" in (desk.folder / "page.html").read_text()


def test_projections_and_whole_recordings_go_together(projected: Path, desk: Desk) -> None:
    record(desk.folder / "whole.h5", "averaged", 7)
    ran = desk.do("explore", desk.folder / "whole.h5", projected / "averaged-0.h5", *QUICK)
    assert "averaged" in ran.out


@pytest.mark.parametrize(
    "words",
    [
        ("surface",),
        ("hessian",),
        ("connect",),
        ("theory",),
    ],
)
def test_commands_that_need_theta_say_so_in_a_sentence(words: tuple[str, ...], projected: Path, desk: Desk) -> None:
    command, *options = words
    ran = desk.run(command, projected / "averaged-0.h5", projected / "other-0.h5", *options, "--quiet")
    assert ran.status == 2
    assert "keeps a random projection of theta on 8 dimensions a tensor, which this needs whole" in " ".join(
        ran.err.split()
    )
    assert "Traceback" not in ran.err


def test_info_and_check_read_a_projection(projected: Path, desk: Desk) -> None:
    info = desk.do("info", projected / "averaged-0.h5").out
    assert landscape.open(projected / "averaged-0.h5").provenance.start in info


def test_seeds_with_one_start_are_said_to_have_one(desk: Desk, undrawn: None) -> None:
    for label in ("averaged", "other"):
        for seed in range(3):
            record(desk.folder / f"{label}-{seed}.h5", label, seed, model=False)
    ran = desk.do("explore", *sorted(desk.folder.glob("*.h5")), *QUICK)
    assert "net distance of shared (raw): other against averaged, 3 seeds of one start: " in ran.out
    assert "Seeds 0, 1 and 2 begin at one start: they differ in what is drawn on the way alone" in ran.out
    desk.do("report", "results.h5", "--out", "page.html")
    page = (desk.folder / "page.html").read_text()
    assert "3 seeds of each strategy from one start" in page
    assert "Seeds 0, 1 and 2 begin at one start" in page


def test_seeds_that_are_one_run_over_again_have_no_verdict(desk: Desk) -> None:
    for label in ("averaged", "other"):
        for seed in range(3):
            record(desk.folder / f"{label}-{seed}.h5", label, seed, model=False, batches=0)
    ran = desk.do("explore", *sorted(desk.folder.glob("*.h5")), *QUICK)
    assert "no verdict from 1 seed, expected at least 3" in ran.out
    assert "Seed 2 of other is its seed 0 over again, to the byte, and left out" in ran.out


def test_one_seed_with_two_starts_is_no_pair(desk: Desk) -> None:
    for label in ("averaged", "other"):
        for seed in range(3):
            problem_seed = seed + 10 * (label == "other")
            record(desk.folder / f"{label}-{seed}.h5", label, problem_seed)
    for seed in range(3):  # the other strategy's runs, under the seeds of the first one
        path = desk.folder / f"other-{seed}.h5"
        path.unlink()
        problem = landscape.problems.load("quadratic")
        module = problem.model_for(seed + 10)
        with Recorder(problem, path, Every(2), label="other", seed=seed, rate=0.05, model=module) as recorder:
            recorder.step()
    ran = desk.do("explore", *sorted(desk.folder.glob("*.h5")), *QUICK)
    assert "runs of the same seed do not start alike (seed 0)" in ran.out
