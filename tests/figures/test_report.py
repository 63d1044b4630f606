"""The report is one offline page with every figure, every number and a plain verdict."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from figures import report, tables
from figures.report import Contents
from tests.figures import records
from tests.figures.records import NASTY


def whole(task: str = "one", label: str = "independent") -> Contents:
    tasks = (task, "two")
    return Contents(
        title=f"A study of {label}",
        summary=("Two strategies.",),
        settings='[study]\nname = "small"\n',
        searches=(records.search(), records.search(label)),
        trainings=(records.training(tasks=tasks), records.training(label, tasks=tasks, shift=1.0)),
        surfaces=((records.surface(tasks), (records.shadow(tasks=tasks), records.shadow(label, tasks=tasks))),),
        eigenvalues=(records.history(tasks=tasks), records.history(label, tasks=tasks)),
        explorations=(records.exploration(), records.exploration(label)),
        distances=(records.distances(),),
        comparisons=(
            records.comparison(label),
            records.comparison(label, "updates", interval=(-1.5, -0.5), verdict="narrower"),
            records.comparison(label, "movement", interval=(-1.0, 1.0), verdict="undecided"),
        ),
        checks=records.checks(),
        provenance=(("torch", "2.0"),),
        timings=(("training", "3 s"),),
    )


class Page(HTMLParser):
    """Attributes that can fetch, headings, tables and text outside scripts."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.inside = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.inside = tag
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action")]

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside not in ("script", "style"):
            self.text += data


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return report.write(whole(), tmp_path_factory.mktemp("report") / "report.html").read_text()


def test_plotly_is_inside_exactly_once(source: str) -> None:
    assert len(re.findall(r"<script>/\*\*\n\* plotly\.js", source)) == 1


def test_nothing_is_fetched(source: str) -> None:
    links = Page(source).links
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert "@import" not in source
    assert not re.search(r"url\(\s*['\"]?http", source.split("plotly.js", 1)[0])


def test_every_figure_is_there_twice(source: str) -> None:
    page = Page(source)
    assert page.tags.count("figure") == page.tags.count("img") == 12
    assert source.count('type="application/json"') == 12
    assert "@media print" in source
    assert "<noscript>" in source


def test_every_table_is_there(source: str) -> None:
    captions = re.findall(r"<caption>(.*?)</caption>", source)
    assert captions == [
        "Verdicts",
        "Metrics at the end of training",
        "Exploration at the end",
        "Every run at its last snapshot",
        "Top eigenvalues at the end",
        "Losses at the end of training",
        "Learning rates tried",
        "1 of 2 checks failed",
        "Where the numbers come from",
        "Time taken",
    ]
    assert source.count('<th scope="col">') > 30
    assert source.count('<th scope="row"') == 19


def test_contents_lead_to_sections(source: str) -> None:
    names = [link[1:] for link in Page(source).links if link.startswith("#")]
    assert len(names) == 10
    assert all(f'id="{name}"' in source for name in names)


def test_the_first_screen_says_what_was_compared_and_what_came_out(source: str) -> None:
    text = Page(source).text
    assert "averaged and independent compared on 2 tasks (one and two) with 1 seed of each strategy." in text
    finding = (
        "independent explores more widely than averaged at equal steps, but not at equal updates (narrower) or movement"
    )
    assert text.index(finding) < text.index("Contents")
    assert "1 of 2 checks failed: see Checks." in text


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        ({"steps": "wider"}, "i explores more widely than averaged at equal steps, which are all the budgets"),
        (
            {"steps": "undecided", "updates": "narrower"},
            "i does not explore more widely than averaged at any equal budget",
        ),
        (
            {"steps": "too few seeds"},
            "i: with too few seeds it cannot be said whether it explores more widely than averaged",
        ),
        ({"steps": "wider", "updates": "undecided"}, "at equal steps, but not at equal updates (undecided)."),
    ],
)
def test_findings_in_words(verdicts: dict[str, str], sentence: str) -> None:
    (finding,) = report.findings([records.comparison("i", budget, verdict=v) for budget, v in verdicts.items()])
    assert sentence in finding


def test_names_are_escaped_everywhere(tmp_path: Path, drawn_if_slow: None) -> None:
    source = report.write(whole(NASTY, NASTY), tmp_path / "report.html").read_text()
    assert NASTY not in source
    assert source.count("<script") == source.count("</script>") == 15
    assert NASTY in Page(source).text


def test_the_same_contents_give_the_same_bytes() -> None:
    contents = Contents("Twice", explorations=(records.exploration(),), surfaces=((records.surface(), ()),))
    assert report.render(contents) == report.render(contents)


@pytest.mark.parametrize(
    "contents",
    [
        Contents("Nothing"),
        Contents("Explorations", explorations=(records.exploration(),)),
        Contents(
            "One task", trainings=(records.training(tasks=("one",)),), eigenvalues=(records.history(tasks=("one",)),)
        ),
        Contents("No trajectories", surfaces=((records.surface(), ()),)),
    ],
    ids=lambda contents: contents.title,
)
def test_missing_parts_are_left_out(contents: Contents) -> None:
    source = report.render(contents).decode()
    assert f"<h1>{contents.title}</h1>" in source
    assert source.count("<figure") == sum(len(section.scenes) for section in report.sections(contents))


def test_another_suffix_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected a report that ends with \.html, got 'report\.pdf'"):
        report.write(Contents("x"), tmp_path / "report.pdf")


def test_mean_and_standard_error_by_hand() -> None:
    assert tables.mean_and_error(np.array([1.0, 2.0, 3.0])) == "2.00 \u00b1 0.58"
    assert tables.mean_and_error(np.array([-0.5])) == "\u22120.5000"
    assert tables.with_error(123.456, 1.23) == "123.5 \u00b1 1.2"
    assert tables.with_error(float("nan"), 1.0) == "\u2013 \u00b1 1"


def test_numbers_keep_their_size() -> None:
    texts = [tables.number(v) for v in (0.0, 20.0, 0.012345, 1234.56, 1e-7, 2.5e9, float("inf"))]
    assert texts == ["0", "20", "0.01235", "1235", "1.000e\u221207", "2.500e+09", "infinite"]


def test_verdict_table_holds_difference_interval_and_word() -> None:
    table = tables.verdicts(whole().comparisons)
    assert table.head == ("", "equal steps", "equal updates", "equal movement")
    cell = table.rows[0][2]
    assert (cell.text, cell.note, cell.tone) == ("narrower", "\u22121.00\n[\u22121.50, \u22120.500]", "bad")


def test_eigenvalue_table_marks_what_did_not_converge() -> None:
    table = tables.eigenvalues([records.history()])
    assert table.rows[0][1].note == "not converged"
    assert table.rows[0][2].text == "1.000 \u00b1 0.010"


def test_figures_need_neither_torch_nor_the_training_package() -> None:
    code = "import sys, figures, figures.report; print([m for m in ('torch', 'landscape') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


LISTEN = """
var note = function (problem) { document.documentElement.setAttribute("data-problem", String(problem)); };
window.addEventListener("error", function (event) { note(event.message); });
window.addEventListener("unhandledrejection", function (event) { note(event.reason); });
console.error = note;
"""


def browse(path: Path, profile: Path, size: str = "1200,2000", anchor: str = "") -> str:
    """The page after its scripts have run, as a browser has it."""
    browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    assert browser, "expected a browser, found neither chromium nor google-chrome: apt-get install chromium"
    flags = "--headless --no-sandbox --disable-gpu --enable-unsafe-swiftshader --disable-quic --no-first-run "
    flags += f"--disable-background-networking --disable-component-update --disable-sync --window-size={size} "
    flags += f"--virtual-time-budget=20000 --user-data-dir={profile} --dump-dom"
    command = [browser, *flags.split(), path.as_uri() + anchor]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.mark.slow
def test_a_browser_draws_every_figure_without_an_error(tmp_path: Path) -> None:
    path = report.write(whole(NASTY, NASTY), tmp_path / "report.html")
    path.write_text(path.read_text().replace("<head>", f"<head><script>{LISTEN}</script>", 1))
    page = browse(path, tmp_path / "profile")
    assert re.findall(r'data-problem="(.*?)"', page) == []
    assert page.count('class="plot js-plotly-plot"') == 12
    assert page.count('class="main-svg"') >= 22
    assert 'class="still"' not in page


MEASURE = """
var places = function () {
  return Array.prototype.map.call(document.querySelectorAll("nav a"), function (link) {
    return document.querySelector(link.getAttribute("href")).getBoundingClientRect().top + window.scrollY;
  });
};
var note = function (name, value) { document.documentElement.setAttribute("data-" + name, JSON.stringify(value)); };
"""
AFTER = """
note("before", places());
var settled = function () {
  if (document.querySelectorAll(".js-plotly-plot .main-svg").length < document.querySelectorAll(".plot").length) {
    window.setTimeout(settled, 50);
    return;
  }
  window.setTimeout(function () {
    note("after", places());
    note("landed", document.querySelector(location.hash).getBoundingClientRect().top);
  }, 1000);
};
settled();
"""


@pytest.mark.slow
@pytest.mark.parametrize("size", ["1200,900", "1900,1000", "500,900"])
def test_links_of_the_contents_lead_to_their_sections_while_figures_are_not_drawn_yet(
    tmp_path: Path, size: str
) -> None:
    source = report.render(whole()).decode()
    drawing = source.rindex("<script>\n(function")
    path = tmp_path / "report.html"
    parts = (source[:drawing], f"<script>{MEASURE}{AFTER}</script>", source[drawing:])
    path.write_text("".join(parts))
    page = browse(path, tmp_path / "profile", size, "#curvature")
    before, after, landed = (
        json.loads(re.findall(f'data-{name}="(.*?)"', page)[0]) for name in ("before", "after", "landed")
    )
    assert len(before) == 9
    # A heading is where it was to a pixel, and the browser jumped to it.
    np.testing.assert_allclose(after, before, atol=1)
    assert abs(landed) <= 1


def test_a_figures_room_is_that_of_what_is_drawn_in_it(source: str) -> None:
    heights = [int(text) for text in re.findall(r'class="plot" style="height: (\d+)px"', source)]
    drawn = [json.loads(text)["layout"]["height"] for text in re.findall(r'json" id=".*?">(.*?)</script>', source)]
    assert heights == drawn
    assert len(drawn) == 12
    for width, height, picture in re.findall(r'width="(\d+)" height="(\d+)" src="data:.*?,(.*?)"', source):
        size = re.search(rb'width="([\d.]+)pt" height="([\d.]+)pt"', base64.b64decode(picture))
        assert size
        assert int(height) / int(width) == pytest.approx(float(size[2]) / float(size[1]), rel=1e-2)


@pytest.mark.parametrize(
    ("losses", "near"),
    [
        ([2.0, 1.0, 1.04, 1.06], (3,)),
        ([2.0, -1.0, -0.97, -0.9], (3,)),  # -0.97 is within 5 % of -1; -0.95 is where it ends, not -1.05
        ([0.5, 0.0, 0.0, 1e-9], (3,)),
        ([-5.0, -100.0, -96.0, -94.0], (3,)),
    ],
)
def test_rates_near_the_best_loss_are_named_whatever_its_sign(losses, near):
    rates = np.array([1.0, 2.0, 3.0, 4.0])
    search = replace(records.search(), rates=rates, losses=np.array(losses), done=np.full(4, True), chosen=2.0)
    named = ", ".join(f"averaged {rate}" for rate in near)
    assert f"Within 5% of it, which one seed cannot tell apart: {named}." in tables.rates([search]).note
