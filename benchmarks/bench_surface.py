"""A surface of three tasks: against peers, against the forward passes that it is made of, and against one task.

Peers have a process of their own: an engine of ours has the allocator keep freed memory (`analysis.memory.keep_freed`),
which in the same process would make them faster than they are by themselves. All take turns, round by round.

Landscaper asks for numpy below 2 (through topopy), so no extra can name it; it is measured where it has been installed
without its dependencies: `pip install --no-deps landscaper topopy nglpy; pip install gudhi treelib coloraide drawsvg`.
"""

import contextlib
import copy
import importlib.util
import io
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import vector_to_parameters
from torch.utils.data import TensorDataset

from analysis import surfaces, tuning
from analysis.engines import Engine
from analysis.points import Conditions
from analysis.results import Plane
from landscape import Problem, Task

SIDE, EXAMPLES, USERS_BATCH = 21, 1024, 256
ROUNDS = 6
"""Timed rounds; one more goes before them, so that nothing is timed cold."""

MICRO_BATCHES = (8, 16, 32, 64, 128, 256)
Work = Callable[[], int]
"""Measures some points and says how many."""


def run() -> list[dict[str, Any]]:
    """Milliseconds a point on one thread and on two; rates against the bare module at its best micro-batch."""
    before = torch.get_num_threads()
    rows = []
    with _Apart() as peers:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            rows += _rows(threads, peers.works(threads))
    torch.set_num_threads(before)
    return rows


def _rows(threads: int, peers: dict[str, Work]) -> list[dict[str, Any]]:
    three, one = _problem(3), _problem(1)
    engine = tuning.choose(three, _plane(three), Conditions()).engine
    taken = _timed(
        {
            "ours": _ours(three, engine, SIDE * SIDE // (ROUNDS + 1)),
            "ours, one task": _ours(one, engine, SIDE),
            **{f"bare module, {size} at once": _bare(three, size) for size in MICRO_BATCHES},
            **peers,
        }
    )
    best = min((name for name in taken if name.startswith("bare")), key=lambda name: statistics.median(taken[name]))
    return [
        {
            "threads": threads,
            "what": f"{name}, {engine!r}" if name == "ours" else name,
            "ms a point": times,
            "times as long as ours": [a / b for a, b in zip(times, taken["ours"], strict=True)],
            "share of the best bare rate, %": [100 * a / b for a, b in zip(taken[best], times, strict=True)],
        }
        for name, times in taken.items()
    ]


def _timed(works: dict[str, Work]) -> dict[str, list[float]]:
    """Milliseconds a point of each, once a round, one after the other, so that all meet the same conditions."""
    for work in works.values():
        work()
    taken: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(ROUNDS):
        for name, work in works.items():
            start = time.perf_counter()
            points = work()
            taken[name].append(1e3 * (time.perf_counter() - start) / points)
    return taken


class _Apart:
    """The peers in a process of their own, which waits between its turns."""

    def __enter__(self) -> "_Apart":
        context = multiprocessing.get_context("spawn")
        self._here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(there,), daemon=True)
        self._process.start()
        return self

    def works(self, threads: int) -> dict[str, Work]:
        self._here.send(threads)
        names: list[str] = self._here.recv()
        return {name: self._asking(name) for name in names}

    def _asking(self, name: str) -> Work:
        def work() -> int:
            self._here.send(name)
            points: int = self._here.recv()
            return points

        return work

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.terminate()
        self._process.join()


def _serve(connection: Connection) -> None:
    works: dict[str, Work] = {}
    while True:
        match connection.recv():
            case int(threads):
                torch.set_num_threads(threads)
                works = _peers(_problem(3))
                connection.send(list(works))
            case name:
                connection.send(works[name]())


class _Network(nn.Module):
    def __init__(self, tasks: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, after in ((1, 16), (16, 32), (32, 64)):
            layers += [nn.Conv2d(before, after, 3, padding=1), nn.GroupNorm(after // 4, after), nn.ReLU()]
        self.trunk = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.heads = nn.ModuleList(nn.Linear(64, 10) for _ in range(tasks))

    def forward(self, inputs: Tensor) -> list[Tensor]:
        shared = self.trunk(inputs)
        return [head(shared) for head in self.heads]


def _problem(tasks: int) -> Problem:
    rng = torch.Generator().manual_seed(0)
    inputs = torch.randn(EXAMPLES, 1, 28, 28, generator=rng)
    labels = torch.randint(0, 10, (EXAMPLES, tasks), generator=rng)
    data = TensorDataset(inputs, *labels.T.contiguous())
    named = [Task(f"task{t}", _cross_entropy, {"accuracy": _accuracy}) for t in range(tasks)]
    return Problem(lambda: _Network(tasks), named, data, data, micro_batch=USERS_BATCH)


def _cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(prediction, target, reduction="none")


def _accuracy(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction.argmax(1) == target).to(prediction.dtype)


def _plane(problem: Problem) -> Plane:
    theta, buffers = problem.initial(0)
    basis = 0.02 * np.random.default_rng(0).standard_normal((2, theta.numel()))
    return Plane(
        origin=theta.double().numpy(),
        basis=basis,
        gram=basis @ basis.T,
        buffers=buffers.numpy(),
        explained=np.full(2, np.nan),
        recipe="random",
        axes=("x", "y"),
        seed=0,
        layout=problem.layout.hash,
    )


def _ours(problem: Problem, engine: Engine, points: int) -> Work:
    """Goes on with one surface of 21 x 21 points, by so many, in whole rows."""
    surface = surfaces.measuring(problem, _plane(problem), surfaces.Grid(SIDE), Conditions(engine))

    def work() -> int:
        for _ in range(points // SIDE):
            next(surface)
        return points

    return work


def _bare(problem: Problem, size: int) -> Work:
    pieces = list(problem.evaluation.pieces(size))
    module = copy.deepcopy(problem.model).eval()

    def work() -> int:
        with torch.no_grad():
            for piece in pieces:
                module(piece.inputs)
        return 1

    return work


def _peers(problem: Problem) -> dict[str, Work]:
    """Each at 2 x 2 points, of the sum of the tasks' losses, over the user's batches, which lie ready in memory."""
    from loss_landscape_3d.calculator import LossLandscapeCalculator
    from loss_landscapes import random_plane

    module = copy.deepcopy(problem.model).eval()
    batches = [(b.inputs, torch.stack(b.targets, 1)) for b in problem.evaluation.pieces(USERS_BATCH)]
    theta, basis = problem.initial(0)[0], torch.tensor(_plane(problem).basis, dtype=torch.float32)

    def criterion(output: list[Tensor], targets: Tensor) -> Tensor:
        return torch.stack([F.cross_entropy(p, t) for p, t in zip(output, targets.T, strict=True)]).sum()

    def loss(forward: Callable[[Tensor], list[Tensor]]) -> float:
        with torch.no_grad():
            sums = [float(criterion(forward(inputs), targets)) * len(inputs) for inputs, targets in batches]
        return sum(sums) / EXAMPLES

    def plain_loop() -> int:
        for x, y in ((-1, -1), (1, -1), (-1, 1), (1, 1)):
            vector_to_parameters(theta + x * basis[0] + y * basis[1], module.parameters())
            loss(module)
        return 4

    def by_loss_landscapes() -> int:
        random_plane(module, lambda wrapped: loss(wrapped.forward), 1, 2, "filter", deepcopy_model=True)
        return 4

    first, second = (dict(_named(module, vector)) for vector in basis)
    calculator = LossLandscapeCalculator(module, batches, criterion)

    def by_loss_landscape_3d() -> int:
        calculator.calculate([-1, 1], [-1, 1], first, second, module.state_dict())
        return 4

    peers: dict[str, Work] = {
        "plain loop": plain_loop,
        "loss-landscapes": by_loss_landscapes,
        "loss-landscape-3d": by_loss_landscape_3d,
    }
    if importlib.util.find_spec("landscaper") is not None:
        from landscaper.compute import compute_loss_landscape

        def by_landscaper() -> int:
            directions = [[part.clone() for part in vectors.values()] for vectors in (first, second)]
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                compute_loss_landscape(module, None, directions, lambda model, _: loss(model), 2, 0.01, 2, "cpu")
            return 4

        peers["Landscaper"] = by_landscaper
    return peers


def _named(module: nn.Module, vector: Tensor) -> Iterator[tuple[str, Tensor]]:
    parameters = dict(module.named_parameters())
    parts = torch.split(vector, [parameter.numel() for parameter in parameters.values()])
    for (name, parameter), part in zip(parameters.items(), parts, strict=True):
        yield name, part.view_as(parameter)
