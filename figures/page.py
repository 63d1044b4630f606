"""Interactive figures on a page of their own, and what every page has in common. Pages work offline."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from figures import interactive, static, style
from figures.marks import Scene

ESCAPES = {"<": "\\u003c", ">": "\\u003e", "&": "\\u0026", "\u2028": "\\u2028", "\u2029": "\\u2029"}


@dataclass(frozen=True)
class Figure:
    """A scene as a page shows it: interactive where scripts run, and a static picture for print and everywhere else."""

    name: str
    """Identifier on the page."""
    title: str
    caption: str
    json: Markup
    height: int
    """Of the interactive figure in pixels, kept free on the page so that links lead to their places from the start."""
    picture: str
    """The static figure as a data URL."""
    size: tuple[int, int]
    """Its width and height, in pixels."""


def figure(name: str, scene: Scene) -> Figure:
    """Draw a scene with both renderers."""
    picture = base64.b64encode(static.render(scene.bare(), ".svg", style.SCREEN_DPI)).decode()
    drawn, size = interactive.figure(scene), static.size(scene.bare())
    return Figure(
        name,
        scene.title,
        scene.caption,
        _in_script(drawn.to_json()),
        int(drawn.layout.height),
        f"data:image/svg+xml;base64,{picture}",
        (round(style.PIXELS_PER_MM * size[0]), round(style.PIXELS_PER_MM * size[1])),
    )


def render(scene: Scene, _suffix: str = ".html") -> bytes:
    """One figure as a page."""
    return template("figure.html.j2", figure=figure("figure", scene), title=scene.title)


def template(name: str, **values: object) -> bytes:
    """Fill in a template of the package; every value is escaped, plotly's own source is not."""
    environment = Environment(
        loader=PackageLoader("figures"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template(name).render(plotly=Markup(get_plotlyjs()), **values)
    return page.encode()


def _in_script(json: str) -> Markup:
    for character, escaped in ESCAPES.items():
        json = json.replace(character, escaped)
    return Markup(json)
