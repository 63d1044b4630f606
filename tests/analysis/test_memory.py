"""Bytes at the peak against tensors of known sizes, and against what the operating system says of a process."""

from __future__ import annotations

import json
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import vmap

from analysis.memory import need, peak, ran_out

CPU = torch.device("cpu")


def test_the_peak_is_what_is_held_at_once():
    def work():
        first = torch.empty(1000, dtype=torch.float64)
        second = torch.empty(500, dtype=torch.float32)
        del first
        third = torch.empty(100, dtype=torch.float64)
        return second, third

    assert peak(work, CPU) == 8000 + 2000
    assert peak(lambda: [torch.zeros(10) for _ in range(7)], CPU) == 7 * 40
    assert peak(lambda: [torch.zeros(10).sum() for _ in range(7)] and None, CPU) == 40 + 7 * 4
    assert peak(lambda: None, CPU) == 0


def test_views_what_is_written_in_place_and_what_was_there_before_cost_nothing():
    there = torch.zeros(1000)

    def work():
        view = there[5:].view(5, 199).T
        view.add_(1)
        return view, there.detach(), torch.split(there, 10), there.reshape(10, 100)

    assert peak(work, CPU) == 0
    assert peak(there[::2].contiguous, CPU) == 2000
    assert peak(lambda: torch.empty(10)[2:4], CPU) == 40, "a view holds the whole"


def test_what_is_held_in_between_counts():
    there = torch.zeros(1000)

    def work():
        return (2 * there + 1).sum()

    assert peak(work, CPU) == 4000 + 4000  # the product until the sum is there
    assert peak(lambda: torch.tensor(np.zeros(1000)), CPU) == 8000


def test_points_in_one_launch_are_counted_all():
    weights, inputs = torch.zeros(6, 10, 10), torch.ones(4, 10)
    assert peak(lambda: torch.tanh(inputs @ weights[0]), CPU) == 2 * 160
    assert peak(lambda: vmap(lambda w: torch.tanh(inputs @ w))(weights), CPU) == 6 * 2 * 160


def test_layers_that_torch_evaluates_as_one_operation_are_seen():
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
    fused = torch.backends.mha.get_fastpath_enabled()
    scores = 5 * 2 * 100 * 100 * 4  # of 5 examples, 2 heads and 100 places
    inputs = torch.zeros(5, 100, 8)
    with torch.no_grad():
        assert peak(lambda: layer.self_attn(inputs, inputs, inputs), CPU) >= scores
    assert torch.backends.mha.get_fastpath_enabled() == fused


def test_the_line_through_two_small_sizes_is_constant_plus_each():
    def work(count):
        return torch.zeros(25), torch.zeros(count, 100, dtype=torch.float64)

    found = need(work, CPU)
    assert (found.constant, found.each) == (100, 800)
    assert found.at(1000) == peak(lambda: work(1000), CPU)
    assert need(lambda _: torch.zeros(25), CPU, (1, 7)).each == 0


def test_real_failures_of_the_allocators_are_known():
    for allocate in (lambda: torch.empty(1 << 60), lambda: np.empty(1 << 55), lambda: bytearray(1 << 62)):
        with pytest.raises((RuntimeError, MemoryError)) as caught:
            allocate()
        assert ran_out(caught.value)
    assert ran_out(torch.OutOfMemoryError("CUDA out of memory."))
    assert ran_out(RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"))
    for other in (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), OSError(28)):
        assert not ran_out(other)


FREED = """
import resource
import torch
from analysis.memory import keep_freed

keep_freed()


def work():
    blocks = [torch.zeros(2 << 20)]  # 2,048 pages of 4 KiB
    for _ in range(4):
        blocks.append(blocks[-1] + 1)


for _ in range(3):
    work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="is about glibc's allocator")
def test_freed_memory_is_kept_for_the_next_micro_batch():
    # 102,400 pages if each is fetched again each time; the heap may still grow by a block or two.
    done = subprocess.run([sys.executable, "-c", FREED], capture_output=True, text=True, check=True, timeout=300)
    assert int(done.stdout) < 20_000


MEASURED = """
import ctypes, gc, json, sys
import numpy as np, torch
from torch import nn
from torch.utils.data import TensorDataset
from analysis import tuning
from analysis.engines import Sequential
from analysis.points import Conditions, Meter
from landscape.problem import Problem, Task
from tests.analysis import cases
from tests.analysis.test_surfaces import plane_for

torch.set_num_threads(1)
kind, allowed = sys.argv[1], int(sys.argv[2]) * 2**20
trunks = {
    "convolutions": lambda: nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.GroupNorm(4, 16), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 64)),
    "pooled": lambda: nn.Sequential(
        nn.Conv2d(1, 32, 5, padding=2), nn.BatchNorm2d(32), nn.SiLU(), nn.MaxPool2d(2), nn.Conv2d(32, 32, 3), nn.SiLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(128, 64)),
    "layers": lambda: nn.Sequential(
        nn.Flatten(1, 2), nn.Linear(28, 512), nn.Tanh(), nn.Linear(512, 64), nn.Flatten(), nn.Linear(1792, 64)),
}


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = trunks[kind]()
        self.one, self.two = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, inputs):
        shared = self.trunk(inputs)
        return self.one(shared), self.two(shared)


torch.manual_seed(0)
count = 700
data = TensorDataset(torch.randn(count, 1, 28, 28), *torch.randint(0, 10, (2, count)))
problem = Problem(Model(), [Task("one", cases.cross_entropy), Task("two", cases.cross_entropy)], data, data)
plane = plane_for(problem, size=0.01)
tuning.NOISE = -1e9  # the largest that fits is chosen, be it the fastest or not


def kibibytes(name):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(name))


def beyond(engine):
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    with open("/proc/self/clear_refs", "w") as peaks:
        peaks.write("5")  # the peak begins anew
    before = kibibytes("VmRSS")
    Meter(problem, plane, Conditions(engine)).measure(np.array([[0.0, 0.0], [1.0, 1.0], [-1.0, 0.0]]))
    return (kibibytes("VmHWM") - before) * 1024


beyond(Sequential(2))  # code and constants of libraries are in memory from here on
choice = tuning.choose(problem, plane, Conditions(), tuning.Budget(allowed))
# The least of some: a machine that takes idle pages away has them come back meanwhile, and counted as new ones.
used = min(beyond(choice.engine) for _ in range(5))
print(json.dumps([used, choice.bytes, beyond(Sequential(count))]))
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's peak of a process")
@pytest.mark.parametrize(
    ("kind", "allowed"), [("convolutions", 24), ("convolutions", 100), ("pooled", 60), ("layers", 40)]
)
def test_a_surface_stays_within_the_memory_that_is_allowed(kind, allowed):
    command = [sys.executable, "-W", "error", "-c", MEASURED, kind, str(allowed)]
    found = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert found.returncode == 0, found.stderr
    used, expected, without = json.loads(found.stdout)
    assert expected <= allowed * 2**20
    assert allowed * 2**20 / 8 < used <= expected, "the bound binds"
    assert without > allowed * 2**20, "a bound was needed"
