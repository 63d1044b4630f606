"""The immutable records that analyses return, archives store and figures draw. Numpy only.

Every array field states its named dimensions and its unit beside it; `analysis.archive` writes both into the file.
A record never changes a measured value: logarithms, clipping and smoothing happen when a scene is made.
"""

from analysis.results.agreement import TaskAgreement
from analysis.results.alternation import HELPS, HURTS, Alternation
from analysis.results.base import AVERAGE, Array, Check, Estimate, Record, Run, handed_over
from analysis.results.comparison import (
    ERROR_RATE,
    FAIR_BUDGETS,
    FEW,
    FEWEST_SEEDS,
    LARGER,
    SMALLER,
    UNCORRECTED,
    UNDECIDED,
    UNKNOWN,
    BesideWalk,
    Contrast,
)
from analysis.results.connectivity import (
    Barriers,
    FunctionDistances,
    PathLosses,
    PointDistances,
    Separation,
    TrainedCurve,
)
from analysis.results.curvature import Eigenpairs, EigenvalueHistory
from analysis.results.densities import Curve, Density, Moments, SpectrumSummary, Traces
from analysis.results.exploration import BUDGETS, Comparison, DistanceMatrix, Exploration
from analysis.results.krylov import EigenvalueIntervals, LanczosState
from analysis.results.movement import LOSS, MEASURE_NAMES, Displacements, Movement, WalkNull, measure_name
from analysis.results.planes import Faithfulness, Feet, Line, Plane, PlaneStability, Shadow, Subspace
from analysis.results.starts import said_of_starts, starts_counted, starts_of
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
from analysis.results.tracking import EigenvalueTracks, Sharpness, TracksUnderway
from analysis.results.training import RateSearch, Training

__all__ = [
    "AVERAGE",
    "BUDGETS",
    "ERROR_RATE",
    "FAIR_BUDGETS",
    "FEW",
    "FEWEST_SEEDS",
    "HELPS",
    "HURTS",
    "LARGER",
    "LOSS",
    "MEASURE_NAMES",
    "SMALLER",
    "UNCORRECTED",
    "UNDECIDED",
    "UNKNOWN",
    "Alternation",
    "Array",
    "Barriers",
    "BesideWalk",
    "Check",
    "Comparison",
    "ConflictMap",
    "Contrast",
    "Curve",
    "Density",
    "Displacements",
    "DistanceMatrix",
    "Eigenpairs",
    "EigenvalueHistory",
    "EigenvalueIntervals",
    "EigenvalueTracks",
    "Estimate",
    "Exploration",
    "Faithfulness",
    "Feet",
    "FunctionDistances",
    "Interpolation",
    "LanczosState",
    "Line",
    "Moments",
    "Movement",
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
    "Sharpness",
    "SpectrumSummary",
    "Subspace",
    "Surface",
    "SurfaceEnsemble",
    "SurfaceShape",
    "TaskAgreement",
    "Traces",
    "TracksUnderway",
    "TrainedCurve",
    "Training",
    "Values",
    "WalkNull",
    "handed_over",
    "measure_name",
    "said_of_starts",
    "starts_counted",
    "starts_of",
]
