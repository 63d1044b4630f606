"""The command `landscape theory`."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import emit, show
from cli.options import Device, Json, Out, Own, Quiet, Runs, Set, Threads, validated, workbench

EXAMPLES = """\
Example: [bold]landscape theory study/runs/independent-0.h5 --at n=5 --out results.h5[/bold]; \
at one snapshot with Adam's preconditioner [bold]landscape theory run.h5 --at last --preconditioner stored[/bold]; \
at a smaller rate [bold]landscape theory run.h5 --rate 1e-4 --ladder 5[/bold]; \
then [bold]landscape figures results.h5[/bold] and [bold]landscape report results.h5[/bold].
"""


def theory(
    runs: Runs,
    out: Out = Path("results.h5"),
    problem: Own = "",
    setting: Set = [],  # noqa: B006
    at: Annotated[
        str, typer.Option(help="Snapshots: a number of them evenly spread as n=5, all, last, or steps as 0,100,600.")
    ] = "n=5",
    rate: Annotated[float, typer.Option(help="Learning rate of the steps; 0: the run's own.")] = 0.0,
    order: Annotated[
        str, typer.Option(help="Order of the tasks by number, as 2,0,1; default: the run's own, or first to last.")
    ] = "",
    orders: Annotated[
        str,
        typer.Option(help="For the random-order mean: all, none, so many drawn ones, or usual: all of up to 4 tasks."),
    ] = "usual",
    ladder: Annotated[int, typer.Option(help="So many rates, each half the one before.")] = 3,
    preconditioner: Annotated[
        str,
        typer.Option(
            help="none (gradient steps), adam (second moments of gradients at the snapshot), stored (the run's own "
            "second moments, which its last snapshot keeps)."
        ),
    ] = "none",
    data: Annotated[str, typer.Option(help="evaluation or training.")] = "evaluation",
    examples: Annotated[int, typer.Option(help="training: so many examples.")] = 1024,
    seed: Annotated[int, typer.Option(min=0, help="Draws blocks of examples, orders and training examples.")] = 0,
    device: Device = "cpu",
    threads: Threads = 1,
    quiet: Quiet = False,
    as_json: Json = False,
) -> None:
    """Is alternation helping? The second-order theory of one step a task in turn, beside steps really taken.

    At each snapshot: the predicted difference of every loss between a sequential pass and one summed step, with its
    error, the measured one, their remainder at smaller and smaller rates, and what becomes of gradient agreement. All
    in float64. What was interrupted is gone on with, and what is known is not done again.
    """
    from analysis.archive import require_writable
    from analysis.settings import AlternationSettings
    from cli.study import snapshots_at
    from figures.alternation_tables import verdict_words

    chosen = validated(
        AlternationSettings,
        rate=rate,
        order=_numbers(order),
        orders=orders,
        ladder=ladder,
        preconditioner=preconditioner,
        data=data,
        examples=examples,
        seed=seed,
        **snapshots_at(at),
    )
    with workbench(runs, out, problem, setting, device, threads, 1, quiet) as bench:
        require_writable(out)
        found = bench.alternation(chosen)
    if as_json:
        emit([_facts(record) for record in found])
        return
    for record in found:
        show(f"{record.run.name}: sequential minus averaged, rate {record.rate:g}", HEAD, _rows(record))
    for sentence in verdict_words(found):
        typer.echo(sentence)
    typer.echo(out)


HEAD = ["step", "loss", "predicted", "measured", "95 % interval", "remainder", "its order", "verdict"]


def _rows(record: Any) -> list[list[str]]:
    low, high = record.interval
    return [
        [
            f"{record.steps[s]}",
            name,
            f"{record.predicted[s, k]:+.3e} ± {record.predicted_stderr[s, k]:.1e}",
            f"{record.measured[s, 0, k]:+.3e} ± {record.measured_stderr[s, k]:.1e}",
            f"{low[s, k]:+.3e} to {high[s, k]:+.3e}",
            _known(record.relative_remainder[s, k], ".1%"),
            _known(record.remainder_order[s, k], ".2f"),
            str(record.verdicts[s, k]),
        ]
        for s in range(len(record.steps))
        for k, name in enumerate(record.losses)
    ]


def _known(value: float, form: str) -> str:
    """A number, or a dash where there is none, as the share of a remainder of zero in a prediction of zero."""
    return "\u2013" if math.isnan(value) else format(value, form)


def _facts(record: Any) -> dict[str, Any]:
    """What a script wants to know of one run."""
    low, high = record.interval
    return {
        "run": record.run.name,
        "losses": record.losses,
        "steps": record.steps,
        "order": record.order,
        "rates": record.rates,
        "preconditioner": record.preconditioner,
        "predicted": record.predicted,
        "predicted_stderr": record.predicted_stderr,
        "predicted_mean": record.predicted_mean,
        "measured": record.measured,
        "measured_stderr": record.measured_stderr,
        "measured_mean": record.measured_mean,
        "low": low,
        "high": high,
        "relative_remainder": record.relative_remainder,
        "remainder_order": record.remainder_order,
        "verdicts": record.verdicts,
        "agreement": record.agreement,
    }


def _numbers(text: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",")] if text else []
    except ValueError as error:
        raise ValueError(f"expected --order as task numbers such as 2,0,1, got {text!r}") from error
