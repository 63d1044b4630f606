"""The number type that derivatives are computed in: at least float32, whatever the model's own."""

from __future__ import annotations

import contextlib
from weakref import WeakKeyDictionary

import torch

from landscape.modules import buffers_of, parameters_of
from landscape.problem import Problem

HALF = (torch.float16, torch.bfloat16)


def at_least_single(dtype: torch.dtype) -> torch.dtype:
    """float32 for half precision, any other type as it is."""
    return torch.float32 if dtype in HALF else dtype


def sufficient(problem: Problem) -> tuple[Problem, tuple[str, ...]]:
    """The problem for derivatives, and a note where that is another one: a copy in float32 of one in half precision,
    whose 3 or 2 digits are too few for second derivatives and small moves. Its parameters have the same values.

    A model that cannot be computed in float32 stays as it is. Cost: two examples' forward pass, once for a problem.
    """
    if problem.dtype not in HALF:
        return problem, ()
    own = str(problem.dtype).removeprefix("torch.")
    if problem not in _TWINS:
        _TWINS[problem] = _twin(problem)
    twin = _TWINS[problem]
    if twin is None:
        return problem, (f"computed in {own}, since the model cannot be computed in float32: expect few right digits",)
    _take_up(twin, problem)
    return twin, (f"computed in float32: {own} has too few digits for derivatives",)


_TWINS: WeakKeyDictionary[Problem, Problem | None] = WeakKeyDictionary()


def _twin(problem: Problem) -> Problem | None:
    with contextlib.suppress(RuntimeError, TypeError, ValueError, NotImplementedError):
        twin = problem.to(dtype=torch.float32)
        with torch.no_grad():
            twin.task_losses(twin.read(twin.model)[0], twin.evaluation[:2])
        return twin
    return None


def _take_up(twin: Problem, problem: Problem) -> None:
    """Gives the copy what the model has now, frozen parameters and buffers included."""
    mine, its = ({**parameters_of(m), **buffers_of(m)} for m in (twin.model, problem.model))
    with torch.no_grad():
        for name, tensor in mine.items():
            tensor.copy_(its[name])
