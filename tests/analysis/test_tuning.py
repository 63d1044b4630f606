"""The chosen engine on machines whose clock is made up, so that the best one is known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from analysis import memory, tuning
from analysis.engines import Bfloat16, Compiled, Sequential, Together
from analysis.heads import RefittedHeads
from analysis.normalisation import Reestimated
from analysis.points import Conditions, Meter
from analysis.surfaces import Grid
from analysis.tuning import Budget, choose, trial
from landscape.errors import LandscapeError
from tests.analysis import cases
from tests.analysis.test_engines import Gluttonous, gluttonous
from tests.analysis.test_surfaces import plane_for

KIB = 2**10


class Machine:
    """A clock that a model's calls alone move on: so much a call, and so much for each example, by their number."""

    def __init__(self, monkeypatch, call, example):
        self.now, self.calls = 0.0, 0
        self._call, self._example = call, example
        monkeypatch.setattr(tuning, "time", SimpleNamespace(perf_counter=lambda: self.now))

    def watch(self, problem):
        # Modules are copied with their hooks: a function stays the same, a method would bring a machine of its own.
        problem.model.register_forward_hook(lambda _, given, output: self._move(given, output))
        return problem

    def _move(self, given, output):
        vectorised = torch._C._functorch.is_batchedtensor(output["one"])
        points = len(torch._C._functorch.get_unwrapped(output["one"])) if vectorised else 1
        count = points * len(given[0])
        self.calls += 1
        self.now += self._call + count * self._example(count)


def level(cost):
    return lambda _: cost


def chosen(problem, conditions=Conditions(), memory=None, seconds=1e9):
    return choose(problem, plane_for(problem), conditions, Budget(memory, seconds))


def test_the_micro_batch_is_the_largest_before_examples_become_dear(monkeypatch):
    # 1 ms a call; an example costs 1 ms up to 64 at once, three times that with more.
    machine = Machine(monkeypatch, 1e-3, lambda count: 1e-3 if count <= 64 else 3e-3)
    choice = chosen(machine.watch(cases.make("plain", examples=1024)))
    # From 16 to 32 a point gets faster by 1024 / 16 - 1024 / 32 = 32 of 1,088 ms, less than 3 %; to 64 by 4 %.
    assert choice.engine == Sequential(64)
    sizes = [8, 16, 32, 64, 128, 256]
    assert [each.engine.micro_batch for each in choice.tried] == sizes, "two in a row that are not better"
    assert choice.seconds == pytest.approx(1.024 + 1.024 / 64)
    expected = [1.024 + 1.024 / size if size <= 64 else 3.072 + 1.024 / size for size in sizes]
    assert [each.seconds for each in choice.tried] == pytest.approx(expected)


@pytest.mark.parametrize(("gain", "best"), [(0.02, 8), (0.04, 16)])
def test_a_gain_within_noise_is_none(monkeypatch, gain, best):
    machine = Machine(monkeypatch, 0.0, lambda count: 1e-2 if count <= 8 else 1e-2 * (1 - gain))
    assert chosen(machine.watch(cases.make("plain", examples=64))).engine == Sequential(best)


def test_micro_batches_end_with_all_examples(monkeypatch):
    machine = Machine(monkeypatch, 1.0, level(1e-9))
    choice = chosen(machine.watch(cases.make("plain", examples=20)))
    assert choice.engine == Sequential(20)
    assert [each.engine.micro_batch for each in choice.tried] == [8, 16, 20]
    machine = Machine(monkeypatch, 1.0, level(1e-9))
    assert [each.engine for each in chosen(machine.watch(cases.make("plain", examples=5))).tried] == [Sequential(5)]


def test_points_go_together_where_calls_take_the_time(monkeypatch):
    machine = Machine(monkeypatch, 1e-4, level(1e-9))
    choice = chosen(machine.watch(cases.make("plain", examples=16)))
    assert choice.engine == Together(64, 16)
    assert choice.seconds == pytest.approx(1e-4 / 64 + 16e-9, rel=1e-6)
    groups = [each.engine.points for each in choice.tried if isinstance(each.engine, Together)]
    assert sorted(set(groups)) == [4, 8, 16, 32, 64]


@pytest.mark.parametrize(("call", "tried"), [(0.9e-3, True), (1.1e-3, False)])
def test_points_together_are_tried_where_eight_examples_take_less_than_a_millisecond(monkeypatch, call, tried):
    machine = Machine(monkeypatch, call, level(1e-9))
    choice = chosen(machine.watch(cases.make("plain", examples=8)))
    assert any(isinstance(each.engine, Together) for each in choice.tried) == tried
    assert isinstance(choice.engine, Together) == tried


def test_points_together_that_gain_nothing_are_left_after_two_trials(monkeypatch):
    machine = Machine(monkeypatch, 0.0, level(1e-6))
    choice = chosen(machine.watch(cases.make("plain", examples=64)))
    assert choice.engine == Sequential(8)
    assert [each.engine for each in choice.tried if isinstance(each.engine, Together)] == [
        Together(4, 8),
        Together(4, 16),
    ]


def test_a_loss_that_cannot_be_vectorised_is_evaluated_one_point_after_another(monkeypatch):
    machine = Machine(monkeypatch, 1e-4, level(1e-9))
    problem = machine.watch(cases.make("plain", examples=16))
    loss = problem.tasks[1].loss
    problem.tasks = (problem.tasks[0], replace(problem.tasks[1], loss=lambda p, y: loss(p, y) * (p.sum().item() < 1e9)))
    choice = chosen(problem)
    assert choice.engine == Sequential(16)
    assert all(isinstance(each.engine, Sequential) for each in choice.tried)


def test_choosing_ends_with_its_time(monkeypatch):
    machine = Machine(monkeypatch, 1.0, level(0.0))
    choice = chosen(machine.watch(cases.make("plain", examples=1000)), seconds=40.0)
    assert len(choice.tried) == 2, "each takes four calls, and as many of the best so far"
    assert machine.calls < 80


def test_statistics_and_heads_are_in_the_seconds_and_the_bytes(monkeypatch):
    machine = Machine(monkeypatch, 0.0, level(1e-2))
    problem = machine.watch(cases.make("batch norm", examples=40))
    plain = chosen(problem)
    assert plain.seconds == pytest.approx(40e-2)
    again = chosen(problem, Conditions(statistics=Reestimated(examples=30, batch_size=10)))
    assert again.seconds == pytest.approx(40e-2 + 30e-2)
    fitted = chosen(problem, Conditions(heads=RefittedHeads(iterations=2, examples=20)))
    assert fitted.seconds >= 40e-2 + 3 * 20e-2, "two iterations, and the losses before and after"
    assert again.bytes > plain.bytes
    assert fitted.bytes > plain.bytes


@pytest.mark.parametrize("engine", [Sequential(8), Together(4, 16), Bfloat16(Sequential(8))], ids=repr)
def test_bytes_are_enough_for_what_is_held_and_not_much_more(engine):
    problem = cases.make("batch norm", examples=64)
    found = trial(engine, problem, plane_for(problem), Conditions())
    meter = Meter(problem, plane_for(problem), Conditions(engine))
    held = memory.peak(lambda: meter.measure(Grid(3).points), problem.device)
    assert held < found.bytes < 10 * held  # five times, and the module and what building takes
    assert found.seconds > 0
    assert found.engine == engine


def test_less_memory_makes_smaller_micro_batches(monkeypatch):
    machine = Machine(monkeypatch, 1.0, level(1e-9))
    problem = machine.watch(cases.make("plain", examples=256))
    sizes, before = [], None
    for allowed in (None, 200_000, 120_000, 80_000, 70_000):
        choice = chosen(problem, memory=allowed)
        assert allowed is None or choice.bytes <= allowed
        assert before is None or choice.bytes <= before
        before = choice.bytes
        sizes.append(choice.engine.micro_batch)
    assert sizes[0] == 256
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(sizes)) > 2


def test_memory_for_fewer_than_eight_examples_is_used_as_it_is_and_for_none_is_an_error(monkeypatch):
    machine = Machine(monkeypatch, 1.0, level(1e-9))
    problem = machine.watch(cases.make("plain", examples=64))
    text = r"one example at a time needs (\d+) KiB beyond model and data, more than the 5 KiB allowed: allow at least"
    with pytest.raises(LandscapeError, match=text) as error:
        chosen(problem, memory=5 * KIB)
    needed = int(str(error.value).split()[6]) * KIB
    choice = chosen(problem, memory=needed)
    assert choice.engine.micro_batch < 8
    assert choice.bytes <= needed
    with pytest.raises(LandscapeError, match=r"one example at a time needs"):
        chosen(problem, memory=needed - 2 * KIB)


def test_what_runs_out_of_memory_while_it_is_tried_is_not_chosen(monkeypatch):
    machine = Machine(monkeypatch, 1.0, level(1e-9))
    problem = machine.watch(gluttonous(20))
    problem.evaluation = problem.evaluation[[k % 13 for k in range(100)]]
    assert isinstance(problem.model, Gluttonous)
    assert chosen(problem).engine == Sequential(16)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")
def test_a_trial_does_not_count_compiling():
    problem = cases.make("plain", torch.float32)
    assert trial(Compiled(Together(2, 8)), problem, plane_for(problem), Conditions()).seconds < 0.5
