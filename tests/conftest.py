"""Settings that every test shares. Torch is not imported here: the tests of figures run without it."""

import os

# Before numpy or torch is loaded, and inherited by commands that tests start: the test processes run side by side, so
# each takes one thread; with one thread sums are made in one order, so that "same bytes" can be asked for.
os.environ["OMP_NUM_THREADS"] = os.environ["MKL_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "agg"

from hypothesis import settings

# No deadline: the first example of a test may compile or import. Derandomised: a red test is red for everybody.
settings.register_profile("landscape", deadline=None, derandomize=True)
settings.load_profile("landscape")
