"""Makes one script of the examples on a page of documentation, line for line."""

import re
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

NOT_RUN = "<!-- not run -->"
PRELUDE = "from subprocess import run as _run_command"
"""Stands on the script's first line, where a page cannot have code: a fence opens at the earliest there."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, the number of its first line (from 1), its lines, and whether it is to be run."""

    language: str
    line: int
    lines: tuple[str, ...]
    run: bool


def blocks(text: str) -> list[Block]:
    """All fenced blocks of a page, in order; indented ones are taken out of their indentation."""
    found: list[Block] = []
    lines = text.splitlines()
    fence = language = ""
    start = 0
    for number, line in enumerate(lines):
        opening = re.match(r"\s*(`{3,}|~{3,})\s*([\w-]*)", line)
        if not fence and opening:
            fence, language, start = opening[1], opening[2], number
        elif fence and line.strip().startswith(fence) and not line.strip().strip(fence[0]):
            body = textwrap.dedent("\n".join(lines[start + 1 : number])).splitlines()
            before = next((above.strip() for above in reversed(lines[:start]) if above.strip()), "")
            found.append(Block(language, start + 2, tuple(body), before != NOT_RUN))
            fence = ""
    if fence:
        raise ValueError(f"the fence that opens on line {start + 1} is never closed")
    return found


def commands(block: Block) -> dict[int, str]:
    """The calls of `landscape` in a console block, by line number; a line that ends in a backslash goes on."""
    found: dict[int, str] = {}
    going_on = 0
    for number, line in enumerate(block.lines, start=block.line):
        if going_on:
            found[going_on] += line
        elif line.startswith("$ landscape"):
            found[number] = line.removeprefix("$ ")
            going_on = number
        else:
            continue
        found[going_on] = found[going_on].removesuffix("\\")
        going_on = going_on if line.endswith("\\") else 0
    return found


def script(text: str) -> str:
    """The page as one Python script with the page's line numbers, so that a traceback names the place in the page."""
    code = [PRELUDE, *[""] * len(text.splitlines())]
    for block in blocks(text):
        if block.run and block.language == "python":
            for number, line in enumerate(block.lines, start=block.line):
                code[number - 1] = line
        elif block.run and block.language == "console":
            for number, command in commands(block).items():
                code[number - 1] = f"_run_command({command!r}, shell=True, check=True)"
    return "\n".join(code) + "\n"


def environment(inherited: dict[str, str]) -> dict[str, str]:
    """What examples run in: the commands of this environment come first, and nothing but it is on Python's path."""
    outside = {key: value for key, value in inherited.items() if key != "PYTHONPATH"}
    return {**outside, "PATH": f"{Path(sys.executable).parent}:{outside.get('PATH', '')}"}
