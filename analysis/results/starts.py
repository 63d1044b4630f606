"""What can be said of the starts of runs that are counted as seeds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from analysis.results.base import Run

CONDITIONAL = (
    "they differ in what is drawn on the way alone, as the order of batches, and means, intervals and tests hold for "
    "that start only"
)


def starts_of(runs: Iterable[Run]) -> dict[tuple[str, int], str]:
    """The hashes of the starts that are known, by label and seed."""
    return {(run.label, run.seed): run.start for run in runs if run.start}


def said_of_starts(starts: Mapping[tuple[str, int], str]) -> str:
    """Sentences where seeds are not what they seem: several with one start, or one with several; else empty."""
    shared = [seeds for seeds in _seeds_by_start(starts) if len(seeds) > 1]
    apart = [seed for seed, its in _starts_by_seed(starts).items() if len(its) > 1]
    said = [f"Seeds {_listed(seeds)} begin at one start: {CONDITIONAL}." for seeds in shared]
    if apart:
        what = "Runs of seed" if len(apart) == 1 else "Runs of each of the seeds"
        said.append(f"{what} {_listed(apart)} begin at different starts: they are no pairs.")
    return " ".join(said)


def starts_counted(starts: Mapping[tuple[str, int], str]) -> str:
    """The same in a few words after a number of seeds, as ` from one start`; empty where every seed has its own."""
    seeds = {seed for _, seed in starts}
    count = len(set(starts.values()))
    if any(len(its) > 1 for its in _starts_by_seed(starts).values()):
        return ", those of one seed from different starts"
    if len(seeds) > 1 and count < len(seeds):
        return " from one start" if count == 1 else f" from {count} starts"
    return ""


def _seeds_by_start(starts: Mapping[tuple[str, int], str]) -> list[list[int]]:
    by: dict[str, set[int]] = {}
    for (_, seed), start in starts.items():
        by.setdefault(start, set()).add(seed)
    return list({tuple(sorted(seeds)): sorted(seeds) for seeds in by.values()}.values())


def _starts_by_seed(starts: Mapping[tuple[str, int], str]) -> dict[int, set[str]]:
    by: dict[int, set[str]] = {}
    for (_, seed), start in starts.items():
        by.setdefault(seed, set()).add(start)
    return by


def _listed(seeds: Iterable[int]) -> str:
    *first, last = map(str, seeds)
    return f"{', '.join(first)} and {last}" if first else last
