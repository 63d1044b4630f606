"""Under which conditions losses over a plane or a line were measured, in the words of captions."""

from __future__ import annotations

from collections.abc import Iterable

from analysis.results import Feet, Profile, Surface
from figures.scenes.words import listed, sentences


def conditions(found: Surface | Profile) -> str:
    """Sentences on heads, statistics and arithmetic, each only where there is something to say."""
    space = found.plane if isinstance(found, Surface) else found.line
    outside = "as at the centre" if space.heads == "centre" else space.heads
    if found.heads != "as the plane's":
        outside += f", and of them heads {found.heads}"
    elsewhere = space.subset != "all" or found.heads != "as the plane's"
    return sentences(
        f"Parameters outside the subset: {outside}." if elsewhere else "",
        f"Normalisation statistics {_statistics(found.batch_norm)}." if found.batch_norm != "none" else "",
        "Computed in bfloat16, whose rounding standard errors leave out." if in_bfloat16(found) else "",
    )


def in_bfloat16(found: Surface | Profile) -> bool:
    """Whether losses were computed in bfloat16."""
    return "Bfloat16(" in found.engine


def causes(subsets: Iterable[str], statistics: Iterable[str], heads: Iterable[str], *more: str) -> str:
    """What a point of a plane may have otherwise than the snapshot above it: `the distance off the plane and ...`."""
    parts = ["the distance off the plane"]
    parts += [f"parameters outside the plane's subset ({one})" for one in dict.fromkeys(subsets) if one != "all"]
    parts += [f"normalisation statistics {_statistics(one)}" for one in dict.fromkeys(statistics) if one != "none"]
    parts += [f"heads {one}" for one in dict.fromkeys(heads) if one != "as the plane's"]
    return listed([*parts, *more])


def causes_of_gaps(feet: Iterable[Feet]) -> str:
    """What some feet have otherwise than their snapshots."""
    feet = list(feet)
    return causes((one.subset for one in feet), (one.batch_norm for one in feet), (one.heads for one in feet))


def causes_of_relief(surface: Surface) -> str:
    """What a surface has otherwise than the losses that a trajectory recorded."""
    other = [f"other examples ({surface.split} ones)"] if surface.split != "evaluation" else []
    rounded = ["bfloat16"] if in_bfloat16(surface) else []
    return causes([surface.plane.subset], [surface.batch_norm], [surface.heads], *other, *rounded)


def _statistics(policy: str) -> str:
    return "of the plane's origin" if policy == "frozen" else policy
