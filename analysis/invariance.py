"""Which tensors of a model a norm follows, so that their scale changes no loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor

from analysis.normalisation import with_batch_statistics
from analysis.results import Array
from analysis.subsets import module_of
from landscape.errors import failures_of
from landscape.modules import unflatten
from landscape.problem import Problem
from landscape.randomness import generator

FACTORS = (0.5, 2.0)
TOLERANCE = 0.01
"""Share of what another direction does that a scale may change: norms add a small number to the variance."""
EXAMPLES = 64


def followed(
    problem: Problem, theta: Array | None = None, buffers: Array | None = None, seed: int = 0
) -> tuple[str, ...]:
    """Names of the tensors with two or more dimensions whose scale changes no example's loss of any task.

    Each such tensor is multiplied, together with the bias of its module, by 1/2 and by 2, in float64 on up to 64
    evaluation examples, batch norm with the statistics of these examples. It is followed by a norm if the losses change
    by at most a hundredth (root mean square) of what a random change of the same size does to them; a tensor that
    nothing depends on is not. One that is zero is tried at a random value. Tried at theta [P], by default the problem's
    own start.

    Cost: four forward passes of these examples a tensor.
    """
    problem = problem.to(dtype=torch.float64)
    start, kept = problem.initial(0)
    place = start if theta is None else torch.as_tensor(np.asarray(theta), dtype=torch.float64, device=problem.device)
    kept = kept if buffers is None else torch.as_tensor(np.asarray(buffers), device=problem.device)
    losses = _losses(problem, kept)
    parts = {name: part.detach().clone() for name, part in unflatten(problem.layout, place).items()}
    rng = generator(seed, "scale")
    found = []
    for slot in problem.layout.slots:
        if len(slot.shape) < 2 or not slot.size:
            continue
        bias = f"{module_of(slot.name)}.bias"
        noise = torch.from_numpy(rng.standard_normal(slot.shape)).to(problem.device)
        tensor = parts[slot.name]
        if not tensor.any():
            tensor = 0.1 * noise
        noise = noise * (tensor.norm() / noise.norm())
        here = {**parts, slot.name: tensor}
        before = losses(here)
        moved = _size(losses({**here, slot.name: tensor + noise}) - before)
        scaled = [
            losses({**here, **{name: factor * here[name] for name in (slot.name, bias) if name in here}})
            for factor in FACTORS
        ]
        if moved > 0 and all(_size(after - before) <= TOLERANCE * moved for after in scaled):
            found.append(slot.name)
    return tuple(found)


def _losses(problem: Problem, buffers: Tensor) -> Callable[[Mapping[str, Tensor]], Tensor]:
    few = problem.evaluation[:EXAMPLES]

    def losses(parameters: Mapping[str, Tensor]) -> Tensor:
        what = f"the model on {len(few)} examples with their own batch statistics"
        with torch.no_grad(), failures_of(what, "expected enough evaluation examples for the statistics of its norms"):
            bound = problem.bound(parameters, problem.buffers(buffers))
            output = problem.run(with_batch_statistics(bound), few.inputs)
            return problem.per_example(output, few)[: len(problem.tasks)]

    return losses


def _size(change: Tensor) -> float:
    return float(change.square().mean().sqrt())
