"""How the task losses move theta. A strategy is a frozen description; `step` acts on a run's workspace.

The two ingredients of independent training are crossed:

|                         | gradients at the same theta | gradients at the moved theta |
| ----------------------- | --------------------------- | ---------------------------- |
| one optimiser state     | `Averaged`                  | `Alternating`                |
| one state a task        | `AdaTask`                   | `Independent`                |

and `Grouped` lies between the rows and columns: random groups of tasks take one step each. `SingleTask` leaves all
tasks but one out.
"""

from __future__ import annotations

from landscape.strategies.adatask import AdaTask
from landscape.strategies.averaged import Averaged
from landscape.strategies.base import Mean, Reduction, Strategy, Sum, Weights, require_fit
from landscape.strategies.grouped import Count, Grouped, OwnStates, SharedState, Size
from landscape.strategies.named import named
from landscape.strategies.sequential import (
    Alternating,
    Fixed,
    Independent,
    NextBatch,
    Reversed,
    SameBatch,
    Shuffled,
)
from landscape.strategies.single import SingleTask

__all__ = [
    "AdaTask",
    "Alternating",
    "Averaged",
    "Count",
    "Fixed",
    "Grouped",
    "Independent",
    "Mean",
    "NextBatch",
    "OwnStates",
    "Reduction",
    "Reversed",
    "SameBatch",
    "SharedState",
    "Shuffled",
    "SingleTask",
    "Size",
    "Strategy",
    "Sum",
    "Weights",
    "named",
    "require_fit",
]
