"""What is trained and recorded: problems, strategies, training, the trajectory file.

import landscape

problem = landscape.problems.load("digits")
landscape.record(problem, landscape.Independent(), landscape.Plan(steps=500), "run.h5", seed=0)
trajectory = landscape.open("run.h5")
"""

from landscape import problems, strategies
from landscape.data import Batch
from landscape.errors import LandscapeError, TrainingDiverged
from landscape.existing import Overwrite, Refuse, Resume
from landscape.optimisers import Optimiser
from landscape.problem import Problem, Task
from landscape.projection import Projected, Whole
from landscape.recorder import Recorder
from landscape.schedules import AtSteps, Every, LogSpaced
from landscape.store import open
from landscape.strategies import AdaTask, Alternating, Averaged, Grouped, Independent, SingleTask
from landscape.training import Plan, record, train
from landscape.trajectory import Layout, Snapshot, Trajectory

__all__ = [
    "AdaTask",
    "Alternating",
    "AtSteps",
    "Averaged",
    "Batch",
    "Every",
    "Grouped",
    "Independent",
    "LandscapeError",
    "Layout",
    "LogSpaced",
    "Optimiser",
    "Overwrite",
    "Plan",
    "Problem",
    "Projected",
    "Recorder",
    "Refuse",
    "Resume",
    "SingleTask",
    "Snapshot",
    "Task",
    "TrainingDiverged",
    "Trajectory",
    "Whole",
    "open",
    "problems",
    "record",
    "strategies",
    "train",
]
