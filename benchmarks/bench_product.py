"""A Hessian-vector product against peers and against the gradient of the same loss, on four models of three tasks.

Every peer goes through the examples in batches of the user's size; ours chooses its own, and so is the gradient that
products are counted in the fastest of some sizes. Peers have the allocator keep freed memory as ours does.
"""

import copy
import functools
import importlib.util
import statistics
import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.data import TensorDataset

from analysis import memory
from analysis.curvature import Location
from analysis.product_choice import Auto, chosen
from analysis.products import KeptGraph, Linearised, Recorded, ReverseOverReverse, Way
from landscape import Problem, problems

ROUNDS, USERS_BATCH = 9, 128
SIZES = (32, 64, 128, 256, 512)
MODELS = ("none", "group", "batch", "transformer")
Work = Callable[[], Any]


class Transformer(nn.Module):
    """Two encoder layers over the rows of a picture, and a linear head a task."""

    def __init__(self, side: int, width: int = 32) -> None:
        super().__init__()
        self.embed, self.place = nn.Linear(side, width), nn.Parameter(0.1 * torch.randn(side, width))
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, "gelu", batch_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.first, self.second, self.picture = nn.Linear(width, 10), nn.Linear(width, 10), nn.Linear(width, 64)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        h = self.body(self.embed(inputs[:, 0]) + self.place).mean(1)
        return {"first": self.first(h), "second": self.second(h), "picture": self.picture(h)}


def run() -> list[dict[str, Any]]:
    """Milliseconds of a product of the averaged loss on the shared parameters, and gradients a product."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    memory.keep_freed()
    rows = [row for name in MODELS for row in _rows(name)]
    torch.set_num_threads(before)
    return rows


def problem_of(name: str) -> Problem:
    """The digits with a network of this norm, or with a transformer."""
    problem = problems.load("digits", {"norm": "none" if name == "transformer" else name})
    if name != "transformer":
        return problem
    data = TensorDataset(problem.evaluation.inputs, *problem.evaluation.targets)
    return Problem(lambda: Transformer(problem.evaluation.inputs.shape[-1]), problem.tasks, data, data)


def _rows(name: str) -> list[dict[str, Any]]:
    problem = problem_of(name)
    theta, buffers = problem.initial(0)
    here = Location(problem, theta, buffers)
    vector = torch.randn(here.operator().size, generator=torch.Generator().manual_seed(0))
    works: dict[str, Work] = {}
    unkept = _best_of(here, (ReverseOverReverse, lambda size: Recorded(ReverseOverReverse(size))), vector)
    for label, way in (
        ("ours, chosen", chosen(here.operator().block, Auto(products=1000))),
        ("ours, nothing kept", unkept),
        ("ours, graph kept", KeptGraph(USERS_BATCH)),
        ("ours, linearised", Linearised()),
    ):
        operator = here.operator(product=way)
        works[f"{label}: {operator.product!r}"] = functools.partial(operator.__matmul__, vector)
    works |= {f"gradient, {size} at once": _gradient(here, size) for size in SIZES}
    works |= _peers(problem, theta, buffers, here.operator().block.loss.rows.names, vector)
    expected = here.operator(product=ReverseOverReverse()) @ vector
    off = {label: _off(work, expected) for label, work in works.items() if not label.startswith("gradient")}
    taken = _timed(works)
    best = min((label for label in taken if label.startswith("gradient")), key=lambda w: statistics.median(taken[w]))
    users = taken[f"gradient, {USERS_BATCH} at once"]
    return [
        {
            "model": name,
            "what": label,
            "ms": times,
            f"gradients of {USERS_BATCH}": [a / b for a, b in zip(times, users, strict=True)],
            "best gradients": [a / b for a, b in zip(times, taken[best], strict=True)],
            "off the reference": off.get(label),
        }
        for label, times in taken.items()
    ]


def _best_of(here: Location, kinds: Iterable[Callable[[int], Way]], vector: Tensor) -> Way:
    """The fastest of some ways over half, once and twice the user's batch, timed in turn."""
    sizes = (USERS_BATCH // 2, USERS_BATCH, 2 * USERS_BATCH)
    operators = {way: here.operator(product=way) for kind in kinds for way in map(kind, sizes)}
    taken: dict[Way, list[float]] = {way: [] for way in operators}
    for _ in range(ROUNDS):
        for way, operator in operators.items():
            taken[way].append(_seconds(functools.partial(operator.__matmul__, vector)))
    return min(taken, key=lambda way: statistics.median(taken[way]))


def _gradient(here: Location, size: int) -> Work:
    """A plain gradient in batches of this size, by the module itself."""
    problem = here.problem
    module = problem.module(here.local.theta).eval()
    names = here.operator().block.loss.rows.names
    parameters = dict(module.named_parameters())
    shared = [parameters[name] for name in names]
    for name, parameter in parameters.items():
        parameter.requires_grad_(name in names)
    pieces = list(problem.evaluation.pieces(size))

    def work() -> None:
        with sdpa_kernel(SDPBackend.MATH):
            for batch in pieces:
                torch.autograd.grad(_loss(problem, module(batch.inputs), batch.targets), shared)

    return work


def _loss(problem: Problem, output: dict[str, Tensor], targets: tuple[Tensor, ...]) -> Tensor:
    """Sum over examples of the mean over tasks."""
    rows = zip(problem.tasks, targets, strict=True)
    return torch.stack([task.loss(output[task.name], target).sum() for task, target in rows]).sum() / len(targets)


def _peers(problem: Problem, theta: Tensor, buffers: Tensor, names: tuple[str, ...], vector: Tensor) -> dict[str, Work]:
    """Products of peers by the plain module, in the user's batches; those that are not installed are left out."""
    made: dict[str, Callable[..., Work]] = {
        "plain double backward": _plain,
        "curvlinops": _curvlinops,
        "hessian_eigenthings": _eigenthings,
        "pyhessian": _pyhessian,
    }
    found: dict[str, Work] = {}
    for name, make in made.items():
        if name != "plain double backward" and importlib.util.find_spec(name) is None:
            continue
        module = problem.module(theta, buffers).eval()
        for key, parameter in module.named_parameters():
            parameter.requires_grad_(key in names)
        pieces = [(batch.inputs, batch.targets) for batch in problem.evaluation.pieces(USERS_BATCH)]
        try:
            work = make(problem, _Averaged(module), pieces, vector)
            work()
        except Exception as error:  # a peer that does not work on a model is left out, with its reason
            print(f"{name} does not work: {type(error).__name__}: {str(error)[:200]}")
            continue
        found[name] = work
    return found


class _Averaged(nn.Module):
    """Predictions of all tasks side by side, as peers expect one tensor."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.cat(list(self.module(inputs).values()), 1)


class _MeanLoss(nn.Module):
    """Mean over examples and tasks of the losses of predictions side by side and targets side by side."""

    reduction = "mean"

    def __init__(self, problem: Problem, widths: list[int]) -> None:
        super().__init__()
        self._problem, self._widths = problem, widths

    def forward(self, predictions: Tensor, targets: Tensor) -> Tensor:
        parts = dict(zip(self._problem.names, torch.split(predictions, self._widths, 1), strict=True))
        first, second, picture = targets[:, 0].long(), targets[:, 1].long(), targets[:, 2:]
        return _loss(self._problem, parts, (first, second, picture)) / len(predictions)


def _setting(problem: Problem, model: _Averaged, pieces: list[Any]) -> tuple[_MeanLoss, list[tuple[Tensor, Tensor]]]:
    widths = [part.shape[1] for part in model.module(pieces[0][0]).values()]
    data = [(x, torch.cat([y[0][:, None].float(), y[1][:, None].float(), y[2]], 1)) for x, y in pieces]
    return _MeanLoss(problem, widths), data


def _trained(model: nn.Module) -> list[nn.Parameter]:
    return [parameter for parameter in model.parameters() if parameter.requires_grad]


def _parts(vector: Tensor, like: list[nn.Parameter]) -> list[Tensor]:
    pieces = torch.split(vector, [parameter.numel() for parameter in like])
    return [piece.reshape(parameter.shape) for piece, parameter in zip(pieces, like, strict=True)]


def _plain(problem: Problem, model: _Averaged, pieces: list[Any], vector: Tensor) -> Work:
    loss, data = _setting(problem, model, pieces)
    parameters = _trained(model)
    parts = _parts(vector, parameters)
    count = sum(len(x) for x, _ in data)

    def work() -> Tensor:
        total = torch.zeros_like(vector)
        with sdpa_kernel(SDPBackend.MATH):
            for x, y in data:
                slope = torch.autograd.grad(loss(model(x), y), parameters, create_graph=True)
                product = torch.autograd.grad(slope, parameters, parts)
                total += len(x) / count * torch.cat([part.reshape(-1) for part in product])
        return total

    return work


def _curvlinops(problem: Problem, model: _Averaged, pieces: list[Any], vector: Tensor) -> Work:
    import curvlinops

    loss, data = _setting(problem, model, pieces)
    with sdpa_kernel(SDPBackend.MATH):
        operator = curvlinops.HessianLinearOperator(model, loss, _trained(model), data, check_deterministic=False)

    def work() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = operator @ vector
        return found

    return work


def _eigenthings(problem: Problem, model: _Averaged, pieces: list[Any], vector: Tensor) -> Work:
    from hessian_eigenthings import HessianOperator

    loss, data = _setting(problem, model, pieces)
    operator = HessianOperator(model, data, lambda m, batch: loss(m(batch[0]), batch[1]))

    def work() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            found: Tensor = operator.matvec(vector)
        return found

    return work


def _pyhessian(problem: Problem, model: _Averaged, pieces: list[Any], vector: Tensor) -> Work:
    from pyhessian import hessian

    loss, data = _setting(problem, model, pieces)
    parameters = _trained(model)
    parts = _parts(vector, parameters)
    operator = hessian(model, loss, dataloader=data, cuda=False)

    def work() -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):
            _, product = operator.dataloader_hv_product(parts)
        return torch.cat([part.reshape(-1) for part in product])

    return work


def _off(work: Work, expected: Tensor) -> float:
    found = work()
    return float((found - expected).norm() / expected.norm())


def _timed(works: dict[str, Work]) -> dict[str, list[float]]:
    """Milliseconds of each, once a round, in turn."""
    taken: dict[str, list[float]] = {label: [] for label in works}
    for _ in range(ROUNDS):
        for label, work in works.items():
            taken[label].append(1e3 * _seconds(work))
    return taken


def _seconds(work: Work) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
