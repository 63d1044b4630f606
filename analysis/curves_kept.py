"""Curves in the making: what is known of all snapshots so far, and what the next one is compared with."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from analysis.matching import Followed, Matching, begin, follow
from analysis.results import Array, Eigenpairs, EigenvalueIntervals, EigenvalueTracks, TracksUnderway
from analysis.results.krylov import apart

_EMPTY = {
    "values": np.nan,
    "residuals": np.nan,
    "converged": False,
    "track": -1,
    "match": np.nan,
    "grouped": False,
    "low": np.nan,
    "high": np.nan,
    "resolved": False,
}


class Kept:
    """The arrays of a record in the making, and the curves at the snapshot before."""

    def __init__(self, snapshots: int, operators: int, pairs: int) -> None:
        shape = (snapshots, operators, pairs)
        self._arrays: dict[str, Array] = {name: np.full(shape, nothing) for name, nothing in _EMPTY.items()}
        self._arrays["overlaps"] = np.full((*shape, pairs), np.nan)
        self._curves: list[Followed | None] = [None] * operators
        self._vectors: list[Array | None] = [None] * operators
        self._warm: list[Array | None] = [None] * operators
        self._begun = [0] * operators

    def put(
        self, place: int, number: int, pairs: Eigenpairs, how: Matching, sampled: EigenvalueIntervals | None = None
    ) -> None:
        """Takes in the pairs of one operator at one snapshot, with their sampling intervals."""
        at = (place, number)
        for key in ("values", "residuals", "converged"):
            self._arrays[key][at] = getattr(pairs, key)
        if not np.isfinite(pairs.values).all():
            self._curves[number] = self._vectors[number] = None
            return
        if sampled is not None:
            for key in ("low", "high"):
                self._arrays[key][at] = getattr(sampled, key)
        self._arrays["resolved"][at] = (
            apart(pairs.values, pairs.values - pairs.residuals, pairs.values + pairs.residuals)
            if sampled is None
            else sampled.resolved
        )
        before, earlier = self._curves[number], self._vectors[number]
        vectors = pairs.vectors.astype(np.float64)
        if before is None or earlier is None:
            curves = begin(pairs.values, vectors, pairs.residuals, how, self._begun[number])
        else:
            curves = follow(before, pairs.values, vectors, pairs.residuals, how)
            self._arrays["overlaps"][at] = vectors @ earlier.T
        for key in ("track", "match", "grouped"):
            self._arrays[key][at] = getattr(curves, key)
        self._curves[number], self._vectors[number], self._begun[number] = curves, vectors, curves.begun
        self._warm[number] = vectors

    def until(self, place: int) -> dict[str, Array]:
        """The arrays of the snapshots before a place."""
        return {name: array[:place].copy() for name, array in self._arrays.items()}

    def underway(self, tracks: EigenvalueTracks) -> TracksUnderway:
        """The curves so far with all that decides how they go on."""
        size = max((v.shape[1] for v in self._warm if v is not None), default=0)
        nothing = np.full((self._arrays["values"].shape[2], size), np.nan)

        def stacked(of: Sequence[Array | None]) -> Array:
            return np.stack([nothing if one is None else one for one in of])

        return TracksUnderway(
            tracks=tracks,
            vectors=stacked(self._vectors),
            warm=stacked(self._warm),
            directions=stacked([None if one is None else one.directions for one in self._curves]),
            begun=np.array(self._begun),
        )

    def take_up(self, before: TracksUnderway) -> None:
        """Goes on where curves were left."""
        done = len(before.tracks.steps)
        for name, array in self._arrays.items():
            array[:done] = getattr(before.tracks, name)
        self._begun = [int(count) for count in before.begun]
        for number in range(len(self._begun)):
            self._vectors[number] = _known(before.vectors[number])
            self._warm[number] = _known(before.warm[number])
            directions = _known(before.directions[number])
            if directions is not None:
                row = {name: self._arrays[name][done - 1, number] for name in ("track", "match", "grouped")}
                self._curves[number] = Followed(**row, directions=directions, begun=self._begun[number])

    def warm_starts(self, names: Sequence[str]) -> dict[str, Tensor]:
        """The vectors from which the next searches start, by operator name."""
        pairs = zip(names, self._warm, strict=True)
        return {name: torch.from_numpy(vectors.copy()) for name, vectors in pairs if vectors is not None}


def _known(vectors: Array) -> Array | None:
    return np.array(vectors) if vectors.size and np.isfinite(vectors).all() else None
