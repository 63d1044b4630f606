"""A Lanczos search on its way: what is looked for, when it is found, and what goes into a saved state."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from analysis.krylov import Krylov
from analysis.operators import SymmetricOperator
from analysis.results import Array, LanczosState
from landscape.errors import LandscapeError

END_ORDER: dict[str, Callable[[Array], Array]] = {
    "largest": lambda values: np.argsort(-values, kind="stable"),
    "smallest": lambda values: np.argsort(values, kind="stable"),
    "both": lambda values: _from_both_ends(np.argsort(-values, kind="stable")),
    "magnitude": lambda values: np.argsort(-np.abs(values), kind="stable"),
}
"""Ends of the spectrum, each with the order in which its values are reported (`both`: largest, smallest, second
largest, ...); the sign counts except for `magnitude`.
"""

FRESH = 0.1
"""Share of a random direction in a warm start: without it, a Lanczos run that starts in a space which the operator maps
into itself would never learn of an eigenvalue outside it, however large.
"""

MARGIN = 0.9
"""Share of the tolerance that the residuals known from the relation have to meet, so that measured ones meet all of it:
the two differ by rounding.
"""


@dataclass(frozen=True)
class Accuracy:
    """When a Lanczos run stops: relative residual `tolerance` for every pair asked for, or `products` products."""

    tolerance: float = 1e-3
    products: int = 100

    def __post_init__(self) -> None:
        if not self.tolerance > 0 or self.products < 1:
            raise LandscapeError(
                f"expected a tolerance above 0 and 1 or more products, got {self.tolerance} and {self.products}"
            )


@dataclass(frozen=True)
class Aim:
    """What a search looks for, and how: `count` pairs at one end, `block` products at a time, a basis of at most `room`
    vectors.
    """

    count: int
    end: str
    block: int
    room: int
    seed: int

    @classmethod
    def at(cls, size: int, count: int, end: str, block: int, max_basis: int | None, seed: int) -> Aim:
        """What may be asked of an operator of this size.

        Raises:
            LandscapeError: more pairs than the operator has, an unknown end, a block or a basis that is too small.
        """
        if end not in END_ORDER:
            raise LandscapeError(f"unknown end {end!r}: expected one of {', '.join(END_ORDER)}")
        if not 1 <= count <= size:
            raise LandscapeError(f"expected 1 to {size} eigenpairs of an operator of that size, got {count}")
        if not 1 <= block <= size:
            raise LandscapeError(f"expected a block of 1 to {size} vectors for an operator of that size, got {block}")
        room = min(size, max(2 * count + 20, 40) + block if max_basis is None else max_basis)
        least = min(size, count + block + 1)
        if room < least:
            raise LandscapeError(
                f"expected a basis of at least {least} vectors for {count} eigenpairs in blocks of {block}, got {room}"
            )
        return cls(count, end, block, room, seed)


class Search:
    """A search, begun anew or from a saved state."""

    def __init__(self, operator: SymmetricOperator, aim: Aim, accuracy: Accuracy) -> None:
        self.krylov = Krylov(operator, aim.room, aim.seed)
        self.aim, self.accuracy = aim, accuracy
        self._exhausted: Array | None = None

    def begin(self, start: Tensor | None) -> None:
        """Random vectors, `block` of them. The rows of a warm start are shared out among all but the last, and summed;
        with one vector, among that one.
        """
        drawn = self.krylov.draw(self.aim.block).double()
        if start is not None:
            warm = (start[None] if start.ndim == 1 else start).to(drawn)
            _require_start(warm, self.krylov.operator.size)
            warm = warm / warm.norm(dim=1, keepdim=True)
            places = max(1, self.aim.block - 1)
            for place in range(min(places, len(warm))):
                row = warm[place::places].sum(0)
                drawn[place] += row / (FRESH * max(float(row.norm()), torch.finfo(torch.float64).tiny))
        self.krylov.turn_to(drawn)

    def go_on(self, state: LanczosState) -> None:
        """From where a state was saved.

        Raises:
            LandscapeError: the state is of another search.
        """
        saved = Aim(state.count, state.end, state.block, state.room, state.seed)
        krylov = self.krylov
        size, dtype = krylov.operator.size, str(krylov.basis.dtype).removeprefix("torch.")
        if saved != self.aim or state.basis.shape[1] != size or str(state.basis.dtype) != dtype:
            raise LandscapeError(
                f"the saved state is of {saved} in {state.basis.shape[1]} parameters of {state.basis.dtype}, expected "
                f"one of {self.aim} in {size} of {dtype}: start anew, or ask for what the state is of"
            )
        krylov.put(state)
        self._exhausted = np.array(state.exhausted) if len(state.exhausted) else None

    def steps(self) -> Iterator[None]:
        """Expands until the pairs are good enough or the products used up; yields after every expansion."""
        krylov = self.krylov
        budget = max(self.accuracy.products, self.aim.count)
        while krylov.finite and not (krylov.size and self._done()) and krylov.products < budget:
            count = min(len(krylov.ahead), budget - krylov.products)
            if krylov.size + count > krylov.room:
                self._restart()
            krylov.expand(count)
            yield

    def bound(self, values: Array) -> float:
        """What a residual may be: `tolerance` of the largest |value| asked for."""
        return self.accuracy.tolerance * float(np.abs(values).max())

    def _reachable(self, values: Array) -> float:
        """What a search can be asked for: no residual is expected to fall below the rounding of a product."""
        return max(self.bound(values), self.krylov.noise)

    def pairs(self) -> tuple[Array, Array, Array]:
        """Values, weights as columns [m, count] and lengths of the residuals, of the pairs asked for, as the relation
        has them.
        """
        values, weights = self.krylov.ritz()
        chosen = END_ORDER[self.aim.end](values)[: self.aim.count]
        return values[chosen], weights[:, chosen], np.linalg.norm(self.krylov.coupling @ weights[:, chosen], axis=0)

    def state(self) -> LanczosState:
        """All that decides how the search goes on, copied."""
        krylov, aim = self.krylov, self.aim
        return LanczosState(
            basis=krylov.basis.cpu().numpy().copy(),
            ahead=krylov.ahead.cpu().numpy().copy(),
            projected=krylov.projected.copy(),
            coupling=krylov.coupling.copy(),
            exhausted=np.zeros(0) if self._exhausted is None else self._exhausted.copy(),
            count=aim.count,
            end=aim.end,
            block=aim.block,
            room=aim.room,
            seed=aim.seed,
            products=krylov.products,
            draws=krylov.draws,
            scale=krylov.scale,
        )

    def _done(self) -> bool:
        krylov = self.krylov
        if krylov.size == krylov.operator.size:
            return True
        values, _, residuals = self.pairs()
        if krylov.exhausted():
            return self._nothing_new(values)
        good = bool((residuals <= MARGIN * self._reachable(values)).all())
        return good and len(values) == self.aim.count and self._exhausted is None

    def _nothing_new(self, values: Array) -> bool:
        """Where the space is exhausted, further copies of a value may lie outside it. It goes on with another start
        until that one's space is exhausted as well, and has changed nothing.
        """
        before, self._exhausted = self._exhausted, values
        same = before is not None and len(before) == len(values) == self.aim.count
        if same and np.abs(values - before).max() <= self._reachable(values):
            return True
        self.krylov.turn_to(self.krylov.draw(self.aim.block))
        return False

    def _restart(self) -> None:
        """Half of what there is room for beyond the pairs asked for is kept: more keeps more of what was learnt, less
        leaves more room to learn.
        """
        values, weights = self.krylov.ritz()
        kept = END_ORDER[self.aim.end](values)[: (self.aim.count + self.aim.room - self.aim.block + 1) // 2]
        self.krylov.restart(values[kept], weights[:, kept])


def _require_start(warm: Tensor, size: int) -> None:
    if warm.ndim != 2 or warm.shape[1] != size:
        raise LandscapeError(f"expected a start [{size}] or [k, {size}], got shape {list(warm.shape)}")
    if not bool(torch.isfinite(warm).all()) or not bool(warm.any(1).all()):
        raise LandscapeError("expected starts of finite numbers, not all zero: leave out what was not found")


def _from_both_ends(descending: Array) -> Array:
    return np.stack([descending, descending[::-1]], 1).ravel()[: len(descending)]
