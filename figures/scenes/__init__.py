"""Pure functions from records to scenes, one for each kind of figure.

Each takes records of `analysis.results` and returns a `figures.marks.Scene`; nothing is drawn and nothing is measured.
Strategies get their looks in order of first appearance; `order` names labels that come first, so that the figures of
one report agree.
"""

from figures.scenes.conflicts import conflict_map
from figures.scenes.connections import barriers, disagreement, paths, point_distances, separation
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
    "barriers",
    "comparisons",
    "conflict_map",
    "difference",
    "disagreement",
    "distance_matrix",
    "eigenvalues",
    "exploration",
    "gap",
    "interpolation",
    "paths",
    "point_distances",
    "profile",
    "profile_ensemble",
    "rate_search",
    "separation",
    "shares",
    "significant",
    "surface",
    "surface_ensemble",
    "surface_relief",
    "training",
]
