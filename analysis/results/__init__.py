"""The immutable records that analyses return, archives store and figures draw. Numpy only.

Every array field states its named dimensions and its unit beside it; `analysis.archive` writes both into the file.
A record never changes a measured value: logarithms, clipping and smoothing happen when a scene is made.
"""

from analysis.results.base import AVERAGE, Array, Check, Estimate, Record, Run
from analysis.results.connectivity import (
    Barriers,
    Curve,
    FunctionDistances,
    PathLosses,
    PointDistances,
    Separation,
)
from analysis.results.curvature import Eigenpairs, EigenvalueHistory
from analysis.results.exploration import BUDGETS, Comparison, DistanceMatrix, Exploration
from analysis.results.planes import Faithfulness, Feet, Line, Plane, PlaneStability, Shadow, Subspace
from analysis.results.surfaces import (
    ConflictMap,
    Interpolation,
    Profile,
    ProfileEnsemble,
    Surface,
    SurfaceEnsemble,
    SurfaceShape,
    Values,
)
from analysis.results.training import RateSearch, Training

__all__ = [
    "AVERAGE",
    "BUDGETS",
    "Array",
    "Barriers",
    "Check",
    "Comparison",
    "ConflictMap",
    "Curve",
    "DistanceMatrix",
    "Eigenpairs",
    "EigenvalueHistory",
    "Estimate",
    "Exploration",
    "Faithfulness",
    "Feet",
    "FunctionDistances",
    "Interpolation",
    "Line",
    "PathLosses",
    "Plane",
    "PlaneStability",
    "PointDistances",
    "Profile",
    "ProfileEnsemble",
    "RateSearch",
    "Record",
    "Run",
    "Separation",
    "Shadow",
    "Subspace",
    "Surface",
    "SurfaceEnsemble",
    "SurfaceShape",
    "Training",
    "Values",
]
