"""The command `landscape surface`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import emit
from cli.options import Device, Json, MaxMemory, Out, Own, Quiet, Runs, Set, Threads, validated, workbench

EXAMPLES = """\
Example: [bold]landscape surface study/runs/*-0.h5 --out results.h5 --nx 41 --conflict[/bold]; \
between two ends [bold]landscape surface a.h5 b.h5 --plane line[/bold]; \
through a start and two ends [bold]landscape surface a.h5 b.h5 --plane through[/bold]; \
an ensemble of random planes [bold]landscape surface a.h5 --plane random --draws 8[/bold]; \
a fifth of the work [bold]landscape surface a.h5 b.h5 --nx 41 --ny 41 --adaptive 0.01[/bold]; \
then [bold]landscape figures results.h5[/bold] and [bold]landscape report results.h5[/bold].
"""


def surface(
    runs: Runs,
    out: Out = Path("results.h5"),
    problem: Own = "",
    setting: Set = [],  # noqa: B006
    plane: Annotated[
        str,
        typer.Option(
            help="principal (of all runs), random (filter-normalised), through (three snapshots), eigenvectors, "
            "gradients, local (update and curvature), given (--vectors); line (between two snapshots), random-line."
        ),
    ] = "principal",
    centre: Annotated[
        str,
        typer.Option(
            help="The snapshot at the centre, RUN@STEP, RUN@first or RUN@last with a run's name; principal: also mean. "
            "Default: the mean, for other planes the first run's last."
        ),
    ] = "",
    through: Annotated[
        list[str],
        typer.Option(
            help="through, line: a snapshot as RUN@STEP; three times or twice. Default: the first run's start and two "
            "ends, or two ends.",
            metavar="RUN@STEP",
        ),
    ] = [],  # noqa: B006
    task: Annotated[
        list[str],
        typer.Option(help="eigenvectors: one or two tasks, or average; gradients: two tasks. May be repeated."),
    ] = [],  # noqa: B006
    vectors: Annotated[str, typer.Option(help="given: a file of two directions [2, P] from numpy.save.")] = "",
    on: Annotated[
        str, typer.Option(help="The plane's parameters: all, shared, head:TASK, or patterns as 'trunk.*,*.bias'.")
    ] = "all",
    heads: Annotated[
        str,
        typer.Option(
            help="Outside a subset: centre (as there), interpolated (they follow the snapshots), or refitted at each "
            "point on training examples."
        ),
    ] = "centre",
    nx: Annotated[int, typer.Option(min=3, help="Grid points along x, or along the line.")] = 25,
    ny: Annotated[int, typer.Option(min=3, help="Grid points along y.")] = 25,
    margin: Annotated[float, typer.Option(min=0, help="Room around the trajectories, a share of their extent.")] = 0.15,
    reach: Annotated[float, typer.Option(min=0, help="From -reach to reach instead; 0: found by itself.")] = 0.0,
    rise: Annotated[
        float,
        typer.Option(min=0, help="As far as the averaged loss rises by this multiple of the centre's; 0: not so."),
    ] = 0.0,
    seed: Annotated[
        int, typer.Option(min=0, help="Draws directions, training examples, held-out points and pieces of examples.")
    ] = 0,
    draws: Annotated[int, typer.Option(min=1, help="random: so many planes or lines, and their median.")] = 1,
    data: Annotated[list[str], typer.Option(help="evaluation or training; may be repeated.")] = ["evaluation"],  # noqa: B006
    batch_norm: Annotated[
        list[str], typer.Option(help="Statistics: frozen or reestimated at each point; may be repeated.")
    ] = ["frozen"],  # noqa: B006
    examples: Annotated[
        int, typer.Option(min=1, help="Training examples, where data, statistics or heads need some.")
    ] = 1024,
    adaptive: Annotated[
        float, typer.Option(min=0, max=0.5, help="Measure fewer points, to this share of the range; 0: every point.")
    ] = 0.0,
    budget: Annotated[float, typer.Option(help="adaptive: at most this share of the points.")] = 0.2,
    conflict: Annotated[
        bool, typer.Option("--conflict", help="Also map how the task gradients agree, on evaluation examples.")
    ] = False,
    engine: Annotated[
        str,
        typer.Option(
            help="auto (timed on this machine, kept for this file), problem (its own micro-batches), sequential:64, "
            "together:8x64."
        ),
    ] = "auto",
    compiled: Annotated[bool, typer.Option("--compile", help="torch.compile the model; the error is stored.")] = False,
    bfloat16: Annotated[bool, typer.Option("--bfloat16", help="In bfloat16; the error is stored.")] = False,
    max_memory: MaxMemory = "2GiB",
    plan: Annotated[
        bool, typer.Option("--plan", help="Say how many points, how long and how much memory, and stop.")
    ] = False,
    label: Annotated[str, typer.Option(help="Name in the results file; default: the plane's.")] = "",
    device: Device = "cpu",
    threads: Threads = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Measure the loss of every task over a plane or along a line, with errors, and how far it can be trusted.

    Saved besides: the runs' shadows, their true losses beside the plane's, what share of the runs the plane shows, how
    stable it is, the shape of each surface. What was interrupted is gone on with, and what is known is not done again.
    """
    from analysis.archive import require_writable
    from analysis.settings import SurfaceSettings

    chosen = validated(
        SurfaceSettings,
        plane=plane,
        label=label,
        subset=on,
        heads=heads,
        centre=centre,
        through=through,
        tasks=task,
        vectors=vectors,
        nx=nx,
        ny=ny,
        margin=margin,
        reach=reach,
        rise=rise,
        seed=seed,
        draws=draws,
        data=data,
        batch_norm=batch_norm,
        examples=examples,
        adaptive=adaptive,
        budget=budget,
        conflict=conflict,
        engine=engine,
        compiled=compiled,
        bfloat16=bfloat16,
        max_memory=max_memory,
    )
    with workbench(runs, out, problem, setting, device, threads, 1, quiet) as work:
        if plan:
            _say_plan(work.plan(chosen), as_json)
            return
        require_writable(out)
        found = work.surface(chosen)
    if as_json:
        emit(_facts(found, out))
    else:
        typer.echo(out)


def _say_plan(text: str, as_json: bool) -> None:
    if as_json:
        emit({"plan": text})
    else:
        typer.echo(text)


def _facts(found: Any, out: Path) -> dict[str, Any]:
    """What a script wants to know: where it lies, and each task's least and largest loss."""
    axes = tuple(range(1, found.loss.ndim))
    return {
        "results": out,
        "kind": type(found).__name__,
        "tasks": found.tasks,
        "points": int(found.done.size),
        "measured": int(found.done.sum()),
        "least": _finite(found.loss, axes, "min"),
        "largest": _finite(found.loss, axes, "max"),
        "engine": found.engine,
    }


def _finite(loss: Any, axes: tuple[int, ...], which: str) -> Any:
    import numpy as np

    kept = np.where(np.isfinite(loss), loss, np.inf if which == "min" else -np.inf)
    return getattr(kept, which)(axes)
