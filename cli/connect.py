"""The command `landscape connect`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import emit, show
from cli.options import Device, Json, MaxMemory, Out, Own, Quiet, Runs, Set, Threads, validated, workbench

EXAMPLES = """\
Example: [bold]landscape connect study/runs/*.h5 --out results.h5[/bold]; \
along one run [bold]landscape connect a.h5 --at 0,200,600[/bold]; \
two snapshots [bold]landscape connect a.h5 b.h5 --between averaged-0@last independent-0@600[/bold]; \
around the hill [bold]landscape connect a.h5 b.h5 --curve --curve-steps 1000[/bold]; \
with hidden units matched [bold]landscape connect a.h5 b.h5 --align[/bold]; \
then [bold]landscape figures results.h5[/bold] and [bold]landscape report results.h5[/bold].
"""


def connect(
    runs: Runs,
    out: Out = Path("results.h5"),
    problem: Own = "",
    setting: Set = [],  # noqa: B006
    at: Annotated[
        str, typer.Option(help="Snapshots of every run: last, a number of them as n=5, all, or steps as 0,100,600.")
    ] = "last",
    between: Annotated[
        tuple[str, str] | None,
        typer.Option(help="Two snapshots instead, with the runs' names.", metavar="RUN@STEP RUN@STEP"),
    ] = None,
    points: Annotated[int, typer.Option(min=3, help="Points on every path, its two ends among them.")] = 25,
    curve: Annotated[
        bool, typer.Option("--curve", help="Also train a quadratic Bezier curve of low loss for every pair.")
    ] = False,
    curve_steps: Annotated[int, typer.Option(min=1, help="Training steps of a curve.")] = 400,
    rate: Annotated[float, typer.Option(min=0, help="Learning rate of a curve (Adam).")] = 3e-3,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a curve's mini-batch.")] = 64,
    align: Annotated[
        bool, typer.Option("--align", help="Also after matching hidden units by permutation, pair by pair.")
    ] = False,
    groups: Annotated[
        Path | None,
        typer.Option(help='Units to match, where they cannot be traced: JSON, {"name": [["tensor", axis], ...]}.'),
    ] = None,
    on: Annotated[
        str, typer.Option(help="Parameters that distances are over: all, shared, head:TASK, or patterns of names.")
    ] = "shared",
    heads: Annotated[
        str, typer.Option(help="On the way: interpolated as all else, or refitted at each point on training examples.")
    ] = "interpolated",
    threshold: Annotated[
        float, typer.Option(min=0, help="Runs of one seed count as parted from this relative distance on.")
    ] = 0.5,
    paired: Annotated[
        bool, typer.Option("--paired", help="Runs of one seed have to have one start: exit status 2 where not.")
    ] = False,
    data: Annotated[str, typer.Option(help="evaluation or training.")] = "evaluation",
    batch_norm: Annotated[
        list[str],
        typer.Option(
            help="Statistics on the way: frozen (mixed between the ends' own) or reestimated; may be repeated. "
            "Default: both where the model has some."
        ),
    ] = [],  # noqa: B006
    examples: Annotated[
        int, typer.Option(min=1, help="Training examples, where data, statistics or heads need some.")
    ] = 1024,
    engine: Annotated[str, typer.Option(help="auto, problem, sequential:64, together:8x64.")] = "auto",
    max_memory: MaxMemory = "2GiB",
    plan: Annotated[bool, typer.Option("--plan", help="Say how many points and how long, and stop.")] = False,
    label: Annotated[str, typer.Option(help="Name in the results file; default: ends.")] = "",
    seed: Annotated[int, typer.Option(min=0, help="Draws examples and what curves are trained on.")] = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Are the ends connected? The loss of every task on the way between snapshots, strategies and seeds.

    Saved besides: distances in weights and in what is computed, and where runs of one seed part. What was interrupted
    is gone on with, and what is known is not done again.
    """
    from analysis.archive import require_writable
    from analysis.settings import ConnectSettings
    from cli.study import snapshots_at

    chosen = validated(
        ConnectSettings,
        label=label,
        **snapshots_at(at),
        between=list(between or ()),
        points=points,
        curve=curve,
        curve_steps=curve_steps,
        rate=rate,
        batch_size=batch_size,
        align=align or groups is not None,
        groups=_groups(groups),
        subset=on,
        heads=heads,
        threshold=threshold,
        paired=paired,
        data=data,
        batch_norm=batch_norm,
        examples=examples,
        seed=seed,
        engine=engine,
        max_memory=max_memory,
    )
    with workbench(runs, out, problem, setting, device, threads, 1, quiet) as work:
        if plan:
            text = work.plan_connection(chosen)
            if as_json:
                emit({"plan": text})
            else:
                typer.echo(text)
            return
        require_writable(out)
        found = work.connect(chosen)
    if as_json:
        emit({"results": out, "barriers": [_facts(barriers) for barriers in found]})
        return
    from figures.connectivity_tables import barrier_table

    for barriers in found:
        made = barrier_table(barriers)
        show(made.title, made.head, [[f"{cell.text} {cell.note}".strip() for cell in row] for row in made.rows])
    typer.echo(out)


def _groups(path: Path | None) -> Any:
    if path is None:
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f'cannot read {path} ({error}): expected groups of units as JSON, {{"name": [["tensor", axis], ...]}}'
        ) from error
    return found


def _facts(barriers: Any) -> dict[str, Any]:
    """What a script wants to know of one matrix of barriers."""
    return {
        "path": barriers.path,
        "points": barriers.points,
        "losses": barriers.views,
        "barrier": barriers.barrier,
        "stderr": barriers.stderr,
        "at": barriers.at,
        "alignment": barriers.alignment,
        "batch_norm": barriers.batch_norm,
        "heads": barriers.heads,
    }
