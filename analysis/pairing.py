"""Which runs of two strategies are compared with which: choices, as objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from analysis.results import FEWEST_SEEDS
from landscape.errors import LandscapeError

PAIRED, UNPAIRED = "paired", "unpaired"


@dataclass(frozen=True)
class Sides:
    """The seeds of both sides that are compared, and how; in pairs, the same seeds in the same order."""

    seeds: tuple[int, ...]
    baseline_seeds: tuple[int, ...]
    design: str
    note: str = ""
    starts: int = 0
    """How many starts the seeds of the side with fewer have; 0 where it is not known."""


class Pairing(Protocol):
    """Decides from the labels and the seeds of a strategy and its baseline, and from hashes of the runs' starts by
    `(label, seed)` where they are known.
    """

    def sides(
        self,
        labels: tuple[str, str],
        seeds: tuple[Sequence[int], Sequence[int]],
        starts: Mapping[tuple[str, int], str],
    ) -> Sides: ...


@dataclass(frozen=True)
class BySeed:
    """Runs of the same seed are pairs, and nothing else will do: seeds of one side only are left out.

    Raises:
        LandscapeError: no seed in common, or a pair that does not start alike.
    """

    def sides(
        self,
        labels: tuple[str, str],
        seeds: tuple[Sequence[int], Sequence[int]],
        starts: Mapping[tuple[str, int], str],
    ) -> Sides:
        shared = _shared(seeds)
        if not shared:
            raise LandscapeError(
                f"{labels[0]} and {labels[1]} have no seed in common: expected runs with the same seeds to pair; "
                "compare them unpaired, or train with the same seeds"
            )
        apart = _apart(labels, shared, starts)
        if apart:
            raise LandscapeError(
                f"{labels[0]} and {labels[1]} with seed {apart[0]} do not start alike: expected the same start in both "
                "to pair them; compare them unpaired, or train both from one start"
            )
        return Sides(shared, shared, PAIRED, _left_out(labels, seeds, shared))


@dataclass(frozen=True)
class Apart:
    """All runs of both sides, unpaired: Welch's test, which assumes that no run has to do with another."""

    def sides(
        self,
        labels: tuple[str, str],
        seeds: tuple[Sequence[int], Sequence[int]],
        starts: Mapping[tuple[str, int], str],
    ) -> Sides:
        return Sides(tuple(seeds[0]), tuple(seeds[1]), UNPAIRED, "Unpaired, as was asked: Welch's t test.")


@dataclass(frozen=True)
class WhereSeedsMatch:
    """Pairs of the same seed and start where there are as many as a verdict needs, or no more on either side; else
    unpaired.
    """

    def sides(
        self,
        labels: tuple[str, str],
        seeds: tuple[Sequence[int], Sequence[int]],
        starts: Mapping[tuple[str, int], str],
    ) -> Sides:
        shared = _shared(seeds)
        apart = _apart(labels, shared, starts)
        alike = tuple(seed for seed in shared if seed not in apart)
        fewest = min(len(side) for side in seeds)
        if alike and (len(alike) >= FEWEST_SEEDS or len(alike) == fewest):
            differing = f" Seeds that do not start alike are left out: {_some(apart)}." if apart else ""
            return Sides(alike, alike, PAIRED, (_left_out(labels, seeds, shared) + differing).strip())
        common = f"{len(shared) or 'no'} {'seed' if len(shared) < 2 else 'seeds'}"
        why = f"{labels[0]} and {labels[1]} have {common} in common"
        if apart:
            why = f"runs of the same seed do not start alike (seed {apart[0]})"
        return Sides(tuple(seeds[0]), tuple(seeds[1]), UNPAIRED, f"Unpaired, by Welch's t test: {why}.")


def _shared(seeds: tuple[Sequence[int], Sequence[int]]) -> tuple[int, ...]:
    return tuple(sorted(set(seeds[0]) & set(seeds[1])))


def _apart(labels: tuple[str, str], shared: Sequence[int], starts: Mapping[tuple[str, int], str]) -> tuple[int, ...]:
    """Seeds whose runs are known to start from different places."""
    found = {seed: [starts.get((label, seed)) for label in labels] for seed in shared}
    return tuple(seed for seed, (one, other) in found.items() if one is not None and other is not None and one != other)


def _left_out(labels: tuple[str, str], seeds: tuple[Sequence[int], Sequence[int]], shared: Sequence[int]) -> str:
    alone = [
        f"{_some([seed for seed in side if seed not in shared])} of {label}"
        for label, side in zip(labels, seeds, strict=True)
        if set(side) - set(shared)
    ]
    return f"Seeds of one side only are left out: {' and '.join(alone)}." if alone else ""


def _some(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
