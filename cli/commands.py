"""The commands: each reads its arguments, calls one thing, says where it wrote."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from cli import connect, hessian, surface, theory
from cli import explore as exploring
from cli.console import Stages, duration, emit, say, show
from cli.errors import Interrupted, Unread
from cli.options import (
    Device,
    Jobs,
    Json,
    Out,
    Quiet,
    Set,
    Threads,
    problem_settings,
    workers_for,
    writing,
)


class _Commands(typer.core.TyperGroup):
    """The commands. An interruption and a closed stdout are left to `cli.run`, past what Typer would do."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise Interrupted from error
        except BrokenPipeError as error:
            raise Unread from error


app = typer.Typer(
    cls=_Commands,
    help="Loss landscapes of multi-task networks: train, record, analyse, draw, report.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

FORMATS = ["png", "html"]
STUDY_FORMATS = ["png", "pdf", "svg"]


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"landscape {importlib.metadata.version('mtl-landscape')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and stop.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


@app.command(
    epilog="Example: [bold]landscape study --out study[/bold], again to go on after an interruption; "
    "[bold]landscape study my.toml --out mine --jobs 4[/bold]",
)
def study(
    settings: Annotated[
        Path | None,
        typer.Argument(
            help="Settings (TOML); default: those in the folder, else built-in ones.", metavar="[STUDY.toml]"
        ),
    ] = None,
    out: Out = Path("study"),
    problem: Annotated[str, typer.Option(help="digits, quadratic, toy, or your own as FILE.py:FUNCTION.")] = "",
    setting: Set = [],  # noqa: B006
    strategy: Annotated[list[str], typer.Option(help="A strategy by name; may be repeated.")] = [],  # noqa: B006
    seed: Annotated[list[int], typer.Option(help="A seed; may be repeated.")] = [],  # noqa: B006
    steps: Annotated[int | None, typer.Option(min=1, help="Training steps of every run.")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")] = "",
    jobs: Jobs = 0,
    plan: Annotated[
        bool, typer.Option("--plan", help="Say what is left to do and how long it would take, then stop.")
    ] = False,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train strategies x seeds, analyse them, draw every figure and write a report, in one folder.

    The folder gets study.toml, runs/, results.h5, figures/ and report.html. What is there already is not done again;
    figures and report are drawn anew each time.
    """
    import torch

    from analysis import estimates
    from analysis import study as studies
    from analysis.archive import require_writable
    from analysis.jobs import problem_of
    from cli.study import chosen_settings, write_settings

    chosen = chosen_settings(
        settings,
        out,
        problem=problem,
        problem_settings=problem_settings(setting),
        strategies=strategy,
        seeds=seed,
        steps=steps,
        device=device,
    )
    torch.set_num_threads(1)
    workers = workers_for(jobs, chosen.device)
    shown = Stages(quiet)
    work = studies.Study(chosen, out, shown, workers)
    if plan:
        _plan(estimates.plan(chosen, problem_of(chosen.named_problem), workers, work.left()), workers, as_json)
        return
    write_settings(chosen, out)
    require_writable(out / "results.h5")
    if not quiet:
        stages = estimates.plan(chosen, problem_of(chosen.named_problem), workers, work.left())
        todo = ", ".join(f"{stage.amount} {stage.unit}" for stage in stages if stage.amount)
        say(f"about {duration(sum(stage.seconds for stage in stages))} for what is left: {todo}")
    try:
        work.run()
    finally:
        shown.close()
    drawn = _draw(out / "results.h5", out / "figures", STUDY_FORMATS, quiet)
    page = _report(out / "results.h5", out / "report.html", quiet)
    if as_json:
        emit({"results": out / "results.h5", "figures": drawn, "report": page})
    else:
        typer.echo(page)


@app.command(
    epilog="Example: [bold]landscape train digits --strategy independent --rate 1e-3 --seed 0 --out run.h5[/bold]"
)
def train(
    problem: Annotated[
        str, typer.Argument(help="digits, quadratic, toy, or your own as FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION.")
    ],
    out: Out = Path("run.h5"),
    strategy: Annotated[
        str, typer.Option(help="averaged, alternating, adatask, independent, grouped, single.")
    ] = "averaged",
    setting: Set = [],  # noqa: B006
    optimiser: Annotated[str, typer.Option(help="Any optimiser of torch.optim by name.")] = "Adam",
    rate: Annotated[float, typer.Option(min=0, help="Learning rate.")] = 1e-3,
    steps: Annotated[int, typer.Option(min=1, help="Training steps.")] = 600,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples in a mini-batch.")] = 64,
    every: Annotated[int, typer.Option(min=1, help="Steps between snapshots.")] = 20,
    seed: Annotated[
        int,
        typer.Option(min=0, help="Draws batches, orders, dropout, and a problem's own start."),
    ] = 0,
    reduction: Annotated[str, typer.Option(help="averaged, grouped: sum, mean, or weights as 1,0.5,2.")] = "",
    order: Annotated[str, typer.Option(help="Order of the sub-steps: fixed, shuffled or reversed.")] = "",
    batches: Annotated[
        str, typer.Option(help="The same batch for all sub-steps of a step, or the next one for each: same, next.")
    ] = "",
    groups: Annotated[int, typer.Option(min=0, help="grouped: how many groups.")] = 0,
    size: Annotated[int, typer.Option(min=0, help="grouped: how many tasks a group.")] = 0,
    states: Annotated[str, typer.Option(help="grouped: one optimiser state a group or one for all: own, shared.")] = "",
    redraw: Annotated[int, typer.Option(min=0, help="grouped: draw groups again every so many steps; 0: never.")] = 0,
    task: Annotated[str, typer.Option(help="single: the task that is trained alone.")] = "",
    label: Annotated[str, typer.Option(help="Short name of the run for legends; default: the strategy's name.")] = "",
    device: Device = "cpu",
    threads: Threads = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Train one strategy and record its trajectory. An interrupted run of the same settings is continued."""
    import torch

    from analysis.jobs import problem_of
    from analysis.settings import ProblemName
    from landscape import Every, Optimiser, Plan, record
    from landscape.strategies import named

    torch.set_num_threads(threads)
    words = {
        "reduction": _reduction(reduction),
        "order": order,
        "batches": batches,
        "states": states,
        "groups": groups,
        "size": size,
        "redraw": redraw,
        "task": task,
    }
    chosen = named(strategy, Optimiser(optimiser, lr=rate), {key: value for key, value in words.items() if value})
    made = problem_of(ProblemName(name=problem, settings=problem_settings(setting), device=device))
    shown, last = Stages(quiet), 0

    def progress(step: int) -> None:
        nonlocal last
        shown.tell(step - last)
        last = step

    shown.begin(f"training {chosen.label}", steps)
    try:
        trajectory = record(made, chosen, Plan(steps, batch_size, Every(every)), out, seed, label, progress)
    finally:
        shown.close()
    scores = {
        **dict(zip(made.names, trajectory.losses[-1], strict=True)),
        **dict(zip(made.metric_names, trajectory.metrics[-1], strict=True)),
    }
    shown.end(", ".join(f"{name} {value:.4g}" for name, value in scores.items()))
    if as_json:
        emit(
            {"trajectory": out, "snapshots": len(trajectory), "steps": int(trajectory.steps[-1]), "evaluation": scores}
        )
    else:
        typer.echo(out)


app.command(epilog=surface.EXAMPLES)(surface.surface)
app.command(epilog=connect.EXAMPLES)(connect.connect)


app.command(epilog=hessian.EXAMPLES)(hessian.hessian)
app.command(epilog=theory.EXAMPLES)(theory.theory)
app.command(epilog=exploring.EXAMPLES)(exploring.explore)


@app.command(epilog="Example: [bold]landscape figures study/results.h5 --out figures --format pdf --format html[/bold]")
def figures(
    results: Annotated[Path, typer.Argument(help="A results file, or a study's folder.")],
    out: Out = Path("figures"),
    formats: Annotated[list[str], typer.Option("--format", help="png, pdf, svg or html; may be repeated.")] = FORMATS,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Draw every figure that a results file allows. Needs no torch."""
    drawn = _draw(_results(results), out, formats, quiet)
    if as_json:
        emit({"figures": drawn})
    else:
        typer.echo(out)


@app.command(epilog="Example: [bold]landscape report study --out report.html[/bold]")
def report(
    results: Annotated[Path, typer.Argument(help="A results file, or a study's folder.")],
    out: Out = Path("report.html"),
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Write one offline page with settings, numbers with errors, figures and checks. Needs no torch."""
    page = _report(_results(results), out, quiet)
    if as_json:
        emit({"report": page})
    else:
        typer.echo(page)


@app.command(epilog="Example: [bold]landscape info run.h5[/bold]")
def info(
    file: Annotated[Path, typer.Argument(help="A trajectory, a results file, or a study's folder.")],
    as_json: Json = False,
) -> None:
    """Say what a file holds: a trajectory (also while it is being written) or results."""
    from cli.describe import describe, lines

    facts = describe(_results(file))
    if as_json:
        emit(facts)
    else:
        show(f"{facts['file']}: {facts['holds']}", ["", ""], lines(facts))


def _plan(stages: list[Any], workers: int, as_json: bool) -> None:
    if as_json:
        emit([vars(stage) for stage in stages])
        return
    total = duration(sum(stage.seconds for stage in stages))
    rows = [[stage.name, f"{stage.amount} {stage.unit}", f"about {duration(stage.seconds)}"] for stage in stages]
    processes = "one process" if workers == 1 else f"{workers} processes"
    show(f"About {total} in {processes} for what is left", ["stage", "work", "time"], rows)


def _reduction(text: str) -> Any:
    if "," not in text:
        return text
    try:
        return [float(weight) for weight in text.split(",")]
    except ValueError as error:
        raise ValueError(f"expected --reduction as sum, mean or weights such as 1,0.5,2, got {text!r}") from error


def _results(path: Path) -> Path:
    return path / "results.h5" if path.is_dir() else path


def _draw(results: Path, folder: Path, formats: list[str], quiet: bool) -> list[Path]:
    import figures as drawing
    from cli.gather import drawings

    shown = Stages(quiet)
    for suffix in formats:
        if f".{suffix}" not in drawing.files.SUFFIXES:
            known = ", ".join(suffix[1:] for suffix in drawing.files.SUFFIXES)
            raise ValueError(f"unknown format {suffix!r}: expected one of {known}")
    scenes = drawings(results)
    shown.begin("figures", len(scenes) * len(formats))
    drawn = []
    try:
        with writing(folder):
            for name, scene in scenes.items():
                for suffix in formats:
                    drawn.append(folder / f"{name}.{suffix}")
                    drawing.draw(scene, drawn[-1])
                    shown.tell(1)
    finally:
        shown.close()
    shown.end(f"{len(scenes)} in {', '.join(formats)}")
    return drawn


def _report(results: Path, out: Path, quiet: bool) -> Path:
    from cli.gather import contents
    from figures import report as page

    shown = Stages(quiet)
    shown.begin("report", 1)
    try:
        found = contents(results)
        with writing(out.parent):
            path = page.write(found, out)
    finally:
        shown.close()
    shown.end("")
    return Path(path)
