"""Reading an HDF5 file whose writer is at work, was killed, or lost the file's end.

HDF5 refuses such a file. Its single-writer mode opens it, but then waits for minutes at every damaged or missing piece
of its index, as a writer might still bring it. Here the file is shown to HDF5 as if it had been closed: the marks of an
open writer are taken out of the superblock, in the bytes that are read, never on the disk; every piece of the index has
a checksum, so what is missing or half written is an error at once.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_SIZE = 48
_FLAGS, _END, _CHECKSUM = slice(11, 12), slice(28, 36), slice(44, 48)
_BITS = 0xFFFFFFFF


def has_writer(path: Path) -> bool:
    """Whether the file bears the mark of a writer, at work or killed."""
    head = _head(path)
    return _is_ours(head) and head[_FLAGS] != b"\0"


def is_whole(path: Path) -> bool:
    """Whether the file has the length that it states; true for files of other formats."""
    head = _head(path)
    return not _is_ours(head) or int.from_bytes(head[_END], "little") <= path.stat().st_size


def look(path: Path) -> tuple[object, ...]:
    """What is another thing after every change of a file: of its place on the disk, length, times and superblock.

    Raises:
        OSError: there is no such file.
    """
    there = path.stat()
    return there.st_ino, there.st_size, there.st_mtime_ns, there.st_ctime_ns, _head(path)


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(_SIZE)


class AsClosed(io.FileIO):
    """The bytes of a file, with a superblock that says: closed, and as long as the file is."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rb")
        head = bytearray(super().read(_SIZE))
        if _is_ours(head):
            head[_FLAGS] = b"\0"
            head[_END] = path.stat().st_size.to_bytes(8, "little")
            head[_CHECKSUM] = lookup3(bytes(head[: _CHECKSUM.start])).to_bytes(4, "little")
        self._head = bytes(head)

    def readinto(self, buffer: Any) -> int:
        """Reads on from the present place."""
        at = self.tell()
        count = super().readinto(buffer) or 0
        if at < len(self._head):
            part = self._head[at : at + count]
            memoryview(buffer).cast("B")[: len(part)] = part
        return count


def _is_ours(head: bytes | bytearray) -> bool:
    """Whether these bytes are a superblock as our files have it: version 3, addresses of eight bytes."""
    return len(head) == _SIZE and head.startswith(_SIGNATURE) and head[8:10] == b"\x03\x08"


def lookup3(data: bytes) -> int:
    """Bob Jenkins' 32-bit hash `lookup3` with start value 0, of at least one byte: HDF5's checksum of its index."""
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    a = b = c = (0xDEADBEEF + len(data)) & _BITS
    while len(words) > 3:
        a, b, c = (x + y & _BITS for x, y in zip((a, b, c), words, strict=False))
        del words[:3]
        for turn in (4, 6, 8, 16, 19, 4):
            a = (a - c & _BITS) ^ _turned(c, turn)
            c = c + b & _BITS
            a, b, c = b, c, a
    a, b, c = (x + y & _BITS for x, y in zip((a, b, c), [*words, 0, 0, 0], strict=False))
    for turn in (14, 11, 25, 16, 4, 14, 24):
        c = (c ^ b) - _turned(b, turn) & _BITS
        a, b, c = b, c, a
    return b


def _turned(value: int, bits: int) -> int:
    return (value << bits | value >> 32 - bits) & _BITS
