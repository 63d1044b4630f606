"""Small synthetic records with known values, and larger ones that look like a study."""

from __future__ import annotations

import numpy as np

from analysis.results import (
    AVERAGE,
    Array,
    BesideWalk,
    Check,
    Comparison,
    Contrast,
    DistanceMatrix,
    EigenvalueHistory,
    Exploration,
    Plane,
    RateSearch,
    Run,
    Shadow,
    Surface,
    Training,
)

NASTY = '<b>&"$x_1$ %{x}</script>'
STRATEGIES = ("averaged", "alternating", "independent")
TASKS = ("depth", "normals", "segmentation")


def run(label: str = "averaged", seed: int = 0) -> Run:
    return Run(label, f"{label.capitalize()}()", seed)


def plane(gram: Array | None = None, axes: tuple[str, ...] = ("PC 1", "PC 2")) -> Plane:
    gram = np.eye(2) if gram is None else np.asarray(gram, dtype=float)
    basis = np.linalg.cholesky(gram)
    explained = np.array([0.71, 0.18])
    return Plane(
        origin=np.zeros(2),
        basis=basis,
        gram=gram,
        buffers=np.empty(0),
        explained=explained,
        recipe="principal components",
        axes=axes,
        seed=-1,
        layout="layout",
    )


def surface(
    tasks: tuple[str, ...] = ("one", "two"),
    nx: int = 4,
    ny: int = 3,
    done: Array | None = None,
    gram: Array | None = None,
) -> Surface:
    """Task t's loss is (t + 1) (1 + x + 10 y) with x = 0..nx-1, y = 0..ny-1: asymmetric, nx != ny, in closed form."""
    x, y = np.arange(nx, dtype=float), np.arange(ny, dtype=float)
    one = 1 + x[None, :] + 10 * y[:, None]
    loss = np.stack([(t + 1) * one for t in range(len(tasks))])
    done = np.ones((ny, nx), bool) if done is None else done
    loss = np.where(done, loss, np.nan)
    return Surface(
        tasks=tasks,
        x=x,
        y=y,
        loss=loss,
        stderr=0.1 * loss,
        difference_stderr=0.05 * loss,
        average_stderr=0.1 * loss.mean(0),
        average_difference_stderr=0.05 * loss.mean(0),
        metrics=(),
        scores=np.zeros((0, *loss.shape[1:])),
        score_stderr=np.zeros((0, *loss.shape[1:])),
        split="evaluation",
        heads="as the plane's",
        engine="Sequential(micro_batch=128)",
        done=done,
        plane=plane(gram),
        examples=500,
        data="data",
        batch_norm="none",
    )


def shadow(label: str = "averaged", seed: int = 0, tasks: tuple[str, ...] = ("one", "two")) -> Shadow:
    """Three snapshots from (3, 2) to (0, 0); 0, 1 and 2 off the plane; task t's true loss 10, 5, 2 times t + 1."""
    coordinates = np.array([[3.0, 2.0], [1.0, 1.0], [0.0, 0.0]])
    off, far = np.array([0.0, 1.0, 2.0]), np.array([4.0, 2.0, 2.0])
    losses = np.array([10.0, 5.0, 2.0])[:, None] * np.arange(1, len(tasks) + 1)
    return Shadow(
        run=run(label, seed),
        steps=np.array([0, 10, 20]),
        coordinates=coordinates,
        off_plane=off,
        from_origin=far,
        elsewhere=np.zeros(3),
        losses=losses,
        tasks=tasks,
    )


def exploration(label: str = "averaged", seed: int = 0, net: Array | None = None, updates: int = 1) -> Exploration:
    steps = np.array([0.0, 10.0, 20.0])
    net = np.array([0.0, 1.0, 2.0]) if net is None else np.asarray(net, dtype=float)
    return Exploration(
        run=run(label, seed),
        steps=steps,
        updates=steps * updates,
        gradients=steps * 2,
        seconds=steps / 4,
        movement=steps * updates * 0.01,
        net=net,
        path_steps=net * 2,
        path_updates=net * 3,
        start_norm=5.0,
    )


def training(
    label: str = "averaged", seed: int = 0, tasks: tuple[str, ...] = ("one", "two"), shift: float = 0.0
) -> Training:
    steps = np.array([0, 10, 20])
    losses = (np.array([3.0, 2.0, 1.0]) + shift)[:, None] * np.arange(1, len(tasks) + 1)
    metrics = tuple(f"{task}.accuracy" for task in tasks)
    scores = (np.array([0.1, 0.5, 0.8]) + shift / 10)[:, None] * np.ones(len(tasks))
    batch_steps = np.arange(1, 101)
    batches = np.linspace(3.0, 1.0, 100)[:, None] * np.arange(1, len(tasks) + 1)
    return Training(
        run=run(label, seed),
        tasks=tasks,
        metrics=metrics,
        steps=steps,
        updates=steps,
        gradients=steps * 2,
        seconds=steps / 4,
        losses=losses,
        scores=scores,
        batch_steps=batch_steps,
        batch_losses=batches,
    )


def history(
    label: str = "averaged", seed: int = 0, tasks: tuple[str, ...] = ("one", "two"), sign: float = 1.0
) -> EigenvalueHistory:
    """Eigenvalues 100, 10, 1 (times sign) for the first pair, a tenth for the second; the last one is not converged."""
    operators = (*tasks, AVERAGE) if len(tasks) > 1 else tasks
    values = np.array([100.0, 10.0, 1.0])[:, None, None] * np.array([1.0, 0.1]) * np.ones((3, len(operators), 1)) * sign
    converged = np.ones(values.shape, bool)
    converged[-1, 0, 0] = False
    residuals = np.where(converged, 0.01 * np.abs(values), 2.0)
    return EigenvalueHistory(
        run=run(label, seed),
        tasks=operators,
        steps=np.array([0, 10, 20]),
        values=values,
        residuals=residuals,
        converged=converged,
        products=90,
        examples=500,
        data="data",
    )


def search(label: str = "averaged") -> RateSearch:
    return RateSearch(
        label=label,
        rates=np.array([1e-3, 1e-2, 1e-1, 1.0]),
        losses=np.array([2.0, 0.5, 1.0, np.inf]),
        done=np.full(4, True),
        chosen=1e-2,
        steps=200,
        seed=99,
    )


def comparison(
    strategy: str = "independent",
    budget: str = "steps",
    measure: str = "net",
    interval: tuple[float, float] = (0.5, 1.5),
    verdict: str = "wider",
) -> Comparison:
    low, high = interval
    middle = (low + high) / 2 if np.isfinite(low) else 1.0
    values = np.array([2.0, 2.1, 2.2])
    return Comparison(
        measure=measure,
        budget=budget,
        strategy=strategy,
        baseline="averaged",
        seeds=np.array([0, 1, 2]),
        strategy_values=values + middle,
        baseline_values=values,
        level=20.0,
        difference=middle,
        low=low,
        high=high,
        verdict=verdict,
    )


def distances(size: int = 3) -> DistanceMatrix:
    """distance[i, j] = |i - j| (1 + 0.25 size)."""
    places = np.arange(size)
    matrix = np.abs(places[:, None] - places[None, :]) * (1 + 0.25 * size)
    return DistanceMatrix(labels=tuple(f"p-{i}" for i in places), distance=matrix, what="last snapshots")


def checks() -> tuple[Check, ...]:
    return (
        Check("surface at the origin against the recorded loss", 1e-7, 1e-5, "float32 forward pass"),
        Check("asymmetry of the Hessian", 3e-2, 1e-3, "rounding of the products"),
    )


def contrast(
    strategy: str = "independent",
    shift: float = 1.0,
    seeds: int = 6,
    measures: tuple[str, ...] = ("net", "ratio"),
    budgets: tuple[str, ...] = ("steps", "movement", "loss"),
    subset: str = "shared",
    form: str = "raw",
) -> Contrast:
    """At equal steps every measure is `shift` larger and clear, at equal movement undecided, at equal loss only clear
    without the correction; without intervals below two seeds.
    """
    shape = (len(measures), len(budgets))
    difference = np.broadcast_to(np.array([shift, 0.0, 0.5])[: len(budgets)], shape).copy()
    half = np.broadcast_to(np.array([0.5, 1.0, 0.4])[: len(budgets)], shape) if seeds > 1 else np.full(shape, np.nan)
    p = np.broadcast_to(np.array([0.01, 0.9, 0.3])[: len(budgets)], shape).copy()
    values = np.broadcast_to(np.linspace(2, 3, seeds), (*shape, seeds)).copy()
    return Contrast(
        strategy=strategy,
        baseline="averaged",
        subset=subset,
        form=form,
        design="paired",
        note="",
        measures=measures,
        units=("parameter", "1")[: len(measures)],
        verdicts=tuple(f"{name}: {strategy} against averaged, said in words" for name in measures),
        budgets=budgets,
        levels=np.array([20.0, 0.2, 0.5])[: len(budgets)],
        seeds=np.arange(seeds),
        baseline_seeds=np.arange(seeds),
        strategy_values=values + difference[..., None],
        baseline_values=values,
        samples=np.full(shape, seeds),
        difference=difference,
        low=difference - half,
        high=difference + half,
        bootstrap_low=difference - half,
        bootstrap_high=difference + half,
        p_value=p / 5,
        p_permutation=p / 3,
        p_holm=p,
        p_hochberg=p,
        p_corrected=p,
        effect=2 * difference,
        effect_low=difference,
        effect_high=3 * difference,
        superiority=np.full(shape, 1.0),
        detectable=half,
        correction="some correction",
        tests=difference.size,
        smallest_p=2.0 ** (1 - seeds),
        resamples=99,
        resampling_seed=0,
    )


def beside_walk(label: str = "independent", seed: int = 0, above: float = 0.01) -> BesideWalk:
    """Nineteen walks with a net distance of about 1; the run's is 2."""
    draws = np.stack([np.linspace(0.9, 1.1, 19), np.full(19, np.nan)], axis=1)
    return BesideWalk(
        run=run(label, seed),
        subset="shared",
        form="raw",
        measures=("net", "volume"),
        units=("parameter", "ln (parameter)^2"),
        values=np.array([2.0, np.nan]),
        draws=draws,
        above=np.array([above, np.nan]),
        below=np.array([1.0, np.nan]),
        dimension=1000,
        seed=0,
    )
