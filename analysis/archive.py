"""Results on disk: one netCDF-4 group a record, so that xarray, h5py, MATLAB and Julia open the file as it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import xarray as xr
from filelock import FileLock

from analysis import results
from analysis.results import Array, Check, Record

FORMAT = "landscape-results"
FORMAT_VERSION = 1


class ArchiveError(ValueError):
    """A results file or group that cannot be used, in one sentence."""


@dataclass(frozen=True)
class Provenance:
    """How a result was made. Two results with the same inputs and settings are the same result."""

    inputs: Mapping[str, str] = field(default_factory=dict)
    """Content hashes of what went in."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    device: str = "cpu"
    created: str = ""


@dataclass(frozen=True)
class Entry:
    """What a group of a results file holds."""

    record: Record
    provenance: Provenance = Provenance()
    checks: tuple[Check, ...] = ()


def to_xarray(record: Record) -> xr.Dataset:
    """A record as a dataset with named dimensions and units; labels become coordinates, scalars attributes.

    The arrays of a record inside a record (a surface's plane) carry the field's name before theirs: `plane_origin`.
    """
    variables: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    _gather(record, "", variables, labels, attributes)
    return xr.Dataset(
        variables, labels, {"kind": type(record).__name__, "fields": json.dumps(attributes)} | _plain(attributes)
    )


def from_xarray(dataset: xr.Dataset) -> Record:
    """The record that `to_xarray` made the dataset of. Nothing that a file names is imported: kinds are looked up."""
    attributes = json.loads(dataset.attrs["fields"])
    return _build(_kind(dataset.attrs.get("kind")), lambda name: dataset[name].values, attributes, "")


def save(path: Path | str, entries: Mapping[str, Entry], drop: Sequence[str] = ()) -> None:
    """Writes entries into their groups of a results file, in the place of what stood there, and takes out the groups in
    `drop` with all that is below them.

    The file is written anew beside the old one and then takes its place, so that a reader or a crash never meets half
    a result; writers wait for each other. Room that a replaced group leaves is used again.
    """
    path = Path(path)
    with _replacing(path) as fresh:
        with h5py.File(fresh, "r+") as file:
            for group in (*drop, *entries):
                if group in file:
                    del file[group]
        tree = xr.DataTree.from_dict({group: _dataset(entry) for group, entry in entries.items()})
        tree.to_netcdf(fresh, mode="a", engine="h5netcdf")


def _dataset(entry: Entry) -> xr.Dataset:
    dataset = to_xarray(entry.record)
    dataset.attrs["provenance"] = json.dumps(asdict(entry.provenance), sort_keys=True)
    dataset.attrs["checks"] = json.dumps([asdict(check) for check in entry.checks])
    return dataset


def require_writable(path: Path | str) -> None:
    """Raises `ArchiveError` unless a file can be made in the folder of `path`, or where that folder is to be made."""
    folder = Path(path).parent
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise _unwritable(path, error) from error


def _unwritable(path: Path | str, error: OSError) -> ArchiveError:
    return ArchiveError(
        f"cannot write {path} ({error.strerror}): expected a folder that can be written; choose another"
    )


def load(path: Path | str, group: str) -> Entry:
    """Reads one group. Raises `ArchiveError` naming the groups that are there when it is not."""
    with _open(path) as file:
        if not _holds(file, group):
            there = ", ".join(_groups(file)) or "none, it is empty"
            raise ArchiveError(f"{path} has no group {group!r}: expected one of {there}")
        return _read(file, group)


def find(path: Path | str, group: str) -> Entry | None:
    """Reads one group, or returns None where the file or the group is not there."""
    if not Path(path).exists():
        return None
    with _open(path) as file:
        return _read(file, group) if _holds(file, group) else None


def load_all(path: Path | str) -> dict[str, Entry]:
    """Every group of a file, by name, sorted."""
    with _open(path) as file:
        return {group: _read(file, group) for group in _groups(file)}


def groups(path: Path | str) -> tuple[str, ...]:
    """The names of all results in a file, sorted."""
    with _open(path) as file:
        return _groups(file)


def _groups(file: h5py.File) -> tuple[str, ...]:
    found: list[str] = []
    file.visit(lambda name: found.append(name) if _holds(file, name) else None)
    return tuple(sorted(found))


def _holds(file: h5py.File, group: str) -> bool:
    item = file.get(group)
    return isinstance(item, h5py.Group) and "kind" in item.attrs


def _read(file: h5py.File, group: str) -> Entry:
    """One group by h5py alone, which takes a twentieth of the time that opening it with xarray takes."""
    there = file[group]
    try:
        record = _build(
            _kind(there.attrs["kind"]), lambda name: _values(there[name]), json.loads(there.attrs["fields"]), ""
        )
        provenance = Provenance(**json.loads(there.attrs["provenance"]))
        checks = tuple(Check(**check) for check in json.loads(there.attrs["checks"]))
    except ArchiveError:
        raise
    except (KeyError, TypeError, ValueError, OSError) as error:
        raise ArchiveError(
            f"the group {group!r} of {file.filename} cannot be read ({error}): expected a result as this version "
            "writes it; remove the file and make it anew"
        ) from error
    return Entry(record, provenance, checks)


def _values(dataset: h5py.Dataset) -> Array:
    """An array as xarray would decode it: netCDF has no booleans, and its strings are objects."""
    if h5py.check_string_dtype(dataset.dtype) is not None:
        return np.asarray(dataset.asstr()[()])
    values = np.asarray(dataset[()])
    return values.astype(bool) if dataset.attrs.get("dtype") == "bool" else values


@contextlib.contextmanager
def _open(path: Path | str) -> Iterator[h5py.File]:
    try:
        file = h5py.File(path, "r")
    except FileNotFoundError as error:
        raise ArchiveError(f"there is no file {path}: expected results of a study") from error
    except OSError as error:
        if isinstance(error, BlockingIOError) or "unable to lock file" in str(error):
            raise ArchiveError(
                f"{path} is open for writing in another program: expected it to be closed there; close it, and give "
                "the same command again"
            ) from error
        raise ArchiveError(
            f"cannot read {path}: expected a whole {FORMAT} file; it is cut short or of another kind; choose "
            "another file"
        ) from error
    with file:
        found = file.attrs.get("format")
        found = found.decode(errors="replace") if isinstance(found, bytes) else found
        if not isinstance(found, str) or found != FORMAT:
            raise ArchiveError(
                f"{path} is not a results file: expected the format {FORMAT!r}, got {found!r}; choose another file"
            )
        yield file


def safe_name(text: str) -> str:
    """A name for a group or a file made of a user's text: letters, digits, `-`, `_` and `.`, nothing else."""
    return re.sub(r"[^\w.-]", "_", text, flags=re.ASCII).lstrip(".") or "_"


def _gather(
    record: Record, prefix: str, variables: dict[str, Any], labels: dict[str, Any], attributes: dict[str, Any]
) -> None:
    for spec in fields(record):
        value, name = getattr(record, spec.name), prefix + spec.name
        if isinstance(value, Record):
            attributes[name] = {"kind": type(value).__name__}
            _gather(value, f"{name}_", variables, labels, attributes)
        elif "dims" in spec.metadata:
            variables[name] = (
                tuple(prefix + dim for dim in spec.metadata["dims"]),
                value,
                {"units": spec.metadata["units"]},
            )
        elif "labels" in spec.metadata:
            labels[name] = (prefix + spec.metadata["labels"], np.array(value, dtype=object))
        else:
            attributes[name] = value


def _plain(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as netCDF can hold them: it has no booleans, and no empty text."""
    kept = {name: value for name, value in attributes.items() if not isinstance(value, dict) and value != ""}
    return {name: int(value) if isinstance(value, bool) else value for name, value in kept.items()}


def _build(kind: type[Record], array: Callable[[str], Array], attributes: Mapping[str, Any], prefix: str) -> Record:
    values: dict[str, Any] = {}
    for spec in fields(kind):
        name = prefix + spec.name
        if "dims" in spec.metadata:
            values[spec.name] = array(name)
        elif "labels" in spec.metadata:
            values[spec.name] = tuple(str(label) for label in array(name))
        elif name not in attributes and spec.default is not MISSING:
            continue  # of a version that did not have this field yet
        elif isinstance(attributes[name], dict):
            values[spec.name] = _build(_kind(attributes[name]["kind"]), array, attributes, f"{name}_")
        else:
            values[spec.name] = attributes[name]
    return kind(**values)


def _kind(name: Any) -> type[Record]:
    known = {
        kind.__name__: kind for kind in vars(results).values() if isinstance(kind, type) and issubclass(kind, Record)
    }
    if name not in known:
        raise ArchiveError(
            f"the group holds a {name!r}, which this version does not know: expected one of {', '.join(sorted(known))}"
        )
    return known[name]


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    require_writable(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path.with_name(f".{path.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise _unwritable(path, error) from error
    fresh = path.with_name(f".{path.name}.new")
    try:
        if path.exists():
            with _open(path):
                pass
            shutil.copyfile(path, fresh)
        else:
            _create(fresh)
        yield fresh
        with fresh.open("rb") as handle:
            os.fsync(handle.fileno())
        os.replace(fresh, path)
    finally:
        _tidied(lock, fresh, Path(lock.lock_file))


def _tidied(lock: FileLock, *leftovers: Path) -> None:
    """Removes what only a writer at work should have; an interruption meanwhile is let through afterwards."""
    interruption: KeyboardInterrupt | None = None
    while True:
        try:
            for path in leftovers:
                path.unlink(missing_ok=True)
            lock.release()
            break
        except KeyboardInterrupt as error:
            interruption = error
    if interruption is not None:
        raise interruption


def _create(path: Path) -> None:
    """An empty results file that keeps account of its free room, so that saving a group again and again does not make
    it grow.
    """
    with h5py.File(path, "w", fs_strategy="fsm", fs_persist=True) as file:
        file.attrs.update(format=FORMAT, format_version=FORMAT_VERSION)
