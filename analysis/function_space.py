"""How different what networks compute is: predictions and losses of every example, between snapshots and runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from analysis.examples import Examples, evaluation
from analysis.results import Array, FunctionDistances
from analysis.routes import name_of
from analysis.subspaces import Place, require_one_layout
from landscape.data import Batch
from landscape.errors import LandscapeError, unknown
from landscape.modules import unflatten
from landscape.problem import Problem

MEMORY = 1 << 28
"""Bytes of predictions that are held at once."""


class Rule(Protocol):
    """How predictions of one task are compared."""

    @property
    def words(self) -> str: ...

    @property
    def share(self) -> bool:
        """Whether the mean of `differ` is a share of the examples; else its root is what is reported."""
        ...

    def differ(self, first: Any, second: Any) -> Tensor:
        """How different the predictions of each example are, [B]: from 0 to 1, or a square."""
        ...


@dataclass(frozen=True)
class Argmax:
    """The share of examples whose most likely class (the largest entry along axis 1) is another one; where an example
    has many places, as a segmented picture, the share of its places.
    """

    words = "share of examples with another argmax"
    share = True

    def differ(self, first: Tensor, second: Tensor) -> Tensor:
        other = (first.argmax(1) != second.argmax(1)).double()
        return other.reshape(len(other), -1).mean(1)


@dataclass(frozen=True)
class RootMeanSquare:
    """The root of the mean squared difference, over examples and all entries of a prediction."""

    words = "root mean square difference of predictions"
    share = False

    def differ(self, first: Any, second: Any) -> Tensor:
        return (_flat(first) - _flat(second)).square().mean(1)


@dataclass(frozen=True)
class Sign:
    """The share of entries that have another sign: for logits of yes or no."""

    words = "share of examples with another sign"
    share = True

    def differ(self, first: Any, second: Any) -> Tensor:
        return ((_flat(first) > 0) != (_flat(second) > 0)).double().mean(1)


def usual_rule(prediction: Any, target: Any) -> Rule:
    """`Argmax` for floating-point predictions [B, C, ...], C > 1, with targets of whole numbers; else
    `RootMeanSquare`.
    """
    whole = isinstance(target, Tensor) and not target.is_floating_point() and target.dtype != torch.bool
    many = isinstance(prediction, Tensor) and prediction.is_floating_point() and prediction.ndim > 1
    return Argmax() if whole and many and prediction.shape[1] > 1 else RootMeanSquare()


def measure(
    problem: Problem,
    places: Sequence[Place],
    rules: Mapping[str, Rule] = {},
    examples: Examples | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> FunctionDistances:
    """What each two of some snapshots compute differently; see `FunctionDistances`.

    `rules` by task name; a task without one has the usual rule. `told` hears of every snapshot's pass over a block of
    examples. Means over examples are sums in float64.

    Cost: one forward pass of the examples a snapshot. Memory of 256 MiB of predictions, or of one micro-batch of all
    snapshots where that is more: the examples go through block after block, and each snapshot is read from its file
    once a block.

    Raises:
        LandscapeError: snapshots of different models, a rule for an unknown task, or one that cannot be applied.
    """
    require_one_layout([place.run for place in places])
    problem.layout.require(places[0].run.layout, str(places[0].run.path))
    for task in rules:
        if task not in problem.names:
            raise unknown("task of a rule", task, problem.names)
    on = examples or evaluation(problem)
    few = on.batch[: min(2, len(on))]
    shown = _outputs(problem, places[0], few)[0]
    chosen = [
        rules.get(task.name) or usual_rule(prediction, target)
        for task, prediction, target in zip(problem.tasks, shown, few.targets, strict=True)
    ]
    sums = _Sums(len(places), len(problem.tasks))
    for block in on.batch.pieces(_block(problem, shown, len(few), len(places))):
        seen = []
        for place in places:
            seen.append(_outputs(problem, place, block))
            told(1)
        sums.add(chosen, seen)
    return _record(problem, places, chosen, sums, on)


def blocks(problem: Problem, places: Sequence[Place], examples: Examples | None = None) -> int:
    """In how many blocks the examples would go through."""
    on = examples or evaluation(problem)
    few = on.batch[: min(2, len(on))]
    size = _block(problem, _outputs(problem, places[0], few)[0], len(few), len(places))
    return -(-len(on) // size)


def _block(problem: Problem, shown: Sequence[Any], examples: int, places: int) -> int:
    """Examples whose predictions are held for all snapshots at once: whole micro-batches."""
    each = sum(leaf.numel() * leaf.element_size() for leaf in tree_leaves(list(shown))) / examples
    return max(1, int(MEMORY / (each * places)) // problem.micro_batch) * problem.micro_batch


def _outputs(problem: Problem, place: Place, block: Batch) -> tuple[list[Any], Tensor]:
    """Predictions in task order and losses [T, B] of a block of examples."""
    theta = torch.tensor(place.theta, dtype=problem.dtype, device=problem.device)
    state = torch.tensor(place.buffers, dtype=torch.float64)
    parameters, pieces = unflatten(problem.layout, theta), list(block.pieces(problem.micro_batch))
    predictions, losses = [], []
    with torch.no_grad():
        for piece in pieces:
            found = problem.predictions(parameters, problem.buffers(state), piece.inputs)
            rows = zip(problem.tasks, found, piece.targets, strict=True)
            losses.append(torch.stack([task.loss(prediction, target) for task, prediction, target in rows]))
            predictions.append(found)
    joined = [_joined([found[t] for found in predictions]) for t in range(len(problem.tasks))]
    return joined, torch.cat(losses, 1).double()


def _joined(parts: Sequence[Any]) -> Any:
    """The predictions of several micro-batches as those of one: a tensor, or a list of leaves."""
    if all(isinstance(part, Tensor) for part in parts):
        return torch.cat(list(parts))
    return [torch.cat(leaves) for leaves in zip(*(tree_leaves(part) for part in parts), strict=True)]


def _flat(prediction: Any) -> Tensor:
    """All entries of each example, [B, n] in float64."""
    return torch.cat([leaf.double().reshape(len(leaf), -1) for leaf in tree_leaves(prediction)], 1)


class _Sums:
    """Means over examples of what differs, disagreement, squared predictions and squared losses, and their spread, from
    examples that come in blocks (Chan, Golub and LeVeque, 1983).
    """

    def __init__(self, points: int, tasks: int) -> None:
        self._mean = np.zeros((3, tasks, points, points))
        self._square = np.zeros_like(self._mean)
        self._count = 0

    def add(self, rules: Sequence[Rule], seen: Sequence[tuple[list[Any], Tensor]]) -> None:
        """A block of examples, seen by all points."""
        mean, square = np.zeros_like(self._mean), np.zeros_like(self._mean)
        for i, (mine, my_losses) in enumerate(seen):
            for j, (theirs, their_losses) in enumerate(seen[:i]):
                for t, rule in enumerate(rules):
                    values = (
                        _applied(rule, mine[t], theirs[t]),
                        RootMeanSquare().differ(mine[t], theirs[t]),
                        (my_losses[t] - their_losses[t]).square(),
                    )
                    for k, value in enumerate(values):
                        mean[k, t, i, j] = middle = float(value.mean())
                        square[k, t, i, j] = float((value - middle).square().sum())
        count, before = seen[0][1].shape[1], self._count
        self._count += count
        change = mean - self._mean
        self._mean += change * (count / self._count)
        self._square += square + change**2 * (before * count / self._count)

    def parts(self) -> Iterator[tuple[Array, Array]]:
        """Means over examples and their standard errors, [T, points, points] each, symmetric."""
        for mean, square in zip(self._mean, self._square, strict=True):
            spread = square / self._count / max(self._count - 1, 1)
            error = np.sqrt(spread) if self._count > 1 else np.full_like(mean, np.nan)
            yield mean + mean.transpose(0, 2, 1), error + error.transpose(0, 2, 1)


def _applied(rule: Rule, first: Any, second: Any) -> Tensor:
    try:
        found = rule.differ(first, second).double()
    except (RuntimeError, IndexError, AttributeError, TypeError) as error:
        raise LandscapeError(
            f"the rule {rule!r} cannot compare the predictions of a task ({error}): expected one that fits them"
        ) from error
    if found.ndim != 1:
        raise LandscapeError(
            f"the rule {rule!r} gave the shape {list(found.shape)}: expected one number for each example"
        )
    return found


def _root(mean: Array, error: Array) -> tuple[Array, Array]:
    """The root of a mean of squares, and its error to first order."""
    root = np.sqrt(mean)
    with np.errstate(invalid="ignore", divide="ignore"):
        return root, np.where(root > 0, error / (2 * root), np.nan)


def _record(
    problem: Problem, places: Sequence[Place], rules: Sequence[Rule], sums: _Sums, on: Examples
) -> FunctionDistances:
    (means, errors), prediction, loss = sums.parts()
    shares = np.array([rule.share for rule in rules])
    roots, root_errors = _root(means, errors)
    of_share = shares[:, None, None]
    (predictions, prediction_errors), (losses, loss_errors) = _root(*prediction), _root(*loss)
    return FunctionDistances(
        points=tuple(name_of(place) for place in places),
        tasks=problem.names,
        rules=tuple(rule.words for rule in rules),
        shares=shares,
        disagreement=np.where(of_share, means, roots),
        disagreement_stderr=np.where(of_share, errors, root_errors),
        prediction=predictions,
        prediction_stderr=prediction_errors,
        loss=losses,
        loss_stderr=loss_errors,
        examples=len(on),
        data=on.hash,
        split=on.split,
    )
