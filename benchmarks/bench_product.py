"""A Hessian-vector product against the gradient of the same loss on the same data."""

import time
from collections.abc import Callable
from typing import Any

import torch

from analysis.operators import hessians
from landscape import Problem, problems

REPEATS = 7


def run() -> list[dict[str, Any]]:
    """Milliseconds of a product and of a gradient over the evaluation set, and how many gradients a product takes."""
    torch.set_num_threads(1)
    rows = []
    for norm in ("none", "group", "batch"):
        problem = problems.load("digits", {"norm": norm})
        theta, buffers = problem.initial(0)
        operator = hessians(problem, theta.numpy(), buffers.numpy())["average"]
        vector = torch.ones(operator.size)
        product, gradient = [], []
        for repeat in range(REPEATS + 1):
            pair = _seconds(operator.__matmul__, vector), _seconds(_gradient, problem, theta, buffers)
            if repeat:
                product.append(pair[0] * 1e3)
                gradient.append(pair[1] * 1e3)
        rows.append(
            {
                "norm": norm,
                "parameters": operator.size,
                "gradient, ms": gradient,
                "product, ms": product,
                "gradients a product": [p / g for p, g in zip(product, gradient, strict=True)],
            }
        )
    return rows


def _gradient(problem: Problem, theta: torch.Tensor, buffers: torch.Tensor) -> None:
    for batch in problem.evaluation.pieces(problem.micro_batch):
        there = theta.detach().requires_grad_()
        torch.autograd.grad(problem.losses(there, batch, buffers).sum(), there)


def _seconds(work: Callable[..., object], *arguments: object) -> float:
    start = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - start
