"""The command `landscape hessian`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import emit, show
from cli.options import Device, Json, MaxMemory, Out, Own, Quiet, Runs, Set, Threads, validated, workbench, workers_for

EXAMPLES = """\
Example: [bold]landscape hessian study/runs/independent-0.h5 --at last --top 5 --out results.h5[/bold]; \
both ends with sampling intervals [bold]landscape hessian run.h5 --end both --intervals 1000[/bold]; \
traces at every snapshot [bold]landscape hessian run.h5 --at all --trace[/bold]; \
densities at three [bold]landscape hessian run.h5 --at n=3 --density[/bold]; \
one task's head and every layer [bold]landscape hessian run.h5 --on head:depth --on shared --layers[/bold]; \
how tasks agree, and how sharp [bold]landscape hessian run.h5 --agreement --sharpness[/bold]; \
then [bold]landscape figures results.h5[/bold] and [bold]landscape report results.h5[/bold].
"""


def hessian(
    runs: Runs,
    out: Out = Path("results.h5"),
    problem: Own = "",
    setting: Set = [],  # noqa: B006
    at: Annotated[
        str, typer.Option(help="Snapshots: a number of them evenly spread as n=5, all, last, or steps as 0,100,600.")
    ] = "n=5",
    task: Annotated[
        list[str],
        typer.Option(help="Of eigenvalues, densities, traces: a task or average; may be repeated. Default: all."),
    ] = [],  # noqa: B006
    on: Annotated[
        list[str],
        typer.Option(help="Parameters: shared, all, head:TASK, or patterns as 'trunk.*,*.bias'; may be repeated."),
    ] = ["shared"],  # noqa: B006
    layers: Annotated[
        bool, typer.Option("--layers", help="Also the eigenvalues of every layer of these by itself.")
    ] = False,
    matrix: Annotated[str, typer.Option(help="hessian, gauss-newton or fisher (empirical).")] = "hessian",
    top: Annotated[int, typer.Option(min=1, help="Eigenvalues of each operator.")] = 3,
    end: Annotated[str, typer.Option(help="Of the eigenvalues: largest, smallest, both or magnitude.")] = "largest",
    tolerance: Annotated[float, typer.Option(help="Residual relative to the largest eigenvalue asked for.")] = 1e-2,
    products: Annotated[int, typer.Option(min=1, help="At most so many Lanczos products an operator.")] = 60,
    intervals: Annotated[
        int, typer.Option(min=0, help="Resamples of the examples for sampling intervals, as 1000; 0: none.")
    ] = 0,
    density: Annotated[
        bool, typer.Option("--density", help="Also densities, traces, norms, negative shares, effective ranks.")
    ] = False,
    probes: Annotated[int, typer.Option(min=1, help="density: random probes.")] = 10,
    degree: Annotated[int, typer.Option(min=1, help="density: products a probe.")] = 80,
    trace: Annotated[
        bool, typer.Option("--trace", help="Traces, Frobenius norms and an effective rank, without densities.")
    ] = False,
    trace_products: Annotated[int, typer.Option(min=1, help="trace, density: products of the trace by XTrace.")] = 60,
    agreement: Annotated[
        bool, typer.Option("--agreement", help="Also how the tasks' sharp directions and gradients agree.")
    ] = False,
    batch: Annotated[int, typer.Option(min=1, help="agreement: examples of the mini-batches compared.")] = 64,
    sharpness: Annotated[
        bool, typer.Option("--sharpness", help="Also worst and average case, adaptive forms, critical rates.")
    ] = False,
    radius: Annotated[float, typer.Option(help="sharpness: radius of the worst case.")] = 0.05,
    pairs: Annotated[int, typer.Option(min=1, help="sharpness: pairs of draws of the average case.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Draws starts, probes, resamples and mini-batches.")] = 0,
    max_memory: MaxMemory = "2GiB",
    plan: Annotated[bool, typer.Option("--plan", help="Say how many products at most, and stop.")] = False,
    device: Device = "cpu",
    threads: Threads = 1,
    jobs: Annotated[int, typer.Option(min=0, help="Processes side by side, a run each; 0: one a core.")] = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Curvature of every task and of the average along runs: eigenvalues with residuals, followed through crossings.

    Each value has a numerical error, its residual, and on request a sampling interval. What was interrupted is gone on
    with, and what is known is not done again.
    """
    from analysis.archive import require_writable
    from analysis.settings import HessianSettings
    from cli.study import snapshots_at

    chosen = validated(
        HessianSettings,
        tasks=task,
        on=on,
        layers=layers,
        matrix=matrix,
        top=top,
        end=end,
        tolerance=tolerance,
        products=products,
        intervals=intervals,
        density=density,
        probes=probes,
        degree=degree,
        traces=trace,
        trace=trace_products,
        agreement=agreement,
        batch=batch,
        sharpness=sharpness,
        radius=radius,
        pairs=pairs,
        seed=seed,
        max_memory=max_memory,
        **snapshots_at(at),
    )
    workers = workers_for(jobs, device)
    if threads > 1 and workers > 1:
        raise ValueError(
            f"expected more threads in one process or several processes of one thread each, got --threads {threads} "
            f"and {workers} processes: leave out --threads or --jobs"
        )
    with workbench(runs, out, problem, setting, device, threads, workers, quiet) as bench:
        bench.require_curvature(chosen)
        if plan:
            text = bench.plan_curvature(chosen)
            emit({"plan": text}) if as_json else typer.echo(text)
            return
        require_writable(out)
        found, traces = bench.eigenvalues(chosen), {record.run.name: record for record in bench.traces(chosen)}
    if as_json:
        emit([_facts(record, traces.get(record.run.name)) for record in found])
        return
    words = {"largest": "largest", "smallest": "smallest", "both": "outer", "magnitude": "largest |.|"}[end]
    for record in found:
        title = f"{record.run.name}: {words} eigenvalues ± residual, {record.matrix}, {record.subset}"
        show(title, ["step", "operator", "eigenvalues"], _rows(record))
    for name, numbers in traces.items():
        head = ["step", "operator", "trace", "Frobenius norm", "effective rank"]
        show(f"{name}: ± standard error, {numbers.matrix}, {numbers.subset}", head, _trace_rows(numbers))
    typer.echo(out)


def _rows(record: Any) -> list[list[str]]:
    return [
        [f"{record.steps[s]}", name, ", ".join(_value(record, s, o, p) for p in range(record.values.shape[2]))]
        for s in range(len(record.steps))
        for o, name in enumerate(record.tasks)
    ]


TRACES = ("trace", "frobenius", "participation")


def _trace_rows(record: Any) -> list[list[str]]:
    return [
        [f"{record.steps[s]}", name, *(_estimate(record, field, (s, o)) for field in TRACES)]
        for s in range(len(record.steps))
        for o, name in enumerate(record.operators)
    ]


def _estimate(record: Any, field: str, at: tuple[int, int]) -> str:
    return f"{getattr(record, field)[at]:.4g} ± {getattr(record, f'{field}_stderr')[at]:.1g}"


def _value(record: Any, snapshot: int, operator: int, pair: int) -> str:
    at = (snapshot, operator, pair)
    text = f"{record.values[at]:.4g} ± {record.residuals[at]:.1g}"
    if math.isfinite(record.level):
        text += f" [{record.low[at]:.3g} to {record.high[at]:.3g}]"
    return text if record.resolved[at] else f"{text} (not resolved)"


def _facts(record: Any, traces: Any) -> dict[str, Any]:
    """What a script wants to know of one run."""
    return {
        "run": record.run.name,
        "operators": record.tasks,
        "matrix": record.matrix,
        "subset": record.subset,
        "steps": record.steps,
        "values": record.values,
        "residuals": record.residuals,
        "converged": record.converged,
        "resolved": record.resolved,
        "low": record.low,
        "high": record.high,
        "curve": record.track,
        "line": record.line,
        "products": record.products,
        **({} if traces is None else {name: getattr(traces, name) for f in TRACES for name in (f, f"{f}_stderr")}),
    }
