"""Checks made once, at the start, of what would silently spoil every later number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from landscape.binding import bind, plain_kernels, with_own_hooks
from landscape.data import Batch, Tree, fresh
from landscape.errors import LandscapeError
from landscape.modules import own_buffers
from landscape.purity import calling, untouched
from landscape.randomness import seeded


class _HasLoss(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def loss(self) -> Any: ...
    @property
    def metrics(self) -> Any: ...


def require_per_example(tasks: Sequence[_HasLoss], predictions: Sequence[Any], batch: Batch) -> None:
    """Raises unless every loss and metric gives one value an example, [B], which no other example changes.

    Each is evaluated on all examples and on either part of them alone: three calls. The parts are a third and the rest,
    whose sizes have no common factor where there are 16: no share of the examples is the same in both.
    """
    count = len(batch)
    for task, prediction, target in zip(tasks, predictions, batch.targets, strict=True):
        for what, function in (("loss", task.loss), *((f"metric {name!r}", f) for name, f in task.metrics.items())):
            called = f"the {what} of task {task.name!r}"
            together = _values(called, function, (prediction, target), count)
            split = _first_part(count)
            for part in (slice(split), slice(split, None)) if count > 1 else ():
                rows = len(range(count)[part])
                given = tree_map(lambda leaf, part=part: _cut(leaf, part, count), (prediction, target))
                if not _close(together[part], _values(called, function, given, rows), None):
                    raise LandscapeError(
                        f"{called} mixes the examples of a batch: its values for {rows} of {count} examples change "
                        "when they are evaluated without the others; expected each to depend on its own prediction "
                        "and target alone: take no mean, sum or norm over the first dimension, and draw nothing"
                    )


def _first_part(count: int) -> int:
    return max(1, count // 3)


def require_alike(tasks: Sequence[_HasLoss], together: Tensor, few: Tensor) -> None:
    """Raises unless losses [T, B] of examples that were evaluated among many are those that they have among a few."""
    for task, one, other in zip(tasks, together, few, strict=True):
        scale = float(other.abs().nan_to_num(0.0, 0.0, 0.0).max()) if other.numel() else 0.0
        if not torch.allclose(one, other, 0.0, max(scale, 1e-30) * torch.finfo(other.dtype).eps ** 0.5, equal_nan=True):
            worst = int((one - other).abs().nan_to_num(torch.inf).argmax())
            raise LandscapeError(
                f"the loss of task {task.name!r} changes with the other examples of a batch: {float(one[worst]):.6g} "
                f"in a micro-batch, {float(other[worst]):.6g} among {len(other)} examples; expected each to depend on "
                "its own example alone: look for capacities, shares or statistics of a batch in the model and the loss"
            )


def _values(called: str, function: Any, given: tuple[Any, Any], count: int) -> Tensor:
    prediction, target = given
    try:
        value = function(prediction, target)
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise LandscapeError(
            f"{called} failed on a batch of {count} examples ({' '.join(str(error).split())}): "
            f"expected a function of (prediction {_shape(prediction)}, target {_shape(target)})"
        ) from error
    if not isinstance(value, Tensor) or value.shape != (count,):
        raise LandscapeError(
            f"{called} is not per example: expected shape [{count}] for {count} examples, got {_shape(value)}; "
            "use reduction='none' and average over all but the first dimension"
        )
    return value


def _cut(leaf: Any, rows: slice, count: int) -> Any:
    """Some rows of what has one for every example; the rest as it is."""
    return leaf[rows] if isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == count else leaf


def find_culprit(module: nn.Module, inputs: Tree) -> Any:
    """The model's output. Raises, naming the submodule at fault, unless evaluation is a function of parameters and
    single examples that writes into no parameter.

    Three forward passes in evaluation mode: twice the same examples (dropout, noise), then a third of them alone (batch
    statistics). The culprit is the innermost submodule whose output changed while its input did not.
    """
    part = _first_part(len(tree_leaves(inputs)[0]))
    with untouched(module, "in evaluation mode"):
        first, again = (_observe(module, inputs, draw) for draw in (0, 1))
    _compare(first, again, None, "draws random numbers in evaluation mode (dropout or noise)")
    if part < len(tree_leaves(inputs)[0]):
        alone = _observe(module, tree_map(lambda leaf: leaf[:part], inputs), 0)
        _compare(first, alone, part, "mixes the examples of a batch in evaluation mode (batch statistics)")
    return first[-1][3]


_Calls = list[tuple[str, str, Any, Any]]
"""Name and class of every module that was called, its inputs and its output; the model itself comes last."""


def _observe(module: nn.Module, inputs: Tree, draw: int) -> _Calls:
    calls: _Calls = []
    with calling():
        bound = with_own_hooks(bind(module, own_buffers(module)).eval())
    with torch.no_grad(), seeded(draw, "determinism"), _watching(bound, calls), plain_kernels(bound), calling():
        bound(fresh(inputs))
    return calls


@contextmanager
def _watching(module: nn.Module, calls: _Calls) -> Iterator[None]:
    def note(name: str) -> Any:
        def hook(part: nn.Module, given: Any, by_name: Any, output: Any) -> None:
            every = ((given, by_name), output)
            copies = tree_map(lambda leaf: leaf.clone() if isinstance(leaf, Tensor) else leaf, every)
            calls.append((name or "the model itself", type(part).__name__, *copies))

        return hook

    handles = [part.register_forward_hook(note(name), with_kwargs=True) for name, part in module.named_modules()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _compare(first: _Calls, second: _Calls, rows: int | None, fault: str) -> None:
    others = _numbered(second)
    for (name, number), (_, kind, given, output) in _numbered(first).items():
        _, _, given_again, output_again = others.get((name, number), ("", "", given, output))
        if _close(given, given_again, rows) and not _close(output, output_again, rows):
            raise LandscapeError(
                f"two evaluations at the same parameters differ: module {name!r} ({kind}) {fault}; "
                "expected evaluation to be a function of theta and of each example alone"
            )
    if first and not _close(first[-1][3], second[-1][3], rows):
        raise LandscapeError(f"two evaluations at the same parameters differ: something in the model {fault}")


def _numbered(calls: _Calls) -> dict[tuple[str, int], tuple[str, str, Any, Any]]:
    """Calls by the module's name and their number: on other examples a model may leave one out."""
    counts: Counter[str] = Counter()
    found = {}
    for call in calls:
        found[call[0], counts[call[0]]] = call
        counts[call[0]] += 1
    return found


def _close(a: Any, b: Any, rows: int | None) -> bool:
    """Whether all tensors agree to rounding; `rows` compares the first rows of the first with all of the second."""
    for mine, other in zip(_leaves(a), _leaves(b), strict=False):
        if not (isinstance(mine, Tensor) and isinstance(other, Tensor)):
            continue
        cut = mine[:rows] if rows is not None and mine.dim() and other.dim() and len(other) == rows else mine
        if cut.shape != other.shape:
            continue
        if not cut.is_floating_point():
            if not torch.equal(cut, other):
                return False
            continue
        scale = float(cut.abs().nan_to_num(0.0, 0.0, 0.0).max()) if cut.numel() else 0.0
        tolerance = 1e3 * torch.finfo(cut.dtype).eps * max(scale, 1e-30)
        if not torch.allclose(cut, other, rtol=0.0, atol=tolerance, equal_nan=True):
            return False
    return True


def _leaves(tree: Any) -> list[Any]:
    """Leaves without their graphs: a loss may have parameters of its own."""
    return [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in tree_leaves(tree)]


def _shape(value: Any) -> str:
    return str(list(value.shape)) if isinstance(value, Tensor) else type(value).__name__
