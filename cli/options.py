"""Options that several commands have, and what their words stand for."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.console import Stages
from cli.errors import FULL

Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress on stderr.")]
Json = Annotated[bool, typer.Option("--json", help="The result as JSON on stdout.")]
Device = Annotated[str, typer.Option(help="cpu, cuda, cuda:1, ...")]
MaxMemory = Annotated[
    str,
    typer.Option(
        help="For the micro-batches of losses and products, beyond model and data: 2GiB, 500MiB (2^20) or 500MB (10^6)."
    ),
]
Threads = Annotated[int, typer.Option(min=1, help="Threads of torch in this process; more pay for large models.")]
Jobs = Annotated[int, typer.Option(min=0, help="Processes side by side; 0: one a core.")]
Runs = Annotated[list[Path], typer.Argument(help="Trajectory files.", metavar="RUN...")]
Own = Annotated[
    str,
    typer.Option(
        "--problem",
        help="Your own problem, FILE.py:FUNCTION or PACKAGE.MODULE:FUNCTION; built-in ones are known from the runs.",
    ),
]
Set = Annotated[
    list[str], typer.Option("--set", help="A setting of the problem, KEY=VALUE; may be repeated.", metavar="KEY=VALUE")
]


def workbench(
    runs: list[Path], out: Path, problem: str, setting: list[str], device: str, threads: int, workers: int, quiet: bool
) -> Any:
    """The analyses of the runs that a command names; see `cli.study.bench`."""
    from cli.study import bench

    return bench(runs, out, problem, problem_settings(setting), device, threads, workers, Stages(quiet))


def validated(kind: Any, **values: Any) -> Any:
    """A section of the settings from a command's words, or the sentence that says what is wrong."""
    from analysis.settings import section

    return section(kind, values)


def problem_settings(given: list[str]) -> dict[str, Any]:
    """Settings of a problem from `KEY=VALUE`, values as JSON where they are, else as text."""
    found: dict[str, Any] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise ValueError(f"expected --set as KEY=VALUE, got {text!r}: put an equals sign between name and value")
        try:
            found[key.strip()] = json.loads(value)
        except json.JSONDecodeError:
            found[key.strip()] = value
    return found


def workers_for(jobs: int, device: str) -> int:
    """How many processes: as many as asked for, else one a core, and one alone on a GPU."""
    return jobs or (1 if device.startswith("cuda") else os.cpu_count() or 1)


@contextlib.contextmanager
def writing(folder: Path) -> Iterator[None]:
    """Makes the folder; what keeps it or its files from being written becomes one sentence."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        if error.errno in FULL:
            raise
        raise ValueError(
            f"cannot write into {folder} ({error.strerror}): expected a folder that can be written; choose another "
            "with --out"
        ) from error
