"""Tables as text, CSV, JSON and LaTeX: the numbers stay, and no name can do anything."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from figures.table_formats import SPECIAL, escaped
from figures.tables import Cell, Table, number, table
from tests.figures import records
from tests.figures.records import NASTY

MINUS = "\u2212"
NAMES = (
    NASTY,
    "=1+2",
    "+cmd",
    "-x",
    "@SUM(A1)",
    "\ttab",
    "a,b",
    'say "hi"',
    "two\nlines",
    "C:\\temp",
    "100 % #1 ~^",
    "µ_é",
)


def small() -> Table:
    return table(
        "Two runs",
        ("run", "net", "p"),
        [
            ["averaged", Cell(number(-1.23456789), value=-1.23456789), "3"],
            ["b", Cell("\u2013"), Cell("wider", "+1 [0, 2]")],
        ],
        "A note.",
    )


def nasty() -> Table:
    return table("Names", ("name", "value"), [[name, "1"] for name in NAMES])


def cells(text: str) -> list[list[str]]:
    return list(csv.reader(io.StringIO(text, newline="")))


def test_csv_has_numbers_in_full_and_nothing_where_something_is_missing():
    assert cells(small().to_csv()) == [
        ["run", "net", "p"],
        ["averaged", "-1.23456789", "3"],
        ["b", "", "wider (+1 [0, 2])"],
    ]


def test_a_number_written_with_a_minus_sign_is_a_number():
    made = table("T", ("a", "b"), [["x", f"{MINUS}0.5"], ["y", f"{MINUS}0.5 \u00b1 0.1"]])
    assert [row[1] for row in cells(made.to_csv())[1:]] == ["-0.5", f"'{MINUS}0.5 \u00b1 0.1".replace(MINUS, "-")]
    assert json.loads(made.to_json())["rows"][0][1] == -0.5


def test_no_name_is_a_formula_and_all_come_back():
    found = [row[0] for row in cells(nasty().to_csv())[1:]]
    for name, cell in zip(NAMES, found, strict=True):
        assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
        assert cell == (f"'{name}" if name[0] in "=+-@\t" else name)
    head = table("T", ("=HYPERLINK()", "b"), [["a", "b"]]).to_csv()
    assert cells(head)[0][0] == "'=HYPERLINK()"


def test_json_is_strict_and_keeps_types():
    document = json.loads(small().to_json(), parse_constant=pytest.fail)
    assert document["rows"] == [["averaged", -1.23456789, 3], ["b", None, {"text": "wider", "note": "+1 [0, 2]"}]]
    assert (document["title"], document["head"], document["note"]) == ("Two runs", ["run", "net", "p"], "A note.")
    not_finite = table("T", ("a",), [[Cell("infinite", value=float("inf"))]])
    assert json.loads(not_finite.to_json())["rows"] == [[None]]
    assert [row[0] for row in json.loads(nasty().to_json())["rows"]] == list(NAMES)


def test_text_is_aligned_whatever_the_width_of_characters():
    made = table("T", ("name", "n"), [["\u6f22\u5b57", "1"], ["abc", "22"]])
    assert made.to_text().splitlines()[2:] == ["name   n", "\u6f22\u5b57   1", "abc   22"]
    assert small().to_text().splitlines()[-1] == "A note."


def unescaped(line: str, character: str) -> int:
    """How often a character stands in a line without a backslash before it."""
    return len(re.findall(rf"(?<!\\)(?:\\\\)*{re.escape(character)}", line))


def require_latex(text: str, columns: int) -> None:
    """What a compiler would stumble over: unbalanced braces and groups, stray specials, rows of another width."""
    depth = 0
    for token in re.findall(r"\\.|[{}]", text, flags=re.S):
        depth += (token == "{") - (token == "}")
        assert depth >= 0
    assert depth == 0
    assert re.findall(r"\\(begin|end)\{(\w+)\}", text) == [
        ("begin", "table"),
        ("begin", "tabular"),
        ("end", "tabular"),
        ("end", "table"),
    ]
    body = text[text.index(r"\toprule") : text.index(r"\bottomrule")]
    rows = [line for line in body.splitlines() if line.endswith(r" \\")]
    assert rows
    for row in rows:
        assert unescaped(row, "&") == columns - 1
        assert not unescaped(row, "#")
        assert not unescaped(row, "%")
        assert unescaped(row, "$") % 2 == 0
        outside = re.sub(r"\$[^$]*\$", "", row.replace(r"\$", ""))
        assert not unescaped(outside, "_")
        assert not unescaped(outside, "^")
        assert not row.lstrip().startswith("["), "would be an option of the line break before it"


@pytest.mark.parametrize("made", [small(), nasty()], ids=["small", "nasty"])
def test_latex_is_well_formed_whatever_the_names(made):
    text = made.to_latex()
    require_latex(text, len(made.head))
    assert text.startswith("% needs \\usepackage{booktabs}\n")


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
@pytest.mark.slow
@pytest.mark.parametrize("made", [small(), nasty()], ids=["small", "nasty"])
def test_latex_compiles(made, tmp_path):
    page = rf"\documentclass{{article}}\usepackage{{booktabs}}\begin{{document}}{made.to_latex()}\end{{document}}"
    (tmp_path / "page.tex").write_text(page, encoding="utf-8")
    ran = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "page.tex"],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stdout[-2000:]


def test_latex_sets_every_special_character():
    assert escaped(r"50 % of $x_1 & \input{a}") == r"50 \% of \$x\_1 \& \textbackslash{}input\{a\}"
    assert escaped("[0, 1]") == "{[}0, 1{]}"
    assert escaped("a\x00b\n\nc") == "ab c"
    assert escaped(f"{MINUS}1 \u00b1 2") == r"$-$1 $\pm$ 2"
    for character in '\\{}$&#%_~^<>|[]"`':
        assert escaped(character) == SPECIAL[character] != character


def test_every_table_of_the_toolkit_has_the_four_forms():
    from figures import tables

    made = [
        tables.verdicts([records.comparison(), records.comparison(budget="updates", interval=(np.nan, np.nan))]),
        tables.losses([records.training()]),
        tables.eigenvalues([records.history()]),
        tables.checks(records.checks()),
        tables.rates([records.search()]),
        tables.distances([records.exploration()]),
    ]
    for each in made:
        assert each.title in each.to_text()
        assert len(cells(each.to_csv())) == len(each.rows) + 1
        assert len(json.loads(each.to_json())["rows"]) == len(each.rows)
        require_latex(each.to_latex(), len(each.head))
