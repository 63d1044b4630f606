"""What stands in for matplotlib where a test looks at numbers, files or words: drawing takes most of a small study."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from figures import static
from figures.marks import Scene

FILES = {
    ".svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="1" height="1"><desc>%s</desc></svg>',
    ".pdf": b"%%PDF-1.4\n%% %s\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
    b"2 0 obj<</Type/Pages/Kids[]/Count 0>>endobj\ntrailer<</Root 1 0 R>>\n",
    ".png": bytes.fromhex(
        "89504e470d0a1a0a0000000d4948445200000001000000010800000000"
        "3a7e9b550000000a49444154789c636000000002000148afa4710000000049454e44ae426082"
    ).replace(b"%", b"%%")
    + b"%s",
}


def render(scene: Scene, suffix: str, dpi: int = 0) -> bytes:
    """An empty picture as `static.render` would return one: other bytes for another scene, the same for the same.

    What could not be laid out is an error as it would be.
    """
    static.size(scene)
    return FILES[suffix] % _digest(scene, suffix, dpi).encode()


def _digest(*values: object) -> str:
    hashed = hashlib.sha256()
    for value in values:
        _add(hashed, value)
    return hashed.hexdigest()


def _add(hashed: Any, value: object) -> None:
    """Takes in every number and word of a scene, whatever it is made of."""
    hashed.update(type(value).__name__.encode())
    if is_dataclass(value):
        for field in fields(value):
            hashed.update(field.name.encode())
            _add(hashed, getattr(value, field.name))
    elif isinstance(value, np.ndarray) and value.dtype.kind != "O":
        hashed.update(f"{value.dtype} {value.shape}".encode())
        hashed.update(np.ascontiguousarray(value).tobytes())
    elif isinstance(value, np.ndarray | tuple | list):
        for one in value:
            _add(hashed, one)
    elif isinstance(value, Mapping):
        for key, one in value.items():
            _add(hashed, (key, one))
    else:
        hashed.update(repr(value).encode())
