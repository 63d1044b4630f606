"""The engine that settings ask for, wrapped in other arithmetic, within the memory allowed."""

from __future__ import annotations

import numpy as np
import pytest

from analysis import engine_choice, tuning
from analysis.engine_choice import chosen_engine
from analysis.engines import Bfloat16, Compiled, Sequential
from analysis.points import Conditions
from analysis.settings import SurfaceSettings
from analysis.tuning import Trial
from landscape.errors import LandscapeError
from tests.analysis import cases
from tests.analysis.synthetic import plane_of

KIB = 1 << 10


@pytest.fixture
def needs(monkeypatch):
    """A KiB an example at once, three where compiled; `auto` takes as many as are allowed."""

    def needed(engine, *_):
        return Trial(engine, 1.0, KIB * engine.micro_batch * (3 if isinstance(engine, Compiled) else 1))

    monkeypatch.setattr(tuning, "trial", needed)
    monkeypatch.setattr(tuning, "choose", lambda problem, space, conditions, budget: needed(Sequential(64)))
    monkeypatch.setattr(engine_choice.kept_choices, "find", lambda *_: {})
    monkeypatch.setattr(engine_choice.kept_choices, "keep", lambda *_: None)


def engine(**words):
    plane = plane_of(np.eye(2))
    return chosen_engine(SurfaceSettings(**words), cases.make("plain"), plane, Conditions()).engine


@pytest.mark.usefixtures("needs")
def test_what_needs_more_when_compiled_is_made_smaller_until_it_fits():
    assert engine(max_memory="192KiB", compiled=True) == Compiled(Sequential(64))
    assert engine(max_memory="191KiB", compiled=True) == Compiled(Sequential(32))
    assert engine(max_memory="64KiB", compiled=True, bfloat16=True) == Compiled(Bfloat16(Sequential(16)))
    with pytest.raises(LandscapeError, match=r"Compiled\(inner=Sequential\(micro_batch=1\)\) needs .* 2KiB allowed"):
        engine(max_memory="2KiB", compiled=True)


@pytest.mark.usefixtures("needs")
def test_an_engine_that_was_named_is_taken_as_it_is_or_refused():
    assert engine(max_memory="48KiB", engine="sequential:16", compiled=True) == Compiled(Sequential(16))
    with pytest.raises(
        LandscapeError, match=r"Compiled\(.*=16\)\) needs .*expected a smaller micro-batch, --engine auto"
    ):
        engine(max_memory="47KiB", engine="sequential:16", compiled=True)


def test_what_cannot_fit_is_refused_before_it_is_tried(monkeypatch):
    monkeypatch.setattr(tuning, "trial", lambda *_: pytest.fail("tried"))
    with pytest.raises(LandscapeError, match=r"Together\(points=1000000, .* needs \d+ MiB beyond model and data"):
        engine(engine="together:1000000x8", max_memory="1MiB")
