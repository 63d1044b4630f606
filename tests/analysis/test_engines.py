"""Engines against a plain loop that sets the weights of a module and calls it on all the data."""

from __future__ import annotations

import functools
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis import engines, memory, surfaces
from analysis.engines import BackingOff, Bfloat16, Compiled, Sequential, Together, parse
from analysis.points import Conditions, Meter
from analysis.runners import PLAIN
from analysis.surfaces import Grid
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.test_surfaces import plane_for

PRECISIONS = [(torch.float32, 1e-6), (torch.float64, 1e-12)]
"""A few roundings of sums of thirteen losses of about one."""

ENGINES = [Sequential(5), Sequential(50), Together(4, 5), Together(3, 50), Together(1, 1)]


def points_of(problem, count=7, size=0.3):
    """Parameters [K, P] and buffers [K, Q] that all differ."""
    rng = torch.Generator().manual_seed(5)
    theta, state = problem.initial(0)
    thetas = theta + size * torch.randn(count, theta.numel(), generator=rng).to(theta)
    spread = torch.linspace(1, 2, count, dtype=torch.float64)[:, None]
    return thetas, state * torch.where(torch.arange(state.numel()) < 10, spread, 1.0)


def means(problem, engine, thetas, buffers):
    """Mean losses [K, T] of every point, in float64."""
    runner, found = engine.build(problem), []
    for first in range(0, len(thetas), engine.together):
        rows = runner(thetas[first : first + engine.together], buffers[first : first + engine.together])
        pieces = [rows(piece) for piece in problem.evaluation.pieces(engine.micro_batch)]
        found.append(torch.cat(pieces, 2).double().mean(2))
    return torch.cat(found)[:, : len(problem.tasks)].numpy()


def plain(problem, thetas, buffers):
    return np.stack([cases.plain_losses(problem, t.numpy(), b) for t, b in zip(thetas, buffers, strict=True)])


@pytest.mark.parametrize(("dtype", "bound"), PRECISIONS)
@pytest.mark.parametrize("engine", ENGINES, ids=repr)
@pytest.mark.parametrize("kind", cases.KINDS)
def test_every_point_has_the_losses_of_a_module_with_its_weights_and_buffers(kind, engine, dtype, bound):
    problem = cases.make(kind, dtype)
    thetas, buffers = points_of(problem)
    np.testing.assert_allclose(means(problem, engine, thetas, buffers), plain(problem, thetas, buffers), rtol=bound)


def test_metrics_come_after_the_losses_whatever_the_engine():
    problem = problems.load("digits", {"width": 2, "features": 8, "train": 64, "evaluation": 21})
    thetas, buffers = points_of(problem, 3, 0.05)
    expected = torch.stack([problem.evaluate(theta).metrics for theta in thetas])
    for engine in (Sequential(8), Together(3, 8)):
        rows = engine.build(problem)
        pieces = list(problem.evaluation.pieces(8))
        each = [torch.cat([rows(t[None], b[None])(p) for p in pieces], 2) for t, b in zip(thetas, buffers, strict=True)]
        assert each[0].shape == (1, 6, 21)
        found = torch.cat(each).double().mean(2)[:, 3:]
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # an error of pixels in float32; the others are counts


class Counting(nn.Module):
    """Adds to its output how often it has been called, as far as its buffers say, and counts the call."""

    def __init__(self, how):
        super().__init__()
        self.how = how
        self.linear = nn.Linear(2, 1)
        self.register_buffer("calls", torch.tensor(0.5))
        self.register_buffer("hidden", torch.tensor(0.25), persistent=False)

    def forward(self, inputs):
        output = self.linear(inputs) + 10 * self.calls + 10 * self.hidden
        if self.how == "in place":
            self.calls += 1
            self.hidden += 1
        else:
            self.calls = self.calls + 1
            self.hidden = self.hidden + 1
        return output


def counting(how):
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(7, 2, generator=rng), torch.randn(7, 1, generator=rng))
    return Problem(Counting(how), [Task("one", cases.squared_error)], data, data)


@pytest.mark.parametrize("how", ["in place", "assigned"])
@pytest.mark.parametrize("engine", [Sequential(2), Together(3, 2)], ids=repr)
def test_what_a_call_makes_of_buffers_is_not_seen_by_the_next(engine, how):
    problem = counting(how)
    thetas, _ = points_of(problem, 3)
    buffers = torch.tensor([[0.0], [3.0], [5.0]], dtype=torch.float64)  # the counts of each point
    inputs, targets = problem.evaluation.inputs, problem.evaluation.targets[0]
    weights, bias = thetas[:, :2], thetas[:, 2:]
    expected = ((inputs @ weights.T + bias.T + 10 * buffers.T.float() + 2.5 - targets) ** 2).mean(0)
    for _ in range(2):
        np.testing.assert_allclose(means(problem, engine, thetas, buffers)[:, 0], expected, rtol=1e-5)
    assert (problem.model.calls, problem.model.hidden) == (0.5, 0.25)


@pytest.mark.parametrize("engine", [Sequential(4), Together(3, 4), Bfloat16(Sequential(4))], ids=repr)
def test_nothing_of_the_users_module_changes(engine):
    problem = cases.make("batch norm")
    model = problem.model
    model.train()
    model.first.eval()
    model.second.requires_grad_(False)
    kept = {
        name: (tensor, tensor.clone(), tensor._version) for name, tensor in model.state_dict(keep_vars=True).items()
    }
    modes = {name: part.training for name, part in model.named_modules()}
    generator = torch.get_rng_state()
    surfaces.measure(problem, plane_for(problem), Grid(3), Conditions(engine))
    for name, tensor in model.state_dict(keep_vars=True).items():
        own, value, version = kept[name]
        assert tensor is own
        assert torch.equal(tensor, value)
        assert tensor.dtype == torch.float64 or name.endswith("num_batches_tracked")
        assert (tensor._version, tensor.grad) == (version, None)
        assert tensor.requires_grad == (name.split(".")[0] in ("first", "one", "two") or name in WITH_GRADIENT)
    assert modes == {name: part.training for name, part in model.named_modules()}
    assert torch.equal(generator, torch.get_rng_state())


WITH_GRADIENT = ("norm.weight", "norm.bias")


@pytest.mark.parametrize("stop", [1, 2])
def test_a_surface_gone_on_with_has_the_same_bytes_when_points_go_together(stop):
    problem = cases.make("batch norm", torch.float32)
    grid = Grid((-1.0, -0.25, 0.0, 0.5, 2.0), (-0.5, 0.0, 1.5))
    conditions = Conditions(Together(4, 5))
    whole = surfaces.measure(problem, plane_for(problem), grid, conditions)
    begun = list(surfaces.measuring(problem, plane_for(problem), grid, conditions))[stop - 1]
    assert 0 < begun.done.sum() < 15
    assert surfaces.measure(problem, plane_for(problem), grid, conditions, before=begun) == whole


class Branching(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, inputs):
        return self.linear(inputs) if self.linear.weight.sum() > 1e9 else -self.linear(inputs)


class Hiding(nn.Module):
    """Uses a weight that it kept aside, which setting parameters by name does not reach."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)
        self.aside = [self.linear.weight]

    def forward(self, inputs):
        return inputs @ self.aside[0].detach().T + self.linear.bias


def of_two_inputs(model, loss=cases.squared_error):
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(7, 2, generator=rng), torch.randn(7, 1, generator=rng))
    return Problem(model, [Task("one", loss)], data, data)


@pytest.mark.parametrize(
    ("problem", "text"),
    [
        (lambda: of_two_inputs(Branching()), r"the model or a loss cannot be vectorised over parameters \(.*control"),
        (
            lambda: of_two_inputs(
                nn.Linear(2, 1), lambda p, y: cases.squared_error(p, y) * (1.0 if p.sum().item() < 1e9 else 2.0)
            ),
            r"cannot be vectorised over parameters \(.*\.item\(\).*use one point after another, sequential:64",
        ),
        (lambda: of_two_inputs(Hiding()), r"vectorised over parameters has other losses than by itself"),
    ],
)
@pytest.mark.filterwarnings("ignore:losses depend on 'linear.weight', but no gradient reaches it")
def test_models_and_losses_that_cannot_be_vectorised_are_refused_when_the_engine_is_built(problem, text):
    with pytest.raises(LandscapeError, match=text):
        Together(2, 4).build(problem())


@pytest.mark.filterwarnings("ignore:losses depend on 'linear.weight', but no gradient reaches it")
def test_what_cannot_be_vectorised_is_measured_one_after_another():
    for model in (Branching(), Hiding()):
        problem = of_two_inputs(model)
        thetas, buffers = points_of(problem, 2)
        inputs, targets = problem.evaluation.inputs, problem.evaluation.targets[0]
        sign = -1 if isinstance(model, Branching) else 1
        expected = ((sign * (inputs @ thetas[:, :2].T + thetas[:, 2]) - targets) ** 2).mean(0)
        np.testing.assert_allclose(means(problem, Sequential(3), thetas, buffers)[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("engine", [Bfloat16(Sequential(5)), Bfloat16(Together(4, 5))], ids=repr)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bfloat16_has_the_predictions_of_a_module_in_bfloat16_and_losses_in_the_problems_type(engine, dtype):
    problem = cases.make("batch norm", dtype)
    thetas, buffers = points_of(problem)
    for theta, state, found in zip(thetas, buffers, means(problem, engine, thetas, buffers), strict=True):
        module = problem.module(theta, state).eval().to(torch.bfloat16)
        output = module(problem.evaluation.inputs.to(torch.bfloat16))
        for task, target, loss in zip(problem.tasks, problem.evaluation.targets, found, strict=True):
            each = task.loss(output[task.name].to(dtype).detach(), target)
            assert each.dtype == dtype
            # Matrix products may round in another order: two units in the last of 8 bits, averaged over examples.
            assert loss == pytest.approx(float(each.double().mean()), rel=2**-7)
    rows = engine.build(problem)(thetas[:1], buffers[:1])(problem.evaluation[:5])
    assert rows.dtype == dtype


@dataclass
class Roomy:
    """An engine whose runner runs out of memory beyond so many examples of all points together."""

    inner: object
    room: int
    error: type = torch.OutOfMemoryError

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def build(self, problem, ways=PLAIN):
        runner = self.inner.build(problem, ways)

        def begin(thetas, buffers):
            rows = runner(thetas, buffers)

            def limited(batch, micro_batch=0):
                if len(thetas) * (micro_batch or len(batch)) > self.room:
                    raise self.error(
                        "DefaultCPUAllocator: not enough memory: you tried to allocate 99 bytes.\nBuy more"
                    )
                return rows(batch, micro_batch) if micro_batch else rows(batch)

            return limited

        return begin

    def smaller(self):
        inner = self.inner.smaller()
        return None if inner is None else replace(self, inner=inner)


@pytest.mark.parametrize("error", [torch.OutOfMemoryError, MemoryError, RuntimeError])
@pytest.mark.parametrize(
    ("engine", "room", "left"),
    [
        (Sequential(12), 2, Sequential(1)),
        (Sequential(12), 3, Sequential(3)),
        (Together(4, 12), 12, Together(4, 3)),
        (Together(8, 2), 3, Together(2, 1)),
        (Together(7, 3), 1, Together(1, 1)),
    ],
)
def test_running_out_of_memory_halves_until_it_fits_and_the_losses_stay(engine, room, left, error):
    problem = cases.make("plain")
    thetas, buffers = points_of(problem, engine.together)
    expected = torch.tensor(plain(problem, thetas, buffers))
    runner = BackingOff(Roomy(engine, room, error), problem)
    rows = runner(thetas, buffers)
    found = torch.cat([rows(piece) for piece in problem.evaluation.pieces(engine.micro_batch)], 2)
    assert runner.engine.inner == left
    torch.testing.assert_close(found.mean(2), expected, rtol=1e-12, atol=0)
    # The next points are begun with what is left.
    rows = runner(thetas[: left.together], buffers[: left.together])
    torch.testing.assert_close(rows(problem.evaluation[:1]), found[: left.together, :, :1], rtol=1e-12, atol=0)


def test_a_meter_states_the_engine_that_it_ended_up_with():
    problem = cases.make("plain")
    conditions = Conditions(Roomy(Together(4, 8), 6))
    meter = Meter(problem, plane_for(problem), conditions)
    assert (meter.engine.inner, meter.together) == (Together(4, 8), 4)
    points = Grid(3).points
    found = meter.measure(points)
    assert (meter.engine.inner, meter.together) == (Together(2, 2), 2)
    expected = Meter(problem, plane_for(problem), Conditions(Sequential(13))).measure(points)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)
    np.testing.assert_allclose(found.stderr, expected.stderr, rtol=1e-12)


class Wide(nn.Module):
    """Predictions of so many numbers an example; where none is given, the same vector whatever the examples."""

    def __init__(self, width):
        super().__init__()
        self.width, self.linear = width, nn.Linear(2, 4)

    def forward(self, inputs):
        if not self.width:
            return {"one": self.linear.weight[:, 0] * inputs.new_ones(())}
        return {"one": self.linear(inputs).repeat(1, self.width // 4)}


@pytest.mark.parametrize("width", [4, 4000, 0])
def test_losses_of_several_micro_batches_are_computed_together_where_that_is_right_and_small(width):
    # 16 examples, 4 at once. Of each example's own prediction, of large ones, and of one that has 4 rows by chance.
    rng = torch.Generator().manual_seed(0)
    data = TensorDataset(torch.randn(16, 2, generator=rng), torch.randn(16, 1, generator=rng))
    seen = []

    def loss(prediction, target):
        seen.append(len(target))
        each = prediction if width else prediction.sum().expand(len(target), 1)
        return ((each - target) ** 2).mean(1)

    problem = Problem(Wide(width), [Task("one", loss)], data, data, micro_batch=4)
    thetas, buffers = points_of(problem, 4)
    expected = plain(problem, thetas, buffers)
    runner = BackingOff(Sequential(4), problem)
    seen.clear()
    found = [
        runner(t[None], b[None])(problem.evaluation).double().mean(2)[0] for t, b in zip(thetas, buffers, strict=True)
    ]
    np.testing.assert_allclose(torch.stack(found), expected, rtol=1e-6)
    whole = seen.count(16)
    assert whole == (4 if width == 4 else 0), "one call a point, or none"
    assert sum(seen) == 4 * 16 + {4: 8 + 8, 4000: 0, 0: 8}[width], "two micro-batches are tried both ways"


def test_a_loss_that_stands_no_more_rows_than_a_micro_batch_has_is_computed_as_it_was():
    problem = cases.make("plain")
    (one, two), thetas = problem.tasks, points_of(problem, 1)

    def loss(prediction, target):
        if len(target) > 4:
            raise ValueError("four at most")
        return one.loss(prediction, target)

    expected = plain(problem, *thetas)
    problem.tasks = (replace(one, loss=loss), two)
    found = BackingOff(Sequential(4), problem)(*thetas)(problem.evaluation).mean(2)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


class Gluttonous(cases.Trunk):
    """Runs out of memory with more than so many examples."""

    room = 3

    def forward(self, inputs):
        if len(inputs) > self.room and not self.training:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(inputs)


def gluttonous(room):
    problem = cases.make("plain")
    problem.model.__class__ = Gluttonous
    problem.model.room = room
    return problem


@pytest.mark.parametrize("engine", [Sequential(12), Together(2, 8), Bfloat16(Sequential(12))], ids=repr)
def test_a_model_that_runs_out_of_memory_is_measured_with_smaller_micro_batches(engine):
    meter = Meter(gluttonous(3), plane_for(cases.make("plain")), Conditions(engine))
    found = meter.measure(Grid(3).points)
    assert meter.engine.micro_batch in (2, 3)
    assert type(meter.engine) is type(engine)
    expected = Meter(cases.make("plain"), plane_for(cases.make("plain")), Conditions(engine)).measure(Grid(3).points)
    np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-12)


def test_one_example_that_does_not_fit_is_an_error_with_the_allocators_words():
    meter = Meter(gluttonous(0), plane_for(cases.make("plain")), Conditions(Sequential(4)))
    text = r"memory runs out with one example of one point at a time \(CUDA out of memory\. Tried .*free memory"
    with pytest.raises(LandscapeError, match=text):
        meter.measure(Grid(3).points)
    assert meter.engine == Sequential(1)


def test_another_error_of_the_model_is_not_taken_for_a_lack_of_memory():
    problem = cases.make("plain")
    problem.tasks = (replace(problem.tasks[0], loss=lambda p, y: p @ p), problem.tasks[1])
    meter = Meter(problem, plane_for(cases.make("plain")), Conditions(Sequential(8)))
    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        meter.measure(Grid(3).points)
    assert meter.engine == Sequential(8)


@pytest.mark.parametrize(
    ("engine", "chain"),
    [
        (Sequential(6), [Sequential(3), Sequential(1)]),
        (Compiled(Sequential(2)), [Compiled(Sequential(1))]),
        (Bfloat16(Together(1, 2)), [Bfloat16(Together(1, 1))]),
        (Together(4, 4), [Together(4, 2), Together(2, 2), Together(2, 1), Together(1, 1)]),
    ],
)
def test_smaller_engines_down_to_one(engine, chain):
    found = []
    while (engine := engine.smaller()) is not None:
        found.append(engine)
    assert found == chain


@pytest.mark.parametrize(
    ("text", "engine"),
    [
        ("sequential:64", Sequential(64)),
        ("together:8x64", Together(8, 64)),
        ("compiled:sequential:7", Compiled(Sequential(7))),
        ("bfloat16:compiled:together:2x3", Bfloat16(Compiled(Together(2, 3)))),
    ],
)
def test_engines_are_read_from_the_words_of_the_command_line_and_from_what_results_state(text, engine):
    assert parse(text) == engine
    assert parse(repr(engine)) == engine


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("sequental:64", r"unknown engine 'sequental': expected one of .*; did you mean 'sequential'\?"),
        ("Together:8x64", r"did you mean 'together'\?"),
        ("compiled:togehter:8x64", r"did you mean 'together'\?"),
        ("", r"unknown engine ''"),
        ("together:8", r"whole numbers with the engine 'together', as in together:8x64, got 'together:8'"),
        ("sequential", r"whole numbers with the engine 'sequential', as in sequential:64"),
        ("sequential:6.5", r"as in sequential:64, got 'sequential:6\.5'"),
        ("sequential:0", r"micro-batches of 1 or more examples, got 0"),
        ("together:0x8", r"1 or more points together, got 0"),
        ("together:2x0", r"micro-batches of 1 or more examples, got 0"),
        ("__import__('os').getcwd()", r"expected an engine as results state it, .*, got \"__import__"),
        ("Sequential(size=64)", r"expected an engine as results state it"),
        ("Sequential(micro_batch='a')", r"expected an engine as results state it"),
        ("Roomy(inner=1)", r"expected an engine as results state it"),
        ("(", r"unknown engine '\('"),
    ],
)
def test_other_words_are_refused(text, error):
    with pytest.raises(LandscapeError, match=error):
        parse(text)


# torch imports modules of its own that warn about themselves when its compiler is first used.
compiling = pytest.mark.filterwarnings("ignore:`torch.jit.script:DeprecationWarning")


def backend(graphs):
    """A compiler that keeps the graphs that it is given and runs them as they are."""

    def compiler(graph, _):
        graphs.append(graph)
        return graph.forward

    return functools.partial(torch.compile, backend=compiler)


@pytest.mark.slow
@compiling
@pytest.mark.parametrize("inner", [Sequential(5), Together(4, 5), Bfloat16(Together(4, 5))], ids=repr)
def test_one_graph_serves_all_points_and_the_last_smaller_micro_batch(monkeypatch, inner):
    graphs = []
    problem = cases.make("batch norm")  # 13 examples: 5, 5 and 3
    expected = Meter(problem, plane_for(problem), Conditions(inner)).measure(Grid(3).points)
    monkeypatch.setattr(engines.torch, "compile", backend(graphs))
    meter = Meter(problem, plane_for(problem), Conditions(Compiled(inner)))
    watched = []
    memory.peak(lambda: watched.append(meter.measure(Grid(3).points)), problem.device)
    assert not graphs, "what is watched is not compiled"
    found = meter.measure(Grid(3).points)
    assert len(graphs) == 1
    for losses in (found.loss, watched[0].loss):
        np.testing.assert_allclose(losses, expected.loss, rtol=1e-12)


@pytest.mark.slow
@compiling
def test_as_many_engines_as_one_likes_are_compiled(monkeypatch):
    graphs = []
    monkeypatch.setattr(engines.torch, "compile", backend(graphs))
    for count in range(12):  # torch gives up on a function after 8
        problem = cases.make("plain", examples=20 + count)
        thetas, buffers = points_of(problem, 1)
        found = means(problem, Compiled(Sequential(5)), thetas, buffers)
        np.testing.assert_allclose(found, plain(problem, thetas, buffers), rtol=1e-12)
    assert len(graphs) == 12


@pytest.mark.slow
@compiling
@pytest.mark.parametrize("how", ["in place", "assigned"])
def test_a_compiled_call_leaves_its_buffers_to_the_next_as_they_were(how):
    problem = counting(how)
    thetas, _ = points_of(problem, 3)
    buffers = torch.tensor([[0.0], [3.0], [5.0]], dtype=torch.float64)
    expected = means(problem, Sequential(2), thetas, buffers)
    for inner in (Sequential(2), Together(3, 2)):
        np.testing.assert_allclose(means(problem, Compiled(inner), thetas, buffers), expected, rtol=1e-5)


@pytest.mark.slow
@compiling
@pytest.mark.parametrize("inner", [Sequential(5), Together(4, 5)], ids=repr)
@pytest.mark.parametrize("kind", ["tied weights", "batch norm"])
def test_compiled_points_have_the_losses_of_a_module_with_their_weights(kind, inner):
    problem = cases.make(kind, torch.float32)
    thetas, buffers = points_of(problem)
    found = means(problem, Compiled(inner), thetas, buffers)
    np.testing.assert_allclose(found, plain(problem, thetas, buffers), rtol=1e-5)  # fused sums, in another order


@pytest.mark.slow
@compiling
def test_what_cannot_be_compiled_is_an_error_that_names_the_way_out(monkeypatch):
    def broken(graph, _):
        raise ValueError("no compiler today")

    monkeypatch.setattr(engines.torch, "compile", functools.partial(torch.compile, backend=broken))
    problem = cases.make("plain")
    with pytest.raises(
        LandscapeError, match=r"torch\.compile cannot compile .*no compiler today.*use the engine inside"
    ):
        means(problem, Compiled(Sequential(5)), *points_of(problem, 1))


@pytest.mark.parametrize(
    "text", ["Compiled(inner=3)", "Bfloat16(inner=Compiled(inner=8))", "Sequential(micro_batch=x)"]
)
def test_a_stated_engine_of_something_else_is_refused(text):
    with pytest.raises(LandscapeError, match="expected an engine as results state it"):
        parse(text)


def test_further_words_are_among_those_that_a_wrong_one_is_told():
    with pytest.raises(LandscapeError, match=r"unknown engine 'aut': expected one of auto, .*did you mean 'auto'"):
        parse("aut", ("auto", "problem"))
