"""Products against those of curvlinops and hessian-eigenthings, which share no code with ours."""

from __future__ import annotations

import importlib.util
import warnings

import pytest
import torch

from analysis.curvature import Fisher, GaussNewton, Hessian, Location
from analysis.products import KeptGraph, Linearised, ReverseOverReverse
from tests.analysis import cases

MISSING = [name for name in ("curvlinops", "hessian_eigenthings") if importlib.util.find_spec(name) is None]

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(bool(MISSING), reason=f"{', '.join(MISSING)} not installed: make bench installs the peers"),
]


class OneTask(torch.nn.Module):
    """The prediction of one task of a model with several."""

    def __init__(self, module, task):
        super().__init__()
        self.module, self.task = module, task

    def forward(self, inputs):
        return self.module(inputs)[self.task]


@pytest.fixture(params=["plain", "batch norm"])
def setting(request):
    problem = cases.make(request.param, micro_batch=13)
    theta, buffers = problem.initial(0)
    module = problem.module(theta, buffers).eval()
    shared = {slot.name for slot in problem.layout.slots if slot.owner == "shared"}
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name in shared)
    return Location(problem, theta, buffers), OneTask(module, "one")


def trained(model):
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


@pytest.mark.parametrize("kind", [Hessian(), GaussNewton(), Fisher()], ids=lambda kind: type(kind).__name__)
@pytest.mark.parametrize("way", [ReverseOverReverse(4), KeptGraph(5), Linearised()], ids=repr)
def test_products_are_those_of_curvlinops(setting, kind, way):
    import curvlinops

    here, model = setting
    data = [(here.data.inputs, here.data.targets[0])]
    peer = {Hessian(): curvlinops.HessianLinearOperator, GaussNewton(): curvlinops.GGNLinearOperator}
    peer[Fisher()] = curvlinops.EFLinearOperator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = peer[kind](model, torch.nn.CrossEntropyLoss(), trained(model), data, check_deterministic=False)
        ours = here.operator("one", kind=kind, product=way)
        v = torch.randn(ours.size, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
        expected = theirs @ v
    # both in float64; sums in another order
    assert (ours @ v - expected).norm() <= 1e-12 * expected.norm()


def test_products_are_those_of_hessian_eigenthings(setting):
    from hessian_eigenthings import HessianOperator

    here, model = setting
    data = [(here.data.inputs, here.data.targets[0])]
    loss = torch.nn.CrossEntropyLoss()
    theirs = HessianOperator(model, data, lambda m, batch: loss(m(batch[0]), batch[1]))
    ours = here.operator("one")
    v = torch.randn(ours.size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    expected = theirs.matvec(v)
    assert (ours @ v - expected).norm() <= 1e-12 * expected.norm()
