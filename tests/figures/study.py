"""Records the size of a real study: three strategies, three seeds, three tasks, 40 snapshots, a 25 by 21 surface."""

from __future__ import annotations

from itertools import product

import numpy as np

from analysis.results import (
    AVERAGE,
    BUDGETS,
    Comparison,
    DistanceMatrix,
    EigenvalueHistory,
    Exploration,
    RateSearch,
    Shadow,
    Surface,
    Training,
)
from tests.figures.records import STRATEGIES, TASKS, plane, run

SEEDS = (0, 1, 2)
RUNS = tuple(run(label, seed) for label, seed in product(STRATEGIES, SEEDS))
STEPS = np.linspace(0, 2000, 40).round()
REACH = {"averaged": 1.0, "alternating": 1.15, "independent": 1.6}
UPDATES = {"averaged": 1, "alternating": 3, "independent": 3}


def surface() -> Surface:
    x, y = np.linspace(-6, 6, 25), np.linspace(-4, 5, 21)
    grid_x, grid_y = np.meshgrid(x, y)
    bowls = [(1.0, 0.5, 0.10), (-1.5, 1.5, 0.15), (0.5, -1.5, 0.2)]
    loss = np.stack(
        [
            0.02 * (k + 1) + c * ((grid_x - a) ** 2 + 2 * (grid_y - b) ** 2 + np.sin(2 * grid_x) + 1)
            for k, (a, b, c) in enumerate(bowls)
        ]
    )
    done = np.ones((21, 25), bool)
    done[18:, 20:] = False
    loss[:, ~done] = np.nan
    loss[1, 0:2, 0:3] = np.nan
    return Surface(
        tasks=TASKS,
        x=x,
        y=y,
        loss=loss,
        stderr=0.02 * loss,
        difference_stderr=0.01 * loss,
        average_stderr=0.02 * loss.mean(0),
        average_difference_stderr=0.01 * loss.mean(0),
        metrics=(),
        scores=np.zeros((0, *loss.shape[1:])),
        score_stderr=np.zeros((0, *loss.shape[1:])),
        split="evaluation",
        heads="as the plane's",
        engine="Sequential(micro_batch=128)",
        done=done,
        plane=plane(),
        examples=1000,
        data="data",
        batch_norm="frozen",
    )


def shadows() -> tuple[Shadow, ...]:
    made = []
    for r in RUNS:
        generator = np.random.default_rng(r.seed + 17)
        start = generator.normal(0, 1, 2) * 0.3 + np.array([-4.5, 3.6])
        generator = np.random.default_rng(hash_of(r.label) + r.seed)
        t = 1 - np.exp(-STEPS / 500)
        end = np.array([0.3, 0.2]) * REACH[r.label] + generator.normal(0, 0.5, 2)
        wobble = np.cumsum(generator.normal(0, 0.09, (40, 2)), axis=0) * t[:, None]
        coordinates = start + (end - start) * t[:, None] + wobble
        off = 2.2 * t * REACH[r.label] * (1 + 0.1 * generator.normal(size=40).cumsum() / 6)
        losses = np.stack([2.5 * np.exp(-STEPS / 400 / (k + 1)) + 0.05 * (k + 1) for k in range(3)], axis=1)
        far = np.hypot(np.linalg.norm(coordinates, axis=1), off)
        made.append(
            Shadow(
                run=r,
                steps=STEPS,
                coordinates=coordinates,
                off_plane=np.abs(off),
                from_origin=far,
                elsewhere=np.zeros(STEPS.size),
                losses=losses,
                tasks=TASKS,
            )
        )
    return tuple(made)


def hash_of(label: str) -> int:
    return 100 * STRATEGIES.index(label)


def explorations() -> tuple[Exploration, ...]:
    made = []
    for r in RUNS:
        generator = np.random.default_rng(hash_of(r.label) + r.seed)
        k = UPDATES[r.label]
        net = REACH[r.label] * 2 * np.sqrt(STEPS / 400) * (1 + 0.05 * generator.normal())
        path = REACH[r.label] * STEPS / 150 * (1 + 0.03 * generator.normal())
        seconds = STEPS * (0.01 if k == 1 else 0.017) * (1 + 0.1 * generator.random())
        made.append(
            Exploration(
                run=r,
                steps=STEPS,
                updates=STEPS * k,
                gradients=STEPS * 3,
                seconds=seconds,
                movement=STEPS * k * 1e-3,
                net=net,
                path_steps=path,
                path_updates=path * (1 + 0.2 * (k > 1)),
                start_norm=21.0,
            )
        )
    return tuple(made)


def trainings() -> tuple[Training, ...]:
    made = []
    for r in RUNS:
        generator = np.random.default_rng(hash_of(r.label) + r.seed)
        rate = np.array([300.0, 500.0, 700.0]) / REACH[r.label]
        noise = np.exp(0.05 * generator.normal(size=(40, 3)))
        losses = (2.3 * np.exp(-STEPS[:, None] / rate) + 0.04) * noise
        scores = 1 - 0.9 * np.exp(-STEPS[:, None] / rate) - 0.02 * generator.random((40, 3))
        batch = np.arange(1, 2001)
        batches = (2.3 * np.exp(-batch[:, None] / rate) + 0.03) * np.exp(0.4 * generator.normal(size=(2000, 3)))
        k = UPDATES[r.label]
        metrics = tuple(f"{task}.accuracy" for task in TASKS)
        made.append(
            Training(
                run=r,
                tasks=TASKS,
                metrics=metrics,
                steps=STEPS,
                updates=STEPS * k,
                gradients=STEPS * 3,
                seconds=STEPS * 0.01,
                losses=losses,
                scores=scores,
                batch_steps=batch,
                batch_losses=batches,
            )
        )
    return tuple(made)


def histories() -> tuple[EigenvalueHistory, ...]:
    made = []
    steps = STEPS[::5]
    for r in RUNS:
        generator = np.random.default_rng(hash_of(r.label) + r.seed)
        base = 40 * REACH[r.label] * np.exp(-steps / 900)[:, None, None] + 3
        scale = np.array([1.0, 2.2, 0.6, 0.8])[:, None] * np.array([1.0, 0.6, 0.4])
        values = base * scale * np.exp(0.1 * generator.normal(size=(8, 4, 3)))
        converged = generator.random((8, 4, 3)) > 0.05
        residuals = np.where(converged, 0.01, 0.2) * values
        made.append(
            EigenvalueHistory(
                run=r,
                tasks=(*TASKS, AVERAGE),
                steps=steps,
                values=values,
                residuals=residuals,
                converged=converged,
                products=900,
                examples=1000,
                data="data",
            )
        )
    return tuple(made)


def searches() -> tuple[RateSearch, ...]:
    rates = 10.0 ** np.arange(-4, 0.1, 0.5)
    made = []
    for label in STRATEGIES:
        best = {"averaged": -2.0, "alternating": -2.5, "independent": -2.5}[label]
        losses = 0.1 * REACH[label] + 0.3 * (np.log10(rates) - best) ** 2
        losses[-2 if label != "averaged" else -1 :] = np.inf
        done = np.full(rates.size, True)
        made.append(
            RateSearch(label=label, rates=rates, losses=losses, done=done, chosen=10.0**best, steps=300, seed=1000)
        )
    return tuple(made)


def distances() -> DistanceMatrix:
    points = np.array([s.coordinates[-1] for s in shadows()]) * 2
    matrix = np.linalg.norm(points[:, None] - points[None], axis=-1)
    return DistanceMatrix(labels=tuple(r.name for r in RUNS), distance=matrix, what="last snapshots")


def comparisons() -> tuple[Comparison, ...]:
    made = []
    generator = np.random.default_rng(5)
    for measure, strategy, budget in product(("net", "path_updates", "ratio"), STRATEGIES[1:], BUDGETS):
        ahead = budget in ("steps", "gradients")
        base = np.array([4.0, 4.1, 4.3])
        change = (REACH[strategy] - 1 if ahead else -0.2) * 4 + generator.normal(0, 0.12, 3)
        middle, half = change.mean(), 4.303 * change.std(ddof=1) / np.sqrt(3)
        low, high = middle - half, middle + half
        verdict = "wider" if low > 0 else "narrower" if high < 0 else "undecided"
        made.append(
            Comparison(
                measure=measure,
                budget=budget,
                strategy=strategy,
                baseline="averaged",
                seeds=np.array(SEEDS),
                strategy_values=base + change,
                baseline_values=base,
                level=2000.0,
                difference=middle,
                low=low,
                high=high,
                verdict=verdict,
            )
        )
    return tuple(made)
