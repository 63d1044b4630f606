"""Between runs: distances over strategies, seeds and time, where runs of one seed part, what spaces they share."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, pairwise

import numpy as np

from analysis import gram
from analysis.alignment import Aligner
from analysis.results import Array, PointDistances, Separation
from analysis.routes import Point, name_of
from analysis.subsets import Shared, Subset
from analysis.subspaces import Place, require_one_layout, restricted, run_of
from landscape.errors import LandscapeError
from landscape.randomness import generator
from landscape.trajectory import Rows, Trajectory

DRAWS = 1000
RANK = 1e-12
"""Directions whose share of the increments' squared length is below this are rounding."""


@dataclass(frozen=True)
class Parting:
    """From when on two runs count as parted, and how many leading directions are compared."""

    threshold: float = 0.5
    directions: int = 3
    seed: int = 0
    """It draws the random subspaces."""

    def __post_init__(self) -> None:
        if not 0 < self.threshold < 2**0.5 or self.directions < 1:
            raise LandscapeError(
                f"expected a threshold between 0 and the square root of 2, and 1 or more directions, got "
                f"{self.threshold:g} and {self.directions}"
            )


def distances(
    places: Sequence[Place],
    subset: Subset = Shared(),
    aligner: Aligner | None = None,
    told: Callable[[int], None] = lambda _: None,
) -> PointDistances:
    """Distances between snapshots of several runs, whatever their strategies, seeds and steps.

    From one float64 Gram matrix of the centred rows, see `analysis.gram.distances`: one pass over the rows concerned,
    two where some of them nearly coincide. Distances to a snapshot that is not finite are NaN. With an aligner also
    after matching hidden units, each pair by itself: two rows read and one matching a pair; `told` hears of each.

    Raises:
        LandscapeError: no place, runs of different models, or nothing in the subset.
    """
    require_one_layout([place.run for place in places])
    spans = subset.spans(places[0].run.layout)
    rows = [_row(place, spans) for place in places]
    with np.errstate(invalid="ignore", over="ignore"):
        distance = gram.distances(rows, np.zeros(0), _finite_mean)
    aligned = np.full(distance.shape, np.nan)
    if aligner is not None:
        np.fill_diagonal(aligned, 0.0)
        for i, j in combinations(range(len(places)), 2):
            first, second = Point.at(places[i]), Point.at(places[j])
            moved = aligner(first, second).point.theta - first.theta
            aligned[i, j] = aligned[j, i] = np.linalg.norm(restricted(moved, spans))
            told(1)
    return PointDistances(
        points=tuple(name_of(place) for place in places),
        labels=tuple(place.run.provenance.label for place in places),
        seeds=np.array([place.run.provenance.seed for place in places], np.int64),
        steps=np.array([place.run.steps[place.row] for place in places], np.int64),
        distance=np.where(np.isfinite(distance), distance, np.nan),
        aligned=aligned,
        subset=subset.label,
        alignment="none" if aligner is None else aligner.words,
    )


def _finite_mean(block: Array) -> Array:
    """The mean of the rows that are finite, so that one that is not leaves the others' distances as they are."""
    kept = block[np.isfinite(block).all(1)]
    return np.asarray(kept.mean(0)) if len(kept) else np.zeros(block.shape[1])


def same_start(first: Trajectory, second: Trajectory) -> bool:
    """Whether both runs begin at step 0 with the same bytes of theta. Cost: two rows read."""
    if first.steps[0] != 0 or second.steps[0] != 0:
        return False
    return bool(np.array_equal(first.theta[0], second.theta[0]))


def require_same_start(first: Trajectory, second: Trajectory) -> None:
    """Raises, with the distance of the starts, unless two runs have one."""
    if same_start(first, second):
        return
    later = [run for run in (first, second) if run.steps[0] != 0]
    if later:
        raise LandscapeError(
            f"{later[0].path} begins at step {later[0].steps[0]}: expected runs to be paired from their start, step 0"
        )
    apart = np.linalg.norm(np.asarray(second.theta[0], np.float64) - np.asarray(first.theta[0], np.float64))
    raise LandscapeError(
        f"{first.name} and {second.name} have different starts, {apart:.4g} apart: expected one start for runs that "
        "are paired; train them from the same seed with the same model"
    )


def one_start(runs: Sequence[Trajectory], refuse: Callable[[LandscapeError], None]) -> Iterator[tuple[Trajectory, ...]]:
    """Groups of two or more runs that have a seed and a start in common; the others are told of."""
    seeds: dict[int, list[Trajectory]] = {}
    for run in runs:
        seeds.setdefault(run.provenance.seed, []).append(run)
    for group in seeds.values():
        if len(group) < 2:
            continue
        kept = [group[0]]
        for other in group[1:]:
            try:
                require_same_start(group[0], other)
                kept.append(other)
            except LandscapeError as error:
                refuse(error)
        if len(kept) > 1:
            yield tuple(kept)


def separation(
    runs: Sequence[Trajectory], subset: Subset = Shared(), parting: Parting = Parting()
) -> tuple[Separation, ...]:
    """How every two of some runs with one start part; see `Separation`.

    All distances, nets and inner products of increments come from one float64 Gram matrix of all the runs' snapshots
    about their common start: one pass over the files. Runs are read at the steps that both have. Leading directions are
    the eigenvectors of a run's increments' Gram matrix (between its snapshots, not centred); principal angles between
    two runs' directions are arccos of the singular values of the product of both orthonormal sets. Angles of random
    subspaces of P dimensions are drawn exactly, from a matrix beta distribution.

    Raises:
        LandscapeError: fewer than two runs, of different models, or with different starts.
    """
    if len(runs) < 2:
        raise LandscapeError(f"expected two or more runs of one seed, got {len(runs)}")
    require_one_layout(runs)
    for other in runs[1:]:
        require_same_start(runs[0], other)
    spans = subset.spans(runs[0].layout)
    arrays = [run.part(spans) for run in runs]
    with np.errstate(invalid="ignore", over="ignore"):
        products, _ = gram.centred_gram(arrays, np.zeros(0), lambda block: np.asarray(block[0]))
    cuts = np.cumsum([0, *(len(run) for run in runs)])
    of = [slice(int(a), int(b)) for a, b in pairwise(cuts)]
    size = arrays[0].shape[1]
    found = []
    for i, j in combinations(range(len(runs)), 2):
        steps, mine, theirs = np.intersect1d(runs[i].steps, runs[j].steps, return_indices=True)
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.sqrt(gram.apart(products, arrays, mine + of[i].start, theirs + of[j].start))
        nets = np.sqrt(np.maximum(np.diag(products), 0.0))
        apart = (steps, distance, nets[of[i]][mine], nets[of[j]][theirs])
        cosines = _cosines(products, (of[i], of[j]), parting.directions)
        found.append(_pair((runs[i], runs[j]), apart, cosines, (subset, size, parting)))
    return tuple(found)


def _pair(
    runs: tuple[Trajectory, Trajectory],
    apart: tuple[Array, Array, Array, Array],
    cosines: Array,
    choices: tuple[Subset, int, Parting],
) -> Separation:
    """From the common steps, the distances and the nets of both runs there, and the cosines of principal angles."""
    subset, size, parting = choices
    steps, distance, first_net, second_net = apart
    null = random_cosines(size, len(cosines), DRAWS, parting.seed)
    overlaps = (null**2).mean(1) if len(cosines) else np.full(1, np.nan)
    record = Separation(
        first=run_of(runs[0]),
        second=run_of(runs[1]),
        subset=subset.label,
        steps=steps,
        distance=distance,
        first_net=first_net,
        second_net=second_net,
        threshold=parting.threshold,
        parted=-1,
        angles=_degrees(cosines),
        null_angles=np.median(_degrees(null), axis=0) if len(cosines) else np.zeros(0),
        overlap=float((cosines**2).mean()) if len(cosines) else float("nan"),
        null_overlap=min(len(cosines) / size, 1.0) if len(cosines) else float("nan"),
        null_high=float(np.quantile(overlaps, 0.975)),
        dimension=size,
        draws=DRAWS,
        seed=parting.seed,
    )
    beyond = np.flatnonzero(record.relative > parting.threshold)
    return replace(record, parted=int(steps[beyond[0]])) if len(beyond) else record


def _cosines(gram: Array, of: tuple[slice, slice], wanted: int) -> Array:
    """Cosines of the principal angles between the leading directions of both runs' increments, descending."""
    rows = [np.arange(part.start, part.stop) for part in of]
    rows = [numbers[np.isfinite(gram[numbers, numbers])] for numbers in rows]
    mixtures = [_leading(_between(gram, numbers, numbers), wanted) for numbers in rows]
    between = _between(gram, *rows)
    count = min(mixing.shape[1] for mixing in mixtures)
    first, second = (mixing[:, :count] for mixing in mixtures)
    return np.asarray(np.clip(np.linalg.svd(first.T @ between @ second, compute_uv=False), 0.0, 1.0))


def _between(gram: Array, rows: Array, columns: Array) -> Array:
    """Inner products of the increments from one of these snapshots to the next."""
    return np.diff(np.diff(gram[np.ix_(rows, columns)], axis=0), axis=1)


def _leading(gram: Array, wanted: int) -> Array:
    """Mixtures [S, k] of increments that are their leading orthonormal directions; fewer where there are fewer."""
    if not gram.size:
        return np.zeros((len(gram), 0))
    values, vectors = np.linalg.eigh(gram)
    values, vectors = values[::-1][:wanted], vectors[:, ::-1][:, :wanted]
    kept = values > RANK * max(float(np.trace(gram)), 0.0)
    return np.asarray(vectors[:, kept] / np.sqrt(values[kept]))


def random_cosines(size: int, directions: int, draws: int, seed: int) -> Array:
    """Cosines of the principal angles between two random subspaces, [draws, k], descending.

    Squares are the eigenvalues of A (A + B)^-1, A and B Wishart matrices with k and P - k degrees of freedom, B drawn
    by its Cholesky factor (Bartlett, 1933): no vector of P entries is made. Where P < 2 k the subspaces are drawn.
    """
    rng = generator(seed, "random subspaces")
    if directions == 0:
        return np.zeros((draws, 0))
    if size < 2 * directions:
        frames = np.linalg.qr(rng.standard_normal((draws, size, min(directions, size))))[0]
        return np.asarray(np.clip(np.linalg.svd(frames[:, :directions], compute_uv=False), 0.0, 1.0))
    wide = rng.standard_normal((draws, directions, directions))
    freedom = size - directions - np.arange(directions)
    factor = np.tril(rng.standard_normal((draws, directions, directions)), -1)
    places = np.arange(directions)
    factor[:, places, places] = np.sqrt(rng.chisquare(freedom, (draws, directions)))
    above, below = wide @ wide.transpose(0, 2, 1), factor @ factor.transpose(0, 2, 1)
    root = np.linalg.inv(np.linalg.cholesky(above + below))
    squares = np.linalg.eigvalsh(root @ above @ root.transpose(0, 2, 1))[:, ::-1]
    return np.asarray(np.sqrt(np.clip(squares, 0.0, 1.0)))


def _degrees(cosines: Array) -> Array:
    return np.asarray(np.degrees(np.arccos(cosines)))


def _row(place: Place, spans: Sequence[slice]) -> Rows:
    part, row = place.run.part(spans), range(len(place.run))[place.row]
    return Rows((1, part.shape[1]), part.dtype, lambda _, columns: part.read(slice(row, row + 1), columns))
