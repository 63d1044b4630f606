"""Whose results a file holds: of one problem and one evaluation set, and under each name of one run or one set of runs.

A name never decides identity: runs are told apart by the hashes of their content, problems by those of their data,
layout and frozen parameters. Numpy-free, and without the rest of the toolkit: `analysis.archive` stands on it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePath
from typing import Any, Protocol, TypeAlias

Runs: TypeAlias = Mapping[str, Sequence[Any]]
"""For every run by name the hash of its content, and how many snapshots that was of."""

PROBLEM = ("problem", "settings", "tasks", "layout", "frozen", "data")
"""What states a problem, in the order in which differences are told."""
_WORDS = {"layout": "layout of the parameters", "frozen": "frozen parameters", "data": "evaluation data"}
_RUN = re.compile(r"-\d+$")
"""How the names of runs end; those of other inputs do not."""


class Made(Protocol):
    """What is asked of a provenance."""

    @property
    def inputs(self) -> Mapping[str, str]: ...
    @property
    def settings(self) -> Mapping[str, Any]: ...
    @property
    def runs(self) -> Runs: ...
    @property
    def by_study(self) -> bool: ...


def runs_of(made: Made) -> dict[str, tuple[str, int]]:
    """The runs that a result was made from; of files of earlier versions those among its inputs, without counts."""
    if made.runs:
        return {name: (str(stated[0]), int(stated[1])) for name, stated in made.runs.items()}
    return {name: (digest, 0) for name, digest in made.inputs.items() if _RUN.search(name)}


def difference(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    """The first thing in which two problems differ, with both values, in words; nothing where they are one.

    What one of them does not state makes no difference. Of a user's own file only its name counts, not its folder.
    """
    for key in PROBLEM:
        if key not in mine or key not in theirs:
            continue
        one, other = (_plain(key, value) for value in (mine[key], theirs[key]))
        if one != other:
            return f"{_WORDS.get(key, key)} {_short(other)}, not {_short(one)}"
    return ""


def _plain(key: str, value: Any) -> Any:
    if key != "problem":
        return json.loads(json.dumps(value))
    place, colon, function = str(value).rpartition(":")
    return f"{PurePath(place).name}{colon}{function}" if place.endswith(".py") else str(value)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(names: Iterable[str]) -> str:
    """Some names for a message, the first of many."""
    found = list(names)
    return ", ".join(found) if len(found) <= 6 else f"{', '.join(found[:4])}, ... {found[-1]} ({len(found)} runs)"


def may_replace(new: Made, old: Made) -> bool:
    """Whether a result may take the place of another of its name: one of the same runs and title, or of these and
    more; a study's may take that of the same study's before its runs were others.
    """
    mine, theirs = runs_of(new), runs_of(old)
    titles = [made.settings.get("title") for made in (new, old)]
    if None not in titles and titles[0] != titles[1]:
        return False
    grown = all(mine[n][0] == theirs[n][0] or mine[n][1] > theirs[n][1] for n in theirs if n in mine and mine[n][1])
    among = not old.runs and mine.keys() <= theirs.keys()  # earlier versions named more runs than they used
    own = new.by_study and may_be_of_a_study(old)
    return grown and (theirs.keys() <= mine.keys() or not mine or among or own)


def may_be_of_a_study(made: Made) -> bool:
    """Whether a study made a result; files of earlier versions do not say."""
    return made.by_study or not made.runs
