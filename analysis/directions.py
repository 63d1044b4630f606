"""Directions to look along: random ones, gradients, curvature, updates; and the planes and lines that they make."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from analysis import planes
from analysis.curvature import Location
from analysis.heads import CentreHeads, InterpolatedHeads, PlaneHeads
from analysis.operators import hessians
from analysis.product_choice import AUTO, Auto
from analysis.products import Way
from analysis.results import AVERAGE, Array, Eigenpairs, Line, Plane
from analysis.spectra import Accuracy, top_eigenpairs
from analysis.subsets import Everything, Shared, Subset
from analysis.subspaces import Frame, Place, build, require_one_layout, restricted
from landscape.errors import LandscapeError, unknown
from landscape.problem import Problem
from landscape.randomness import generator
from landscape.trajectory import Layout


def random(place: Place, seed: int = 0, subset: Subset = Everything()) -> Plane:
    """A random plane through a snapshot, filter-normalised (Li et al., arXiv 1712.09913).

    Each direction is Gaussian; every output unit's weights (index 0 of a tensor with two or more dimensions) are scaled
    to the norm that the unit has in theta; biases and norm layers (tensors with fewer dimensions) get zero. The two
    directions are nearly, not exactly, orthogonal: the Gram matrix tells, and coordinates use its inverse.

    Raises:
        LandscapeError: no tensor with two or more dimensions in the subset, or next to no weights in them.
    """
    directions = _random(place, 2, seed, subset)
    gram = directions @ directions.T
    low, high = np.linalg.eigvalsh(gram)
    if not low > 1e-12 * high:
        raise LandscapeError(
            "two filter-normalised directions do not span a plane here: expected weights other than zero in at least "
            f"two entries of one unit or in two units, the model has {place.run.layout.describe()}; use the principal "
            "plane"
        )
    recipe = f"random filter-normalised plane through {place.words}"
    axes = ("first random direction", "second random direction")
    return planes.spanned(Frame.at(place, subset), directions, recipe, axes, seed)


def random_line(place: Place, seed: int = 0, subset: Subset = Everything()) -> Line:
    """A random filter-normalised line through a snapshot: the first of the axes that `random` draws with this seed."""
    recipe = f"random filter-normalised line through {place.words}"
    directions = _random(place, 1, seed, subset)
    return build(Line, Frame.at(place, subset), directions, recipe, axes=("random direction",), seed=seed)


def between(
    first: Place, second: Place, subset: Subset = Everything(), heads: PlaneHeads = InterpolatedHeads()
) -> Line:
    """The straight line from one snapshot, at 0, to another, at 1.

    Raises:
        LandscapeError: snapshots of different models, or the same point twice.
    """
    require_one_layout([first.run, second.run])
    frame = Frame.at(first, subset, heads)
    names = (f"from {first.words} (0) to {second.words} (1)",)
    return build(Line, frame, (second.theta - frame.origin)[None], f"line {names[0]}", axes=names)


@dataclass(frozen=True)
class Search:
    """How eigenvectors are looked for: the seed of their random starts, and the way to compute products."""

    seed: int = 0
    product: Way | Auto = AUTO


def eigenvectors(
    problem: Problem,
    place: Place,
    tasks: Sequence[str] = (AVERAGE,),
    subset: Subset = Shared(),
    accuracy: Accuracy = Accuracy(),
    search: Search = Search(),
) -> Plane:
    """The plane of two leading eigenvectors of the Hessian on a subset of the parameters, orthonormal.

    One name (a task or `average`): its two largest eigenvalues' vectors. Two names: the leading one of each, the second
    made orthogonal to the first. Cost: the Hessian products of `spectra.top_eigenpairs`, at most `accuracy.products` of
    each; where they end short of the tolerance, the recipe says what was reached.

    Raises:
        LandscapeError: an unknown task, one whose Hessian on the subset is zero, or vectors that lie on one line.
    """
    operators = hessians(problem, place.theta, place.buffers, subset, product=search.product)
    for task in tasks:
        if task not in operators:
            raise unknown("task", task, operators)
    if not 1 <= len(tasks) <= 2:
        raise LandscapeError(f"expected one or two tasks for a plane of eigenvectors, got {len(tasks)}")
    count = 3 - len(tasks)
    found = [top_eigenpairs(operators[task], count, accuracy=accuracy, seed=search.seed) for task in tasks]
    short = [_short_of(task, pairs, place, subset) for task, pairs in zip(tasks, found, strict=True)]
    vectors = _orthonormal(np.concatenate([pairs.vectors for pairs in found]).astype(np.float64), "eigenvectors")
    words = [f"eigenvector {k + 1} of {t}" for t, p in zip(tasks, found, strict=True) for k in range(len(p.values))]
    recipe = f"plane of {' and '.join(words)} at {place.words}{''.join(short)}"
    frame = Frame.at(place, subset)
    return planes.spanned(frame, _embedded(frame, vectors), recipe, (words[0], words[1]))


def gradients(problem: Problem, place: Place, tasks: tuple[str, str], subset: Subset = Shared()) -> Plane:
    """The plane of two tasks' gradients at a snapshot, scaled to unit length on the subset; their angle stays as it is.

    Cost: one forward pass and two gradients of the evaluation set.
    """
    for task in tasks:
        if task not in problem.names:
            raise unknown("task", task, problem.names)
    found = np.stack([full_gradient(problem, place, problem.names.index(task)) for task in tasks])
    frame = Frame.at(place, subset)
    lengths = np.linalg.norm(restricted(found, frame.spans), axis=1)
    names = [f"gradient of {task}" for task in tasks]
    if not lengths.all():
        raise LandscapeError(
            f"the {names[int(lengths.argmin())]} at {place.words} is zero on the subset: expected one with a direction"
        )
    recipe = f"plane of the {' and the '.join(names)} at {place.words}"
    return planes.spanned(frame, found / lengths[:, None], recipe, (names[0], names[1]))


def local(
    problem: Problem,
    place: Place,
    subset: Subset = Shared(),
    accuracy: Accuracy = Accuracy(),
    search: Search = Search(),
) -> Plane:
    """The local plane of a snapshot on a subset of the parameters: the update into it, and its sharpest direction.

    x runs along theta_s - theta_(s-1), the change since the snapshot before (after it, for the first); y along the
    leading eigenvector of the averaged loss's Hessian, made orthogonal to x. Both have unit length.
    Cost: the Hessian products of one eigenpair, at most `accuracy.products`; where they end short of the tolerance, the
    recipe says what was reached.
    """
    row = range(len(place.run))[place.row]
    if len(place.run) < 2:
        raise LandscapeError(
            f"{place.run.path} has one snapshot only: expected a second one for the update's direction"
        )
    ends = (row - 1, row) if row else (0, 1)
    before, after = (Place(place.run, r) for r in ends)
    frame = Frame.at(place, subset)
    update = restricted(after.theta - before.theta, frame.spans)
    operator = hessians(problem, place.theta, place.buffers, subset, product=search.product)[AVERAGE]
    sharpest = top_eigenpairs(operator, 1, accuracy=accuracy, seed=search.seed)
    short = _short_of(AVERAGE, sharpest, place, subset)
    vectors = _orthonormal(np.stack([update, sharpest.vectors[0].astype(np.float64)]), "update and curvature")
    names = (f"update from {before.words} to {after.words}", "sharpest direction of the average")
    recipe = f"local plane of {place.words}: update and curvature{short}"
    return planes.spanned(frame, _embedded(frame, vectors), recipe, names)


def full_gradient(problem: Problem, place: Place, task: int) -> Array:
    """Gradient of one task's mean evaluation loss with respect to theta at a snapshot, [P] in float64, held against
    differences once.
    """
    here = Location(problem, place.theta, place.buffers)
    return np.asarray(here.gradient(problem.names[task], Everything()).cpu().numpy())


def _orthonormal(vectors: Array, what: str) -> Array:
    """The second of two vectors made orthogonal to the first, both of unit length."""
    lengths = np.linalg.norm(vectors, axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise LandscapeError(f"the plane of {what} needs two directions, got the lengths {lengths.tolist()}")
    first, second = vectors / lengths[:, None]
    cosine = float(first @ second)
    if abs(cosine) > 1 - 1e-10:
        raise LandscapeError(
            f"the two directions of the plane of {what} lie on one line: expected two that span a plane, got the "
            f"cosine {cosine:.12g}; choose others"
        )
    rest = second - cosine * first
    return np.stack([first, rest / np.linalg.norm(rest)])


def _short_of(task: str, pairs: Eigenpairs, place: Place, subset: Subset) -> str:
    """For the recipe, what a search that ended short of its tolerance has reached; nothing of one that met it.

    Any vector is an eigenvector of zero, so that a search there ends in its start, which says nothing: refused.
    """
    if not pairs.values.all():
        raise LandscapeError(
            f"the Hessian of {task} at {place.words} has no curvature in some direction asked for, on the parameters: "
            f"{subset.label}: expected {len(pairs.values)} eigenvalues other than zero; choose another task or subset"
        )
    return "" if pairs.converged.all() else f", not converged ({task}: {pairs.outcome})"


def _embedded(frame: Frame, vectors: Array) -> Array:
    """Vectors on a frame's subset as directions of theta, zero elsewhere."""
    full = np.zeros((len(vectors), frame.layout.size))
    full[:, np.r_[frame.spans]] = vectors
    return full


def _random(place: Place, count: int, seed: int, subset: Subset) -> Array:
    layout, origin = place.run.layout, place.theta
    if not np.isfinite(origin).all():
        raise LandscapeError(
            f"{place.words} is not finite: expected finite parameters at the centre; choose another one"
        )
    rng, spans = generator(seed, "plane"), subset.spans(place.run.layout)
    drawn = np.stack([_filter_normalised(layout, origin, rng.standard_normal(layout.size)) for _ in range(count)])
    drawn = CentreHeads().follow(drawn, spans)
    if not any(len(slot.shape) > 1 and any(s.start <= slot.offset < s.stop for s in spans) for slot in layout.slots):
        raise LandscapeError(
            "a filter-normalised direction would be zero: expected at least one tensor with two or more dimensions, "
            f"the model has {layout.describe()}; use the principal plane"
        )
    return drawn


def _filter_normalised(layout: Layout, origin: Array, draw: Array) -> Array:
    for slot in layout.slots:
        if len(slot.shape) < 2:
            draw[slot.span] = 0.0
            continue
        units, theta = draw[slot.span].reshape(slot.shape[0], -1), origin[slot.span].reshape(slot.shape[0], -1)
        draw[slot.span] = (units * (np.linalg.norm(theta, axis=1) / np.linalg.norm(units, axis=1))[:, None]).ravel()
    return draw
