"""A small surface with every awkwardness that a record can have."""

from __future__ import annotations

import numpy as np

from analysis.results import Plane, Surface


def surface(tasks=("depth", 'näme/with "quotes"\nand a new line'), fill=0.5):
    plane = Plane(
        origin=np.arange(4.0),
        basis=np.eye(2, 4),
        gram=np.eye(2),
        buffers=np.zeros(0),
        explained=np.array([0.7, np.nan]),
        recipe="by hand",
        axes=("first", "second"),
        seed=-1,
        layout="abc",
    )
    return Surface(
        tasks=tasks,
        x=np.linspace(-1, 1, 3),
        y=np.linspace(0, 1, 2),
        loss=np.full((len(tasks), 2, 3), fill),
        stderr=np.full((len(tasks), 2, 3), np.nan),
        difference_stderr=np.full((len(tasks), 2, 3), np.nan),
        average_stderr=np.full((2, 3), np.nan),
        average_difference_stderr=np.full((2, 3), np.nan),
        metrics=("depth.accuracy",),
        scores=np.full((1, 2, 3), 0.25),
        score_stderr=np.full((1, 2, 3), 0.125),
        split="evaluation",
        heads="as the plane's",
        engine="Sequential(micro_batch=128)",
        done=np.array([[True, False, True], [False, True, True]]),
        plane=plane,
        examples=12,
        data="def",
        batch_norm="none",
    )
