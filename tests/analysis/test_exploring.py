"""An exploration into a results file: what stays of runs that have grown since."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis import archive, connecting
from analysis.desk import Desk
from analysis.exploring import explore
from analysis.settings import ConnectSettings, ExploreSettings, ProblemName
from landscape import Averaged, Every, Plan, Recorder, problems, record, store
from landscape.existing import Resume
from tests.analysis.synthetic import Told

QUADRATIC = ProblemName(name="quadratic")


class Own:
    """A loop of one's own that is gone on with, beside a run of the toolkit's."""

    def __init__(self, folder):
        self.path, self.problem = folder / "own.h5", problems.load("quadratic")
        self.model = self.problem.model_for(seed=0)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=1e-3, momentum=0.9)
        self.other = record(self.problem, Averaged(), Plan(20, 16, Every(5)), folder / "averaged-0.h5")

    def runs(self, steps):
        """Both runs, the own one after so many steps more."""
        words = {"existing": Resume()} if self.path.exists() else {}
        with Recorder(self.problem, self.path, when=Every(5), model=self.model, label="own", **words) as recorder:
            for _ in range(steps):
                self.optimizer.zero_grad()
                sum((p**2).sum() for p in self.model.parameters()).backward()
                self.optimizer.step()
                recorder.step()
        return [store.open(self.path), self.other]


@pytest.fixture
def own(tmp_path):
    return Own(tmp_path)


def desk(runs, folder, name="results.h5"):
    return Desk(QUADRATIC, runs, folder / name, Told())


def settings(null, on=("shared",)):
    return ExploreSettings(
        baseline="averaged", on=on, null=null, measures=["net"], budgets=["steps"], pairing="none", resamples=99
    )


def of_own(path):
    """The snapshots of every result that is of the own run alone, by group."""
    entries = archive.load_all(path)
    return {g: entries[g].provenance.runs["own-0"][1] for g in entries if g.split("/")[1] == "own-0"}


def test_nothing_of_a_shorter_run_stays_beside_what_it_is_now(own, tmp_path):
    explore(desk(own.runs(20), tmp_path), settings(19, ["shared", "all"]))
    kinds = ("movement", "displacements", "walks", "beside-walks")
    every = {f"{kind}/own-0/{subset}/raw": 5 for kind in kinds for subset in ("shared", "all")}
    assert of_own(tmp_path / "results.h5") == every
    short = archive.load(tmp_path / "results.h5", "beside-walks/own-0/shared/raw").record
    grown = own.runs(20)
    explore(desk(grown, tmp_path), settings(0))
    assert of_own(tmp_path / "results.h5") == {"movement/own-0/shared/raw": 9, "displacements/own-0/shared/raw": 9}
    assert archive.find(tmp_path / "results.h5", "walks/averaged-0/shared/raw") is not None, "this one is as it was"
    explore(desk(grown, tmp_path), settings(19))
    longer = archive.load(tmp_path / "results.h5", "beside-walks/own-0/shared/raw").record
    explore(desk(grown, tmp_path, "fresh.h5"), settings(19))
    assert longer == archive.load(tmp_path / "fresh.h5", "beside-walks/own-0/shared/raw").record
    net = longer.measures.index("net")
    assert longer.values[net] == pytest.approx(np.linalg.norm(grown[0].shared[-1] - grown[0].shared[0]), rel=1e-5)
    assert longer.values[net] > 1.05 * short.values[net]


def test_what_an_earlier_version_left_of_a_shorter_run_goes_with_the_next_exploration(own, tmp_path):
    """Also where all that is asked for is known, so that nothing is measured."""
    explore(desk(own.runs(20), tmp_path), settings(19))
    stale = "beside-walks/own-0/shared/raw"
    entry = archive.load(tmp_path / "results.h5", stale)
    grown = own.runs(20)
    explore(desk(grown, tmp_path), settings(0))
    archive.save(tmp_path / "results.h5", {stale: entry})
    known = desk(grown, tmp_path)
    explore(known, settings(0))
    assert archive.find(tmp_path / "results.h5", stale) is None
    assert known.progress.stages == []


def test_where_a_shorter_run_parted_from_others_goes_as_well(own, tmp_path):
    chosen = ConnectSettings(points=3, engine="sequential:16")
    third = record(own.problem, Averaged(), Plan(20, 16, Every(5)), tmp_path / "third-0.h5", label="third")
    connecting.connect(desk([*own.runs(20), third], tmp_path), chosen)
    separations = {"separation/own-0-averaged-0", "separation/own-0-third-0", "separation/averaged-0-third-0"}
    assert separations <= set(archive.groups(tmp_path / "results.h5"))
    connecting.connect(desk(own.runs(20), tmp_path), chosen.model_copy(update={"label": "later"}))
    left = {group for group in archive.groups(tmp_path / "results.h5") if group.startswith("separation")}
    assert left == separations - {"separation/own-0-third-0"}
