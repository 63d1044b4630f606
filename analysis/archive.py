"""Results on disk: one netCDF-4 group a record, so that xarray, h5py, MATLAB and Julia open the file as it is."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
from filelock import FileLock, Timeout

from analysis import netcdf, results
from analysis.belonging import PROBLEM, Runs, difference, listed, may_replace, runs_of
from analysis.results import Array, Check, Record

if TYPE_CHECKING:
    import xarray as xr

FORMAT = "landscape-results"
FORMAT_VERSION = 1


_PATIENCE = 120.0
"""Seconds to wait for another process that saves: a save takes less than one."""


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
    of: Mapping[str, Any] = field(default_factory=dict)
    """The problem: name, settings and tasks, and the hashes of its layout, frozen parameters and evaluation data."""
    runs: Runs = field(default_factory=dict)
    by_study: bool = False
    """Whether a study made it, whose own results go when its runs are others."""


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
    import xarray as xr  # here: no command needs it, and it is slow to import

    return xr.Dataset(*_gathered(record))


def from_xarray(dataset: xr.Dataset) -> Record:
    """The record that `to_xarray` made the dataset of. Nothing that a file names is imported: kinds are looked up."""
    attributes = json.loads(dataset.attrs["fields"])
    return _build(_kind(dataset.attrs.get("kind")), lambda name: dataset[name].values, attributes, "")


def save(path: Path | str, entries: Mapping[str, Entry], drop: Sequence[str] = ()) -> None:
    """Writes entries into their groups of a results file, in the place of what stood there, and takes out the groups in
    `drop` with all that is below them.

    The file is written anew beside the old one and then takes its place, so that a reader or a crash never meets half
    a result; writers wait for each other. Room that a replaced group leaves is used again.

    The first entry that states its problem states it for the file.

    Raises:
        ArchiveError: an entry of another problem than the file's, or in the place of other runs'; nothing is written.
    """
    path = Path(path)
    with _replacing(path) as fresh, h5py.File(fresh, "r+") as file:
        _claim(file, path, entries)
        for group in (*drop, *entries):
            if group in file:
                del file[group]
        for group, entry in entries.items():
            variables, labels, attributes = _gathered(entry.record)
            made = {
                "provenance": json.dumps(asdict(entry.provenance), sort_keys=True),
                "checks": json.dumps([asdict(check) for check in entry.checks]),
            }
            netcdf.write(file.create_group(group), variables, labels, attributes | made)


def _claim(file: h5py.File, path: Path, entries: Mapping[str, Entry]) -> None:
    """Writes into the root of a file what its results are of, and refuses what may not stand in it."""
    for group, entry in entries.items():
        made = entry.provenance
        if made.of:
            _require_problem(path, made.of, _problem_of(file))
        if _holds(file, group):
            old = _provenance(file, group)
            if not may_replace(made, old):
                refuse_place(path, group, made, old)
        if made.of and _ROOT["data"] not in file.attrs:
            for key in PROBLEM:
                value = made.of[key]
                file.attrs[_ROOT[key]] = value if isinstance(value, str) else json.dumps(value, sort_keys=True)


_ROOT = {
    "problem": "problem",
    "settings": "problem_settings",
    "tasks": "tasks",
    "layout": "layout_hash",
    "frozen": "frozen_hash",
    "data": "data_hash",
}
"""Attributes of a file's root that state the problem."""


def _problem_of(file: h5py.File) -> dict[str, Any]:
    """The problem that a file's results are of, as its root states it, or, in earlier files, its results."""
    if _ROOT["data"] in file.attrs:
        texts = {key: str(file.attrs[name]) for key, name in _ROOT.items()}
        return texts | {key: json.loads(texts[key]) for key in ("settings", "tasks")}
    for group in _groups(file):
        made = _provenance(file, group)
        if "problem" in made.settings and file[group].attrs["kind"] != "Alternation":  # its data can be of training
            settings = made.settings.get("problem_settings", {})
            data = {"data": made.inputs["data"]} if "data" in made.inputs else {}
            return {"problem": made.settings["problem"], "settings": settings, **data}
    return {}


def _require_problem(path: Path | str, mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> None:
    other = difference(mine, theirs)
    if other:
        raise ArchiveError(
            f"{path} holds results of another problem ({other}): expected one problem and one evaluation set in a "
            f"results file; {OTHERWISE}"
        )


def problem_of(path: Path | str) -> dict[str, Any]:
    """The problem that the results in a file are of: name, settings, hashes; nothing where none is stated."""
    with _open(path) as file:
        return _problem_of(file)


def require_problem(path: Path | str, of: Mapping[str, Any]) -> None:
    """Raises `ArchiveError` where there is a file with results of another problem, and says what differs."""
    if Path(path).exists():
        _require_problem(path, of, problem_of(path))


OTHERWISE = "choose another file with --out"
"""What to do where results of others are in the way."""


def refuse_place(path: Path | str, group: str, mine: Provenance, theirs: Provenance, advice: str = OTHERWISE) -> None:
    """Raises `ArchiveError`: a result would take the place of one of other runs, or of another title."""
    whose, other = (listed(runs_of(made)) for made in (mine, theirs))
    if whose == other:
        whose, other = f"others called {whose}", f"{other} with other content, or under another label"
    raise ArchiveError(
        f"{path} holds {group} of {other}, and a result of {whose} would take its place: expected the same runs under "
        f"one name; {advice}"
    )


def provenances(path: Path | str) -> dict[str, Provenance]:
    """How every result of a file was made, by group; empty where there is no file. Cost: no array is read."""
    if not Path(path).exists():
        return {}
    with _open(path) as file:
        return {group: _provenance(file, group) for group in _groups(file)}


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

    def look(name: bytes, about: h5py.h5o.ObjInfo) -> None:
        if about.type == h5py.h5o.TYPE_GROUP and _holds(file, name.decode()):
            found.append(name.decode())

    h5py.h5o.visit(file.id, look, info=True)  # says what a dataset is without opening it
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
        provenance = _provenance(file, group)
        checks = tuple(Check(**check) for check in json.loads(there.attrs["checks"]))
    except ArchiveError:
        raise
    except _UNREADABLE as error:
        raise _unreadable(file, group, error) from error
    return Entry(record, provenance, checks)


def _provenance(file: h5py.File, group: str) -> Provenance:
    try:
        return Provenance(**json.loads(file[group].attrs["provenance"]))
    except _UNREADABLE as error:
        raise _unreadable(file, group, error) from error


_UNREADABLE = (KeyError, TypeError, ValueError, OSError)


def _unreadable(file: h5py.File, group: str, error: Exception) -> ArchiveError:
    return ArchiveError(
        f"the group {group!r} of {file.filename} cannot be read ({error}): expected a result as this version "
        "writes it; remove the file and make it anew"
    )


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


LONGEST = 100
"""Characters of a name in a file or a folder, which holds names of 255 bytes, with what is put before and behind it."""


def distinct_name(text: str, reserved: Sequence[str] = ()) -> str:
    """A safe name that no other text has: the text itself where it is safe, short and begins with nothing reserved;
    else what is safe of it, and eight hex digits of a checksum.
    """
    safe = safe_name(text)
    if safe == text and len(text) <= LONGEST and not text.startswith(tuple(reserved)):
        return text
    return f"{safe[:LONGEST]}-{zlib.crc32(text.encode('utf-8', 'surrogatepass')):08x}"


def _gathered(record: Record) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The arrays, the labels and the attributes of a record."""
    variables: dict[str, Any] = {}
    labels: dict[str, Any] = {}
    attributes: dict[str, Any] = {}
    _gather(record, "", variables, labels, attributes)
    kind = {"kind": type(record).__name__, "fields": json.dumps(attributes)}
    return variables, labels, kind | _plain(attributes)


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
                np.asarray(value),
                {"units": spec.metadata["units"]},
            )
        elif "labels" in spec.metadata:
            labels[name] = ((prefix + spec.metadata["labels"],), np.array(value, dtype=object), {})
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
    except OSError as error:
        raise _unwritable(path, error) from error
    lock = _locked(path)
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
        _tidied(lock, fresh)


def _locked(path: Path) -> FileLock:
    """The right to save into a file. What a killed process left of it holds nobody up."""
    lock = FileLock(path.with_name(f".{path.name}.lock"), mode=0o666)  # another user may have to take it over
    try:
        lock.acquire(timeout=_PATIENCE)
    except Timeout as error:
        raise ArchiveError(
            f"another process has been saving into {path} for {_PATIENCE:g} s: expected it to be done; end it, or "
            "choose another file"
        ) from error
    except OSError as error:
        raise ArchiveError(
            f"cannot lock {path} with {lock.lock_file} ({error.strerror}): expected a lock file of your own, or none; "
            "remove it if nobody saves, or choose another folder"
        ) from error
    return lock


def _tidied(lock: FileLock, fresh: Path) -> None:
    """Removes what only a writer at work should have; an interruption meanwhile is let through afterwards."""
    interruption: KeyboardInterrupt | None = None
    named = True
    while lock.is_locked:
        try:
            fresh.unlink(missing_ok=True)
            if named:
                named = False  # once: the next file of that name is another writer's
                with contextlib.suppress(OSError):  # another user's, where each removes his own only
                    Path(lock.lock_file).unlink()
            lock.release()
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
