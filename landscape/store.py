"""The trajectory file: HDF5, written so that what was acknowledged survives, read while it is still being written.

`append` returns when a snapshot is on the disk: arrays are written and flushed first, then the counter that makes them
part of the file, then everything is forced out. HDF5's single-writer mode keeps the file readable at every moment.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import h5py
import numpy as np

from landscape.errors import LandscapeError
from landscape.locks import clear_stale, only_writer, uninterrupted
from landscape.modules import BufferLayout
from landscape.projection import Kept, Whole
from landscape.trajectory import Array, History, Layout, Provenance, Rows, Sketch, Slot, Snapshot, Trajectory
from landscape.unclosed import AsClosed, has_writer, is_whole, look

FORMAT = "landscape-trajectory"
FORMAT_VERSION = 2
"""Files that keep theta are of version 1, those that keep a projection of it of version 2."""
_PROJECTION = "projection"
"""The attribute that marks a file without theta."""

_SCALARS = {
    "step": np.int64,
    "updates": np.int64,
    "gradients": np.int64,
    "seconds": np.float64,
    "path_steps": np.float64,
    "path_updates": np.float64,
}
_SMALL = (*_SCALARS, "losses", "metrics", "history_rows")
_HISTORY = ("step", "losses", "shared_update_norm", "shared_path", "rate")
"""Columns of the history; older files have no `rate`."""
_CHECKED = {"checksum": _HISTORY[:-1], "rate_checksum": _HISTORY[-1:]}
"""Columns of the history under each checksum of a snapshot, the first of which has its small fields too."""
_CHUNK_BYTES = 1 << 20
_SLACK = 1 << 18
"""Bytes reserved beyond a snapshot's own, for the file's index structures."""
_DAMAGE = (OSError, KeyError, RuntimeError, ValueError, TypeError, IndexError)
"""What h5py, json and numpy raise at damaged bytes."""
_PAUSES = (0.01, 0.05, 0.25)
"""Seconds before a file with a writer's mark is read again, where it cannot be read and nothing in it changes."""
_PATIENCE = 20.0
"""Seconds for which a file that changes all the time is read again and again."""
_Value = TypeVar("_Value")
_WHOLE = Whole()
_END_OF_FILE = 28
"""Where the superblock (versions 2 and 3, which `libver="latest"` writes) holds the end of what the file uses."""


def _header(file: h5py.File, who: Provenance, layout: Layout, buffers: BufferLayout, kept: Kept) -> None:
    settings = kept.settings()
    marks = {"format": FORMAT, "format_version": 2, _PROJECTION: settings} if settings else _PLAIN
    for key, value in {**marks, **asdict(who)}.items():
        name = _ATTRIBUTES.get(key, key)
        if isinstance(value, int | float):
            file.attrs[name] = value
        else:
            text = _fixed([value if isinstance(value, str) else json.dumps(value, sort_keys=True)])
            file.attrs.create(name, text[0], dtype=text.dtype)
    _write_slots(file.create_group("layout"), layout.slots)
    group = file.create_group("buffer_layout")
    _write_slots(group, buffers.slots)
    _write_checked(group, "dtype", _fixed([str(dtype) for dtype in buffers.dtypes]))


_PLAIN = {"format": FORMAT, "format_version": 1}
_ATTRIBUTES = {"data": "data_hash", "frozen": "frozen_hash"}
_JSON = ("settings", "tasks", "metrics", "training", "versions")


def _write_slots(group: h5py.Group, slots: Sequence[Slot]) -> None:
    _write_checked(group, "name", _fixed([slot.name for slot in slots]))
    _write_checked(group, "shape", _fixed([json.dumps(slot.shape) for slot in slots]))
    _write_checked(group, "owner", _fixed([slot.owner for slot in slots]))
    _write_checked(group, "offset", np.array([slot.offset for slot in slots], dtype=np.int64))


def _fixed(texts: Sequence[str]) -> Array:
    """UTF-8 of one length for all: HDF5 keeps texts of various lengths in a heap that has no checksum, and a flipped
    bit in it can hold the reader for ever.
    """
    coded = [text.encode() for text in texts]
    return np.array(coded, h5py.string_dtype("utf-8", max(map(len, coded), default=0) or 1))


def _write_checked(group: h5py.Group, name: str, values: Array) -> None:
    chunked = {"chunks": values.shape, "fletcher32": True} if len(values) else {}
    group.create_dataset(name, data=values, **chunked)


def _read_layout(group: h5py.Group) -> Layout:
    names, shapes, owners = (group[key].asstr()[:] for key in ("name", "shape", "owner"))
    rows = zip(names, shapes, owners, group["offset"][:], strict=True)
    return Layout(tuple(Slot(str(n), tuple(json.loads(s)), str(o), int(offset)) for n, s, o, offset in rows))


def _read_provenance(file: h5py.File) -> Provenance:
    def value(key: str) -> Any:
        raw = file.attrs[_ATTRIBUTES.get(key, key)]
        raw = raw.decode() if isinstance(raw, bytes) else raw
        return json.loads(raw) if key in _JSON else raw.item() if isinstance(raw, np.generic) else raw

    stated = [key for key in Provenance.__dataclass_fields__ if key != "start" or key in file.attrs]
    found = {key: value(key) for key in stated}
    return Provenance(**{**found, "tasks": tuple(found["tasks"]), "metrics": tuple(found["metrics"])})


def _create_arrays(file: h5py.File, who: Provenance, width: int, buffers: int, dtype: np.dtype[Any]) -> None:
    """Every dataset that the file will ever have: none can be added once it is open to readers."""

    def rows(where: str, columns: tuple[int, ...], kind: Any, chunk: int, checked: bool) -> None:
        file.create_dataset(
            where, (0, *columns), kind, maxshape=(None, *columns), chunks=(chunk, *columns), fletcher32=checked
        )

    for key, kind in _SCALARS.items():
        rows(f"snapshots/{key}", (), kind, 256, False)
    rows("snapshots/losses", (len(who.tasks),), np.float64, 64, False)
    rows("snapshots/metrics", (max(len(who.metrics), 1),), np.float64, 64, False)
    rows("snapshots/history_rows", (), np.int64, 256, False)
    for key in _CHECKED:
        rows(f"snapshots/{key}", (), np.uint32, 256, False)
    for key, columns, entry in (("theta", width, dtype), ("buffers", max(buffers, 1), np.dtype(np.float64))):
        chunk = (1, min(columns, max(1, _CHUNK_BYTES // entry.itemsize)))
        file.create_dataset(
            f"snapshots/{key}", (0, columns), entry, maxshape=(None, columns), chunks=chunk, fletcher32=True
        )
    rows("history/step", (), np.int64, 1024, False)
    rows("history/losses", (len(who.tasks),), np.float64, 256, False)
    rows("history/shared_update_norm", (), np.float64, 1024, False)
    rows("history/shared_path", (), np.float64, 1024, False)
    rows("history/rate", (), np.float64, 1024, False)
    for slot in (0, 1):
        rows(f"resume/{slot}", (), np.uint8, 1 << 16, False)
    file.create_dataset("resume/info", (2, 3), np.int64, data=np.full((2, 3), -1))
    file.create_dataset("snapshots/count", (), np.int64, data=0)
    file.create_dataset("snapshots/complete", (), np.uint8, data=0)


def _checksum(key: str, arrays: Mapping[str, Any], row: int, rows: slice) -> int:
    """CRC-32 over what one of the checksums of a snapshot is of; arrays by their place in a file."""
    small = [arrays[f"snapshots/{name}"][row] for name in _SMALL] if key == "checksum" else []
    value = 0
    for array in [*small, *(arrays[f"history/{name}"][rows] for name in _CHECKED[key])]:
        value = zlib.crc32(np.ascontiguousarray(array).tobytes(), value)
    return value


def _checksums_of(file: h5py.File) -> list[str]:
    """The checksums that a file has."""
    return [key for key in _CHECKED if key in file["snapshots"]]


class Writer:
    """Appends snapshots to one trajectory file. Made by `writer`."""

    def __init__(self, file: h5py.File, path: Path, hidden: Path | None) -> None:
        self._file, self._path, self._hidden = file, path, hidden
        self._count = 0 if hidden is not None else _whole(file, int(file["snapshots/count"][()]), path)
        self._rows = int(file["snapshots/history_rows"][self._count - 1]) if self._count else 0
        file["snapshots/complete"][()] = 0
        self._columns = _history_of(file)
        self._history_bytes = sum(_row_bytes(file[f"history/{key}"]) for key in self._columns)
        arrays = [a for group in ("snapshots", "history", "resume") for a in file[group].values() if a.chunks]
        self._chunk_bytes = sum(_row_bytes(array) * array.chunks[0] for array in arrays)
        file.swmr_mode = True

    @property
    def last(self) -> Snapshot | None:
        """The last acknowledged snapshot with its state, from which training goes on; None in a new file."""
        if not self._count:
            return None
        try:
            return _read_snapshot(self._file, self._count - 1, self._path)
        except OSError as error:
            raise _damaged(self._path) from error

    def append(self, snapshot: Snapshot) -> None:
        """Adds a snapshot. When this returns it is on the disk, whatever happens next.

        Raises:
            LandscapeError: there is no room for it, or it cannot be written; what was acknowledged before is kept.
        """
        self._make_room(snapshot)
        with self._failures():
            self._append(snapshot)
            if self._hidden is not None:
                os.replace(self._hidden, self._path)
                self._hidden = None
                _force_folder(self._path.parent)

    def finish(self) -> None:
        """Marks the run as complete."""
        with self._failures():
            self._file["snapshots/complete"][()] = 1
            self._force_out()

    def _append(self, snapshot: Snapshot) -> None:
        file, row, rows = self._file, self._count, slice(self._rows, self._rows + len(snapshot.history))
        for key in _SCALARS:
            _put(file[f"snapshots/{key}"], row, getattr(snapshot, key))
        for key in ("theta", "losses", "metrics", "buffers"):
            value = getattr(snapshot, key)
            _put(file[f"snapshots/{key}"], row, value if value.size else 0)
        _put(file["snapshots/history_rows"], row, rows.stop)
        for key in self._columns:
            dataset = file[f"history/{key}"]
            dataset.resize(max(rows.stop, len(dataset)), axis=0)
            dataset[rows] = getattr(snapshot.history, key)
        self._put_state(row, snapshot)
        for key in _checksums_of(file):
            _put(file[f"snapshots/{key}"], row, _checksum(key, file, row, rows))
        file.flush()
        file["snapshots/count"][()] = row + 1
        self._force_out()
        self._count, self._rows = row + 1, rows.stop

    def _put_state(self, row: int, snapshot: Snapshot) -> None:
        """The two slots take turns, so that the state before stays whole until this one is acknowledged."""
        slot, data = row % 2, np.frombuffer(snapshot.state, np.uint8)
        dataset = self._file[f"resume/{slot}"]
        dataset.resize(max(len(data), dataset.shape[0]), axis=0)
        dataset[: len(data)] = data
        self._file["resume/info"][slot] = (snapshot.step, len(data), zlib.crc32(snapshot.state))

    def _force_out(self) -> None:
        self._file.flush()
        os.fsync(self._file.id.get_vfd_handle())

    def _make_room(self, snapshot: Snapshot) -> None:
        rows = len(snapshot.history) * self._history_bytes
        _reserve(self._file, self._chunk_bytes + rows + len(snapshot.state), self._path, self._kept())

    @contextlib.contextmanager
    def _failures(self) -> Iterator[None]:
        try:
            yield
        except (OSError, RuntimeError) as error:
            raise LandscapeError(
                f"cannot go on writing {self._path} ({_first_line(error)}): {self._kept()}; look at the disk and give "
                "the same command again"
            ) from error

    def _kept(self) -> str:
        return (
            f"{self._count} snapshots are kept, the last at step {self.last_step}"
            if self._count
            else "nothing was written"
        )

    @property
    def last_step(self) -> int:
        """The step of the last acknowledged snapshot, -1 in a new file."""
        return int(self._file["snapshots/step"][self._count - 1]) if self._count else -1


def _row_bytes(array: h5py.Dataset) -> int:
    """Bytes of a row on the disk, where HDF5 keeps whole chunks."""
    across: int = math.prod(-(-n // c) * c for n, c in zip(array.shape[1:], array.chunks[1:], strict=True))
    return across * int(array.dtype.itemsize)


def _put(dataset: h5py.Dataset, row: int, value: Any) -> None:
    if dataset.shape[0] <= row:
        dataset.resize(row + 1, axis=0)
    dataset[row] = value


@contextlib.contextmanager
def writer(
    path: Path,
    who: Provenance,
    layout: Layout,
    buffers: BufferLayout,
    dtype: np.dtype[Any],
    kept: Kept = _WHOLE,
    replace: bool = False,
) -> Iterator[Writer]:
    """A writer for a new file, or for one that holds an interrupted run of the same settings.

    `dtype` is theta's, and `Snapshot.theta` the row that `kept` makes of it. A new file appears under its name with
    its first snapshot, never before; with `replace` it then takes the place of one that is there.

    Raises:
        LandscapeError: the file is another run's, is not ours, is being written, or its folder cannot be written.
    """
    with only_writer(path):
        if path.exists() and not replace:
            require_same(path, who, layout)
            file, hidden = _reopened(path), None
        else:
            hidden = path.with_name(f".{path.name}.new")
            file = _created(hidden, who, layout, buffers, dtype, kept)
        try:
            yield Writer(file, path, hidden)
        finally:
            uninterrupted(lambda: _put_away(file, path, hidden))


def _created(
    path: Path, who: Provenance, layout: Layout, buffers: BufferLayout, dtype: np.dtype[Any], kept: Kept
) -> h5py.File:
    try:
        file = h5py.File(path, "w", libver="latest", locking=False)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise LandscapeError(
            f"cannot write {path.parent} ({_first_line(error)}): expected a folder that can be written; choose another"
        ) from error
    try:
        _reserve(file, _SLACK, path.parent, "nothing was written")
        _header(file, who, layout, buffers, kept)
        _create_arrays(file, who, kept.width(layout), buffers.size, kept.dtype(dtype))
    except BaseException:
        _close(file, path)
        path.unlink(missing_ok=True)
        raise
    return file


def _reopened(path: Path) -> h5py.File:
    """The file opened for appending; one whose writer was killed is first copied into a clean one."""
    try:
        return h5py.File(path, "r+", libver="latest", locking=False)
    except OSError:
        clean = path.with_name(f".{path.name}.clean")
        try:
            _copy(path, clean)
            os.replace(clean, path)
        except (OSError, RuntimeError) as error:
            raise LandscapeError(
                f"cannot go on with {path}, whose last writer was killed: copying it into {clean} failed "
                f"({_first_line(error)}); expected room for a second copy; free some space and give the same command "
                "again"
            ) from error
        finally:
            clean.unlink(missing_ok=True)
        _force_folder(path.parent)
        return h5py.File(path, "r+", libver="latest", locking=False)


def _copy(path: Path, clean: Path) -> None:
    with _reading(path) as old:
        new = h5py.File(clean, "w", libver="latest", locking=False)
        try:
            _reserve(new, path.stat().st_size, clean, "nothing was changed")
            for key, value in old.attrs.items():
                new.attrs[key] = value
            for key in old:
                old.copy(key, new)
        finally:
            _close(new, clean)
    _force_file(clean)


def _first_line(error: Exception) -> str:
    return (os.strerror(error.errno) if isinstance(error, OSError) and error.errno else str(error)).splitlines()[0]


def _reserve(file: h5py.File, wanted: int, path: Path, kept: str) -> None:
    """Takes room from the disk beforehand, beyond what the file uses, so that HDF5 never meets a full one."""
    needed = wanted + _SLACK
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.id.get_vfd_handle(), file.id.get_filesize(), needed)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT):
            return
        raise LandscapeError(
            f"no room to go on writing {path} ({error.strerror}): expected {needed} more bytes; {kept}; free some "
            "space and give the same command again"
        ) from error


def _close(file: h5py.File, path: Path) -> None:
    """Closes a file and gives back the room that was reserved and not used.

    What cannot be written any more was not acknowledged, so an error here loses nothing.
    """
    with contextlib.suppress(OSError, RuntimeError):
        file.close()
        with path.open("rb+") as raw:
            raw.seek(_END_OF_FILE)
            end = int.from_bytes(raw.read(8), "little")
            if 0 < end < path.stat().st_size:
                raw.truncate(end)


def _put_away(file: h5py.File, path: Path, hidden: Path | None) -> None:
    _close(file, hidden if hidden is not None and hidden.exists() else path)
    if hidden is not None:
        hidden.unlink(missing_ok=True)


def _force_file(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _force_folder(path: Path) -> None:
    with contextlib.suppress(OSError):
        _force_file(path)


def require_same(path: Path, who: Provenance, layout: Layout) -> Trajectory:
    """The trajectory in a file, if it is a run of these settings; otherwise an error that names the first
    difference.
    """
    there = open(path)
    layout.require(there.layout, str(path))
    for key in ("strategy", "label", "seed", "problem", "settings", "tasks", "metrics", "data", "frozen", "training"):
        mine, theirs = getattr(who, key), getattr(there.provenance, key)
        if json.dumps(mine, sort_keys=True) != json.dumps(theirs, sort_keys=True):
            raise LandscapeError(
                f"{path} holds a run with {key} {_short(theirs)}, expected {_short(mine)} to go on with it; "
                "choose another file, or remove that one"
            )
    return there


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) < 200 else text[:200] + "..."


def _damaged(path: Path) -> LandscapeError:
    return LandscapeError(
        f"{path} is damaged or cut short: expected at least its layout and one whole snapshot; "
        "choose another file, or train again"
    )


def _read(path: Path, function: Callable[[h5py.File], _Value]) -> _Value:
    """`function` of the file, whatever its writer does meanwhile.

    What fails, from opening the file on, is tried again: as long as the file changes, up to `_PATIENCE` seconds, since
    an attempt sees parts of it before a change and parts after; and a few times where it bears a writer's mark. A file
    that nobody writes is refused at the first failure.
    """
    end, pauses = time.monotonic() + _PATIENCE, iter(_PAUSES)
    while True:
        with _refusals(path):
            before = look(path)
        try:
            with _reading(path) as file:
                return function(file)
        except _DAMAGE as error:
            with _refusals(path):
                changed, marked = look(path) != before, has_writer(path)
            pauses = iter(_PAUSES) if changed else pauses
            pause = next(pauses, None) if changed or marked else None
            if pause is None:
                raise
            if time.monotonic() > end:
                raise LandscapeError(
                    f"{path} has changed all the time for {_PATIENCE:g} s, and no state of it could be read: expected "
                    "a moment without changes; give the same command again, or wait for who writes it"
                ) from error
        time.sleep(pause)


@contextlib.contextmanager
def _reading(path: Path) -> Iterator[h5py.File]:
    """The file opened for reading, whatever became of its writer."""
    with contextlib.ExitStack() as stack:
        with _refusals(path):
            raw = None
            if has_writer(path) or not is_whole(path):
                raw = stack.enter_context(AsClosed(path))
            mode: Any = {"locking": False} if raw is None else {}
            file = stack.enter_context(h5py.File(raw or path, "r", libver="latest", **mode))
        yield file


@contextlib.contextmanager
def _refusals(path: Path) -> Iterator[None]:
    """Says why a file cannot be opened."""
    try:
        yield
    except FileNotFoundError as error:
        raise LandscapeError(
            f"there is no file {path}: expected a trajectory written by `landscape train` or a Recorder"
        ) from error
    except PermissionError as error:
        raise LandscapeError(
            f"cannot read {path} ({error.strerror}): expected a file that can be read; choose another"
        ) from error
    except OSError as error:
        what = "a folder" if path.is_dir() else "not a whole HDF5 file"
        raise LandscapeError(
            f"cannot read {path}: expected a {FORMAT} file, got {what} (empty, cut short or of another kind); "
            "choose another file"
        ) from error


def open(path: Path | str) -> Trajectory:
    """Opens a trajectory file for reading, also while it is being written: small arrays now, theta and buffers by
    slices.

    A file cut short is read up to its last whole snapshot.

    Raises:
        LandscapeError: not a trajectory, of a later format, or without a whole snapshot.
    """
    path = Path(path)
    try:
        found = _read(path, lambda file: _trajectory(file, path))
    except LandscapeError:
        raise
    except _DAMAGE as error:
        raise _damaged(path) from error
    if not found.complete:
        clear_stale(path)
    return found


def state(path: Path | str, row: int) -> bytes:
    """The optimiser states at a snapshot, for `landscape.optimisers.read_states`; a file keeps those of its last ones.

    Raises:
        LandscapeError: the file keeps none of that snapshot.
    """
    path = Path(path)
    return _read(path, lambda file: _kept_state(file, row, path))


def _kept_state(file: h5py.File, row: int, path: Path) -> bytes:
    row = range(len(file["snapshots/step"]))[row]
    step = int(file["snapshots/step"][row])
    for slot in (0, 1):
        there, size, checksum = (int(value) for value in file["resume/info"][slot])
        data = bytes(file[f"resume/{slot}"][:size].tobytes())
        if there == step and size and zlib.crc32(data) == checksum:
            return data
    last = max(int(info[0]) for info in file["resume/info"])
    raise LandscapeError(
        f"{path} keeps no optimiser state of step {step}: expected the last snapshot, at step {last}, since only "
        "the latest states are kept"
    )


def _require_format(file: h5py.File, path: Path) -> None:
    found = file.attrs.get("format")
    found = found.decode(errors="replace") if isinstance(found, bytes) else found
    if not isinstance(found, str) or found != FORMAT:
        raise LandscapeError(
            f"{path} is not a trajectory: expected the format {FORMAT!r}, got {found!r}; choose another file"
        )
    if int(file.attrs["format_version"]) > FORMAT_VERSION:
        raise LandscapeError(
            f"{path} has format version {file.attrs['format_version']}, this version reads up to "
            f"{FORMAT_VERSION}: upgrade mtl-landscape"
        )


def _trajectory(file: h5py.File, path: Path) -> Trajectory:
    _require_format(file, path)
    who, layout = _read_provenance(file), _read_layout(file["layout"])
    complete = bool(file["snapshots/complete"][()])  # before the count, which a writer never raises after it
    stated = int(file["snapshots/count"][()])
    count = _whole(file, stated, path)
    fields = {key: file[f"snapshots/{key}"][:count] for key in (*_SCALARS, "losses")}
    buffers = int(_read_layout(file["buffer_layout"]).size)
    sketch = _sketch(file, path, layout, count)
    dtype = file["snapshots/theta"].dtype
    theta, last = (count, layout.size), int(file["snapshots/checksum"][count - 1])
    return Trajectory(
        path=path,
        provenance=who,
        layout=layout,
        steps=fields.pop("step"),
        **fields,
        metrics=file["snapshots/metrics"][:count, : len(who.metrics)],
        theta=_rows(path, "theta", theta, dtype, last) if sketch is None else _no_theta(path, theta, sketch),
        buffers=_rows(path, "buffers", (count, buffers), np.dtype(np.float64), last),
        history=_read_history(file, slice(0, int(file["snapshots/history_rows"][count - 1]))),
        complete=complete and count == stated,
        sketch=sketch,
    )


def _sketch(file: h5py.File, path: Path, layout: Layout, count: int) -> Sketch | None:
    text = file.attrs.get(_PROJECTION)
    if text is None:
        return None
    settings = json.loads(text)
    dimensions = int(settings["dimensions"])
    width = Sketch.columns(layout, dimensions)
    last = int(file["snapshots/checksum"][count - 1])
    rows = _rows(path, "theta", (count, width), file["snapshots/theta"].dtype, last)
    return Sketch(dimensions, int(settings["seed"]), rows, file["snapshots/theta"][:count, width:])


def _no_theta(path: Path, shape: tuple[int, int], sketch: Sketch) -> Rows:
    def refuse(rows: Any, columns: slice) -> Array:
        raise LandscapeError(
            f"{path} keeps a random projection of theta on {sketch.dimensions} dimensions a tensor, which this needs "
            "whole: expected a file with theta; record it without `keep=Projected(...)`"
        )

    return Rows(shape, np.dtype(np.float64), refuse)


def _whole(file: h5py.File, stated: int, path: Path) -> int:
    """How many snapshots from the first on are whole: checksums of the small fields, readable theta of the last."""
    arrays = {f"snapshots/{key}": file[f"snapshots/{key}"][:stated] for key in _SMALL}
    stops = np.concatenate([[0], arrays["snapshots/history_rows"]])
    arrays |= {f"history/{key}": file[f"history/{key}"][: int(stops[-1])] for key in _history_of(file)}
    sums = {key: file[f"snapshots/{key}"][:stated] for key in _checksums_of(file)}

    def whole(row: int) -> bool:
        rows = slice(int(stops[row]), int(stops[row + 1]))
        return all(row < len(s) and _checksum(key, arrays, row, rows) == s[row] for key, s in sums.items())

    count = 0
    while count < len(sums["checksum"]) and whole(count):
        count += 1
    while count and not _readable(file, count - 1):
        count -= 1
    if not count:
        raise LandscapeError(
            f"{path} holds no whole snapshot: expected at least one; it was cut short or has just been begun"
        )
    return count


def _readable(file: h5py.File, row: int) -> bool:
    try:
        return bool(file["snapshots/theta"][row].size) and bool(file["snapshots/buffers"][row].size)
    except OSError:
        return False


def _rows(path: Path, key: str, shape: tuple[int, int], dtype: np.dtype[Any], last: int) -> Rows:
    """Rows read from the file when they are asked for, as long as it holds the run whose last row has this checksum."""

    def of_this_run(file: h5py.File, rows: Any, columns: slice) -> Array:
        sums = file["snapshots/checksum"]
        if len(sums) < shape[0] or int(sums[shape[0] - 1]) != last:
            raise LandscapeError(
                f"{path} holds another run than when it was opened: expected the file to stay; open it again"
            )
        return np.asarray(file[f"snapshots/{key}"][rows, columns])

    def read(rows: Any, columns: slice) -> Array:
        order: Any = slice(None)
        if isinstance(rows, np.ndarray):
            rows, order = np.unique(rows, return_inverse=True)
        try:
            block = _read(path, lambda file: of_this_run(file, rows, columns))
        except (OSError, KeyError, RuntimeError) as error:
            raise LandscapeError(
                f"{path} is damaged: its {key} does not match its checksum in the rows asked for; "
                "leave those rows out, or train again"
            ) from error
        return np.asarray(block[order] if block.ndim > 1 else block)

    return Rows(shape, dtype, read)


def _read_history(file: h5py.File, rows: slice) -> History:
    return History(**{key: file[f"history/{key}"][rows] for key in _history_of(file)})


def _history_of(file: h5py.File) -> list[str]:
    """The columns of the history that a file has."""
    return [key for key in _HISTORY if key in file["history"]]


def _read_snapshot(file: h5py.File, row: int, path: Path) -> Snapshot:
    step = int(file["snapshots/step"][row])
    there = [file["resume/info"][slot] for slot in (0, 1)]
    slot = next((s for s in (row % 2, 1 - row % 2) if there[s][0] == step), None)
    state = b"" if slot is None else file[f"resume/{slot}"][: there[slot][1]].tobytes()
    if slot is None or zlib.crc32(state) != there[slot][2]:
        raise LandscapeError(
            f"{path} holds no state to go on from at step {step}: expected the last snapshot's; train into another file"
        )
    who, scalars = _read_provenance(file), {key: file[f"snapshots/{key}"][row].item() for key in _SCALARS}
    return Snapshot(
        **scalars,
        theta=file["snapshots/theta"][row],
        buffers=file["snapshots/buffers"][row][: _read_layout(file["buffer_layout"]).size],
        losses=file["snapshots/losses"][row],
        metrics=file["snapshots/metrics"][row][: len(who.metrics)],
        history=_read_history(file, slice(0, 0)),
        state=state,
    )
