"""Top 5 eigenpairs of every task and of the average along a trajectory, against peers run once for each.

Everything takes turns, snapshot by snapshot, on one thread, after a first snapshot that is not counted: what a method
sets up, chooses or compiles once is `first seconds` besides. A peer that is not installed has no row, one that fails on
the model says so. Peers: hessian-eigenthings, curvlinops with scipy's `eigsh`, PyHessian (`pip install pyhessian`), and
`eigsh` on a plain double-backward product. Each is asked for residuals of 1e-3 of the largest value: `eigsh` by its
tolerance; hessian-eigenthings by the smallest number of steps, in tens, that meets it on the first snapshot (found
untimed); PyHessian has no such setting, and runs with its own ones.

`residual` is the largest true one, by products in float64, of 4 snapshots: of all values asked for, relative to the
largest. Every method multiplies with the same loss, on micro-batches of the same size.
"""

import importlib.util
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import torch.nn.functional as F
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor, nn

from analysis.eigensearch import Accuracy
from analysis.operators import hessians
from analysis.results import AVERAGE, Array
from analysis.tracking import Spectrum, pairs_along
from landscape import Every, Plan, Problem, Trajectory, problems, record
from landscape.optimisers import Optimiser
from landscape.strategies import Averaged

COUNT, TOLERANCE, SNAPSHOTS, CHECKED = 5, 1e-3, 20, 4
SETTINGS = {"norm": "group", "width": 8, "features": 32, "evaluation": 256}
STEPS, BATCH = 400, 64

Batches: TypeAlias = list[tuple[Tensor, Tensor]]
Pairs: TypeAlias = tuple[Array, Array]
"""Values [k] and rows [k, n]."""


@dataclass
class Tally:
    """What a method took, and what it found at the snapshots that are checked, by snapshot and operator."""

    first: float = 0.0
    seconds: float = 0.0
    products: int = 0
    found: dict[tuple[int, str], Pairs] = field(default_factory=dict)
    failure: str = ""


class Seen(nn.Module):
    """The trunk with the heads of some tasks, of which the trunk alone is trainable; predictions side by side."""

    def __init__(self, module: nn.Module, tasks: Sequence[str]) -> None:
        super().__init__()
        self.trunk: Any = module.trunk
        self.heads = nn.ModuleList([getattr(module, task) for task in tasks])
        self.heads.requires_grad_(False)

    def forward(self, inputs: Tensor) -> Tensor:
        features = self.trunk(inputs)
        return torch.cat([head(features) for head in self.heads], 1)


class Loss(nn.Module):
    """Mean over a batch of the mean of some tasks' losses; targets are columns: two classes and 64 pixels."""

    reduction = "mean"

    def __init__(self, tasks: Sequence[str]) -> None:
        super().__init__()
        self.tasks = tuple(tasks)
        self.calls = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        self.calls += 1
        total, start = outputs.new_zeros(()), 0
        for task in self.tasks:
            width = 64 if task == "picture" else 10
            part = outputs[:, start : start + width]
            if task == "picture":
                total = total + 0.5 * ((part - targets[:, 2:]) ** 2).sum(1).mean()
            else:
                total = total + F.cross_entropy(part, targets[:, 0 if task == "first" else 1].long())
            start += width
        return total / len(self.tasks)


Method: TypeAlias = Callable[[Seen, Loss, Batches, str], Pairs]


def run() -> list[dict[str, Any]]:
    """CPU seconds, products and largest true residual of every method."""
    torch.set_num_threads(1)
    problem = problems.load("digits", SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(STEPS, BATCH, Every(STEPS // SNAPSHOTS))
        trajectory = record(problem, Averaged(Optimiser("Adam", lr=1e-3)), plan, Path(folder) / "run.h5")
        return _measured(problem, trajectory)


def _measured(problem: Problem, trajectory: Trajectory) -> list[dict[str, Any]]:
    rows = list(range(1, SNAPSHOTS + 1))
    checked = set(rows[:: SNAPSHOTS // CHECKED])
    methods = {name: method for name, (package, method) in PEERS.items() if importlib.util.find_spec(package)}
    tallies = {name: Tally() for name in ("ours", *methods)}
    batches, spectrum = _batches(problem), Spectrum(COUNT, accuracy=Accuracy(TOLERANCE, 500))
    start = time.process_time()
    next(pairs_along(problem, trajectory, rows, spectrum))
    tallies["ours"].first = time.process_time() - start
    for name, method in methods.items():
        alone = Tally()
        _take(alone, method, problem, trajectory, rows[0], batches, False)
        tallies[name].first = alone.seconds
    ours = pairs_along(problem, trajectory, rows, spectrum)
    for row in rows:
        start = time.process_time()
        found = next(ours).pairs
        tallies["ours"].seconds += time.process_time() - start
        tallies["ours"].products += sum(pairs.products for pairs in found.values())
        if row in checked:
            tallies["ours"].found |= {(row, name): (pairs.values, pairs.vectors) for name, pairs in found.items()}
        for peer, method in methods.items():
            if not tallies[peer].failure:
                _take(tallies[peer], method, problem, trajectory, row, batches, row in checked)
    exact = problem.to(dtype=torch.float64)
    return [
        {
            "method": name,
            "first seconds": tally.first,
            "CPU seconds": tally.seconds,
            "against ours": tally.seconds / tallies["ours"].seconds,
            "products": tally.products,
            "products an operator": tally.products / SNAPSHOTS / 4,
            "residual": max(
                (_residual(exact, trajectory, key, pairs) for key, pairs in tally.found.items()), default=None
            ),
            "failure": tally.failure,
        }
        for name, tally in tallies.items()
    ]


def _take(
    tally: Tally, method: Method, problem: Problem, trajectory: Trajectory, row: int, batches: Batches, keep: bool
) -> None:
    theta, buffers = (torch.tensor(part[row]) for part in (trajectory.theta, trajectory.buffers))
    for name in (*problem.names, AVERAGE):
        tasks = problem.names if name == AVERAGE else (name,)
        seen, loss = Seen(problem.module(theta.to(problem.dtype), buffers), tasks).eval(), Loss(tasks)
        start = time.process_time()
        try:
            pairs = method(seen, loss, batches, name)
        except (RuntimeError, NotImplementedError) as error:
            tally.failure = f"{type(error).__name__}: {str(error).splitlines()[0][:80]}"
            return
        tally.seconds += time.process_time() - start
        tally.products += loss.calls // len(batches)
        if keep:
            tally.found[row, name] = pairs


def _batches(problem: Problem) -> Batches:
    pieces = problem.evaluation.pieces(problem.micro_batch)
    return [
        (piece.inputs, torch.cat([piece.targets[0][:, None], piece.targets[1][:, None], piece.targets[2]], 1))
        for piece in pieces
    ]


def _residual(exact: Problem, trajectory: Trajectory, key: tuple[int, str], pairs: Pairs) -> float:
    row, name = key
    operator = hessians(exact, trajectory.theta[row], trajectory.buffers[row])[name]
    values, rows = (torch.from_numpy(np.array(part, np.float64)) for part in pairs)
    rows = rows / rows.norm(dim=1, keepdim=True)
    lengths = [float((operator @ v - value * v).norm()) for value, v in zip(values, rows, strict=True)]
    return max(lengths) / float(values.abs().max())


def _flat(parts: Sequence[Tensor]) -> Array:
    return torch.cat([part.detach().reshape(-1) for part in parts]).numpy()


def _plain(seen: Seen, loss: Loss, batches: Batches, name: str) -> Pairs:
    parameters = list(seen.trunk.parameters())
    sizes, shapes = [p.numel() for p in parameters], [p.shape for p in parameters]

    def product(vector: Array) -> Array:
        given = torch.from_numpy(np.asarray(vector, np.float32).ravel())
        parts = [part.reshape(shape) for part, shape in zip(torch.split(given, sizes), shapes, strict=True)]
        total = np.zeros(sum(sizes))
        for inputs, targets in batches:
            gradients = torch.autograd.grad(loss(seen(inputs), targets), parameters, create_graph=True)
            total += _flat(torch.autograd.grad(gradients, parameters, parts)) * len(inputs)
        return total / sum(len(inputs) for inputs, _ in batches)

    operator = LinearOperator((sum(sizes), sum(sizes)), matvec=product, dtype=np.float32)
    values, vectors = eigsh(operator, COUNT, which="LA", tol=TOLERANCE)
    return values, vectors.T


def _curvlinops(seen: Seen, loss: Loss, batches: Batches, name: str) -> Pairs:
    from curvlinops import HessianLinearOperator

    parameters = list(seen.trunk.parameters())
    examples = sum(len(inputs) for inputs, _ in batches)
    operator = HessianLinearOperator(seen, loss, parameters, batches, check_deterministic=False, num_data=examples)
    values, vectors = eigsh(operator.to_scipy(dtype=np.float32), COUNT, which="LA", tol=TOLERANCE)
    return values, vectors.T


def _eigenthings(steps: dict[str, int]) -> Method:
    """By name, how many steps it is to take; where that is not known, tens are added until its residuals are met."""

    def method(seen: Seen, loss: Loss, batches: Batches, name: str) -> Pairs:
        from hessian_eigenthings import HessianOperator, lanczos

        operator = HessianOperator(seen, batches, lambda model, batch: loss(model(batch[0]), batch[1]))
        for count in [steps[name]] if name in steps else range(20, 200, 10):
            found = lanczos(operator, k=COUNT, max_iter=count, reorthogonalize=True, which="LA", seed=0)
            if float(found.residuals.max()) <= TOLERANCE * float(found.eigenvalues.abs().max()):
                steps.setdefault(name, count)
                break
        return found.eigenvalues.numpy(), found.eigenvectors.numpy()

    return method


def _pyhessian(seen: Seen, loss: Loss, batches: Batches, name: str) -> Pairs:
    from pyhessian import hessian

    values, vectors = hessian(seen, loss, dataloader=batches, cuda=False).eigenvalues(top_n=COUNT)
    return np.array(values), np.stack([_flat(vector) for vector in vectors])


PEERS: dict[str, tuple[str, Method]] = {
    "eigsh on a plain product": ("scipy", _plain),
    "curvlinops with eigsh": ("curvlinops", _curvlinops),
    "hessian-eigenthings": ("hessian_eigenthings", _eigenthings({})),
    "PyHessian": ("pyhessian", _pyhessian),
}
