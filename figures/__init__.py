"""From numbers to pictures: scenes, two renderers, the report.

    figures.draw(figures.scenes.surface(surface, shadows), "surface.html")

A scene is data, made from records of `analysis.results` by a pure function of `figures.scenes`; `draw` writes it as
PNG, PDF, SVG or an interactive page. `figures.report.write` puts a whole study into one page. Neither needs torch.
"""

from figures import scenes
from figures.files import draw

__all__ = ["draw", "scenes"]
