"""Tables as text, CSV, JSON and LaTeX. Whatever names hold, they are text in each of them."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import unicodedata
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from figures.tables import Cell, Table

MINUS, MISSING = "\u2212", "\u2013"
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""A spreadsheet takes a cell that begins so for a formula, and runs it."""
SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "#": r"\#",
    "%": r"\%",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",
    "]": "{]}",
    '"': "''",
    "`": r"\textasciigrave{}",
    MINUS: "$-$",
    MISSING: "--",
    "\u2014": "---",
    "\u00b1": r"$\pm$",
    "\u00d7": r"$\times$",
    "\u00b2": "$^2$",
    "\u2264": r"$\leq$",
    "\u2265": r"$\geq$",
    "\u00a0": "~",
}
"""What LaTeX takes for a command, or lacks, and what stands for it; a bracket could be an option of a line break."""
NEEDED = "% needs \\usepackage{booktabs}"


def text(table: Table) -> str:
    """Columns side by side: the first to the left, numbers to the right; a cell's second line stands in brackets."""
    rows = [list(table.head), *([_one_line(cell) for cell in row] for row in table.rows)]
    widths = [max((_width(row[k]) for row in rows if k < len(row)), default=0) for k in range(len(table.head))]
    lines = [
        "  ".join(
            _padded(words, width, k > 0) for k, (words, width) in enumerate(zip(row, widths, strict=False))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([table.title, "", *lines, *(["", table.note] if table.note else [])]) + "\n"


def comma_separated(table: Table) -> str:
    """RFC 4180 with a heading line; numbers in full, what is missing empty, title and note left out.

    A text that a spreadsheet would run as a formula gets an apostrophe before it.
    """
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([_inert(words) for words in table.head])
    for row in table.rows:
        writer.writerow([_plain(cell) for cell in row])
    return out.getvalue()


def as_json(table: Table) -> str:
    """`title`, `head`, `rows` of cells, `note`; numbers are numbers, what is missing or not finite is null."""
    rows = [[_value(cell) for cell in row] for row in table.rows]
    document = {"title": table.title, "head": list(table.head), "rows": rows, "note": table.note}
    return json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def latex(table: Table) -> str:
    """A `table` environment with `booktabs` rules; title and note are its caption."""
    columns = "l" + "r" * (len(table.head) - 1)
    caption = escaped(f"{table.title}. {table.note}" if table.note else f"{table.title}.")
    lines = [
        NEEDED,
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        " & ".join(escaped(words) for words in table.head) + r" \\",
        r"\midrule",
        *(" & ".join(_typeset(cell) for cell in row) + r" \\" for row in table.rows),
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(words: str) -> str:
    """A text that LaTeX sets as it stands: one line, no commands, no characters that control anything."""
    kept = "".join(c for c in " ".join(words.split()) if unicodedata.category(c) != "Cc")
    return "".join(SPECIAL.get(character, character) for character in kept)


def _typeset(cell: Cell) -> str:
    note = rf" {{\footnotesize {escaped(cell.note)}}}" if cell.note else ""
    return escaped(cell.text) + note


def _one_line(cell: Cell) -> str:
    return " ".join((f"{cell.text} ({cell.note})" if cell.note else cell.text).split())


def _padded(words: str, width: int, right: bool) -> str:
    room = " " * (width - _width(words))
    return room + words if right else words + room


def _width(words: str) -> int:
    """Columns on a terminal: two for wide characters, none for those that combine."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in words)


def _plain(cell: Cell) -> str:
    value = _value(cell)
    if value is None:
        return ""
    if isinstance(value, dict):
        return _inert(_one_line(cell).replace(MINUS, "-"))
    return _inert(value) if isinstance(value, str) else repr(value)


def _value(cell: Cell) -> Any:
    """A number where the cell is one, None where it is missing, else its text, with the second line if there is one."""
    if cell.value is not None:
        return cell.value if math.isfinite(cell.value) else None
    words = cell.text.replace(MINUS, "-")
    if cell.note:
        return {"text": words, "note": " ".join(cell.note.replace(MINUS, "-").split())}
    if words == MISSING:
        return None
    if NUMBER.fullmatch(words):
        number = float(words)
        return int(number) if number.is_integer() and re.fullmatch(r"[+-]?\d+", words) else number
    return words


def _inert(words: str) -> str:
    return f"'{words}" if words.startswith(FORMULA) else words
