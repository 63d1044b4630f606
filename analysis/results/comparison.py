"""What comparing two strategies over seeds found, with everything that is needed to doubt it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from analysis.results.base import Array, Record, Run, array, names
from analysis.results.exploration import BUDGETS
from analysis.results.movement import LOSS

FAIR_BUDGETS = (*BUDGETS, LOSS)
"""`loss` is an equal averaged loss on the evaluation set, `loss:TASK` that of one task."""
ERROR_RATE = 0.05
"""What is called clear is wrong at most this often where there is nothing: in the whole family of tests."""
FEWEST_SEEDS = 3
"""No verdict is given from fewer."""

UNKNOWN, FEW, UNDECIDED, UNCORRECTED, SMALLER, LARGER = (
    "unknown",
    "too few seeds",
    "undecided",
    "not after correction",
    "smaller",
    "larger",
)
"""What can be said of one measure at one budget: the budget or the measure is not known there; fewer than three seeds;
the interval holds zero; it leaves zero out, but the corrected test finds nothing; clear, one way or the other.
"""


@dataclass(frozen=True, eq=False, kw_only=True)
class Contrast(Record):
    """Two strategies in every measure at every equal budget, on one subset of the parameters in one form.

    Differences are strategy minus baseline: of the same seed where the design is `paired` (d_i, n seeds), of the means
    where it is `unpaired`.
    """

    strategy: str
    baseline: str
    subset: str
    form: str
    design: str
    """`paired` or `unpaired`."""
    note: str
    """On the design where it is not all runs paired by their seeds, and on starts that seeds share; else empty."""
    measures: tuple[str, ...] = names("measure")
    units: tuple[str, ...] = names("measure")
    verdicts: tuple[str, ...] = names("measure")
    """One sentence a measure."""
    budgets: tuple[str, ...] = names("budget")
    levels: Array = array("budget")
    """Where on each budget all runs are read: the largest that all reach; of the loss, the smallest."""
    seeds: Array = array("seed")
    baseline_seeds: Array = array("baseline_seed")
    strategy_values: Array = array("measure", "budget", "seed")
    baseline_values: Array = array("measure", "budget", "baseline_seed")
    samples: Array = array("measure", "budget")
    """Pairs, or runs of the strategy that has fewer, whose values are finite; the others are left out."""
    difference: Array = array("measure", "budget")
    low: Array = array("measure", "budget")
    """95 % interval by Student's t, Welch's where unpaired; to `high`."""
    high: Array = array("measure", "budget")
    bootstrap_low: Array = array("measure", "budget")
    """95 % interval by the bias-corrected and accelerated bootstrap over seeds; to `bootstrap_high`."""
    bootstrap_high: Array = array("measure", "budget")
    p_value: Array = array("measure", "budget")
    """Two-sided, by Student's or Welch's t test."""
    p_permutation: Array = array("measure", "budget")
    """Two-sided, by flipping the signs of paired differences, or by dealing out the runs anew where unpaired."""
    p_holm: Array = array("measure", "budget")
    """`p_value` corrected by Holm: the chance that any test of the family errs."""
    p_hochberg: Array = array("measure", "budget")
    """`p_value` corrected by Benjamini and Hochberg: the share of errors among what is called clear."""
    p_corrected: Array = array("measure", "budget")
    """What verdicts go by: see `correction`."""
    effect: Array = array("measure", "budget", units="standard deviation")
    """Hedges' g: difference / standard deviation (of the differences; pooled where unpaired), less its bias."""
    effect_low: Array = array("measure", "budget", units="standard deviation")
    """95 % interval of the effect, from the noncentral t distribution; to `effect_high`."""
    effect_high: Array = array("measure", "budget", units="standard deviation")
    superiority: Array = array("measure", "budget")
    """Share of pairs (of all pairs of runs where unpaired) in which the strategy has more; a tie counts half."""
    detectable: Array = array("measure", "budget")
    """The smallest true difference that a t test would find at this spread and number of seeds four times in five."""
    correction: str
    """How `p_corrected` is made, in words."""
    tests: int
    """How many tests the family has: all measures, budgets, subsets and forms of this strategy and baseline."""
    smallest_p: float
    """The smallest p that the permutation test can give with these seeds."""
    resamples: int
    resampling_seed: int
    starts: int = 0
    """How many different starts the runs of `seeds` have, of the strategy or of the baseline, whichever has fewer; 0
    where they are not known. Fewer than seeds: what is found holds for these starts alone.
    """

    def at(self, measure: str, budget: str) -> tuple[int, int]:
        """Where a measure and a budget stand in the arrays."""
        for kind, name, there in (("measure", measure, self.measures), ("budget", budget, self.budgets)):
            if name not in there:
                raise ValueError(f"expected a {kind} among {', '.join(there)}, got {name!r}")
        return self.measures.index(measure), self.budgets.index(budget)

    def outcome(self, measure: int, budget: int) -> str:
        """One of the words above for a measure and a budget by number: clear is what interval and test agree on."""
        at = (measure, budget)
        if min(len(self.seeds), len(self.baseline_seeds)) < FEWEST_SEEDS:
            return FEW
        if not np.isfinite(self.difference[at]):
            return UNKNOWN
        if self.samples[at] < FEWEST_SEEDS:
            return FEW
        if not (self.low[at] > 0 or self.high[at] < 0):
            return UNDECIDED
        if not self.p_corrected[at] <= ERROR_RATE:
            return UNCORRECTED
        return LARGER if self.difference[at] > 0 else SMALLER


@dataclass(frozen=True, eq=False, kw_only=True)
class BesideWalk(Record):
    """The measures of one run at its last snapshot beside random walks with its start, step lengths and dimension."""

    run: Run
    subset: str
    form: str
    measures: tuple[str, ...] = names("measure")
    units: tuple[str, ...] = names("measure")
    values: Array = array("measure")
    draws: Array = array("draw", "measure")
    above: Array = array("measure")
    """(1 + draws at or above the value) / (1 + draws): a p-value for a run that goes further than a walk."""
    below: Array = array("measure")
    """(1 + draws at or below the value) / (1 + draws)."""
    dimension: int
    seed: int
