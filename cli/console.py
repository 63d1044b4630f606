"""Progress on stderr, results on stdout."""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from cli.signals import interruption

WIDE = 1000
"""Columns where the output is no terminal: nothing is wrapped or cut."""


class _Lasting(Console):
    """A console that falls silent where its reader has gone, instead of ending what is being done."""

    def on_broken_pipe(self) -> None:
        self.quiet = True


out = _Lasting(soft_wrap=True, highlight=False)
err = _Lasting(stderr=True, soft_wrap=True, highlight=False)


class Stages:
    """Shows every stage as a bar with the time left on a terminal, and as one line when it ends anywhere.

    Whoever tells of progress is at a place where an interruption does no harm: one that was lost is raised here.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._bar: Progress | None = None
        self._name, self._since = "", 0.0

    def begin(self, stage: str, amount: int) -> None:
        interruption.check()
        self._name, self._since = stage, time.perf_counter()
        if not self._quiet and err.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=err, transient=True)
            self._bar.add_task(stage, total=amount)
            self._bar.start()

    def tell(self, amount: int) -> None:
        interruption.check()
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], amount)

    def end(self, note: str) -> None:
        interruption.check()
        self.close()
        if not self._quiet:
            err.print(
                f"{self._name}: {duration(time.perf_counter() - self._since)}{', ' + note if note else ''}",
                markup=False,
            )

    def say(self, text: str) -> None:
        """A line for people, above the bar."""
        interruption.check()
        if not self._quiet:
            err.print(text, markup=False)

    def close(self) -> None:
        """Takes the bar away, also after an error."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def say(text: str, quiet: bool = False) -> None:
    """A line for people, on stderr."""
    if not quiet:
        err.print(text, markup=False)


def show(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """A table on stdout: numbers, under their headings, are right-aligned; without headings everything is text."""
    table = Table(box=None, pad_edge=False, show_header=any(columns))
    for place, column in enumerate(columns):
        table.add_column(column, justify="right" if place and column else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    console = out if out.is_terminal else _Lasting(width=WIDE, highlight=False)
    console.print(Text(title), table, sep="\n")


def emit(value: Any) -> None:
    """A value as JSON on stdout; numbers that are not finite become null."""
    sys.stdout.write(json.dumps(_plain(value), indent=2) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


def duration(seconds: float) -> str:
    """Seconds in words: `0.4 s`, `12 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
