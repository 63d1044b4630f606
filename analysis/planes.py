"""Planes in parameter space, and the shadows that trajectories throw on them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from analysis.gram import centred_gram, column_blocks
from analysis.results import Array, Plane, Run, Shadow
from landscape.errors import LandscapeError
from landscape.randomness import generator
from landscape.trajectory import Layout, Trajectory


def principal(trajectories: Sequence[Trajectory]) -> Plane:
    """The plane of largest variance of several trajectories together, each run weighted equally however many snapshots.

    With weights w_i = 1 / (R S_r) for the snapshots of run r of R, centre c = sum_i w_i theta_i and K_ij =
    sqrt(w_i w_j) (theta_i - c)' (theta_j - c) (float64), axis k is sum_i u_ik sqrt(w_i) (theta_i - c) /
    sqrt(lambda_k) for the two largest eigenpairs (lambda_k, u_k) of K. The axes are orthonormal, so coordinates are
    distances in parameter space; lambda_k / trace K is the share of variance explained. Buffers are averaged with the
    same weights.

    A large share says little by itself: the first axis of a plain random walk explains 61 % (Antognini and
    Sohl-Dickstein, arXiv 1806.08805).

    Cost: two passes over the files; memory of S x S and S x 2^18 doubles.

    Raises:
        LandscapeError: trajectories of different layouts, or whose snapshots do not span two dimensions.
    """
    _require_one_layout(trajectories)
    weights = np.concatenate([np.full(len(t), 1 / (len(trajectories) * len(t))) for t in trajectories])
    gram, centre = centred_gram([t.theta for t in trajectories], weights)
    root = np.sqrt(weights)
    values, vectors = np.linalg.eigh(gram * np.outer(root, root))
    values, vectors = values[::-1], vectors[:, ::-1]
    if len(values) < 2 or not values[1] > _variance_of_rounding(trajectories, values, centre):
        raise LandscapeError(
            f"the {len(weights)} snapshots lie on one line to rounding: expected at least three that span a plane; "
            "record more of them"
        )
    leading = vectors[:, :2] * np.sign(vectors[np.abs(vectors[:, :2]).argmax(0), [0, 1]])
    mixing = (leading * root[:, None] / np.sqrt(values[:2])).T
    basis = np.zeros((2, centre.size))
    for columns, block in column_blocks([t.theta for t in trajectories]):
        basis[:, columns] = mixing @ (block - centre[columns])
    buffers = sum(t.buffers[:].mean(0) for t in trajectories) / len(trajectories)
    return Plane(
        origin=centre,
        basis=basis,
        gram=basis @ basis.T,
        buffers=np.asarray(buffers),
        explained=values[:2] / values.sum(),
        recipe=(
            f"principal plane of {len(trajectories)} runs ({len(weights)} snapshots), runs weighted equally, "
            "centred on their mean"
        ),
        axes=("first principal axis", "second principal axis"),
        seed=-1,
        layout=trajectories[0].layout.hash,
    )


def _variance_of_rounding(trajectories: Sequence[Trajectory], values: Array, centre: Array) -> float:
    """What rounding alone can give an axis: half a unit in the last place of every stored entry, sum_i w_i
    ||theta_i||^2 (eps / 2)^2 = (||c||^2 + trace K) (eps / 2)^2; and the rounding of the eigenvalues themselves.
    """
    half = max(float(np.finfo(t.theta.dtype).eps) for t in trajectories) / 2
    return float(max(half**2 * (centre @ centre + values.sum()), 1e-14 * values[0]))


def random(trajectory: Trajectory, row: int = -1, seed: int = 0) -> Plane:
    """A random plane through one snapshot, filter-normalised (Li et al., arXiv 1712.09913).

    Each direction is Gaussian; every output unit's weights (index 0 of a tensor with two or more dimensions) are scaled
    to the norm that the unit has in theta; biases and norm layers (tensors with fewer dimensions) get zero. The two
    directions are nearly, not exactly, orthogonal: the Gram matrix tells, and coordinates use its inverse.

    Raises:
        LandscapeError: no tensor with two or more dimensions, or next to no weights in them.
    """
    layout, origin = trajectory.layout, np.asarray(trajectory.theta[row], np.float64)
    if all(len(slot.shape) < 2 for slot in layout.slots):
        raise LandscapeError(
            "a filter-normalised direction would be zero: expected at least one tensor with two or more dimensions, "
            f"the model has {layout.describe()}; use the principal plane"
        )
    rng = generator(seed, "plane")
    basis = np.stack([_filter_normalised(layout, origin, rng.standard_normal(layout.size)) for _ in range(2)])
    gram = basis @ basis.T
    low, high = np.linalg.eigvalsh(gram)
    if not low > 1e-12 * high:
        raise LandscapeError(
            "two filter-normalised directions do not span a plane here: expected weights other than zero in at least "
            f"two entries of one unit or in two units, the model has {layout.describe()}; use the principal plane"
        )
    return Plane(
        origin=origin,
        basis=basis,
        gram=gram,
        buffers=np.asarray(trajectory.buffers[row]),
        explained=np.full(2, np.nan),
        recipe=f"random filter-normalised plane through step {trajectory.steps[row]} of {trajectory.name}",
        axes=("first random direction", "second random direction"),
        seed=seed,
        layout=layout.hash,
    )


def _filter_normalised(layout: Layout, origin: Array, draw: Array) -> Array:
    for slot in layout.slots:
        if len(slot.shape) < 2:
            draw[slot.span] = 0.0
            continue
        units, theta = draw[slot.span].reshape(slot.shape[0], -1), origin[slot.span].reshape(slot.shape[0], -1)
        draw[slot.span] = (units * (np.linalg.norm(theta, axis=1) / np.linalg.norm(units, axis=1))[:, None]).ravel()
    return draw


def shadow(trajectory: Trajectory, plane: Plane) -> Shadow:
    """A trajectory's least-squares coordinates in a plane, and how far off the plane each snapshot lies.

    [x, y] = gram^-1 basis (theta - origin); off_plane = ||theta - origin - x basis[0] - y basis[1]||, from the residual
    itself, in float64. Cost: one pass over the file, in blocks of bounded memory.

    Raises:
        LandscapeError: a plane of another model, or one whose two directions lie on one line.
    """
    require_layout(plane, trajectory.layout)
    inverse = _inverse(plane.gram)
    coordinates, off, away = [], [], []
    for block in trajectory.theta.blocks():
        moved = np.asarray(block, np.float64) - plane.origin
        coordinates.append(moved @ plane.basis.T @ inverse)
        off.append(np.linalg.norm(moved - coordinates[-1] @ plane.basis, axis=1))
        away.append(np.linalg.norm(moved, axis=1))
    return Shadow(
        run=run_of(trajectory),
        steps=trajectory.steps,
        coordinates=np.concatenate(coordinates),
        off_plane=np.concatenate(off),
        from_origin=np.concatenate(away),
        losses=trajectory.losses,
        tasks=trajectory.tasks,
    )


def _inverse(gram: Array) -> Array:
    lengths = np.sqrt(np.diag(gram))
    if not (lengths.all() and abs(gram[0, 1]) < (1 - 1e-13) * lengths.prod()):
        raise LandscapeError(
            f"the plane's directions lie on one line: expected two that span a plane, got the Gram matrix "
            f"{gram.tolist()}"
        )
    scaled = gram / np.outer(lengths, lengths)
    return np.asarray(np.linalg.inv(scaled) / np.outer(lengths, lengths))


def run_of(trajectory: Trajectory) -> Run:
    """The label that results carry for a trajectory."""
    who = trajectory.provenance
    return Run(who.label, who.strategy, who.seed)


def point(plane: Plane, x: float, y: float, dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    """Theta at plane coordinates (x, y), computed in float64 and rounded once."""
    theta = plane.origin + x * plane.basis[0] + y * plane.basis[1]
    return torch.from_numpy(theta).to(device, dtype)


def require_layout(plane: Plane, layout: Layout) -> None:
    """Raises unless the plane was made for this layout."""
    if plane.layout != layout.hash:
        raise LandscapeError(
            f"the plane belongs to another model: expected layout {layout.hash} ({layout.describe()}), got "
            f"{plane.layout} "
            f"with {plane.origin.size} entries"
        )


def _require_one_layout(trajectories: Sequence[Trajectory]) -> None:
    if not trajectories:
        raise LandscapeError("expected at least one trajectory, got none")
    for other in trajectories[1:]:
        trajectories[0].layout.require(other.layout, str(other.path))
