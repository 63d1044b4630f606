"""The command `landscape explore`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import emit, say
from cli.options import Device, Json, Out, Own, Quiet, Runs, Set, validated, workbench

EXAMPLES = """\
Example: [bold]landscape explore study/runs/*.h5 --baseline averaged --out results.h5[/bold]; \
of heads and without norm layers [bold]landscape explore *.h5 --on shared --on head:depth --without-norm[/bold]; \
layer by layer [bold]landscape explore *.h5 --layers --measure net[/bold]; \
as a table for a paper [bold]landscape explore *.h5 --measure net --format latex[/bold]; \
then [bold]landscape report results.h5[/bold].
"""
SUFFIXES = {"text": ".txt", "csv": ".csv", "json": ".json", "latex": ".tex"}
SHOWN = ("net", "path_steps", "path_updates", "ratio", "radius", "dimension", "exponent")
"""Measures of single runs that fit side by side on a terminal."""


def explore(
    runs: Runs,
    out: Out = Path("results.h5"),
    problem: Own = "",
    setting: Set = [],  # noqa: B006
    baseline: Annotated[
        str,
        typer.Option(
            help="Label of the runs that the others are compared with; default: averaged, or the first run's."
        ),
    ] = "",
    on: Annotated[
        list[str],
        typer.Option(help="Parameters: shared, all, head:TASK, or patterns as 'trunk.*,*.bias'; may be repeated."),
    ] = ["shared"],  # noqa: B006
    form: Annotated[
        list[str],
        typer.Option(
            help="raw, relative (to the start's norm), filterwise, or invariant (to the rescaling of layers that a "
            "norm follows); may be repeated."
        ),
    ] = ["raw"],  # noqa: B006
    measure: Annotated[list[str], typer.Option(help="A measure that is compared; may be repeated. Default: all.")] = [],  # noqa: B006
    budget: Annotated[
        list[str],
        typer.Option(
            help="What is equal: steps, updates, gradients, seconds, movement (rate x updates), loss, or loss:TASK; "
            "may be repeated. Default: all but single tasks' losses."
        ),
    ] = [],  # noqa: B006
    layers: Annotated[bool, typer.Option("--layers", help="Also every layer of these by itself.")] = False,
    without_norm: Annotated[
        bool, typer.Option("--without-norm", help="Leave out the parameters of normalisation layers.")
    ] = False,
    pairing: Annotated[
        str, typer.Option(help="auto, seed (pairs of runs of one seed or nothing), or none (Welch's test).")
    ] = "auto",
    null: Annotated[int, typer.Option(min=0, help="Random walks beside every run; 0: none.")] = 99,
    resamples: Annotated[
        int, typer.Option(min=99, help="Of the bootstrap, and of permutation tests beyond 16 seeds.")
    ] = 9999,
    seed: Annotated[int, typer.Option(min=0, help="Draws resamples and random walks.")] = 0,
    kind: Annotated[str, typer.Option("--format", help="What goes to stdout: text, csv, json or latex.")] = "text",
    tables: Annotated[
        Path | None, typer.Option(help="A folder for every table, in the format of stdout.", metavar="FOLDER")
    ] = None,
    device: Device = "cpu",
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """How far every run moved, beside random walks, and whether strategies differ at equal budgets.

    Differences are taken between runs of the same seed, at equal steps, updates, gradients, seconds, movement and loss,
    and corrected for how many were looked at. The verdict is in words; from fewer than three seeds there is none.
    Saved in the results file; what is known there is not measured again.
    """
    from analysis.archive import require_writable
    from analysis.settings import ExploreSettings
    from landscape.errors import unknown

    kind = "json" if as_json else kind
    if kind not in SUFFIXES:
        raise unknown("format", kind, SUFFIXES)
    with workbench(runs, out, problem, setting, device, 1, 1, quiet) as bench:
        chosen = validated(
            ExploreSettings,
            baseline=baseline or ("averaged" if "averaged" in bench.labels else bench.labels[0]),
            on=on,
            forms=form,
            without_norm=without_norm,
            layers=layers,
            measures=measure,
            budgets=budget,
            pairing=pairing,
            null=null,
            resamples=resamples,
            seed=seed,
        )
        bench.require(chosen)
        require_writable(out)
        explored, compared = bench.explore(chosen.baseline)
        found = bench.contrast(chosen)
    made = _tables(found)
    if tables is not None:
        _write(made, tables, kind)
    if kind == "json":
        emit(_document(explored, compared, found, out))
    elif kind == "csv":
        typer.echo(made["comparisons" if "comparisons" in made else "runs"].to_csv(), nl=False)
    elif kind == "latex":
        chosen_ones = [table for name, table in made.items() if name != "comparisons"]
        typer.echo("\n".join(table.to_latex() for table in chosen_ones), nl=False)
    else:
        _say(found)
        typer.echo(out)
    if tables is not None:
        say(f"tables in {tables}", quiet)


def _tables(found: Any) -> dict[str, Any]:
    """Every table that there is something to show in, by the name of its file."""
    from figures import exploration_tables as of

    made = {"runs": of.movement_table([moved.movement for moved in found.moved])}
    if found.walks:
        made["walks"] = of.walk_table(found.walks)
    if found.contrasts:
        made |= {"verdicts": of.verdict_table(found.contrasts), "comparisons": of.contrast_table(found.contrasts)}
    return made


def _write(made: dict[str, Any], folder: Path, kind: str) -> None:
    from cli.options import writing

    write = {"text": "to_text", "csv": "to_csv", "json": "to_json", "latex": "to_latex"}[kind]
    with writing(folder):
        for name, table in made.items():
            (folder / f"{name}{SUFFIXES[kind]}").write_text(getattr(table, write)(), encoding="utf-8", newline="")


def _say(found: Any) -> None:
    """For people: the runs, then every verdict in a sentence with its numbers."""
    from analysis.results import measure_name
    from cli.console import show
    from figures.exploration_tables import movement_table, walk_counts

    about = dict.fromkeys((moved.movement.subset, moved.movement.form) for moved in found.moved)
    for subset, form in about:
        group = [m.movement for m in found.moved if (m.movement.subset, m.movement.form) == (subset, form)]
        made = movement_table(group)
        kept = [0, *(k for k, name in enumerate(made.head) if name in [measure_name(shown) for shown in SHOWN])]
        rows = [[row[k].text for k in kept] for row in made.rows]
        show(f"Exploration of {subset} ({form})", [made.head[k] for k in kept], rows)
        for note in dict.fromkeys(moved.notes for moved in group if moved.notes):
            typer.echo(note)
    if found.walks:
        made = walk_counts(found.walks)
        show(made.title, made.head, [[cell.text for cell in row] for row in made.rows])
        typer.echo(made.note)
    for sentence in dict.fromkeys([*sentences(found.contrasts), *_of_starts(found)]):
        typer.echo(sentence)


def _of_starts(found: Any) -> list[str]:
    """What is to be said of seeds that share a start, unless a comparison says it."""
    from analysis.results import said_of_starts, starts_of

    said = said_of_starts(starts_of(moved.movement.run for moved in found.moved))
    return [said] if said and not any(said in contrast.note for contrast in found.contrasts) else []


def sentences(contrasts: Sequence[Any]) -> list[str]:
    """The verdicts, and once for each pair of strategies what they rest on."""
    said: dict[str, None] = {}
    for contrast in contrasts:
        said |= dict.fromkeys(contrast.verdicts)
    for contrast in contrasts:
        said[f"{contrast.strategy} against {contrast.baseline}, correction: {contrast.correction}."] = None
        if contrast.note:
            said[contrast.note] = None
    return list(said)


def _document(explored: Sequence[Any], compared: Sequence[Any], found: Any, out: Path) -> dict[str, Any]:
    return {
        "results": out,
        "runs": [vars(e) | {"run": e.run.name, "ratio": e.ratio} for e in explored],
        "comparisons": [vars(c) for c in compared],
        "movements": [vars(moved.movement) | {"run": moved.movement.run.name} for moved in found.moved],
        "walks": [{k: v for k, v in vars(w).items() if k != "draws"} | {"run": w.run.name} for w in found.walks],
        "contrasts": [vars(c) | {"outcomes": _outcomes(c)} for c in found.contrasts],
    }


def _outcomes(contrast: Any) -> list[list[str]]:
    budgets = range(len(contrast.budgets))
    return [[contrast.outcome(measure, budget) for budget in budgets] for measure in range(len(contrast.measures))]
