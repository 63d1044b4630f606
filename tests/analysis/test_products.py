"""Every way to multiply against the reference, what becomes of ways that do not meet it, and which way is chosen."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from analysis import kept_choices, product_choice, products, working
from analysis.curvature import Fisher, GaussNewton, Hessian, Location
from analysis.product_choice import AUTO, Auto, parse
from analysis.products import (
    CentralDifferences,
    CompiledProduct,
    ForwardOverReverse,
    KeptGraph,
    Linearised,
    Recorded,
    ReverseOverReverse,
)
from analysis.subsets import Everything, Head, Shared
from landscape import problems
from landscape.errors import LandscapeError
from landscape.problem import Problem, Task
from tests.analysis import cases

EXACT = (
    ForwardOverReverse(),
    KeptGraph(),
    Recorded(),
    Recorded(ReverseOverReverse()),
    Linearised(),
    Linearised(ReverseOverReverse()),
)


def at(problem, seed=0):
    return Location(problem, *problem.initial(seed))


def block_for(operator, count=2, seed=0):
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(operator.size, count, generator=rng, dtype=operator.dtype)


@pytest.mark.parametrize("case", cases.KINDS)
@pytest.mark.parametrize("kind", [Hessian(), GaussNewton(), Fisher()], ids=lambda kind: type(kind).__name__)
def test_every_way_gives_the_reference_products(case, kind):
    here = at(cases.make(case))
    recorded = case in ("tied weights", "batch norm")
    for on, ways in ((Shared(), EXACT if recorded else EXACT[:2]), (Head("one"), EXACT[:2])):
        reference = here.operator(on=on, kind=kind, product=ReverseOverReverse())
        v = block_for(reference)
        expected = reference @ v
        for way in ways:
            operator = here.operator(on=on, kind=kind, product=way)
            # float64 sums in another order
            assert (operator @ v - expected).norm() <= 1e-12 * expected.norm()
            assert torch.equal(operator @ v, operator @ v), "what is kept stays what it is"
            assert operator.product == way
            assert not operator.notes


@pytest.mark.parametrize("kind", [Hessian(), GaussNewton(), Fisher()], ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_products_and_gradients_are_the_same_where_the_caller_has_switched_gradients_off(kind, without):
    problem = cases.make("batch norm")
    for way in (*EXACT, AUTO):
        outside, inside = (at(problem).operator(kind=kind, product=way) for _ in range(2))
        v = block_for(outside)
        expected = outside @ v, outside.gradient()
        with without():
            found = inside @ v, inside.gradient()
        for one, other in zip(found, expected, strict=True):
            assert (one - other).norm() <= 1e-12 * other.norm()  # AUTO may choose another way


def test_recordings_hold_at_another_theta_and_for_other_buffers():
    problem = cases.make("batch norm")
    theta, buffers = problem.initial(0)
    for scale in (1.0, 2.0):
        here = Location(problem, scale * theta, scale * buffers)
        reference = here.operator(product=ReverseOverReverse())
        v = block_for(reference)
        for way in (Recorded(), Linearised(), Linearised(ReverseOverReverse())):
            operator = here.operator(product=way)
            assert (operator @ v - reference @ v).norm() <= 1e-12 * (reference @ v).norm()
            assert operator.product == way


class Everyday(nn.Module):
    """A convolution, a norm and attention, as networks have them."""

    def __init__(self, norm):
        super().__init__()
        self.body = nn.Conv2d(1, 4, 3, 2, 1)
        self.norm = {"group": lambda: nn.GroupNorm(2, 4), "batch": lambda: nn.BatchNorm2d(4)}.get(norm, nn.Identity)()
        self.attention = nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, batch_first=True)
        self.one, self.two = nn.Linear(4, 3), nn.Linear(4, 1)

    def forward(self, inputs):
        h = torch.relu(self.norm(self.body(inputs)))
        h = self.attention(h.flatten(2).transpose(1, 2)).mean(1)
        return self.one(h), self.two(h)


@pytest.mark.parametrize(("norm", "dtype"), [("group", torch.float32), ("batch", torch.float64)])
def test_every_way_works_on_norms_convolutions_and_attention(norm, dtype):
    rng = torch.Generator().manual_seed(0)
    inputs, labels, values = torch.randn(7, 1, 6, 6, generator=rng), torch.arange(7) % 3, torch.zeros(7, 1)
    data = TensorDataset(inputs, labels, values)
    tasks = [Task("one", cases.cross_entropy), Task("two", cases.squared_error)]
    torch.manual_seed(0)
    problem = Problem(Everyday(norm), tasks, data, data, micro_batch=4).to(dtype=dtype)
    here = at(problem)
    reference = here.operator(product=ReverseOverReverse())
    v = block_for(reference, 1)
    for way in (KeptGraph(), Linearised(), Linearised(ReverseOverReverse())):
        operator = here.operator(product=way)
        assert operator.product == way, operator.notes
        apart = (operator @ v - reference @ v).norm() / (reference @ v).norm()
        assert apart < 1e3 * torch.finfo(dtype).eps  # roundings of some dozens of operations in another order


def test_central_differences_come_near_and_say_how_near():
    here = at(cases.make("plain"))
    reference = here.operator(product=ReverseOverReverse())
    v = 100 * block_for(reference, 1)[:, 0]
    exact = reference @ v
    for step in (1e-2, 1e-3):
        operator = here.operator(product=CentralDifferences(step))
        better, error = products.halving(operator, v)
        true = float((operator @ v - exact).norm())
        assert 0.9 * true < error < 1.1 * true, "the step is small enough for its square to rule"
        assert float((better - exact).norm()) < 0.01 * true
    coarse, fine = (float((here.operator(product=CentralDifferences(h)) @ v - exact).norm()) for h in (1e-2, 5e-3))
    assert coarse / fine == pytest.approx(4, rel=0.01)
    assert (here.operator(product=CentralDifferences()) @ v - exact).norm() < 1e-8 * exact.norm()
    assert not (here.operator(product=CentralDifferences()) @ torch.zeros_like(v)).any()
    with pytest.raises(LandscapeError, match="expected a Hessian for central differences of the gradient, got a Gauss"):
        here.operator(kind=GaussNewton(), product=CentralDifferences()) @ v
    with pytest.raises(LandscapeError, match="expected central differences, got ReverseOverReverse"):
        products.halving(reference, v)


@dataclass(frozen=True)
class Zeros:
    """A way that is wrong without a word."""

    micro_batch: int | None = None

    def begin(self, block):
        running = ReverseOverReverse(self.micro_batch).begin(block)
        zeros = [torch.zeros(s, dtype=block.problem.dtype) for s in block.loss.rows.shapes]
        return replace(running, way=self, piece=lambda number, vectors: [zeros for _ in vectors])


@dataclass(frozen=True)
class WrongAtTheEnd:
    """A way that is wrong for the last micro-batch, which is smaller."""

    micro_batch: int | None = None

    def begin(self, block):
        running = ReverseOverReverse(self.micro_batch).begin(block)
        last = len(running.pieces) - 1

        def piece(number, vectors):
            return [[(1 + (number == last)) * part for part in one] for one in running.piece(number, vectors)]

        return replace(running, way=self, piece=piece)


@pytest.mark.parametrize(("way", "off"), [(Zeros(), "1"), (WrongAtTheEnd(), "1")])
def test_a_way_that_does_not_meet_the_reference_is_not_used(way, off):
    here = at(cases.make("plain"))
    operator = here.operator(product=way)
    v = block_for(operator)
    assert operator.product == ReverseOverReverse()
    assert torch.equal(operator @ v, here.operator(product=ReverseOverReverse()) @ v)
    assert operator.notes == (f"{way!r} was not used: its product is {off} from the reference's",)


def test_a_model_that_cannot_be_recorded_is_computed_all_the_same():
    class Branching(cases.Trunk):
        def forward(self, inputs):
            output = super().forward(inputs)
            return output if float(output["one"].detach().sum()) < 1e9 else {"one": 0 * output["one"], **output}

    problem = cases.make("plain")
    torch.manual_seed(1)
    odd = Problem(Branching(), problem.tasks, problem.train._dataset, problem.train._dataset, micro_batch=5)
    operator = at(odd).operator(product=Linearised())
    operator @ block_for(operator)
    assert operator.product == ReverseOverReverse()
    assert operator.notes[0].startswith("Linearised(")


def test_the_choice_is_kept_for_the_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    chosen = at(cases.make("plain")).operator(product=Auto(products=10**6)).product
    kept = json.loads((tmp_path / "landscape" / "products.json").read_text())
    assert [parse(entry["way"]) for entry in kept.values()] == [chosen]
    (key,) = kept
    other = ForwardOverReverse(7)
    kept_choices.keep("products", key, {"way": repr(other), "seconds": 1.0})
    assert at(cases.make("plain")).operator(product=Auto(products=10**6)).product == other, "another process's choice"
    kept_choices.keep("products", key, {"way": "rm -rf /", "seconds": 1.0})
    assert at(cases.make("plain")).operator(product=Auto(products=10**6)).product != other


def test_memory_bounds_the_micro_batch_and_what_is_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    problem = problems.load("digits", {"evaluation": 96, "train": 16})
    way = at(problem).operator(product=Auto(max_memory=4 << 20, products=1000)).product
    assert isinstance(way, ReverseOverReverse | Recorded)
    assert way.micro_batch <= 32
    with pytest.raises(LandscapeError, match=r"one example at a time needs more than the 0.00391 MiB"):
        at(problem).operator(product=Auto(max_memory=4096)).product  # noqa: B018


def test_where_memory_runs_out_less_is_used(monkeypatch):
    here = at(cases.make("plain", micro_batch=8))
    operator = here.operator(product=KeptGraph())
    expected = here.operator(product=ReverseOverReverse(1)) @ block_for(operator)
    original = products.Running.products

    def greedy(self, given):
        if isinstance(self.way, KeptGraph) or (self.way.micro_batch or 8) > 2:
            raise torch.OutOfMemoryError("out of memory")
        return original(self, given)

    monkeypatch.setattr(products.Running, "products", greedy)
    assert (operator @ block_for(operator) - expected).norm() <= 1e-12 * expected.norm()
    assert operator.product == ReverseOverReverse(2)
    monkeypatch.setattr(products.Running, "products", lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError("none")))
    with pytest.raises(LandscapeError, match=r"memory runs out with the product of one example \(none\)"):
        here.operator(product=ReverseOverReverse()) @ block_for(operator)


WAYS = (*EXACT, ReverseOverReverse(3), CompiledProduct(Recorded(ForwardOverReverse(8))), CentralDifferences(1e-3))


@pytest.mark.parametrize("way", WAYS, ids=repr)
def test_a_way_is_read_from_its_repr(way):
    assert parse(repr(way)) == way


@pytest.mark.parametrize(
    "text", ["Linearised", "Linearised(size=3)", "os.remove('x')", "KeptGraph(micro_batch='a')", ""]
)
def test_another_text_is_no_way(text):
    with pytest.raises(LandscapeError, match="expected a way to compute products as results state it, for instance"):
        parse(text)


def test_micro_batches_have_examples():
    with pytest.raises(LandscapeError, match="expected micro-batches of 1 or more examples, got -2"):
        at(cases.make("plain")).operator(product=ReverseOverReverse(-2)) @ torch.ones(55, dtype=torch.float64)


def test_the_repr_says_kind_loss_parameters_and_way():
    operator = at(cases.make("plain")).operator("one", Everything(), Fisher(), KeptGraph(4))
    assert repr(operator) == "empirical Fisher matrix of one on all (79 parameters), by KeptGraph(micro_batch=4)"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch's own, when its compiler is imported
def test_compiled_products_meet_the_reference():
    problem = problems.load("digits", {"evaluation": 40, "train": 16, "width": 4, "features": 8})
    here = at(problem)
    for inner in (Recorded(ForwardOverReverse(16)), Linearised(ForwardOverReverse(16))):
        operator = here.operator(product=CompiledProduct(inner))
        reference = here.operator(product=ReverseOverReverse())
        v = block_for(operator)
        assert operator.product == CompiledProduct(inner), operator.notes
        # float32: some dozens of fused operations, each a rounding of 6e-8
        assert (operator @ v - reference @ v).norm() < 1e-4 * (reference @ v).norm()


@pytest.mark.slow
def test_the_chosen_way_is_the_fastest_or_nearly(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = at(problems.load("digits", {"norm": "group", "evaluation": 256, "train": 16}))
    operator = here.operator(product=Auto(products=1000))
    assert isinstance(operator.product, Linearised | KeptGraph | Recorded)
    assert (working.opened(operator.block, operator.product)[0].held > 0) is not isinstance(operator.product, Recorded)
    assert np.isfinite((operator @ block_for(operator)).numpy()).all()
    assert AUTO.max_memory == 2 << 30
    assert product_choice.chosen(operator.block, Auto(products=1000)) == operator.product
