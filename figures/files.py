"""Writes a scene to a file; what kind of file follows from its suffix."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from figures.marks import Scene

SUFFIXES = (".png", ".pdf", ".svg", ".html")


def draw(scene: Scene, path: str | os.PathLike[str]) -> Path:
    """Draw a scene to a file and return its path.

    `.png`, `.pdf` and `.svg` are drawn by matplotlib, 180 mm wide, with embedded fonts; `.html` by plotly, as one
    interactive page that works offline. The file appears whole or not at all, and the same scene gives the same bytes.
    For a journal that sets titles and captions itself, draw `scene.bare()`.
    """
    path = Path(path)
    render = _renderer(path)
    write(path, render(scene, path.suffix.lower()))
    return path


def write(path: Path, content: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, never a part."""
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"expected an existing folder, got {str(path.parent)!r}: make it first or choose another"
        )
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
        os.chmod(temporary, 0o666 & ~_mask())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _mask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _renderer(path: Path) -> Callable[[Scene, str], bytes]:
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(
            f"expected a file that ends with {', '.join(SUFFIXES)}, got {path.name!r}: choose one of these suffixes"
        )
    if suffix == ".html":
        from figures import page

        return page.render
    from figures import static

    return static.render
