"""Every example in README.md and docs/ runs as it stands: a page's blocks after one another, in an empty folder."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.desk import LONG_ENOUGH
from tests.pages import blocks, commands, environment, script

ROOT = Path(__file__).parent.parent
NOT_RUN_AT_MOST = 5
RUN = ("python", "console")


def work(page: Path) -> tuple[int, int]:
    """How many commands and lines of Python a page runs: those with most begin first, and nobody waits for one page."""
    found = [block for block in blocks(page.read_text(encoding="utf-8")) if block.run]
    calls = sum(len(commands(block)) for block in found if block.language == "console")
    return calls, sum(len(block.lines) for block in found if block.language == "python")


PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")], key=lambda page: (work(page), page), reverse=True)


def run_page(text: str, folder: Path, seconds: float) -> tuple[int, str]:
    """Exit status and output of a page's examples, run in an empty folder; what has not ended in time is killed."""
    path = folder / "page.py"
    path.write_text(script(text), encoding="utf-8")
    workplace = folder / "work"
    workplace.mkdir()
    with subprocess.Popen(
        [sys.executable, path],
        cwd=workplace,
        env=environment(dict(os.environ)),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)  # with the commands that the page has started
            output, _ = process.communicate()
            return -signal.SIGKILL, f"{output}\nstopped after {seconds} s"
    return process.returncode, output


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, id=page.relative_to(ROOT).as_posix()) for page in PAGES])
def test_examples_run(page: Path, tmp_path: Path) -> None:
    status, output = run_page(page.read_text(encoding="utf-8"), tmp_path, LONG_ENOUGH)
    assert status == 0, f"an example of {page.name} failed (line numbers are the page's)\n{output}"


def test_few_examples_are_not_run() -> None:
    skipped = [
        f"{page.name}:{block.line}"
        for page in PAGES
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.language in RUN and not block.run
    ]
    assert len(skipped) <= NOT_RUN_AT_MOST, skipped


PAGE = """\
# Title

```python
x = 1
```

1. In a list:

   ```console
   $ landscape info \\
       run.h5
   3 snapshots
   $ ls
   ```

<!-- not run -->

```python
raise SystemExit(1)
```

````markdown
```python
shown, not an example
```
````

```python
if x:
    y = x + 1
```
"""


def test_a_page_becomes_a_script_with_the_same_line_numbers() -> None:
    lines = script(PAGE).splitlines()
    assert {number: line for number, line in enumerate(lines[1:], start=2) if line} == {
        4: "x = 1",
        10: "_run_command('landscape info     run.h5', shell=True, check=True)",
        29: "if x:",
        30: "    y = x + 1",
    }


def test_a_marked_block_is_not_run() -> None:
    assert [(block.language, block.run) for block in blocks(PAGE)] == [
        ("python", True),
        ("console", True),
        ("python", False),
        ("markdown", True),
        ("python", True),
    ]


def test_only_calls_of_the_command_are_taken_from_a_console_block() -> None:
    assert commands(blocks(PAGE)[1]) == {10: "landscape info     run.h5"}


def test_a_page_without_examples_is_an_empty_script() -> None:
    assert script("# Title\n\nWords.\n").splitlines()[1:] == ["", "", ""]


def test_an_open_fence_is_refused() -> None:
    with pytest.raises(ValueError, match="opens on line 2 is never closed"):
        blocks("words\n```python\nx = 1\n")


def test_a_failing_example_names_its_line_in_the_page(tmp_path: Path) -> None:
    status, output = run_page("# Title\n\n```python\nfine = 1\nassert fine == 2\n```\n", tmp_path, seconds=60)
    assert status == 1
    assert "line 5, in <module>" in output


def test_a_failing_command_fails_the_page(tmp_path: Path) -> None:
    status, output = run_page("# Title\n\n```console\n$ landscape no-such-command\n```\n", tmp_path, seconds=60)
    assert status == 1
    assert "line 4, in <module>" in output


def test_examples_that_do_not_end_are_stopped(tmp_path: Path) -> None:
    page = "# Title\n\n```python\nimport time\nprint('begun', flush=True)\ntime.sleep(600)\n```\n"
    status, output = run_page(page, tmp_path, seconds=1)
    assert status == -9
    assert "begun" in output
    assert "stopped after 1 s" in output
