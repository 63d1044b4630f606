"""The trajectory file: what is put in comes out, and what is damaged or foreign is refused in one sentence."""

from __future__ import annotations

import contextlib
import json
import os
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import landscape
from landscape import Averaged, Every, LandscapeError, Optimiser, Plan, Trajectory, record, store
from landscape.provenance import provenance
from landscape.trajectory import History, Provenance, Snapshot
from landscape.unclosed import AsClosed, has_writer, is_whole, lookup3
from tests.landscape.examples import everything, problem

STRATEGY, PLAN = Averaged(Optimiser("Adam", lr=0.02)), Plan(20, 6, Every(2))
ROWS = 11


def batch_norm() -> nn.Module:
    return nn.BatchNorm1d(5)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Trajectory:
    return record(problem(middle=batch_norm), STRATEGY, PLAN, tmp_path_factory.mktemp("run") / "run.h5")


@pytest.fixture
def copy(run: Trajectory, tmp_path: Path) -> Path:
    path = tmp_path / "copy.h5"
    path.write_bytes(run.path.read_bytes())
    return path


# What is put in comes out


def test_what_is_appended_comes_out_bit_by_bit(tmp_path: Path) -> None:
    found, rng = problem(middle=batch_norm), np.random.default_rng(0)
    who = provenance(found, STRATEGY, 0, PLAN, "")
    size, special = found.layout.size, [np.nan, np.inf, -np.inf, -0.0, 5e-324]
    snapshots = []
    for n in range(4):
        count = (0, 3, 0, 1500)[n]  # more history rows than a chunk
        rows = History(np.arange(count) + 1, *(rng.standard_normal(s) for s in ((count, 3), count, count)))
        theta = rng.standard_normal(size).astype(np.float32)
        theta[:3] = [np.nan, np.inf, -0.0]
        buffers = rng.standard_normal(found.buffer_layout.size)
        losses = np.array(special[n : n + 3] if n < 3 else [1.0, 2.0, 3.0])
        scalars = (n, 2 * n, 3 * n, 0.5 * n, 0.25 * n, 0.75 * n)
        snapshots.append(Snapshot(*scalars, theta, buffers, losses, np.zeros(0), rows, bytes(range(n, 200 * n % 256))))
    with store.writer(tmp_path / "a.h5", who, found.layout, found.buffer_layout, np.dtype(np.float32)) as writer:
        for snapshot in snapshots:
            writer.append(snapshot)
            last = writer.last
            assert last is not None
            assert (last.step, last.state, last.theta.tobytes()) == (
                snapshot.step,
                snapshot.state,
                snapshot.theta.tobytes(),
            )
        writer.finish()
    there = landscape.open(tmp_path / "a.h5")
    assert there.layout == found.layout
    assert there.provenance == who
    assert there.theta[:].tobytes() == np.stack([s.theta for s in snapshots]).tobytes()
    assert there.buffers[:].tobytes() == np.stack([s.buffers for s in snapshots]).tobytes()
    assert there.losses.tobytes() == np.stack([s.losses for s in snapshots]).tobytes()
    for key in ("updates", "gradients", "seconds", "path_steps", "path_updates"):
        assert getattr(there, key).tolist() == [getattr(s, key) for s in snapshots]
    for key in ("step", "losses", "shared_update_norm", "shared_path"):
        expected = np.concatenate([getattr(s.history, key) for s in snapshots])
        assert getattr(there.history, key).tobytes() == expected.tobytes()
    assert there.metrics.shape == (4, 0)


def test_float64_stays_float64(tmp_path: Path) -> None:
    import torch

    there = record(problem(dtype=torch.float64), STRATEGY, PLAN, tmp_path / "a.h5")
    assert there.theta[:].dtype == np.float64
    assert (there.theta[-1].astype(np.float32) != there.theta[-1]).any()


def test_nothing_lies_beside_a_finished_file_and_no_room_is_kept(run: Trajectory) -> None:
    assert os.listdir(run.path.parent) == [run.path.name]
    # Arrays and index of eleven snapshots of some hundred numbers; each append reserved at least 256 kB.
    assert run.path.stat().st_size < 500_000
    with h5py.File(run.path) as file:
        assert file.attrs["format"] == b"landscape-trajectory"
        assert list(file["layout/name"].asstr()) == [slot.name for slot in run.layout.slots]
        assert file["snapshots/theta"].shape == (ROWS, run.layout.size)


def test_the_file_of_a_long_run_is_about_as_large_as_its_numbers(tmp_path: Path) -> None:
    there = record(problem(), STRATEGY, Plan(120, 6, Every(1)), tmp_path / "a.h5")
    # Theta, 19 other numbers a snapshot or step, and index entries of fixed size: a kilobyte each is ample.
    assert there.path.stat().st_size < 300_000 + 121 * (4 * there.layout.size + 1000)


# Slices

WHOLE = np.arange(ROWS)


@pytest.mark.parametrize(
    "rows",
    [
        0,
        -1,
        np.int64(3),
        slice(None),
        slice(2, 7),
        slice(-3, None),
        slice(None, None, 3),
        slice(None, None, -1),
        slice(8, 2, -2),
        slice(5, 2),
        slice(0, 5, -1),
        slice(4, 100),
        [],
        [3],
        [5, 0, 5, -1],
        np.array([9, 2]),
        WHOLE % 3 == 1,
        np.zeros(ROWS, bool),
    ],
)
@pytest.mark.parametrize("columns", [slice(None), slice(3, 9), 4, -2, slice(None, None, -2), [7, 1, 1], slice(5, 5)])
def test_rows_are_read_as_numpy_reads_them(run: Trajectory, rows: Any, columns: Any) -> None:
    for lazy in (run.theta, run.shared, run.buffers):
        full = lazy[:]
        assert full.shape == lazy.shape
        if isinstance(columns, list | int) and lazy.shape[1] < 8:
            continue
        chosen = full[rows if not isinstance(rows, list) else np.array(rows, int)]
        expected = chosen[..., columns]
        assert np.array_equal(lazy[rows, columns], expected)
        assert lazy[rows, columns].shape == expected.shape
        assert np.array_equal(lazy[rows], chosen)


@given(st.lists(st.integers(-ROWS, ROWS - 1)))
def test_rows_by_number_are_read_as_numpy_reads_them(run: Trajectory, rows: list[int]) -> None:
    assert np.array_equal(run.theta[rows], run.theta[:][np.array(rows, int)])


@pytest.mark.parametrize("rows", [ROWS, -ROWS - 1, [0, ROWS], [-ROWS - 1], np.ones(ROWS - 1, bool), [0.5], [[0, 1]]])
def test_rows_that_are_not_there_are_refused(run: Trajectory, rows: Any) -> None:
    with pytest.raises(IndexError, match=rf"row -?\d+ of {ROWS}|expected row numbers from -{ROWS} to {ROWS - 1}"):
        run.theta[rows]


def test_the_shared_rows_are_the_shared_entries_of_theta(run: Trajectory) -> None:
    index = run.layout.index()
    assert 0 < len(index) < run.layout.size
    assert np.array_equal(run.shared[:], run.theta[:][:, index])
    assert np.array_equal(np.concatenate(list(run.shared.blocks(budget=200))), run.shared[:])
    assert np.asarray(run.theta).tobytes() == run.theta[:].tobytes()


def test_a_step_that_was_not_stored_is_refused_with_the_nearest(run: Trajectory) -> None:
    assert [run.at(int(step)) for step in run.steps] == list(range(ROWS))
    with pytest.raises(LandscapeError, match=r"run.h5 has no snapshot at step 7; the nearest is at step [68]"):
        run.at(7)
    with pytest.raises(LandscapeError, match="no snapshot at step 999; the nearest is at step 20"):
        run.at(999)


def test_a_run_in_which_tasks_share_nothing_can_be_read(tmp_path: Path) -> None:
    import torch
    from torch import Tensor

    from landscape import Problem
    from tests.landscape.examples import data, made, tasks

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.red, self.green = nn.Linear(4, 1), nn.Linear(4, 2)

        def forward(self, inputs: Tensor) -> list[Tensor]:
            return [self.red(inputs), self.green(inputs)]

    found = Problem(made(Apart, dtype=torch.float32), tasks(2), data(23, 2), data(23, 2))
    there = record(found, STRATEGY, Plan(2, 6), tmp_path / "a.h5")
    assert there.shared[:].shape == (2, 0)
    assert there.shared[-1].shape == (0,)


# Foreign, missing and unwritable files


def text(path: Path) -> None:
    path.write_text("step,loss\n1,2\n" * 50)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def foreign(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["data"] = np.arange(3)


def foreign_with_an_array_for_a_format(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"] = np.arange(3)


def only_the_name_of_the_format(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"] = store.FORMAT


def later(path: Path) -> None:
    with h5py.File(path, "w", libver="latest") as file:
        file.attrs["format"], file.attrs["format_version"] = store.FORMAT, 99


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            text,
            "cannot read .*: expected a landscape-trajectory file, got not a whole HDF5 file .*; choose another",
        ),
        (nothing, "cannot read .*: expected a landscape-trajectory file, got not a whole HDF5 file"),
        (Path.mkdir, "cannot read .*: expected a landscape-trajectory file, got a folder"),
        (foreign, "is not a trajectory: expected the format 'landscape-trajectory', got None"),
        (foreign_with_an_array_for_a_format, "is not a trajectory: expected the format"),
        (only_the_name_of_the_format, "is damaged or cut short: expected at least its layout and one whole snapshot"),
        (later, "has format version 99, this version reads up to 2: upgrade mtl-landscape"),
    ],
)
def test_what_is_no_trajectory_is_refused_and_left_alone(
    make: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    path = tmp_path / "run.h5"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    for use in (lambda: landscape.open(path), lambda: record(problem(), STRATEGY, PLAN, path)):
        with pytest.raises(LandscapeError, match=message):
            use()
    assert os.listdir(tmp_path) == [path.name]
    assert before is None or path.read_bytes() == before


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LandscapeError, match=r"there is no file .*a\.h5: expected a trajectory written by"):
        landscape.open(tmp_path / "a.h5")


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    # A path below a regular file: nobody can write there, not even root.
    (tmp_path / "file").write_text("")
    with pytest.raises(LandscapeError, match=r"cannot write .*run\.h5 \(.+\): expected a folder that can be written"):
        record(problem(), STRATEGY, PLAN, tmp_path / "file" / "run.h5")
    assert os.listdir(tmp_path) == ["file"]


def test_folders_that_are_missing_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "run.h5"
    assert record(problem(), STRATEGY, Plan(2, 6), str(path)).path == path


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    found, path = problem(), tmp_path / "run.h5"
    who = provenance(found, STRATEGY, 0, PLAN, "")
    with store.writer(path, who, found.layout, found.buffer_layout, np.dtype(np.float32)):
        message = r"run\.h5 is being written by another process: expected to be the only writer; wait for it or choose"
        with pytest.raises(LandscapeError, match=message):
            record(found, STRATEGY, PLAN, path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"strategy": Averaged(Optimiser("Adam", lr=0.03))},
            r"holds a run with strategy Averaged.*lr=0\.02.*, expected",
        ),
        ({"seed": 1}, "holds a run with seed 0, expected 1 to go on with it; choose another file, or remove that one"),
        ({"plan": replace(PLAN, steps=30)}, 'holds a run with training {.*"steps": 20'),
        ({"plan": replace(PLAN, batch_size=7)}, "holds a run with training"),
        ({"problem": problem(middle=batch_norm, examples=23, micro_batch=9)}, None),
        (
            {"problem": problem()},
            r"expected theta with \d+ entries .*, but .*copy.h5 has \d+ entries .*; use the",
        ),
    ],
)
def test_a_run_of_other_settings_is_refused_by_the_setting(
    change: dict[str, Any], message: str | None, copy: Path
) -> None:
    settings = {"problem": problem(middle=batch_norm), "strategy": STRATEGY, "plan": PLAN, "seed": 0, **change}
    before = copy.read_bytes()
    if message is None:  # a micro-batch is how a thing is computed, not what
        assert record(**settings, path=copy).complete
    else:
        with pytest.raises(LandscapeError, match=message):
            record(**settings, path=copy)
    assert copy.read_bytes() == before


def test_other_data_and_other_frozen_weights_are_refused(copy: Path) -> None:
    found = problem(middle=batch_norm)
    for key, message in (("data_hash", "with data"), ("frozen_hash", "with frozen")):
        other = found.came_from(found.origin)
        setattr(other, key, "0" * 16)
        with pytest.raises(LandscapeError, match=f"holds a run {message} "):
            record(other, STRATEGY, PLAN, copy)


# Damage


def interrupted(path: Path, mark: bool) -> None:
    """A run cut off at its eighth snapshot; `mark` leaves the flags of a writer that was killed."""

    def progress(step: int) -> None:
        if step == 14:
            if mark:
                path.with_name("killed").write_bytes(path.read_bytes())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(problem(middle=batch_norm), STRATEGY, PLAN, path, progress=progress)
    if mark:
        path.with_name("killed").rename(path)


def made_alike(who: Provenance) -> Provenance:
    """Without the second in which it was made."""
    return replace(who, created="")


def require_one_sentence(error: LandscapeError) -> None:
    assert len(str(error).splitlines()) == 1


def assert_right_or_refused(path: Path, run: Trajectory) -> int:
    """The number of snapshots read, all of them right, 0 if the file was refused in one sentence."""
    try:
        there = landscape.open(path)
        count = len(there)
        last = int(there.steps[-1])
        assert there.theta[:].tobytes() == run.theta[:count].tobytes()
        assert there.buffers[:].tobytes() == run.buffers[:count].tobytes()
        assert there.layout == run.layout
        assert made_alike(there.provenance) == made_alike(run.provenance)
        for key in ("steps", "updates", "gradients", "path_steps", "path_updates", "losses", "metrics"):
            assert getattr(there, key).tobytes() == getattr(run, key)[:count].tobytes()
        for key, value in vars(there.history).items():
            assert value.tobytes() == getattr(run.history, key)[:last].tobytes()
    except LandscapeError as error:
        require_one_sentence(error)
        return 0
    assert not there.complete or count == ROWS
    return count


@pytest.mark.parametrize("state", ["finished", "interrupted", "killed"])
def test_a_file_cut_short_is_read_up_to_a_whole_snapshot_or_refused(
    state: str, run: Trajectory, copy: Path, tmp_path: Path
) -> None:
    path = copy if state == "finished" else tmp_path / "cut.h5"
    if state != "finished":
        interrupted(path, mark=state == "killed")
    assert has_writer(path) == (state == "killed")
    whole = path.read_bytes()
    assert assert_right_or_refused(path, run) == (ROWS if state == "finished" else 8)
    read, lengths = [], random.Random(0)
    for length in sorted({0, 1, 47, 48, 100, *(lengths.randrange(len(whole)) for _ in range(40)), len(whole) - 1}):
        path.write_bytes(whole[:length])
        read.append(assert_right_or_refused(path, run))
    assert read[0] == 0
    assert is_whole(run.path)


@pytest.mark.slow
@pytest.mark.parametrize("state", ["finished", "killed"])
def test_a_file_cut_short_anywhere_is_read_right_or_refused(
    state: str, run: Trajectory, copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_PAUSES", ())  # nobody writes the file: waiting for a writer has no use
    path = copy if state == "finished" else tmp_path / "cut.h5"
    if state != "finished":
        interrupted(path, mark=True)
    whole, lengths = path.read_bytes(), random.Random(1)
    for _ in range(600):
        path.write_bytes(whole[: lengths.randrange(len(whole))])
        assert_right_or_refused(path, run)


def test_a_file_cut_short_can_be_gone_on_with_or_is_refused(run: Trajectory, tmp_path: Path) -> None:
    path = tmp_path / "cut.h5"
    interrupted(path, mark=True)
    whole, lengths, went_on = path.read_bytes(), random.Random(2), 0
    for length in [len(whole), *(lengths.randrange(len(whole) // 4, len(whole)) for _ in range(12))]:
        path.write_bytes(whole[:length])
        try:
            resumed = record(problem(middle=batch_norm), STRATEGY, PLAN, path)
        except LandscapeError as error:
            require_one_sentence(error)
            intact = path.read_bytes() == whole[:length]
        else:
            assert everything(resumed) == everything(run)
            went_on, intact = went_on + 1, True
        assert intact
        assert os.listdir(tmp_path) == [path.name]
    assert went_on


def flips(whole: bytes, count: int, seed: int) -> list[tuple[int, bytes]]:
    """Single bits, spread over those pieces of the file that are not all zeros."""
    places = random.Random(seed)
    used = [at for at in range(0, len(whole), 64) if any(whole[at : at + 64])]
    found = []
    for _ in range(count):
        at = places.choice(used) + places.randrange(64)
        at = min(at, len(whole) - 1)
        found.append((at, whole[:at] + bytes([whole[at] ^ 1 << places.randrange(8)]) + whole[at + 1 :]))
    return found


@pytest.mark.parametrize("count", [150, pytest.param(1500, marks=pytest.mark.slow)])
def test_a_flipped_bit_never_gives_a_wrong_number(count: int, run: Trajectory, copy: Path) -> None:
    noticed = 0
    for _, damaged in flips(copy.read_bytes(), count, seed=count):
        copy.write_bytes(damaged)
        noticed += assert_right_or_refused(copy, run) < ROWS
    assert noticed > count // 10


def test_a_flipped_bit_in_theta_is_noticed_when_that_row_is_read(run: Trajectory, copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[bytes(content).index(run.theta[4].tobytes()) + 9] ^= 4
    copy.write_bytes(content)
    there = landscape.open(copy)
    assert there.theta[3].tobytes() == run.theta[3].tobytes()
    message = r"copy\.h5 is damaged: its theta does not match its checksum in the rows asked for; leave those rows out"
    for rows in (4, slice(3, 6), [0, 4], slice(None)):
        with pytest.raises(LandscapeError, match=message):
            there.theta[rows]


def test_a_flipped_bit_in_the_small_fields_ends_the_trajectory_there(run: Trajectory, copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[bytes(content).index(run.losses[6].tobytes())] ^= 1
    copy.write_bytes(content)
    there = landscape.open(copy)
    assert len(there) == 6
    assert not there.complete


def test_a_run_whose_last_snapshot_is_damaged_goes_on_from_the_one_before(run: Trajectory, copy: Path) -> None:
    content = bytearray(copy.read_bytes())
    content[bytes(content).index(run.theta[-1].tobytes())] ^= 1
    copy.write_bytes(content)
    assert len(landscape.open(copy)) == ROWS - 1
    told: list[tuple[int, bool]] = []

    def progress(step: int) -> None:
        told.append((step, landscape.open(copy).complete))

    resumed = record(problem(middle=batch_norm), STRATEGY, PLAN, copy, progress=progress)
    assert everything(resumed) == everything(run)
    assert told == [(20, False)]
    assert resumed.complete


def test_a_run_whose_states_are_lost_is_refused(run: Trajectory, copy: Path) -> None:
    with h5py.File(copy, "r+", libver="latest") as file:
        file["snapshots/complete"][()] = 0
        file["resume/0"][3] ^= 1
    with pytest.raises(LandscapeError, match=r"copy\.h5 holds no state to go on from at step 20: expected the last"):
        record(problem(middle=batch_norm), STRATEGY, PLAN, copy)
    assert everything(landscape.open(copy)) == everything(run)


# Files without a proper end


def test_the_hash_is_lookup3() -> None:
    # Bob Jenkins' own example, and the checksum that HDF5 wrote.
    assert lookup3(b"Four score and seven years ago") == 0x17770551


def test_the_hash_is_that_of_the_superblock(run: Trajectory) -> None:
    head = run.path.read_bytes()[:48]
    assert lookup3(head[:44]) == int.from_bytes(head[44:], "little")


def test_a_marked_file_reads_as_the_closed_one(tmp_path: Path) -> None:
    path = tmp_path / "run.h5"
    interrupted(path, mark=True)
    with pytest.raises(OSError, match="already open for"):
        h5py.File(path)
    with AsClosed(path) as raw, h5py.File(raw) as file:
        assert int(file["snapshots/count"][()]) == 8
    assert has_writer(path)


# Read while somebody opens, writes and closes it


class Meddling:
    """In the place of `h5py.File`: before a file is opened for reading, the next of some events happens."""

    def __init__(self, *events: Callable[[], object]) -> None:
        self.events, self.reads, self._open = list(events), 0, h5py.File

    def __call__(self, name: Any, mode: str, **options: Any) -> h5py.File:
        if mode == "r":
            self.reads += 1
            if self.events:
                self.events.pop(0)()
        return self._open(name, mode, **options)


def meddle(monkeypatch: pytest.MonkeyPatch, *events: Callable[[], object]) -> Meddling:
    found = Meddling(*events)
    monkeypatch.setattr(store.h5py, "File", found)
    return found


def writer_of(run: Trajectory, path: Path) -> Any:
    found = problem(middle=batch_norm)
    return store.writer(path, run.provenance, run.layout, found.buffer_layout, np.dtype(np.float32))


def test_a_writer_that_opens_a_file_meanwhile_is_waited_for(
    run: Trajectory, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with contextlib.ExitStack() as stack:
        opened = meddle(monkeypatch, lambda: stack.enter_context(writer_of(run, copy)))
        there = landscape.open(copy)
        assert opened.reads > 1
        assert has_writer(copy)
        assert there.theta[:].tobytes() == run.theta[:].tobytes()
        assert there.losses.tobytes() == run.losses.tobytes()
    again = landscape.open(copy)
    assert (len(again), again.complete) == (ROWS, False)


def test_a_writer_that_closes_a_file_meanwhile_is_waited_for(
    run: Trajectory, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = contextlib.ExitStack()
    writer = opened.enter_context(writer_of(run, copy))
    writer.append(replace(writer.last, history=History(*(np.zeros(s) for s in (0, (0, 3), 0, 0)))))
    length = copy.stat().st_size
    meddled = meddle(monkeypatch, opened.close)
    there = landscape.open(copy)
    assert copy.stat().st_size < length, "the room that was reserved is given back"
    assert meddled.reads > 1
    assert there.theta[:ROWS].tobytes() == run.theta[:].tobytes()
    assert there.theta[ROWS].tobytes() == run.theta[-1].tobytes()


def test_a_writer_that_closes_a_file_while_a_row_is_fetched_is_waited_for(
    run: Trajectory, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = contextlib.ExitStack()
    writer = opened.enter_context(writer_of(run, copy))
    writer.append(replace(writer.last, history=History(*(np.zeros(s) for s in (0, (0, 3), 0, 0)))))
    there = landscape.open(copy)
    meddled = meddle(monkeypatch, opened.close)
    assert there.theta[ROWS].tobytes() == run.theta[-1].tobytes()
    assert meddled.reads > 1


def test_a_damaged_file_that_nobody_writes_is_refused_at_the_first_failure(
    run: Trajectory, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.write_bytes(copy.read_bytes()[:60])
    opened = meddle(monkeypatch)
    with pytest.raises(LandscapeError, match="is damaged or cut short: expected at least its layout"):
        landscape.open(copy)
    assert opened.reads == 1


def test_a_file_that_changes_all_the_time_is_said_to_and_not_called_damaged(
    copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy.write_bytes(copy.read_bytes()[:60])
    changes = [lambda n=n: copy.write_bytes(copy.read_bytes() + bytes(n)) for n in range(1, 4)]
    monkeypatch.setattr(store, "_PATIENCE", 0.0)
    meddle(monkeypatch, *changes)
    with pytest.raises(LandscapeError, match=r"copy\.h5 has changed all the time for 0 s, and no state of it could be"):
        landscape.open(copy)


def test_settings_and_labels_of_any_kind_are_stored(tmp_path: Path) -> None:
    found = problem()
    settings = {"numbers": list(np.random.default_rng(0).standard_normal(20_000))}  # 400 kB as JSON
    who = replace(provenance(found, STRATEGY, 0, PLAN, "Größe 大"), settings=settings)
    with store.writer(tmp_path / "a.h5", who, found.layout, found.buffer_layout, np.dtype(np.float32)) as writer:
        writer.append(landscape.training.start(found, 0))
    there = landscape.open(tmp_path / "a.h5").provenance
    assert json.dumps(there.settings) == json.dumps(settings)
    assert there.label == "Größe 大"


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="a folder that nobody can write into")
def test_a_folder_in_which_no_file_can_be_made_is_not_one_that_somebody_writes(tmp_path: Path) -> None:
    with pytest.raises(
        LandscapeError, match=r"^cannot write /proc/x\.h5 \(.+\): expected a folder that can be written"
    ):
        record(problem(1), Averaged(), Plan(1, 5), "/proc/x.h5")
