"""Settings that every test shares. Torch is not imported here: the tests of figures run without it."""

import os
import signal
from collections.abc import Iterator

# Before numpy or torch is loaded, and inherited by commands that tests start: the test processes run side by side, so
# each takes one thread; with one thread sums are made in one order, so that "same bytes" can be asked for.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "agg"

import pytest
from hypothesis import settings

from figures import static
from tests import undrawn as stand_in

# No deadline: the first example of a test may compile or import. Derandomised: a red test is red for everybody.
settings.register_profile("landscape", deadline=None, derandomize=True)
settings.load_profile("landscape")


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """What a shell runs in the background, or nohup anywhere, ignores them, and so does every process it starts."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def _a_cache_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines that tests have timed are not kept for the machine's user."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pictures are empty files that differ as their scenes do: for tests of numbers, files and words."""
    monkeypatch.setattr(static, "render", stand_in.render)


@pytest.fixture(params=["undrawn", pytest.param("drawn", marks=pytest.mark.slow)])
def drawn_if_slow(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that draw everything of a real file: once without the pictures, and, among the slow ones, with them."""
    if request.param == "undrawn":
        monkeypatch.setattr(static, "render", stand_in.render)
