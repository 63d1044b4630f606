"""The benchmark of one pass over a file, with a small file."""

from __future__ import annotations

import pytest

from benchmarks import bench_exploration
from landscape import LandscapeError
from landscape.trajectory import Layout, Slot


@pytest.mark.slow
def test_a_small_file_is_measured_in_bounded_memory() -> None:
    layout = Layout(
        (
            Slot("layer.conv.weight", (256, 128, 3, 3), "shared", 0),
            Slot("a", (9, 10), "one", 294912),
            Slot("b", (9,), "two", 295002),
        )
    )
    rows = bench_exploration.measured(layout, 60)
    assert [(row["what"], row["file"].rpartition(", ")[2]) for row in rows] == [
        (what, state)
        for state in ("cold", "warm")
        for what in ("distances", "all measures", "all measures and random walks")
    ]
    for row in rows:
        # Importing takes some 0.4 GiB; one block of 60 x 262144 numbers 0.06. A busy machine gives no rates to test.
        assert row["peak memory, GiB"] < 1.0
        assert row["seconds"] > 0
        assert row["share of reading rate"] > 0


def test_a_disk_without_room_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_exploration.shutil, "disk_usage", lambda folder: type("Usage", (), {"free": 10})())
    with pytest.raises(LandscapeError, match=r"has 10 bytes free: expected 10,731,928,320 for the benchmark"):
        bench_exploration.run()


def test_the_file_is_that_of_a_residual_network() -> None:
    layout = bench_exploration.residual_network()
    assert 11.1e6 < layout.size < 11.3e6
    assert {slot.owner for slot in layout.slots} == {"shared", "one", "two"}
