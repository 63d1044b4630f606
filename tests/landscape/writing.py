"""A process that trains into a file and says what was acknowledged: `python -m tests.landscape.writing PATH [HOW]`.

HOW is the largest size in bytes that a file may have, as on a full disk; or `paced`: every third step waits for a line
on stdin.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path

from torch import nn

from landscape import Every, Independent, LandscapeError, Optimiser, Plan, Problem, Trajectory, record
from landscape.strategies import Strategy
from tests.landscape.examples import Net, data, made, tasks

STEPS, WIDTH = 40, 200


def settings() -> tuple[Problem, Strategy, Plan]:
    """Theta has some ten kilobytes, so that the file grows with every step."""

    def middle() -> nn.Module:
        return nn.Sequential(nn.Dropout(0.3), nn.BatchNorm1d(WIDTH))

    found = Problem(made(lambda: Net(3, middle, WIDTH)), tasks(), data(), data(23, 3, 2))
    return found, Independent(Optimiser("Adam", lr=0.01)), Plan(STEPS, 6, Every(1))


def write(path: Path, paced: bool = False) -> Trajectory:
    def acknowledged(step: int) -> None:
        print(step, flush=True)
        if paced and step and step % 3 == 0:
            sys.stdin.readline()

    return record(*settings(), path, progress=acknowledged)


if __name__ == "__main__":
    how = sys.argv[2] if len(sys.argv) > 2 else ""
    if how.isdecimal():
        sys.dont_write_bytecode = True  # what is cut short would stay (gh-126606)
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(how), resource.RLIM_INFINITY))
    try:
        write(Path(sys.argv[1]), how == "paced")
    except LandscapeError as error:
        sys.exit(f"refused: {error}")
