"""Pure functions from records to scenes, one for each kind of figure.

Each takes records of `analysis.results` and returns a `figures.marks.Scene`; nothing is drawn and nothing is measured.
Strategies get their looks in order of first appearance; `order` names labels that come first, so that the figures of
one report agree.
"""

from figures.scenes.agreement import cross_curvature, eigenvalue_shares, gradient_agreement, principal_angles
from figures.scenes.alternation import alternation, alternation_remainder, prediction_and_measurement
from figures.scenes.conditions import in_bfloat16
from figures.scenes.conflicts import conflict_map
from figures.scenes.connections import barriers, disagreement, paths, point_distances, separation
from figures.scenes.contrasts import contrasts
from figures.scenes.densities import cumulative, densities_along, density
from figures.scenes.differences import difference
from figures.scenes.explorations import distance_matrix, exploration
from figures.scenes.faithfulness import gap, shares
from figures.scenes.implied_agreement import agreement_growth, curvature_tensor
from figures.scenes.landscapes import significant, surface, surface_relief
from figures.scenes.learning import rate_search, training
from figures.scenes.lines import profile
from figures.scenes.movements import displacement, movement, turning
from figures.scenes.sampled import interpolation, profile_ensemble, surface_ensemble
from figures.scenes.sharpness import along_updates, sharpness, sharpness_of_runs
from figures.scenes.spectra import eigenvalues
from figures.scenes.spectrum_numbers import spectrum_compared, spectrum_numbers
from figures.scenes.tracks import layer_eigenvalues, tracked_eigenvalues
from figures.scenes.verdicts import comparisons

__all__ = [
    "agreement_growth",
    "along_updates",
    "alternation",
    "alternation_remainder",
    "barriers",
    "comparisons",
    "conflict_map",
    "contrasts",
    "cross_curvature",
    "cumulative",
    "curvature_tensor",
    "densities_along",
    "density",
    "difference",
    "disagreement",
    "displacement",
    "distance_matrix",
    "eigenvalue_shares",
    "eigenvalues",
    "exploration",
    "gap",
    "gradient_agreement",
    "in_bfloat16",
    "interpolation",
    "layer_eigenvalues",
    "movement",
    "paths",
    "point_distances",
    "prediction_and_measurement",
    "principal_angles",
    "profile",
    "profile_ensemble",
    "rate_search",
    "separation",
    "shares",
    "sharpness",
    "sharpness_of_runs",
    "significant",
    "spectrum_compared",
    "spectrum_numbers",
    "surface",
    "surface_ensemble",
    "surface_relief",
    "tracked_eigenvalues",
    "training",
    "turning",
]
