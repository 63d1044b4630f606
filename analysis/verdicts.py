"""What a contrast says, in words: where a strategy has more, where it has not, and from how much."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from analysis.results import FEW, FEWEST_SEEDS, LARGER, SMALLER, UNCORRECTED, UNDECIDED, UNKNOWN, Contrast, measure_name

WORDS = {
    "net": ("wider", "narrower"),
    "to_end": ("farther from its end", "closer to its end"),
    "path_snapshots": ("longer", "shorter"),
    "path_steps": ("longer", "shorter"),
    "path_updates": ("longer", "shorter"),
    "ratio": ("more winding", "straighter"),
    "speed_steps": ("faster", "slower"),
    "speed_updates": ("faster", "slower"),
    "turning": ("turning more sharply", "turning less sharply"),
    "exponent": ("more directed", "more diffusive"),
    "radius": ("wider", "narrower"),
    "dimension": ("of more dimensions", "of fewer dimensions"),
    "volume": ("larger", "smaller"),
}
"""What a larger and a smaller value of a measure is called."""


def words(measure: str) -> tuple[str, str]:
    """What a larger and a smaller value of a measure are called: `wider` and `narrower` of a net distance."""
    return WORDS.get(measure, ("larger", "smaller"))


def verdict(contrast: Contrast, measure: int) -> str:
    """One sentence on a measure, by its number: where the strategy has more and where not, with every interval."""
    name = f"{measure_name(contrast.measures[measure])} of {contrast.subset} ({contrast.form})"
    outcomes = [contrast.outcome(measure, k) for k in range(len(contrast.budgets))]
    asked = [outcome for outcome in outcomes if outcome != UNKNOWN]
    if not asked:
        return f"{name}: no verdict, at no budget has it a value in the runs"
    if set(asked) == {FEW}:
        return f"{name}: no verdict from {_seeds(contrast)}, expected at least {FEWEST_SEEDS}; train with more seeds"
    more, less = words(contrast.measures[measure])
    neither = "not" if LARGER in outcomes or SMALLER in outcomes else f"neither {more} nor {less}"
    places = range(len(contrast.budgets))
    up = [contrast.difference[measure, k] > 0 for k in places]
    clauses = (
        (more, [k for k in places if outcomes[k] == LARGER]),
        (less, [k for k in places if outcomes[k] == SMALLER]),
        (f"{more}, but only without the correction,", [k for k in places if outcomes[k] == UNCORRECTED and up[k]]),
        (f"{less}, but only without the correction,", [k for k in places if outcomes[k] == UNCORRECTED and not up[k]]),
        (neither, [k for k in places if outcomes[k] == UNDECIDED]),
        ("with too few values", [k for k in places if outcomes[k] == FEW]),
    )
    said = [f"{lead} at equal {_listed([_numbers(contrast, measure, k) for k in at])}" for lead, at in clauses if at]
    return f"{name}: {contrast.strategy} against {contrast.baseline}, {_seeds(contrast)}: {'; '.join(said)}"


def _numbers(contrast: Contrast, measure: int, budget: int) -> str:
    at, name = (measure, budget), contrast.budgets[budget]
    if not np.isfinite(contrast.low[at]):
        return f"{name} ({contrast.difference[at]:+.3g})"
    left_out = _most(contrast) - int(contrast.samples[at])
    few = f", {left_out} seed{'s' * (left_out > 1)} without a value" if left_out else ""
    return f"{name} ({contrast.difference[at]:+.3g}, interval {contrast.low[at]:+.3g} to {contrast.high[at]:+.3g}{few})"


def _most(contrast: Contrast) -> int:
    return min(len(contrast.seeds), len(contrast.baseline_seeds))


def _seeds(contrast: Contrast) -> str:
    n, m = len(contrast.seeds), len(contrast.baseline_seeds)
    few = contrast.starts if contrast.starts < min(n, m) else 0
    of = f" of {'one start' if few == 1 else f'{few} starts'}" if few else ""
    if contrast.design == "unpaired":
        return f"{n} and {m} seeds{of}, unpaired"
    return f"{n} {'seed' if n == 1 else 'seeds'}{of}"


def _listed(parts: Sequence[str]) -> str:
    return " and ".join([", ".join(parts[:-1]), parts[-1]] if len(parts) > 1 else parts)
