"""Pure functions from records to scenes, one for each kind of figure.

Each takes records of `analysis.results` and returns a `figures.marks.Scene`; nothing is drawn and nothing is measured.
Strategies get their looks in order of first appearance; `order` names labels that come first, so that the figures of
one report agree.
"""

from figures.scenes.agreement import cross_curvature, gradient_agreement
from figures.scenes.alternation import alternation, alternation_remainder, prediction_and_measurement
from figures.scenes.conflicts import conflict_map
from figures.scenes.differences import difference
from figures.scenes.explorations import distance_matrix, exploration
from figures.scenes.faithfulness import gap, shares
from figures.scenes.landscapes import significant, surface, surface_relief
from figures.scenes.learning import rate_search, training
from figures.scenes.lines import profile
from figures.scenes.sampled import interpolation, profile_ensemble, surface_ensemble
from figures.scenes.spectra import eigenvalues
from figures.scenes.verdicts import comparisons

__all__ = [
    "alternation",
    "alternation_remainder",
    "comparisons",
    "conflict_map",
    "cross_curvature",
    "difference",
    "distance_matrix",
    "eigenvalues",
    "exploration",
    "gap",
    "gradient_agreement",
    "interpolation",
    "prediction_and_measurement",
    "profile",
    "profile_ensemble",
    "rate_search",
    "shares",
    "significant",
    "surface",
    "surface_ensemble",
    "surface_relief",
    "training",
]
