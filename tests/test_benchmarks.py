"""The runner finds benchmarks by their modules' names, and its table shows what was measured."""

import re
from pathlib import Path

import pytest
from rich.console import Console

import benchmarks
from benchmarks import __main__ as runner

ROWS = "[{'tool': 'ours', 'seconds': [3.0, 1.0, 2.0], 'points': 9}, {'tool': 'peer', 'seconds': 0.12345}]"


@pytest.fixture
def example(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One benchmark, called `example`, in a folder of its own; a module beside it that is none."""
    (tmp_path / "bench_example.py").write_text(f"def run():\n    return {ROWS}\n", encoding="utf-8")
    (tmp_path / "helper.py").write_text("", encoding="utf-8")
    monkeypatch.setattr(benchmarks, "__path__", [str(tmp_path)])


@pytest.mark.usefixtures("example")
def test_benchmarks_are_found_by_their_name() -> None:
    assert runner.available() == ["example"]


@pytest.mark.usefixtures("example")
@pytest.mark.parametrize("names", [[], ["example"]])
def test_a_run_prints_machine_medians_and_ranges(names: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(names) == 0
    printed = capsys.readouterr().out
    assert re.match(r".+, \d+ cores, torch ", printed)
    assert re.search(r"ours\W+2 \(1-3\)\W+9\W", printed)
    assert re.search(r"peer\W+0\.123\W", printed)
    assert "example: 2 rows in" in printed


@pytest.mark.usefixtures("example")
def test_an_unknown_name_is_refused_with_those_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert runner.main(["nothing"]) == 2
    assert capsys.readouterr().err == "no benchmark is called nothing: expected some of example\n"


def test_a_value_that_cannot_be_shown_is_refused() -> None:
    with pytest.raises(TypeError, match=r"expected a number, a text or a list of numbers in a row, got \{\}"):
        runner.cell({})


def test_a_text_with_brackets_is_shown_as_it_is() -> None:
    console = Console(width=80)
    with console.capture() as capture:
        console.print(runner.table("shapes", [{"shape": "[bold]"}]))
    assert "[bold]" in capture.get()
