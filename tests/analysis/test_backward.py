"""Backward passes that are wrong, and symmetric all the same, are refused; right ones that look odd are not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations
from torch.utils.data import TensorDataset

import landscape
from analysis import backward, conflicts, directions, examples, gradients, operators, planes, spectra, surfaces
from analysis.curvature import Location
from analysis.kinds import Fisher, GaussNewton, Hessian
from analysis.neighbourhood import Neighbourhood
from analysis.precision import sufficient
from analysis.products import CentralDifferences, ForwardOverReverse, Linearised, ReverseOverReverse
from analysis.results import AVERAGE
from analysis.subsets import Everything, Named, Shared
from analysis.subspaces import Frame, Place
from analysis.task_losses import TaskLosses
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases, dense
from tests.analysis.by_hand import by_hand

REFERENCE = ReverseOverReverse()
SGD = landscape.Optimiser("SGD", lr=1e-3)
KINDS = (Hessian(), GaussNewton(), Fisher())


def through_numpy(function, x):
    return torch.from_numpy(function(x.detach().numpy()))


def sine_of_single(x):
    assert x.dtype == torch.float32
    return through_numpy(np.sin, x)


numpy_sine = by_hand(
    "NumpySine", lambda x: through_numpy(np.sin, x), lambda slope, x: slope * through_numpy(np.cos, x)
).apply
"""sin(x), its backward pass through numpy: right, and unknown to autograd."""
single_sine = by_hand("SingleSine", sine_of_single, lambda slope, x: slope * through_numpy(np.cos, x)).apply
"""The same for float32 alone."""
hidden_sine = by_hand(
    "HiddenSine", lambda x: through_numpy(np.sin, x), lambda slope, x: through_numpy(np.cos, x) * slope.detach()
).apply
"""The same with a seed that is hidden from autograd as well: J v by two backward passes is 0."""
lost_factor = by_hand("LostFactor", torch.square, lambda slope, x: slope * x).apply
"""x^2 with half of its derivative, differentiable as often as one likes."""
exact_square = by_hand("Exact", torch.square, lambda slope, x: slope * 2 * x).apply


class Module(nn.Module):
    def __init__(self, function):
        super().__init__()
        self.function = function

    def forward(self, inputs):
        return self.function(inputs)


class Net(nn.Module):
    """Two shared layers with something after each, two heads."""

    def __init__(self, between, wrap=lambda layer: layer, width=5):
        super().__init__()
        self.first, self.second = wrap(nn.Linear(4, width)), wrap(nn.Linear(width, width))
        self.between = between
        self.one, self.two = nn.Linear(width, 3), nn.Linear(width, 1)

    def forward(self, inputs):
        late = self.between(self.second(torch.tanh(self.first(inputs))))
        return {"one": self.one(late), "two": self.two(late)}


def make(between, dtype=torch.float64, count=23, **about):
    rng = torch.Generator().manual_seed(3)
    data = TensorDataset(
        torch.randn(count, 4, generator=rng),
        torch.randint(0, 3, (count,), generator=rng),
        torch.randn(count, 1, generator=rng),
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Net(between, **about).to(dtype)
    tasks = [Task("one", cases.cross_entropy), Task("two", cases.squared_error)]
    return Problem(model, tasks, data, data, micro_batch=9)


def average(problem, kind=Hessian(), product=REFERENCE, on=Shared()):
    return Location(problem, *problem.initial(0)).operator(AVERAGE, on, kind, product)


def multiplied(operator):
    return operator @ torch.ones(operator.size, dtype=operator.dtype)


def exact(problem, on=Shared()):
    """The largest eigenvalue of the dense Hessian, in float64."""
    twin = problem.to(dtype=torch.float64)
    theta, buffers = twin.initial(0)
    where = dense.positions(twin, on)
    matrix = dense.hessian(twin, theta, buffers, [0.5, 0.5])[where][:, where]
    return float(torch.linalg.eigvalsh(matrix)[-1])


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_backward_pass_through_numpy_is_refused_with_its_module(dtype):
    problem = make(Module(numpy_sine), dtype)
    hessians = operators.hessians(problem, *problem.initial(0))
    with pytest.raises(
        LandscapeError, match=r"Hessian of task 'one' by backward passes is 0\.\d+ from .*'between' \(M"
    ):
        spectra.top_eigenpairs(hessians["one"], 2)
    with pytest.raises(LandscapeError, match=r"Hessian of tasks 'one', 'two' .*or take CentralDifferences\(\)"):
        multiplied(hessians[AVERAGE])


def test_the_same_network_with_torchs_own_sine_gives_the_dense_hessians_value_and_so_do_differences():
    right = exact(make(Module(torch.sin)))
    pairs = spectra.top_eigenpairs(average(make(Module(torch.sin))), 1, accuracy=spectra.Accuracy(1e-8))
    assert pairs.values[0] == pytest.approx(right, rel=1e-9)
    by_differences = average(make(Module(numpy_sine)), product=CentralDifferences())
    pairs = spectra.top_eigenpairs(by_differences, 1, accuracy=spectra.Accuracy(1e-6))
    assert pairs.values[0] == pytest.approx(right, rel=1e-7)  # differences in float64: some eps^(2/3)


def test_a_module_that_cannot_be_computed_in_float64_is_refused_in_its_own_type():
    with pytest.raises(LandscapeError, match=r"Hessian of tasks .*'between'"):
        multiplied(average(make(Module(single_sine), torch.float32)))


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("product", [ReverseOverReverse(), Linearised(ReverseOverReverse())], ids=["reverse", "kept"])
def test_a_gradient_that_is_not_the_losses_is_refused_for_every_matrix(kind, product):
    said = (
        r"gradient of tasks 'one', 'two' by backward passes is 0\.\d+ from .*fault lies in module 'between' \(Module\)"
    )
    with pytest.raises(LandscapeError, match=said):
        multiplied(average(make(Module(lost_factor)), kind, product))


def test_a_gradient_that_is_wrong_has_no_central_differences_either():
    with pytest.raises(LandscapeError, match=r"the gradient of tasks.*'between'"):
        multiplied(average(make(Module(lost_factor)), product=CentralDifferences()))


@pytest.mark.parametrize("kind", [GaussNewton(), Fisher()], ids=lambda kind: type(kind).__name__)
def test_first_derivatives_through_numpy_are_right_where_only_they_count(kind):
    """A product by two backward passes goes through the derivative of the backward pass in its seed, which numpy does
    not hide here: only cos(x) is cut off.
    """
    operator = average(make(Module(numpy_sine)), kind)
    twin = average(make(Module(torch.sin)), kind)
    torch.testing.assert_close(multiplied(operator), multiplied(twin), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_seed_that_is_hidden_from_autograd_is_refused_for_every_matrix(kind):
    with pytest.raises(LandscapeError, match=rf"the {kind.label} of tasks 'one', 'two' by backward passes.*'between'"):
        multiplied(average(make(Module(hidden_sine)), kind))


def test_a_fault_in_a_loss_names_its_function():
    problem = make(nn.Tanh())
    wrong = Task("two", lambda p, y: lost_factor(p - y).mean(1))
    problem.tasks = (problem.tasks[0], wrong)
    hessians = operators.hessians(problem, *problem.initial(0))
    multiplied(hessians["one"])
    with pytest.raises(LandscapeError, match=r"gradient of task 'two'.*look at the torch.autograd.Function LostFactor"):
        multiplied(hessians["two"])


def test_cross_blocks_and_layers_are_looked_at_as_well():
    block = Location(make(Module(numpy_sine)), *make(nn.Tanh()).initial(0)).cross(Shared(), Everything())
    with pytest.raises(LandscapeError, match=r"by backward passes"):
        block @ torch.ones(block.shape[1], dtype=block.dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "between",
    [nn.ReLU(), nn.LeakyReLU(0.5), nn.Hardtanh(), nn.GELU(), Module(exact_square), nn.BatchNorm1d(80).eval()],
    ids=["relu", "leaky", "hardtanh", "gelu", "own function", "batch norm"],
)
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_kinks_and_functions_of_ones_own_that_are_right_are_not_refused(between, dtype, kind):
    problem = make(between, dtype, count=300, width=80)
    operator = average(problem, kind)
    multiplied(operator)
    assert operator.notes == ()
    assert len(backward._KNOWN[problem]) == 1, "something was compared"


@pytest.mark.parametrize("scale", [1e-6, 1e6])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_small_and_large_curvatures_are_not_refused(scale, dtype):
    problem = make(nn.Tanh(), dtype)
    loss = problem.tasks[1].loss
    problem.tasks = (problem.tasks[0], Task("two", lambda p, y: scale * loss(p, y)))
    assert multiplied(average(problem)).isfinite().all()


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: type(kind).__name__)
def test_a_loss_with_nothing_to_compare_passes_and_is_looked_at_again_elsewhere(kind):
    """A dead layer: gradient and Hessian are zero where the inputs of the first ReLU are below 0."""
    problem = make(nn.Sequential(nn.ReLU(), nn.ReLU()), torch.float32)
    theta, buffers = problem.initial(0)
    dead = {slot.name: slot.span for slot in problem.layout.slots}
    theta[dead["second.bias"]] = -100.0
    operator = Location(problem, theta, buffers).operator("two", Shared(), kind, ReverseOverReverse())
    assert multiplied(operator).abs().max() == 0
    assert operator.notes == ()
    assert not backward._KNOWN[problem]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_not_refused_and_is_looked_at_in_double(dtype):
    problem = make(nn.ReLU(), dtype)
    multiplied(average(problem))
    assert len(backward._KNOWN[sufficient(problem)[0]]) == 1
    with pytest.raises(LandscapeError, match=r"fault lies in module 'between'"):
        multiplied(average(make(Module(lost_factor), dtype)))


def test_a_value_that_is_detached_on_purpose_is_noted_not_refused():
    problem = make(Module(lambda x: torch.tanh(x) / x.detach().norm(dim=1, keepdim=True)))
    operator = average(problem)
    assert operator.notes[0].startswith("the gradient is ")
    assert operator.notes[0].endswith(
        "relative to its length: it is that of a loss whose detached values are constants"
    )
    with torch.no_grad():
        assert multiplied(operator).isfinite().all()


def test_derivatives_are_looked_at_once_for_a_loss_and_cover_sums_and_other_thetas(monkeypatch):
    looked = []
    inner = backward.compared
    monkeypatch.setattr(backward, "compared", lambda line: looked.append(line) or inner(line))
    problem = make(nn.Tanh())
    theta, buffers = problem.initial(0)
    for there in (theta, theta + 0.1):
        hessians = operators.hessians(problem, there, buffers, product=ReverseOverReverse())
        for operator in hessians.values():
            multiplied(operator)
        place = Location(problem, there, buffers)
        for operator in operators.Location(problem, there, buffers).operators(product=ForwardOverReverse()).values():
            multiplied(operator)
        multiplied(place.operator({"one": 2.0, "two": -1.0}, product=ReverseOverReverse()))
    assert len(looked) == 2, "each task once; the average and the contrast are sums of them"
    multiplied(average(problem, Fisher()))
    multiplied(average(problem, on=Everything()))
    assert len(looked) == 4, "another matrix, and more parameters"
    multiplied(average(problem, on=Named("first.*")))
    assert len(looked) == 5, "a block"
    multiplied(Location(problem, 3 * theta, buffers).operator(AVERAGE, product=REFERENCE))
    assert len(looked) == 6, "a theta far away"


class Apart(nn.Module):
    """A large part, and a small one of which the second derivative is wrong."""

    def __init__(self):
        super().__init__()
        self.large, self.small = nn.Linear(4, 3), nn.Linear(4, 3)
        self.one, self.two = nn.Linear(3, 3), nn.Linear(3, 1)

    def forward(self, inputs):
        late = 30 * torch.tanh(self.large(inputs)) + 1e-3 * numpy_sine(self.small(inputs))
        return {"one": self.one(late), "two": self.two(late)}


def test_a_small_block_is_looked_at_by_itself():
    template = make(nn.Tanh())
    torch.manual_seed(1)
    problem = Problem(Apart().double(), template.tasks, template.train._dataset, template.train._dataset, micro_batch=9)
    multiplied(average(problem))  # in which nothing of it is seen
    with pytest.raises(LandscapeError, match=r"the Hessian of tasks 'one', 'two' by backward passes"):
        multiplied(average(problem, on=Named("small.*")))


def switching(x):
    """x^2, of which the backward pass is right up to 2."""
    return by_hand("Switching", torch.square, lambda slope, x: slope * torch.where(x.abs() < 2, 2 * x, x)).apply(x)


def test_a_regime_that_is_reached_later_is_looked_at():
    problem = make(Module(switching))
    theta, buffers = problem.initial(0)
    multiplied(average(problem))
    with pytest.raises(LandscapeError, match=r"the gradient of tasks 'one', 'two' by backward passes"):
        multiplied(Location(problem, 6 * theta, buffers).operator(AVERAGE, product=REFERENCE))


def plane_of_gradients(problem, place):
    directions.gradients(problem, place, ("one", "two"))


def conflict_map(problem, place):
    plane = planes.spanned(Frame.at(place, Shared()), np.eye(2, problem.layout.size), "axes", ("first", "second"))
    conflicts.measure(problem, plane, surfaces.Grid(3))


def agreement_of_gradients(problem, place):
    gradients.gradients_at(Neighbourhood(problem, place.theta, place.buffers), [torch.arange(23)])


def of_blocks(problem, place):
    losses = TaskLosses(problem, place.buffers, examples.evaluation(problem), 0, lambda count: None)
    losses.gradient(torch.tensor(place.theta), 0)


@pytest.mark.parametrize("use", [plane_of_gradients, conflict_map, agreement_of_gradients, of_blocks])
def test_a_gradient_without_an_operator_is_looked_at_as_well(use, tmp_path):
    """A snapshot of a model whose backward pass gives half of what is right, and of one whose is right."""
    for function, failing in ((exact_square, False), (lost_factor, True)):
        problem = make(Module(function))
        run = landscape.record(problem, landscape.Averaged(SGD), landscape.Plan(1, 8), tmp_path / f"{failing}.h5")
        place = Place(run, 0)
        if failing:
            with pytest.raises(LandscapeError, match=r"the gradient of task 'one' by .*fault lies in module 'between'"):
                use(problem, place)
        else:
            use(problem, place)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_gradients_in_half_precision_are_those_of_float32(dtype, tmp_path):
    problem = make(nn.Tanh(), dtype)
    loss = problem.tasks[0].loss
    problem.tasks = (Task("one", lambda p, y: 1e-6 * loss(p, y)), problem.tasks[1])
    run = landscape.record(problem, landscape.Averaged(SGD), landscape.Plan(1, 8), tmp_path / "run.h5")
    found = directions.full_gradient(problem, Place(run, 0), 0)
    exact = problem.to(dtype=torch.float64)
    theta = torch.tensor(run.theta[0], dtype=torch.float64, requires_grad=True)
    (right,) = torch.autograd.grad(exact.losses(theta, exact.evaluation)[0].mean(), theta)
    np.testing.assert_allclose(found, right, rtol=1e-4, atol=1e-10)  # both at the same theta, one in float32


def test_a_check_takes_two_gradients_and_a_product(monkeypatch):
    passes = []
    problem = make(nn.Tanh())
    operator = average(problem)
    inner = type(operator.location.local).predictions
    monkeypatch.setattr(
        type(operator.location.local), "predictions", lambda *given: passes.append(len(given[2])) or inner(*given)
    )
    backward.require_derivatives(operator.block)
    assert sum(passes) == 3 * 23, "a forward pass of every example for each gradient and for the product"


NORMS = [
    parametrizations.weight_norm,
    lambda layer: parametrizations.weight_norm(layer, dim=1),
    lambda layer: parametrizations.weight_norm(layer, dim=None),
    parametrizations.spectral_norm,
]


WAYS = [ReverseOverReverse(), ForwardOverReverse(), Linearised()]


@pytest.mark.parametrize(
    ("wrap", "product"),
    [
        # Each normalisation and each way; all of them together are among the slow tests.
        pytest.param(wrap, product, marks=[pytest.mark.slow] * (way != number % 3), id=f"{name}-{repr(product)[:9]}")
        for number, (name, wrap) in enumerate(
            zip(["weight norm", "other dimension", "all of it", "spectral"], NORMS, strict=True)
        )
        for way, product in enumerate(WAYS)
    ],
)
def test_normalised_weights_have_the_curvature_of_what_they_compute(wrap, product):
    """Against differences of the gradient, since torch's own double backward of weight normalisation is wrong."""
    problem = make(nn.Tanh(), wrap=wrap)
    find = {"count": 3, "end": "both", "accuracy": spectra.Accuracy(1e-7, 300)}
    found = spectra.top_eigenpairs(average(problem, product=product), **find)
    differences = spectra.top_eigenpairs(average(problem, product=CentralDifferences()), **find)
    np.testing.assert_allclose(found.values, differences.values, atol=1e-7 * found.values.max())


def test_the_dense_hessian_of_a_weight_normalised_layer_written_out_has_the_same_value():
    problem = make(nn.Tanh(), wrap=parametrizations.weight_norm)
    theta, _ = problem.initial(0)
    slots = {slot.name: slot for slot in problem.layout.slots}

    def weight(whole, layer):
        g, v = (whole[slots[n].span].reshape(slots[n].shape) for n in names(layer))
        return v * g / v.norm(dim=1, keepdim=True)

    def names(layer):
        return [f"{layer}.parametrizations.weight.original{k}" for k in (0, 1)]

    def part(whole, name):
        return whole[slots[name].span].reshape(slots[name].shape)

    def loss(whole):
        inputs, (classes, values) = problem.evaluation.inputs, problem.evaluation.targets
        early = torch.tanh(inputs @ weight(whole, "first").T + part(whole, "first.bias"))
        late = torch.tanh(early @ weight(whole, "second").T + part(whole, "second.bias"))
        one, two = (late @ part(whole, f"{h}.weight").T + part(whole, f"{h}.bias") for h in ("one", "two"))
        return (F.cross_entropy(one, classes) + ((two - values) ** 2).mean()) / 2

    matrix = torch.autograd.functional.hessian(loss, theta).detach()
    where = dense.positions(problem, Shared())
    right = torch.linalg.eigvalsh(matrix[where][:, where])[-1]
    found = spectra.top_eigenpairs(average(problem), 1, accuracy=spectra.Accuracy(1e-9))
    assert found.values[0] == pytest.approx(float(right), rel=1e-10)


class Words(nn.Module):
    """Embedded words, three an example, one of them padding."""

    def __init__(self, sparse, bag):
        super().__init__()
        self.bag = bag
        kind = nn.EmbeddingBag if bag else nn.Embedding
        self.words = kind(9, 4, sparse=sparse, padding_idx=0, **({"mode": bag} if bag else {}))
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 1)

    def forward(self, inputs):
        seen = self.words(inputs) if self.bag else self.words(inputs).sum(1)
        late = torch.tanh(seen)
        return {"one": self.one(late), "two": self.two(late)}


def of_words(sparse, bag):
    rng = torch.Generator().manual_seed(3)
    data = TensorDataset(
        torch.randint(0, 9, (20, 3), generator=rng),
        torch.randint(0, 3, (20,), generator=rng),
        torch.randn(20, 1, generator=rng),
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = Words(sparse, bag).double()
    tasks = [Task("one", cases.cross_entropy), Task("two", cases.squared_error)]
    return Problem(model, tasks, data, data, micro_batch=9)


@pytest.mark.parametrize(("sparse", "bag"), [(True, ""), (False, "sum"), (True, "sum")], ids=str)
def test_sparse_embeddings_and_bags_have_the_dense_hessian_of_plain_embeddings(sparse, bag):
    problem, plain = of_words(sparse, bag), of_words(False, "")
    theta, buffers = plain.initial(0)
    where = dense.positions(plain, Shared())
    matrix = dense.hessian(plain, theta, buffers, [0.5, 0.5])[where][:, where]
    operator = Location(problem, theta, buffers).operator(product=REFERENCE)
    found = operator @ torch.eye(operator.size, dtype=torch.float64)
    torch.testing.assert_close(found, matrix, rtol=1e-12, atol=1e-14)
    slope = dense.gradient(plain, theta, buffers, [0.5, 0.5])[where]
    torch.testing.assert_close(operator.gradient(), slope, rtol=1e-12, atol=1e-14)
    assert problem.model.words.sparse == sparse, "the user's module is as it was"


@pytest.mark.parametrize("context", [torch.inference_mode, torch.no_grad])
def test_operators_go_in_and_out_of_inference_mode(context):
    problem = make(nn.Tanh())
    right = multiplied(average(problem))
    outside = average(problem)
    with context():
        inside = average(problem)
        multiplied(inside)
        torch.testing.assert_close(multiplied(outside).clone(), right, rtol=1e-14, atol=0)
    torch.testing.assert_close(multiplied(inside), right, rtol=1e-14, atol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_has_the_pairs_of_the_same_weights_in_single(dtype):
    problem = make(nn.Tanh(), dtype)
    pairs = spectra.top_eigenpairs(average(problem), 3, accuracy=spectra.Accuracy(1e-5, 300))
    assert pairs.converged.all()
    assert (pairs.residuals <= 1e-5 * pairs.values.max()).all()
    twin = problem.to(dtype=torch.float64)
    theta, buffers = twin.initial(0)
    where = dense.positions(twin, Shared())
    exact = torch.linalg.eigvalsh(dense.hessian(twin, theta, buffers, [0.5, 0.5])[where][:, where])
    np.testing.assert_allclose(pairs.values, exact.flip(0)[:3], rtol=1e-5)  # float32 against float64
    assert average(problem).notes[0].startswith("computed in float32: ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_what_rounding_keeps_from_the_tolerance_is_not_called_converged(dtype):
    half = torch.randn(12, 12, generator=torch.Generator().manual_seed(0))
    operator = operators.MatrixOperator((half + half.T).to(dtype))
    pairs = spectra.top_eigenpairs(operator, 3, accuracy=spectra.Accuracy(1e-9))
    met = pairs.residuals <= 1e-9 * np.abs(pairs.values).max()
    np.testing.assert_array_equal(pairs.converged, met)
    assert not met.all()
    kind = str(dtype).removeprefix("torch.")
    assert pairs.outcome.startswith(f"{met.sum()} of 3 eigenpairs met the tolerance 1e-09")
    assert pairs.outcome.endswith(f"{3 - met.sum()} limited by the rounding of products in {kind}")


def test_linearity_of_losses_that_cancel_and_of_zeros_is_no_alarm():
    skew = torch.diag(torch.linspace(1, 2, 5))
    zero = operators.MatrixOperator(torch.zeros(5, 5))
    parts = {"one": operators.MatrixOperator(skew), "two": operators.MatrixOperator(-skew)}
    nearly = operators.MatrixOperator(1e-8 * skew)
    assert operators.linearity({**parts, AVERAGE: nearly}).passed
    assert operators.linearity({"one": zero, "two": zero, AVERAGE: zero}).value == 0.0
