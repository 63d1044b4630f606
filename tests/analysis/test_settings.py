"""Settings of a study: what may be left out, what is refused, and in which words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analysis import settings
from analysis.settings import (
    AlternationSettings,
    ConnectSettings,
    HessianSettings,
    Settings,
    StrategySettings,
    SurfaceSettings,
    parse,
    read,
    section,
    write,
)
from landscape.errors import LandscapeError
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Averaged, Grouped, Independent, SharedState, Weights


def test_everything_has_a_default():
    found = parse({})
    assert found == Settings()
    assert found.problem == "digits"
    assert [s.title for s in found.strategies] == ["averaged", "independent", "grouped"]
    assert found.training.plan().when == Every(found.training.every)
    assert found.search.seed not in found.seeds


def test_settings_written_are_read_back(tmp_path):
    made = parse(
        {
            "problem": "quadratic",
            "problem_settings": {"tasks": 2, "hessians": [[[1.0]], [[2.0]]], "minima": [[0.0], [1.0]]},
            "seeds": [3, 1],
            "strategies": [
                "averaged",
                {"name": "averaged", "label": "weighted", "reduction": [1.0, 0.5], "rate": 1e-3},
                {"name": "grouped", "groups": 2, "states": "shared", "redraw": 0},
            ],
            "training": {"steps": 7, "every": 5, "optimiser": "SGD"},
            "surface": {"plane": "random", "nx": 3, "ny": 8, "label": "my plane"},
            "hessian": {"at": [0, 5]},
        }
    )
    path = tmp_path / "study.toml"
    path.write_text(write(made), encoding="utf-8")
    assert read(path) == made
    assert write(read(path)) == write(made)


@given(
    st.lists(st.integers(0, 10**6), min_size=1, max_size=5, unique=True),
    st.integers(1, 10**6),
    st.floats(1e-12, 1e3),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20),
)
def test_whatever_fits_survives_the_file(seeds, steps, tolerance, label):
    data = {
        "seeds": seeds,
        "search": {"seed": max(seeds) + 1},
        "training": {"steps": steps},
        "hessian": {"tolerance": tolerance},
        "surface": {"label": label},
    }
    made = parse(data)
    assert parse(settings.tomllib.loads(write(made))) == made


def test_strategies_by_name_and_by_table_are_the_same():
    assert parse({"strategies": ["averaged", "independent"]}) == parse(
        {"strategies": [{"name": "averaged"}, {"name": "independent"}]}
    )


def test_strategies_are_made_with_their_choices():
    adam = Optimiser("Adam", lr=0.01)
    assert StrategySettings(name="averaged", reduction=[1.0, 2.0]).strategy("Adam", 0.01) == Averaged(
        adam, Weights(1, 2)
    )
    assert StrategySettings(name="independent").strategy("Adam", 0.01) == Independent(adam)
    grouped = StrategySettings(name="grouped", states="shared", groups=3).strategy("Adam", 0.01)
    assert isinstance(grouped, Grouped)
    assert isinstance(grouped.states_of_theta, SharedState)
    assert StrategySettings(name="averaged", label="a/b c").title.startswith("a_b_c-")


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ({"problm": "digits"}, r"unknown setting 'problm': .*did you mean 'problem'\?"),
        ({"training": {"step": 3}}, r"unknown setting 'training\.step': .*did you mean 'training\.steps'\?"),
        (
            {"strategies": [{"name": "averaged", "lable": "x"}]},
            r"unknown setting 'strategies\.0\.lable': .*lable|label",
        ),
        ({"hessian": {"top": 3, "produts": 1}}, r"did you mean 'hessian\.products'\?"),
        ({"strategies": ["averagd"]}, r"unknown strategy 'averagd': .*did you mean 'averaged'\?"),
        ({"strategies": [{"name": "averaged", "groups": 2}]}, r"the strategy averaged takes no groups"),
        (
            {"strategies": [{"name": "grouped", "states": "mine"}]},
            r"unknown states 'mine': expected one of own, shared",
        ),
        ({"strategies": []}, r"strategies: list should have at least 1 item"),
        (
            {"strategies": ["averaged", "averaged"]},
            r"two strategies are called 'averaged': give one of them another label",
        ),
        (
            {"strategies": [{"name": "averaged", "label": "a b"}, {"name": "independent", "label": "a b"}]},
            r"two strategies are called 'a b'",
        ),
        ({"seeds": []}, r"seeds: list should have at least 1 item"),
        ({"seeds": [1, 1]}, r"expected distinct seeds of 0 or more, got \[1, 1\]"),
        ({"seeds": [-1]}, r"expected distinct seeds of 0 or more, got \[-1\]"),
        ({"seeds": ["one"]}, r"seeds\.0: input should be a valid integer.*got 'one'"),
        ({"training": {"steps": 0}}, r"training\.steps: input should be greater than or equal to 1, got 0"),
        ({"training": {"steps": 1.5}}, r"training\.steps: input should be a valid integer.*got 1\.5"),
        ({"training": 3}, r"training: input should be a valid dictionary.*got 3"),
        ({"training": {"optimiser": "Adm"}}, r"unknown optimiser 'Adm': .*did you mean 'Adam'\?"),
        ({"search": {"rates": []}}, r"search\.rates: list should have at least 1 item"),
        ({"search": {"rates": [1e-3, -1.0]}}, r"search\.rates\.1: input should be greater than 0, got -1\.0"),
        ({"surface": {"nx": 2}}, r"surface\.nx: input should be greater than or equal to 3, got 2"),
        ({"surface": {"plane": "princpal"}}, r"surface: unknown plane 'princpal': .*did you mean 'principal'\?"),
        (
            {"strategies": [{"name": "averaged", "reduction": [0.0, 0.0]}]},
            r"expected finite weights, not all of them 0",
        ),
        (
            {"seeds": [3, 1000]},
            r"search\.seed: expected a seed that the study does not use, got 1000, which is among .* give another seed",
        ),
        (
            {"hessian": {"at": [0, 7]}},
            r"hessian\.at: expected steps with a snapshot \(every 20 from 0 on, and the last one, 600\), got 7: the "
            r"nearest is at step 0",
        ),
        ({"hessian": {"at": [11]}}, r"got 11: the nearest is at step 20"),
        ({"hessian": {"at": [-3]}}, r"got -3: the nearest is at step 0"),
        ({"hessian": {"at": [620]}}, r"got 620: the nearest is at step 600"),
        (
            {"training": {"steps": 30}, "hessian": {"at": [26]}},
            r"the last one, 30\), got 26: the nearest is at step 30",
        ),
        ({"training": {"steps": 7}, "hessian": {"at": [5]}}, r"got 5: the nearest is at step 7"),
        ({"hessian": {"tolerance": 0}}, r"hessian\.tolerance: input should be greater than 0, got 0"),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence_with_its_place(data, text):
    with pytest.raises(LandscapeError, match=text) as caught:
        parse(data, "here")
    assert str(caught.value).startswith("here: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, r"there is no file .*: expected the settings of a study in TOML"),
        (b"a = ", r"cannot read .*settings in TOML"),
        (b"\xff\xfe", r"cannot read .*settings in TOML"),
    ],
)
def test_files_that_hold_no_toml_are_refused(tmp_path, content, text):
    path = tmp_path / "study.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(LandscapeError, match=text):
        read(path)


def test_a_section_alone_is_refused_in_the_same_words():
    assert section(SurfaceSettings, {"nx": 4}).nx == 4
    with pytest.raises(LandscapeError, match=r"unknown setting 'nz': expected one of .*nx"):
        section(SurfaceSettings, {"nz": 4})
    with pytest.raises(LandscapeError, match=r"top: input should be greater than or equal to 1, got 0"):
        section(HessianSettings, {"top": 0})


def test_a_surface_is_called_after_its_plane_unless_it_has_a_label():
    assert SurfaceSettings().title == "principal"
    assert SurfaceSettings(plane="random", seed=4).title == "random-4"
    assert SurfaceSettings(label="a b").title.startswith("a_b-")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"plane": "line", "centre": "a@last"}, r"expected centre with one of principal, .*'line': leave it out"),
        ({"through": ["a", "b"]}, r"expected through with one of through, line, got it with the plane 'principal'"),
        ({"plane": "local", "tasks": ["one"]}, r"expected tasks with one of eigenvectors, gradients, .* 'local'"),
        ({"vectors": "two.npy"}, r"expected vectors with one of given, got it with the plane 'principal'"),
        ({"reach": 2, "rise": 9}, r"expected a reach or a rise, got both \(2 and 9\): choose one"),
        ({"plane": "random", "margin": 0.3}, r"expected a margin of 0.3 around .*got the plane 'random'"),
        ({"reach": 1, "margin": 0.3}, r"without reach or rise; got the plane 'principal', reach 1, rise 0: leave"),
        (
            {"adaptive": 0.01, "data": ["evaluation", "training"]},
            r"adaptive surface of one kind of data and of statistics, got evaluation, training and frozen: measure one",
        ),
        ({"plane": "random", "draws": 2, "rise": 3}, r"expected a reach for several draws, got a rise, which gives"),
        ({"data": ["training", "training"]}, r"expected every kind of data once, got training again"),
        ({"seed": 2**63}, r"seed: input should be less than 9223372036854775808"),
        ({"budget": 0.1}, r"expected a tolerance \(adaptive\) for budget 0.1, got none: add it, or leave budget out"),
    ],
)
def test_a_setting_of_a_surface_that_would_change_nothing_is_refused(given, message):
    with pytest.raises(LandscapeError, match=message):
        section(SurfaceSettings, given)


@pytest.mark.parametrize(
    ("kind", "given", "message"),
    [
        (
            ConnectSettings,
            {"rate": 0.5},
            r"expected curves \(curve\) for rate 0.5, got none: add it, or leave rate",
        ),
        (ConnectSettings, {"curve_steps": 3}, r"expected curves \(curve\) for curve_steps 3"),
        (ConnectSettings, {"groups": {"h": [["a", 0]]}}, r"expected matching \(align\) for groups"),
        (ConnectSettings, {"between": ["a", "b"], "at": [0]}, r"expected two places alone, got steps or a number of"),
        (HessianSettings, {"probes": 99}, r"expected densities \(density\) for probes 99"),
        (HessianSettings, {"trace": 9}, r"expected traces \(traces\) or densities \(density\) for trace 9"),
        (HessianSettings, {"batch": 5}, r"expected agreement for batch 5"),
        (HessianSettings, {"radius": 9}, r"expected sharpness for radius 9"),
        (AlternationSettings, {"examples": 10}, r"expected training data for examples 10"),
    ],
)
def test_settings_of_what_was_not_asked_for_are_refused(kind, given, message):
    with pytest.raises(LandscapeError, match=message):
        section(kind, given)


def test_the_same_settings_are_taken_where_they_say_something():
    assert section(SurfaceSettings, {"plane": "line", "through": ["a", "b"], "margin": 0.3}).margin == 0.3
    assert section(SurfaceSettings, {"adaptive": 0.02, "budget": 0.1}).budget == 0.1
    assert section(SurfaceSettings, {"plane": "gradients", "tasks": ["a", "b"], "centre": "a@2"}).centre == "a@2"


def test_a_search_seed_may_be_a_study_s_where_nothing_is_searched():
    assert parse({"seeds": [1000], "strategies": [{"name": "averaged", "rate": 0.1}]}).seeds == [1000]


def test_eigenvalues_may_be_asked_for_wherever_a_snapshot_will_be():
    found = parse({"training": {"steps": 50, "every": 20}, "hessian": {"at": [0, 20, 40, 50]}})
    assert found.hessian.at == [0, 20, 40, 50]
