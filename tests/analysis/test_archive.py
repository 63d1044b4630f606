"""Every record comes back bit by bit; files open elsewhere; nothing that goes wrong leaves half a file."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import fields, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from analysis import archive, netcdf, results
from analysis.archive import ArchiveError, Entry, Provenance
from analysis.results import Check, Estimate, Record, Run
from tests.analysis.records import surface
from tests.users import another_user, open_to_all, root_only

KINDS = [k for k in vars(results).values() if isinstance(k, type) and issubclass(k, Record) and not k.__subclasses__()]
BOOLS = {"done", "converged", "pareto", "held_out", "used", "logarithmic"}
COUNTS = {"steps", "updates", "gradients", "seeds", "batch_steps"}
# Text is what HDF5 can hold: neither NUL nor halves of surrogate pairs.
words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=12)
anything = st.floats(width=64) | st.sampled_from([np.nan, np.inf, -np.inf, -0.0, 5e-324, 1e308])


@st.composite
def records(draw, kind):
    """Any record of a kind, its dimensions from empty to three, its arrays of any numbers, its names of any text."""
    sizes: dict[str, int] = {"axis": kind.DIMENSIONS} if issubclass(kind, results.Subspace) else {}
    values = {}
    for spec in fields(kind):
        if "dims" in spec.metadata or "labels" in spec.metadata:
            for dim in spec.metadata.get("dims", (spec.metadata.get("labels"),)):
                if dim not in sizes:
                    sizes[dim] = draw(st.integers(0, 3))
    for spec in fields(kind):
        if "dims" in spec.metadata:
            shape = tuple(sizes[dim] for dim in spec.metadata["dims"])
            if spec.name in BOOLS:
                values[spec.name] = draw(arrays(bool, shape))
            elif spec.name in COUNTS:
                values[spec.name] = draw(arrays(np.int64, shape))
            else:
                dtype = draw(st.sampled_from([np.float64, np.float32]))
                element = st.floats(width=32) if dtype is np.float32 else anything
                values[spec.name] = draw(arrays(dtype, shape, elements=element))
        elif "labels" in spec.metadata:
            size = sizes[spec.metadata["labels"]]
            values[spec.name] = tuple(draw(st.lists(words, min_size=size, max_size=size)))
        else:
            plain = {"str": words, "int": st.integers(-(2**63), 2**63 - 1), "float": anything, "bool": st.booleans()}
            nested = {name: getattr(results, name) for name in ("Run", "Plane", "Line", "Surface", "EigenvalueTracks")}
            values[spec.name] = draw(records(nested[spec.type]) if spec.type in nested else plain[spec.type])
    return kind(**values)


def assert_same_bits(a, b):
    assert a == b
    for (spec, mine), (_, its) in zip(a.arrays(), b.arrays(), strict=True):
        assert mine.dtype == its.dtype, spec.name
        assert mine.shape == its.shape, spec.name
        finite = ~np.isnan(mine) if mine.dtype.kind == "f" else np.ones(mine.shape, bool)
        assert mine[finite].tobytes() == its[finite].tobytes(), spec.name  # -0.0 is not 0.0


def every_kind(examples):
    """A test of any records, so many of every kind."""

    def marked(test):
        test = settings(max_examples=examples)(given(data=st.data())(test))
        return pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)(test)

    return marked


@every_kind(examples=2)
def test_every_record_comes_back_bit_by_bit_from_the_file(tmp_path_factory, kind, data):
    saved(tmp_path_factory.mktemp("archive"), data.draw(records(kind)))


@pytest.mark.slow
@every_kind(examples=25)
def test_many_records_of_every_kind_come_back_bit_by_bit_from_the_file_and_from_xarray(tmp_path_factory, kind, data):
    record = data.draw(records(kind))
    path = saved(tmp_path_factory.mktemp("archive"), record)
    with xr.open_dataset(path, group="a/group", engine="h5netcdf") as dataset:
        assert_same_bits(archive.from_xarray(dataset.load()), record)


@pytest.mark.slow
@every_kind(examples=2)
def test_every_record_lies_in_a_file_as_xarray_would_write_it(tmp_path_factory, kind, data):
    record = data.draw(records(kind))
    require_what_xarray_writes(saved(tmp_path_factory.mktemp("archive"), record), record)


def require_what_xarray_writes(path, record):
    """Dimensions, coordinates, attributes and values, as xarray itself would have written the record."""
    archive.to_xarray(record).to_netcdf(path.with_name("xarray.nc"), engine="h5netcdf")
    with (
        xr.open_dataset(path, group="a/group", engine="h5netcdf") as ours,
        xr.open_dataset(path.with_name("xarray.nc"), engine="h5netcdf") as theirs,
    ):
        xr.testing.assert_identical(ours.drop_attrs(deep=False), theirs.drop_attrs(deep=False))
        made = ("provenance", "checks")  # of an entry, of which xarray was given the record alone
        attributes = [
            {n: repr(np.asarray(v).tolist()) for n, v in one.attrs.items() if n not in made} for one in (ours, theirs)
        ]
        assert attributes[0] == attributes[1]
        kinds = [{n: v.encoding["dtype"] for n, v in one.variables.items() if v.size} for one in (ours, theirs)]
        assert kinds[0] == kinds[1]  # where there are no labels xarray takes them for numbers


def test_a_surface_lies_in_a_file_as_xarray_would_write_it(tmp_path):
    require_what_xarray_writes(saved(tmp_path, surface()), surface())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_an_array_that_is_called_as_a_dimension_has_this_one_alone(kind):
    """Else netCDF would have to call it otherwise."""
    along = {spec.name: spec.metadata["dims"] for spec in fields(kind) if "dims" in spec.metadata}
    along |= {spec.name: (spec.metadata["labels"],) for spec in fields(kind) if "labels" in spec.metadata}
    every = {dim for dims in along.values() for dim in dims}
    assert {name: dims for name, dims in along.items() if name in every and dims != (name,)} == {}


def saved(folder, record):
    """The file of a record that comes back from it as it was, and from the dataset that was written."""
    assert_same_bits(archive.from_xarray(archive.to_xarray(record)), record)
    path = folder / "results.h5"
    archive.save(path, {"a/group": Entry(record)})
    assert_same_bits(archive.load(path, "a/group").record, record)
    return path


def test_xarray_and_h5py_open_a_file_with_dimensions_units_and_coordinates(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"surface/principal": Entry(surface())})
    with xr.open_dataset(path, group="surface/principal") as dataset:
        assert dataset["loss"].dims == ("task", "y", "x")
        assert dataset["loss"].attrs["units"] == "loss"
        assert dataset["tasks"].values.tolist() == list(surface().tasks)
        np.testing.assert_array_equal(dataset["loss"].sel(x=0.0, y=1.0), [0.5, 0.5])
        assert dataset["done"].dtype == bool
        assert dataset["plane_basis"].dims == ("plane_axis", "plane_parameter")
        assert dataset.attrs["examples"] == 12
        assert dataset.attrs["kind"] == "Surface"
    with h5py.File(path) as file:
        assert file.attrs["format"] == "landscape-results"
        loss = file["surface/principal/loss"]
        assert loss.shape == (2, 2, 3)
        assert [dim.keys()[0] if len(dim) else None for dim in loss.dims][1:] == ["y", "x"]
        assert file["surface/principal"].attrs["batch_norm"] == "none"


def test_an_interruption_while_a_writer_tidies_up_leaves_nothing_and_is_let_through(tmp_path, monkeypatch):
    path = tmp_path / "results.h5"
    original, seen = Path.unlink, []

    def unlink(self, missing_ok=False):
        seen.append(self.name)
        if len(seen) == 1:
            raise KeyboardInterrupt
        original(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        archive.save(path, {"a": Entry(surface())})
    monkeypatch.undo()
    assert [p.name for p in tmp_path.iterdir()] == ["results.h5"]
    assert archive.load(path, "a").record == surface()
    archive.save(path, {"b": Entry(surface())})  # the lock is free again


def test_reading_by_h5py_is_reading_by_xarray(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"one": Entry(surface()), "two/three": Entry(Estimate(1.0, np.nan, 3))})
    for group, entry in archive.load_all(path).items():
        with xr.open_dataset(path, group=group, engine="h5netcdf") as dataset:
            assert archive.from_xarray(dataset.load()) == entry.record


def test_provenance_and_checks_come_back(tmp_path):
    path = tmp_path / "results.h5"
    made = Provenance(
        {"run": "ab"}, {"nx": 3, "rates": [0.1, 1e-3], "nested": {"a": None}}, {"numpy": "2"}, 1.5, "cpu", "now"
    )
    checked = (Check("a is b", 1e-9, 1e-6, "rounding"), Check("c is d", np.nan, 0.0, "the same bytes"))
    archive.save(path, {"group": Entry(surface(), made, checked)})
    entry = archive.load(path, "group")
    assert entry.provenance == made
    assert entry.checks == checked
    assert [check.passed for check in entry.checks] == [True, False], "what is not a number has not passed"


def test_settings_larger_than_an_hdf5_header_are_kept(tmp_path):
    path = tmp_path / "results.h5"
    made = Provenance(settings={"hessians": np.random.default_rng(0).random((30, 20, 20)).tolist()})
    archive.save(path, {"group": Entry(surface(), made)})
    assert archive.load(path, "group").provenance == made


def test_groups_are_listed_sorted_and_replaced_one_by_one(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"b": Entry(Estimate(1.0, 0.1, 2)), "a/x": Entry(Run("r", "R()", 1))})
    archive.save(path, {"c": Entry(surface()), "b": Entry(surface(fill=2.0))})
    assert archive.groups(path) == ("a/x", "b", "c")
    assert archive.load(path, "b").record == surface(fill=2.0)
    assert archive.load(path, "a/x").record == Run("r", "R()", 1)
    assert list(archive.load_all(path)) == ["a/x", "b", "c"]


def test_dropped_groups_go_with_all_below_them_and_others_stay(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {name: Entry(Estimate(1.0, 0.1, 2)) for name in ("old/a", "old/b/c", "older", "kept")})
    archive.save(path, {"old/new": Entry(Estimate(2.0, 0.1, 2))}, drop=["old", "missing"])
    assert archive.groups(path) == ("kept", "old/new", "older")


def test_saving_a_group_again_and_again_does_not_make_the_file_grow(tmp_path):
    path = tmp_path / "results.h5"
    big = surface(fill=0.0)
    big = replace(big, plane=replace(big.plane, origin=np.zeros(20_000), basis=np.ones((2, 20_000))))
    sizes = []
    for _ in range(8):
        archive.save(path, {"surface": Entry(big), "small": Entry(Estimate(1.0, 0.1, 2))})
        sizes.append(path.stat().st_size)
    # 480 kB a time would be 3.4 MB more; some room is lost to fragments.
    assert sizes[-1] < sizes[0] + 1.5 * 480_000


def test_what_is_not_there_is_found_as_none_and_loaded_as_an_error(tmp_path):
    path = tmp_path / "results.h5"
    assert archive.find(path, "a") is None
    with pytest.raises(ArchiveError, match=r"there is no file .*results\.h5: expected results of a study"):
        archive.load(path, "a")
    archive.save(path, {})
    with pytest.raises(ArchiveError, match=r"no group 'a': expected one of none, it is empty"):
        archive.load(path, "a")
    archive.save(path, {"x/y": Entry(surface())})
    assert archive.find(path, "a") is None
    assert archive.find(path, "x") is None, "a folder of groups is no result"
    assert archive.find(path, "x/y/loss") is None, "an array is no result"
    with pytest.raises(ArchiveError, match=r"no group 'x': expected one of x/y"):
        archive.load(path, "x")


def spoiled(tmp_path, how):
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(surface())})
    if how == "cut short":
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "text":
        path.write_text("not HDF5")
    elif how == "foreign":
        path.unlink()
        with h5py.File(path, "w") as file:
            file["x"] = 1
    elif how == "a folder":
        path.unlink()
        path.mkdir()
    return path


@pytest.mark.parametrize("how", ["cut short", "empty", "text", "foreign", "a folder"])
def test_a_file_of_another_kind_is_refused_in_one_sentence_and_left_as_it_is(tmp_path, how):
    path = spoiled(tmp_path, how)
    before = path.read_bytes() if path.is_file() else None
    for use in (
        archive.load_all,
        archive.groups,
        lambda p: archive.find(p, "group"),
        lambda p: archive.save(p, {"new": Entry(surface())}),
    ):
        with pytest.raises(ArchiveError, match=r"results\.h5.*expected .*landscape-results") as caught:
            use(path)
        assert "\n" not in str(caught.value)
    assert before is None or path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir() if p.name.endswith(".new")] == []


def with_attribute(tmp_path, name, value):
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(surface())})
    with h5py.File(path, "r+") as file:
        if value is None:
            del file["group"].attrs[name]
        else:
            file["group"].attrs[name] = value
    return path


def test_an_unknown_kind_is_refused_and_never_imported(tmp_path):
    for name in ("Evil", "os.system", "antigravity", "Record.__init__"):
        path = with_attribute(tmp_path, "kind", name)
        with pytest.raises(ArchiveError, match=rf"holds a '{name}', which this version does not know: .*Surface"):
            archive.load(path, "group")
    assert "antigravity" not in sys.modules


@pytest.mark.parametrize(
    ("name", "value"),
    [("fields", None), ("fields", "{"), ("fields", "{}"), ("provenance", None), ("checks", '[{"odd": 1}]')],
)
def test_a_group_that_is_damaged_is_refused_in_one_sentence(tmp_path, name, value):
    path = with_attribute(tmp_path, name, value)
    with pytest.raises(ArchiveError, match=r"the group 'group' of .*results\.h5 cannot be read .*make it anew"):
        archive.load(path, "group")


def test_an_array_that_is_gone_is_an_error_of_the_group(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(surface())})
    with h5py.File(path, "r+") as file:
        del file["group/loss"]
    with pytest.raises(ArchiveError, match=r"the group 'group' of .* cannot be read"):
        archive.load_all(path)


def test_an_error_inside_a_save_leaves_the_old_file_whole(tmp_path, monkeypatch):
    path = tmp_path / "results.h5"
    archive.save(path, {"old": Entry(surface())})
    before = path.read_bytes()

    def broken(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(netcdf, "write", broken)
    with pytest.raises(OSError, match="No space left"):
        archive.save(path, {"old": Entry(surface(fill=9.0)), "new": Entry(surface())})
    assert path.read_bytes() == before
    assert not list(tmp_path.glob(".*.new"))


KILLED = """
import sys, time, numpy as np
from analysis import archive
from analysis.archive import Entry
from analysis.results import Estimate
entries = lambda v: {f"g/{i}": Entry(Estimate(float(v), 0.0, i)) for i in range(12)}
archive.save(sys.argv[1], entries(0))
print("ready", flush=True)
for value in range(1, 10**6):
    archive.save(sys.argv[1], entries(value))
"""


@pytest.mark.parametrize("delay", [0.17, *(pytest.param(d, marks=pytest.mark.slow) for d in (0.05, 0.31, 0.5))])
def test_a_killed_save_leaves_one_whole_state_and_the_next_save_works(tmp_path, delay):
    path = tmp_path / "results.h5"
    process = subprocess.Popen([sys.executable, "-c", KILLED, path], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    values = {entry.record.value for entry in archive.load_all(path).values()}
    assert len(archive.groups(path)) == 12
    assert len(values) == 1, "all of one save"
    archive.save(path, {"g/0": Entry(Estimate(-1.0, 0.0, 0))})
    assert archive.load(path, "g/0").record.value == -1.0


def test_a_reader_of_the_old_file_reads_the_old_results_to_the_end(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(surface())})
    whole = path.read_bytes()
    with path.open("rb") as reader:
        archive.save(path, {"group": Entry(surface(fill=2.0))})
        assert reader.read() == whole
    assert archive.load(path, "group").record == surface(fill=2.0)


def test_what_a_killed_first_save_left_does_not_stand_in_the_way(tmp_path):
    path = tmp_path / "results.h5"
    (tmp_path / ".results.h5.new").write_bytes(b"\x89HDF\r\n\x1a\n half a file")
    archive.save(path, {"group": Entry(surface())})
    assert archive.groups(path) == ("group",)


def test_writers_wait_for_each_other_and_lose_nothing(tmp_path):
    path = tmp_path / "results.h5"
    code = (
        "import sys\nfrom analysis import archive\nfrom analysis.archive import Entry\n"
        "from analysis.results import Estimate\n"
        "for i in range(6): archive.save(sys.argv[1], {f'{sys.argv[2]}/{i}': Entry(Estimate(1.0, 0.0, i))})"
    )
    both = [subprocess.Popen([sys.executable, "-c", code, path, name]) for name in "ab"]
    assert [process.wait() for process in both] == [0, 0]
    assert archive.groups(path) == tuple(f"{n}/{i}" for n in "ab" for i in range(6))


def test_a_lock_that_another_process_never_gives_back_is_said(tmp_path, monkeypatch):
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(surface())})
    monkeypatch.setattr(archive, "_PATIENCE", 0.1)
    code = (
        "import fcntl, os, sys\n"
        "handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT)\n"
        "fcntl.flock(handle, fcntl.LOCK_EX)\nprint('locked', flush=True)\nsys.stdin.read()"
    )
    lock = tmp_path / ".results.h5.lock"
    with subprocess.Popen([sys.executable, "-c", code, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"locked\n"
        with pytest.raises(
            ArchiveError, match=r"another process has been saving into .*results\.h5 for 0\.1 s: expect"
        ):
            archive.save(path, {"more": Entry(surface())})
        assert archive.groups(path) == ("group",), "a reader waits for nobody"
        other.kill()
    archive.save(path, {"more": Entry(surface())})
    assert archive.groups(path) == ("group", "more")
    assert not lock.exists()


@root_only
def test_a_lock_that_cannot_be_had_is_not_called_a_folder_that_cannot_be_written(tmp_path):
    path, lock = tmp_path / "results.h5", tmp_path / ".results.h5.lock"
    lock.touch()
    lock.chmod(0o600)
    sentence = r"cannot lock .*results\.h5 with .*\.lock \(Permission denied\): .*remove it"
    with open_to_all(tmp_path), another_user(), pytest.raises(ArchiveError, match=sentence):
        archive.save(path, {"group": Entry(surface())})


def test_an_interruption_while_a_lock_is_given_back_leaves_the_next_writers_lock_alone(tmp_path, monkeypatch):
    path, lock = tmp_path / "results.h5", tmp_path / ".results.h5.lock"
    original, calls = archive.FileLock.release, []

    def release(self, force=False):
        calls.append(self)
        if len(calls) == 1:
            lock.touch()  # the next writer's
            raise KeyboardInterrupt
        original(self, force=force)

    monkeypatch.setattr(archive.FileLock, "release", release)
    with pytest.raises(KeyboardInterrupt):
        archive.save(path, {"a": Entry(surface())})
    assert len(calls) > 1
    assert lock.exists()


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ArchiveError, match=r"cannot write .*: expected a folder that can be written; choose another"):
        archive.save(tmp_path / "file" / "results.h5", {})


def test_records_work_without_torch():
    code = (
        "import sys\nsys.modules['torch'] = None\nimport analysis.archive as a, tempfile, os\n"
        "from analysis.results import Estimate\np = os.path.join(tempfile.mkdtemp(), 'r.h5')\n"
        "a.save(p, {'g': a.Entry(Estimate(1.0, 0.5, 2))})\nassert a.load(p, 'g').record == Estimate(1.0, 0.5, 2)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("text", "safe"),
    [("plain-1.0_x", "plain-1.0_x"), ("a/b c", "a_b_c"), ("../up", "_up"), ("größe", "gr__e"), ("", "_"), ("...", "_")],
)
def test_safe_names_hold_letters_digits_and_little_else(text, safe):
    assert archive.safe_name(text) == safe


@given(words)
def test_safe_names_are_one_place_in_a_folder_and_in_a_file(text):
    name = archive.safe_name(text)
    assert os.path.basename(name) == name
    assert name not in ("", ".", "..")
    assert archive.safe_name(name) == name
    json.dumps(name).encode("ascii")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write into")
def test_a_folder_in_which_no_file_can_be_made_is_refused_at_once():
    before = time.monotonic()
    with pytest.raises(ArchiveError, match=r"^cannot write /proc/x\.h5 \(.+\): expected a folder that can be written"):
        archive.save("/proc/x.h5", {"group": Entry(surface())})
    assert time.monotonic() - before < 5, "nobody waited for a lock"


def test_looking_whether_a_folder_can_be_written_leaves_nothing(tmp_path):
    archive.require_writable(tmp_path / "new" / "deeper" / "results.h5")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(ArchiveError, match=r"cannot write .*file/new/results\.h5 .*: expected a folder"):
        archive.require_writable(tmp_path / "file" / "new" / "results.h5")


def test_a_file_that_another_program_holds_open_is_not_called_damaged(tmp_path):
    path = tmp_path / "results.h5"
    archive.save(path, {"group": Entry(surface())})
    holds = f"import h5py, sys; f = h5py.File({str(path)!r}, 'r+'); print('open', flush=True); sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-c", holds], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout.readline() == b"open\n"
        for use in (archive.load_all, lambda p: archive.save(p, {"new": Entry(surface())})):
            with pytest.raises(ArchiveError, match=r"results\.h5 is open for writing in another program: .* close it"):
                use(path)
        other.stdin.close()
        other.wait()
    assert archive.groups(path) == ("group",)
