"""Checks of operators, made once before they are relied on."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from analysis.linear import SymmetricOperator, culprit
from analysis.products import CentralDifferences
from analysis.results import AVERAGE, Array, Check
from landscape.errors import LandscapeError
from landscape.randomness import generator


def probe(operator: SymmetricOperator, name: str, seed: int = 0) -> Check:
    """How far an operator is from symmetric and deterministic, on two random unit vectors. Cost: 3 products.

    value = max(|u'Hv - v'Hu|, ||Hu - (Hu again)||) / max(||Hu||, ||Hv||).

    Raises:
        LandscapeError: beyond the limit, which is 1e4 roundings of the operator's precision; with the module at fault
            where it can be found, which costs some more products.
    """
    rng = generator(seed, "probe")
    u, v = (_unit(rng.standard_normal(operator.size), operator) for _ in range(2))
    hu, hv, again = operator @ u, operator @ v, operator @ u
    scale = max(float(hu.norm()), float(hv.norm()), float(np.finfo(np.float64).tiny))
    asymmetry, change = (
        abs(float(u.double() @ hv.double()) - float(v.double() @ hu.double())),
        float((hu - again).norm()),
    )
    limit, reason = _limit(operator)
    check = Check(f"Hessian of {name}: symmetric and deterministic", max(asymmetry, change) / scale, limit, reason)
    if not check.passed:
        found = culprit(operator)
        raise LandscapeError(
            f"the operator of {name} is not symmetric and deterministic: expected {limit:.1g}, got "
            f"{check.value:.1g} relative; "
            + (found or "look for randomness or a non-differentiable operation in the model")
        )
    return check


def linearity(operators: Mapping[str, SymmetricOperator], seed: int = 0) -> Check:
    """||H_average v - (1 / T) sum_t H_t v|| / max(||H_average v||, (1 / T) sum_t ||H_t v||) for a random v, 0 for
    zeros: tasks and average must agree. Holds for Hessians and Gauss-Newton matrices, not for Fisher matrices. T + 1
    products.
    """
    average = operators[AVERAGE]
    v = _unit(generator(seed, "linearity").standard_normal(average.size), average)
    tasks = [operator @ v for name, operator in operators.items() if name != AVERAGE]
    whole, mean = (average @ v).double(), torch.stack(tasks).double().mean(0)
    lengths = torch.stack([task.double().norm() for task in tasks])
    scale = max(float(whole.norm()), float(lengths.mean()), float(np.finfo(np.float64).tiny))
    limit = 1e4 * torch.finfo(average.dtype).eps
    name = "Hessian product of the average equals the mean of the task products"
    return Check(name, float((whole - mean).norm()) / scale, limit, "1e4 roundings")


def _limit(operator: SymmetricOperator) -> tuple[float, str]:
    """Differences are as exact as their step allows, about eps^(2/3)."""
    eps = torch.finfo(operator.dtype).eps
    if isinstance(getattr(operator, "product", None), CentralDifferences):
        return 100 * eps ** (2 / 3), "100 times the error of central differences"
    return 1e4 * eps, "1e4 roundings"


def _unit(vector: Array, operator: SymmetricOperator) -> Tensor:
    return torch.from_numpy(vector / np.linalg.norm(vector)).to(operator.device, operator.dtype)
