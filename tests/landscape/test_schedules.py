"""When snapshots are due, against lists written out by brute force."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, getcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st

from landscape import AtSteps, Every, LandscapeError, LogSpaced

LAST = 100_000


def test_every_is_due_at_the_multiples() -> None:
    assert [step for step in range(1, 31) if Every(7).due(step)] == [7, 14, 21, 28]


@pytest.mark.parametrize("per_decade", [1, 2, 3, 7, 10, 50])
def test_log_spaced_steps_are_the_rounded_powers_of_ten(per_decade: int) -> None:
    getcontext().prec = 30  # enough that no power is rounded to the wrong side
    powers = (Decimal(10) ** (Decimal(k) / per_decade) for k in range(5 * per_decade + 1))
    expected = {int(power.to_integral_value(ROUND_HALF_EVEN)) for power in powers}
    schedule = LogSpaced(per_decade)
    assert {step for step in range(1, LAST + 1) if schedule.due(step)} == expected


@given(st.sets(st.integers(0, 1000)))
def test_at_steps_is_due_at_the_steps_named_and_nowhere_else(steps: set[int]) -> None:
    schedule = AtSteps(steps)
    assert {step for step in range(1001) if schedule.due(step)} == steps
    assert eval(repr(schedule), {"AtSteps": AtSteps}) == schedule


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Every(0), r"expected Every\(1\) or more steps, got 0"),
        (lambda: LogSpaced(0), r"expected LogSpaced\(1\) or more snapshots a decade, got 0"),
        (lambda: AtSteps([3, -2]), "expected steps of 0 or more, got -2"),
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(make: object, message: str) -> None:
    assert callable(make)
    with pytest.raises(LandscapeError, match=message):
        make()
