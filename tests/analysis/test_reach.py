"""Every setting reaches everything that it is offered to."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import archive, directions, estimates, examining, sharpness, survey, tracking
from analysis.connecting import connect
from analysis.desk import Desk
from analysis.examining import examine
from analysis.product_choice import Auto
from analysis.results import ConflictMap
from analysis.settings import ConnectSettings, HessianSettings, ProblemName, SurfaceSettings, parse
from analysis.study import Study
from landscape import problems, training
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged, Independent
from tests.analysis.synthetic import Told

SMALL = {"width": 4, "features": 12, "norm": "batch", "train": 64, "evaluation": 32}
DIGITS = ProblemName(name="digits", settings=SMALL)


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    """Ways that were timed are kept for the machine: not for the user's, in a test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    problem = problems.load("digits", SMALL)
    plan = training.Plan(4, 16, Every(2))
    strategies = (Averaged(Optimiser("Adam", lr=0.01)), Independent(Optimiser("Adam", lr=0.01)))
    return [training.record(problem, one, plan, folder / f"{one.label}.h5") for one in strategies]


@pytest.fixture
def desk(runs, tmp_path):
    return Desk(DIGITS, runs, tmp_path / "results.h5", Told())


@pytest.fixture
def bounds(monkeypatch):
    """The bound on memory of every operator that is made, by the module that asks for it."""
    asked = []
    for module in (tracking, sharpness, examining, directions):
        original = module.hessians

        def made(*given, _original=original, _name=module.__name__, **more):
            product = more.get("product", given[5] if len(given) > 5 else None)
            asked.append((_name, product.max_memory if isinstance(product, Auto) else None))
            return _original(*given, **more)

        monkeypatch.setattr(module, "hessians", made)
    return asked


@pytest.mark.parametrize(
    ("more", "module"),
    [
        ({}, "analysis.tracking"),
        ({"agreement": True}, "analysis.tracking"),
        ({"sharpness": True, "pairs": 1}, "analysis.sharpness"),
        ({"density": True, "probes": 1, "degree": 3, "trace": 4}, "analysis.examining"),
        ({"traces": True, "trace": 4}, "analysis.examining"),
    ],
    ids=["eigenvalues", "agreement", "sharpness", "densities", "traces"],
)
def test_the_bound_on_memory_reaches_every_product(desk, bounds, more, module):
    only = Desk(DIGITS, desk.runs[:1], desk.results.path, Told())
    examine(only, HessianSettings(snapshots=1, top=1, tolerance=0.5, products=4, max_memory="300MB", **more))
    assert module in {name for name, _ in bounds}
    assert {bound for _, bound in bounds} == {300 * 10**6}


@pytest.mark.parametrize("plane", ["eigenvectors", "local"])
def test_the_bound_on_memory_and_the_seed_reach_planes_of_curvature(desk, bounds, monkeypatch, plane):
    seeds = []
    original = directions.top_eigenpairs
    monkeypatch.setattr(
        directions, "top_eigenpairs", lambda *given, **more: seeds.append(more["seed"]) or original(*given, **more)
    )
    chosen = SurfaceSettings(plane=plane, reach=0.1, nx=3, ny=3, engine="problem", max_memory="300MB", seed=5)
    survey.survey(desk, chosen)
    assert ("analysis.directions", 300 * 10**6) in bounds
    assert set(seeds) == {5}


def test_the_seed_of_a_surface_reaches_its_conflict_map(desk):
    chosen = SurfaceSettings(nx=3, ny=3, engine="problem", conflict=True)
    found = []
    for seed in (0, 7, 7):
        survey.survey(desk, chosen.model_copy(update={"seed": seed}))
        found.append(archive.load(desk.results.path, "conflict/principal").record)
    assert all(isinstance(one, ConflictMap) for one in found)
    assert [one.seed for one in found] == [0, 7, 7]
    np.testing.assert_allclose(found[0].cosine, found[1].cosine, rtol=1e-4)  # the pieces matter to errors alone
    assert not np.array_equal(found[0].noise, found[1].noise)
    assert found[1] == found[2]


CONDITIONS = {
    ("evaluation", "frozen"): "",
    ("training", "frozen"): "-training",
    ("evaluation", "reestimated"): "-reestimated",
    ("training", "reestimated"): "-training-reestimated",
}


@pytest.mark.parametrize("plane", ["principal", "line"])
def test_a_measurement_is_called_by_its_conditions_alone_or_among_others(desk, plane):
    kind = "profile" if plane == "line" else "surface"
    chosen = SurfaceSettings(plane=plane, nx=3, ny=3, engine="problem", examples=32)
    for number, ((data, norm), suffix) in enumerate(CONDITIONS.items(), start=1):
        survey.survey(desk, chosen.model_copy(update={"data": [data], "batch_norm": [norm]}))
        record = archive.load(desk.results.path, f"{kind}/{plane}{suffix}").record
        assert (record.split, record.batch_norm == "frozen") == (data, norm == "frozen")
        there = [group for group in archive.groups(desk.results.path) if group.startswith(f"{kind}/")]
        assert len(there) == number, "and the others stay beside it"
    told = list(desk.progress.stages)
    both = {"data": ["training", "evaluation"], "batch_norm": ["reestimated", "frozen"]}
    survey.survey(desk, chosen.model_copy(update=both))
    assert desk.progress.stages == told, "all is known, in whatever order it is asked for"


def test_what_is_found_of_a_surface_is_called_as_the_surface(desk):
    chosen = SurfaceSettings(nx=3, ny=3, engine="problem", examples=32, batch_norm=["reestimated"])
    survey.survey(desk, chosen)
    there = archive.groups(desk.results.path)
    assert {"surface/principal-reestimated", "shape/principal-reestimated"} <= set(there)
    assert not {"surface/principal", "shape/principal"} & set(there)
    survey.survey(desk, chosen.model_copy(update={"batch_norm": ["frozen"]}))
    first, second = (archive.load(desk.results.path, f"shape/principal{end}").record for end in ("", "-reestimated"))
    assert first != second


def test_statistics_of_paths_decide_their_name(desk):
    chosen = ConnectSettings(points=3, engine="problem", examples=32, batch_norm=["reestimated"])
    connect(desk, chosen)
    assert "paths/ends-reestimated" in archive.groups(desk.results.path)
    assert "paths/ends" not in archive.groups(desk.results.path)
    connect(desk, chosen.model_copy(update={"batch_norm": []}))
    assert archive.load(desk.results.path, "paths/ends").record.batch_norm == "interpolated"


QUADRATIC = {
    "problem": "quadratic",
    "problem_settings": {"tasks": 2, "size": 4, "heads": 1, "examples": 12},
    "seeds": [0, 1],
    "strategies": [{"name": "averaged", "rate": 0.05}, {"name": "independent", "rate": 0.05}],
    "training": {"steps": 4, "every": 2, "batch_size": 4},
    "explore": {"null": 0},
}


@pytest.mark.parametrize(
    ("surface", "hessian"),
    [
        ({"data": ["training", "evaluation"]}, {"matrix": "fisher"}),
        pytest.param({"data": ["training"]}, {"on": ["all", "theta"]}, marks=pytest.mark.slow),
        pytest.param(
            {"plane": "line", "margin": 0.0},
            {"traces": True, "trace": 4, "tasks": ["average"]},
            marks=pytest.mark.slow,
        ),
        pytest.param({"label": "mine"}, {"layers": True}, marks=pytest.mark.slow),
    ],
)
def test_of_a_finished_study_nothing_is_left_whatever_its_settings(tmp_path, surface, hessian):
    chosen = parse(
        {
            **QUADRATIC,
            "surface": {"nx": 3, "ny": 3, "engine": "problem", **surface},
            "hessian": {"snapshots": 1, "top": 1, **hessian},
        }
    )
    work = Study(chosen, tmp_path, Told())
    assert work.left() == estimates.everything(chosen)
    work.run()
    assert Study(chosen, tmp_path, Told()).left() == estimates.Left((0, 0), ((0, 0), (0, 0)), 0, 0, 0)


def test_the_baseline_of_a_study_is_that_of_all_its_comparisons(tmp_path):
    chosen = parse(
        {
            **QUADRATIC,
            "surface": {"nx": 3, "ny": 3, "engine": "problem"},
            "hessian": {"snapshots": 1, "top": 1},
            "explore": {"null": 0, "baseline": "independent"},
        }
    )
    Study(chosen, tmp_path, Told()).run()
    found = archive.load_all(tmp_path / "results.h5")
    compared = [e.record for group, e in found.items() if group.startswith(("comparison/", "contrast/"))]
    assert {(record.strategy, record.baseline) for record in compared} == {("averaged", "independent")}
    with pytest.raises(LandscapeError, match=r"unknown label of a baseline in explore\.baseline 'avreaged': .*did you"):
        parse({**QUADRATIC, "explore": {"baseline": "avreaged"}})


def test_the_plane_of_the_first_seed_keeps_its_name():
    with pytest.raises(LandscapeError, match=r"surface\.label: expected another name than 'seed-0', which the plane"):
        parse({**QUADRATIC, "surface": {"label": "seed-0"}})


def test_strategies_that_some_file_systems_take_for_one_are_refused():
    strategies = [{"name": "averaged", "label": "A", "rate": 0.1}, {"name": "averaged", "label": "a", "rate": 0.2}]
    with pytest.raises(LandscapeError, match="two strategies are called 'A': give one of them another label"):
        parse({**QUADRATIC, "strategies": strategies})
