"""Symmetric operators on parameters, known by their products with vectors: where to find them all.

`analysis.linear` has the protocol, matrices and sums; `analysis.curvature` Hessians, Gauss-Newton and Fisher matrices;
`analysis.products` the ways to multiply; `analysis.probing` the checks.
"""

from __future__ import annotations

from torch import Tensor

from analysis.curvature import CurvatureOperator, Location
from analysis.kinds import Fisher, GaussNewton, Hessian, Kind
from analysis.linear import MatrixOperator, Operator, SymmetricOperator, WeightedSum, to_scipy
from analysis.probing import linearity, probe
from analysis.product_choice import AUTO, Auto
from analysis.products import Way
from analysis.results import Array
from analysis.subsets import Shared, Subset
from landscape.data import Batch
from landscape.problem import Problem


def hessians(
    problem: Problem,
    theta: Array | Tensor,
    buffers: Array | Tensor,
    on: Subset = Shared(),
    kind: Kind = Hessian(),
    product: Way | Auto = AUTO,
    data: Batch | None = None,
) -> dict[str, CurvatureOperator]:
    """The Hessian of every task and of the averaged loss (1 / T) sum_t L_t on some of the parameters, by name.

    `theta` [P] and `buffers` [Q] as a trajectory holds them. The averaged one is called `average`. Another kind of
    curvature, another way to compute products and other examples than the evaluation set can be asked for; see
    `analysis.curvature.Location` and `CurvatureOperator`.
    """
    return Location(problem, theta, buffers, data).operators(on, kind, product)


__all__ = [
    "AUTO",
    "Auto",
    "CurvatureOperator",
    "Fisher",
    "GaussNewton",
    "Hessian",
    "Kind",
    "Location",
    "MatrixOperator",
    "Operator",
    "SymmetricOperator",
    "WeightedSum",
    "hessians",
    "linearity",
    "probe",
    "to_scipy",
]
