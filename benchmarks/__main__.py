"""Runs the benchmarks that are named, or all, and prints a table for each: `python -m benchmarks [name ...]`."""

import importlib
import os
import pkgutil
import platform
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

import benchmarks

PREFIX = "bench_"


def available() -> list[str]:
    """Names of the benchmarks: their modules' names without the prefix."""
    modules = (module.name for module in pkgutil.iter_modules(benchmarks.__path__))
    return sorted(name.removeprefix(PREFIX) for name in modules if name.startswith(PREFIX))


def processor() -> str:
    """The processor's model as the system names it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    models = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(models, platform.processor() or platform.machine())


def cores() -> int:
    """The processor cores that this process may use, which can be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> str:
    """One line that a table of timings means nothing without: processor, cores, versions, accelerator."""
    import torch

    parts = [processor(), f"{cores()} cores", f"torch {torch.__version__} on {torch.get_num_threads()} threads"]
    parts += [f"Python {platform.python_version()}"]
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    return ", ".join(parts)


def cell(value: object) -> str:
    """A value as the table shows it: three significant digits, and median (least-greatest) of a list."""
    match value:
        case bool() | int() | str():
            return str(value)
        case float():
            return f"{value:.3g}"
        case [_, *_] if isinstance(value, Sequence):
            return f"{statistics.median(value):.3g} ({min(value):.3g}-{max(value):.3g})"
        case None:
            return ""
        case _:
            raise TypeError(f"expected a number, a text or a list of numbers in a row, got {value!r}")


def table(name: str, rows: Sequence[dict[str, Any]]) -> Table:
    """Rows as a table; a column that a row lacks is left empty in it."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    made = Table(title=name, title_justify="left")
    for column in columns:
        texts = all(isinstance(row.get(column), str | None) for row in rows)
        made.add_column(escape(column), justify="left" if texts else "right", overflow="fold")
    for row in rows:
        made.add_row(*(escape(cell(row.get(column))) for column in columns))
    return made


def main(names: Sequence[str]) -> int:
    """Runs and prints; 0 when all ran, 2 when a name is unknown."""
    known = available()
    unknown = [name for name in names if name not in known]
    if unknown:
        there = ", ".join(known) or "none"
        print(f"no benchmark is called {', '.join(unknown)}: expected some of {there}", file=sys.stderr)
        return 2
    console = Console()
    console.print(machine(), highlight=False, markup=False)
    for name in names or known:
        start = time.perf_counter()
        rows = importlib.import_module(f"{benchmarks.__name__}.{PREFIX}{name}").run()
        console.print(table(name, rows))
        console.print(
            f"{name}: {len(rows)} rows in {time.perf_counter() - start:.0f} s\n", highlight=False, markup=False
        )
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
