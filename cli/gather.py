"""From a results file to what the report and the figures are made of. Works without torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TypeVar

import figures
from analysis import archive
from analysis.archive import Entry
from analysis.results import (
    BUDGETS,
    Alternation,
    Barriers,
    BesideWalk,
    Comparison,
    ConflictMap,
    Contrast,
    Density,
    Displacements,
    DistanceMatrix,
    EigenvalueHistory,
    EigenvalueTracks,
    Exploration,
    Faithfulness,
    Feet,
    FunctionDistances,
    Interpolation,
    Movement,
    PathLosses,
    PlaneStability,
    PointDistances,
    Profile,
    ProfileEnsemble,
    RateSearch,
    Record,
    Separation,
    Shadow,
    Sharpness,
    SpectrumSummary,
    Surface,
    SurfaceEnsemble,
    SurfaceShape,
    TaskAgreement,
    Traces,
    Training,
    WalkNull,
)
from cli.console import duration
from figures.marks import Scene
from figures.moves import move_scenes, together
from figures.report import Connection, Contents, Curvature, Trust

Kind = TypeVar("Kind", bound=Record)
STAGES = {
    **dict.fromkeys(("training", "comparison", "distances"), "exploration"),
    **dict.fromkeys(("displacements", "walks", "beside-walks"), "movement"),
}
"""Kinds of results that one stage makes together."""
MEASURES = ("net", "path_steps", "path_updates", "ratio")


def contents(results: Path) -> Contents:
    """Everything in a results file, and the settings that stand beside it, for a report.

    Runs stand in the order in which they were analysed; the plane of fewer runs comes first.
    """
    entries = _in_order(archive.load_all(results))
    if not entries:
        raise archive.ArchiveError(f"{results} holds no results yet: expected at least one; run an analysis first")
    surfaces = [(group, s) for group, s in _surfaces(entries) if not _is_variant(entries, group)]
    beside = results.with_name("study.toml")
    return Contents(
        title=f"Landscape study of {_problem(entries)}",
        settings=beside.read_text(encoding="utf-8") if beside.exists() else "",
        searches=_all(entries, RateSearch),
        trainings=_all(entries, Training),
        surfaces=tuple((surface, _shadows(entries, group)) for group, surface in surfaces),
        interpolations=_with_shadows(entries, Interpolation),
        changed=_changed(entries),
        ensembles=(*_all(entries, SurfaceEnsemble), *_all(entries, ProfileEnsemble)),
        profiles=tuple(_profiles(entries).values()),
        trust=_trusts(entries),
        conflicts=_with_shadows(entries, ConflictMap),
        eigenvalues=tuple(
            e.record
            for g, e in entries.items()
            if isinstance(e.record, EigenvalueHistory) and g.startswith("eigenvalues/")
        ),
        curvatures=_curvatures(entries),
        alternations=_all(entries, Alternation),
        explorations=_all(entries, Exploration),
        moves=together(_all(entries, Movement), _all(entries, Displacements), _all(entries, WalkNull)),
        distances=_all(entries, DistanceMatrix),
        connections=_connections(entries),
        separations=_all(entries, Separation),
        comparisons=_all(entries, Comparison),
        contrasts=_all(entries, Contrast),
        walks=_all(entries, BesideWalk),
        checks=tuple(check for entry in entries.values() for check in entry.checks),
        provenance=_provenance(entries),
        timings=_timings(entries),
    )


class _Drawn:
    """Figures by file name; where a name is taken, in whatever capitals, the later figure's has a number."""

    def __init__(self) -> None:
        self.scenes: dict[str, Scene] = {}
        self._taken: set[str] = set()

    def add(self, name: str, scene: Scene) -> None:
        numbered = (name[:LONGEST] if number == 1 else f"{name[:LONGEST]}-{number}" for number in count(1))
        free = next(one for one in numbered if one.casefold() not in self._taken)
        self._taken.add(free.casefold())
        self.scenes[free] = scene

    def add_all(self, scenes: Mapping[str, Scene]) -> None:
        for name, scene in scenes.items():
            self.add(name, scene)


LONGEST = 200
"""Characters of a figure's name, so that its suffix has room in the 255 bytes of a file's name."""


def drawings(results: Path) -> dict[str, Scene]:
    """Every figure that a results file allows, by file name."""
    entries = _in_order(archive.load_all(results))
    found = contents(results)
    first = figures.report.order(found)
    drawn = _Drawn()
    for group, entry in entries.items():
        name = archive.safe_name(group.replace("/", "-"))
        drawn.add_all(_of_a_plane(entry.record, name, _shadows(entries, group), first))
    for trust in found.trust:
        if trust.feet:
            drawn.add(f"gap-{trust.title}", figures.scenes.gap(trust.feet, first))
        if trust.faithfulness is not None:
            drawn.add(f"shares-{trust.title}", figures.scenes.shares(trust.faithfulness, trust.stability))
    for title, group_of_profiles in _profiles(entries).items():
        drawn.add(f"line-{title}", figures.scenes.profile(group_of_profiles))
    for number, (one, other) in enumerate(found.changed, start=1):
        drawn.add(f"conditions-{number}", figures.scenes.difference(one, other))
    if found.eigenvalues:
        drawn.add("eigenvalues", figures.scenes.eigenvalues(found.eigenvalues, order=first))
    for about in found.curvatures:
        for what, scene in figures.report.curvature_scenes(about).items():
            drawn.add(f"{what}-{about.title}", scene)
    if found.alternations:
        drawn.add_all(_alternations(found.alternations, first))
    for measure in MEASURES if found.explorations and not found.moves else ():
        scene = figures.scenes.exploration(found.explorations, measure, first)
        drawn.add(f"exploration-{measure.replace('_', '-')}", scene)
    for moves in found.moves:
        part = archive.safe_name(f"{moves.movements[0].subset}-{moves.movements[0].form}")
        for name, scene in move_scenes(moves, first).items():
            drawn.add(f"movement-{name.replace('_', '-')}-{part}", scene)
    for number, matrix in enumerate(found.distances):
        drawn.add("distances" if not number else f"distances-{number + 1}", figures.scenes.distance_matrix(matrix))
    for name, scene in _of_connections(found):
        drawn.add(name, scene)
    if found.trainings:
        drawn.add("training", figures.scenes.training(found.trainings, first))
    if found.searches:
        drawn.add("learning-rates", figures.scenes.rate_search(found.searches, first))
    for alike in figures.report.by_form(found.contrasts):
        name = archive.safe_name(f"contrasts-{alike[0].subset}-{alike[0].form}")
        drawn.add(name, figures.scenes.contrasts(alike, first))
    if found.comparisons and not found.contrasts:
        drawn.add("comparisons", figures.scenes.comparisons(found.comparisons, first))
    return drawn.scenes


def _curvatures(entries: Mapping[str, Entry]) -> tuple[Curvature, ...]:
    """What is known of every matrix along every run: groups are called `WHAT-MATRIX-SUBSET/RUN`."""
    found: dict[tuple[str, str], Curvature] = {}
    for group, entry in entries.items():
        head, _, tail = group.partition("/")
        what, _, suffix = head.partition("-")
        record, run = entry.record, tail.partition("/")[0]
        layer = isinstance(record, EigenvalueTracks) and record.subset.startswith("layer ")
        of = suffix.partition("layer-")[0].rstrip("-") if layer else suffix
        one = found.get((run, of), Curvature(f"{run}-{of}" if of else run))
        match record:
            case EigenvalueTracks() if layer:
                one = replace(one, layers=(*one.layers, (record.subset.removeprefix("layer "), record)))
            case EigenvalueTracks() if what == "eigenvalues":
                one = replace(one, tracks=record)
            case Density():
                one = replace(one, densities=(*one.densities, (record,)))
            case SpectrumSummary():
                one = replace(one, spectrum=record)
            case Traces():
                one = replace(one, traces=record)
            case TaskAgreement():
                one = replace(one, agreement=record)
            case Sharpness():
                one = replace(one, sharpness=record)
            case _:
                continue
        found[run, of] = one
    return tuple(replace(one, densities=_by_step(one)) for one in found.values())


def _by_step(one: Curvature) -> tuple[tuple[Density, ...], ...]:
    """Densities of one snapshot together, in the order of snapshots and operators."""
    names = () if one.spectrum is None else one.spectrum.operators
    every = sorted((d for group in one.densities for d in group), key=lambda d: (d.step, _index(names, d.operator)))
    steps = dict.fromkeys(d.step for d in every)
    return tuple(tuple(d for d in every if d.step == step) for step in steps)


def _alternations(records: tuple[Alternation, ...], first: Sequence[str]) -> dict[str, Scene]:
    drawn = figures.scenes
    each = {f"curvature-tensor-{archive.distinct_name(r.run.name)}": drawn.curvature_tensor(r) for r in records}
    return {
        "alternation": drawn.alternation(records, first),
        "alternation-prediction": drawn.prediction_and_measurement(records, first),
        "alternation-remainder": drawn.alternation_remainder(records, first),
        "agreement-growth": drawn.agreement_growth(records, first),
        **each,
    }


def _of_a_plane(record: Record, name: str, shadows: tuple[Shadow, ...], first: Sequence[str]) -> dict[str, Scene]:
    """The figures of one group that lies on a plane, by file name."""
    drawn = figures.scenes
    match record:
        case Surface():
            told_apart = {} if drawn.in_bfloat16(record) else {f"{name}-significant": drawn.significant}
            every = {name: drawn.surface, f"{name}-3d": drawn.surface_relief, **told_apart}
            return {title: draw(record, shadows, first) for title, draw in every.items()}
        case Interpolation():
            return {name: drawn.interpolation(record, shadows, first)}
        case ConflictMap():
            return {name: drawn.conflict_map(record, shadows, first)}
        case SurfaceEnsemble():
            return {name: drawn.surface_ensemble(record)}
        case ProfileEnsemble():
            return {name: drawn.profile_ensemble(record)}
    return {}


def _of_connections(found: Contents) -> Iterator[tuple[str, Scene]]:
    """The figures of what lies between points, with file names."""
    for one in found.connections:
        for record in one.barriers:
            words = figures.scenes.connections.matrix_title(record).replace(", ", "-").replace(" ", "-")
            yield f"barriers-{one.title}-{archive.safe_name(words)}", figures.scenes.barriers(record, one.barriers)
        for number, group in enumerate(one.paths, start=1):
            yield f"paths-{one.title}" + (f"-{number}" if number > 1 else ""), figures.scenes.paths(group)
        if one.functions is not None:
            yield f"disagreement-{one.title}", figures.scenes.disagreement(one.functions)
        if one.points is not None:
            yield f"points-{one.title}", figures.scenes.point_distances(one.points)
    if found.separations:
        yield "separation", figures.scenes.separation(found.separations)


def _connections(entries: Mapping[str, Entry]) -> tuple[Connection, ...]:
    """What lies between points, by the title that it was measured under; straight lines first."""
    kinds = (Barriers, PathLosses, FunctionDistances, PointDistances)
    found: dict[str, list[Record]] = {}
    for group, entry in entries.items():
        if isinstance(entry.record, kinds):
            found.setdefault(_title(entries, group), []).append(entry.record)

    def one(title: str, records: Sequence[Record]) -> Connection:
        paths = [record for record in records if isinstance(record, PathLosses) and record.done.any()]
        paths = sorted(paths, key=lambda path: (path.path != "straight line", path.alignment != "none"))
        norms = list(dict.fromkeys(path.batch_norm for path in paths))
        barriers = [record for record in records if isinstance(record, Barriers)]
        return Connection(
            title,
            tuple(sorted(barriers, key=lambda b: (b.path != "straight line", b.alignment != "none"))),
            tuple(tuple(path for path in paths if path.batch_norm == norm) for norm in norms),
            next((record for record in records if isinstance(record, FunctionDistances)), None),
            next((record for record in records if isinstance(record, PointDistances)), None),
        )

    return tuple(one(title, records) for title, records in found.items())


def _titles(entries: Mapping[str, Entry]) -> list[str]:
    """The planes that something is known of, those of fewer runs first."""
    kinds = (Surface, Interpolation)
    groups = [group for group, entry in entries.items() if isinstance(entry.record, kinds)]
    groups = sorted(groups, key=lambda group: (len(_shadows(entries, group)), group))
    return list(dict.fromkeys(_title(entries, group) for group in groups))


def _title(entries: Mapping[str, Entry], group: str) -> str:
    """The name of the plane or line that a group belongs to."""
    return str(entries[group].provenance.settings.get("title") or group.split("/")[1])


def _names_on(entries: Mapping[str, Entry], title: str) -> list[str]:
    """What surfaces on one plane are called, under evaluation examples and frozen statistics first."""
    kinds = (Surface, Interpolation)
    names = {g.split("/")[1] for g, e in entries.items() if isinstance(e.record, kinds) and _title(entries, g) == title}
    return sorted(names, key=lambda name: (name != title, name))


def _trusts(entries: Mapping[str, Entry]) -> tuple[Trust, ...]:
    """How far the surfaces on every plane can be trusted, those under other conditions after the first."""
    found: list[Trust] = []
    for title in _titles(entries):
        first, *others = [_trust(entries, title, name) for name in _names_on(entries, title)]
        rest = [replace(one, faithfulness=None, stability=None) for one in others if one.feet or one.shape is not None]
        found += [first, *rest]
    return tuple(found)


def _trust(entries: Mapping[str, Entry], title: str, name: str) -> Trust:
    def one(kind: str, of: type[Kind]) -> Kind | None:
        entry = entries.get(kind)
        return entry.record if entry is not None and isinstance(entry.record, of) else None

    feet = [e.record for g, e in entries.items() if g.startswith(f"feet/{name}/") and isinstance(e.record, Feet)]
    known = one(f"faithfulness/{title}", Faithfulness), one(f"stability/{title}", PlaneStability)
    return Trust(name, *known, tuple(feet), one(f"shape/{name}", SurfaceShape))


def _with_shadows(entries: Mapping[str, Entry], kind: type[Kind]) -> tuple[tuple[Kind, tuple[Shadow, ...]], ...]:
    found = [(e.record, _shadows(entries, g)) for g, e in entries.items() if isinstance(e.record, kind)]
    return tuple(sorted(found, key=lambda pair: len(pair[1])))


def _is_variant(entries: Mapping[str, Entry], group: str) -> bool:
    """Whether a surface is of other data or statistics than the first one on its plane."""
    return group != _first_surface(entries, _title(entries, group))


def _first_surface(entries: Mapping[str, Entry], title: str) -> str:
    """The group of the first surface on a plane, under evaluation examples and frozen statistics where there is one."""
    groups = [f"surface/{name}" for name in _names_on(entries, title)]
    return next((group for group in groups if group in entries), f"surface/{title}")


def _changed(entries: Mapping[str, Entry]) -> tuple[tuple[Surface, Surface], ...]:
    """Surfaces under other conditions, each beside the first one on its plane."""
    pairs = []
    for group, surface in _surfaces(entries):
        first = entries.get(_first_surface(entries, _title(entries, group)))
        if _is_variant(entries, group) and first is not None and isinstance(first.record, Surface):
            pairs.append((first.record, surface))
    return tuple(pairs)


def _profiles(entries: Mapping[str, Entry]) -> dict[str, tuple[Profile, ...]]:
    """Profiles by the line that they lie on."""
    found: dict[str, tuple[Profile, ...]] = {}
    for group, entry in entries.items():
        if isinstance(entry.record, Profile):
            title = _title(entries, group)
            found[title] = (*found.get(title, ()), entry.record)
    return found


def _all(entries: Mapping[str, Entry], kind: type[Kind]) -> tuple[Kind, ...]:
    return tuple(entry.record for entry in entries.values() if isinstance(entry.record, kind))


def _in_order(entries: Mapping[str, Entry]) -> dict[str, Entry]:
    """Entries by group, those of a run or of a strategy in the order in which the runs were analysed."""
    runs = [name for matrix in _all(entries, DistanceMatrix) for name in matrix.labels]
    names = [archive.distinct_name(name) for name in runs]
    labels = list(dict.fromkeys(name.rsplit("-", 1)[0] for name in runs))
    titles = [archive.distinct_name(label) for label in labels]

    def place(item: tuple[str, Entry]) -> tuple[str, int, tuple[int, int, int]]:
        group, entry = item
        head, tail = group.split("/")[0], group.split("/")[-1]
        record = entry.record
        if isinstance(record, Contrast):
            return head, 0, (_index(labels, record.strategy), 0, 0)
        if isinstance(record, Comparison):
            return (
                head,
                0,
                (_index(labels, record.strategy), _index(MEASURES, record.measure), _index(BUDGETS, record.budget)),
            )
        return head, _index(names, tail), (_index(titles, tail), 0, 0)

    return dict(sorted(entries.items(), key=place))


def _index(items: Sequence[str], item: str) -> int:
    return items.index(item) if item in items else len(items)


def _surfaces(entries: Mapping[str, Entry]) -> list[tuple[str, Surface]]:
    found = [(group, entry.record) for group, entry in entries.items() if isinstance(entry.record, Surface)]
    return sorted(found, key=lambda item: (len(_shadows(entries, item[0])), item[0]))


def _shadows(entries: Mapping[str, Entry], group: str) -> tuple[Shadow, ...]:
    """The shadows on the plane that a group belongs to."""
    prefix = f"shadow/{_title(entries, group)}/" if "/" in group else "shadow//"
    return tuple(e.record for group, e in entries.items() if group.startswith(prefix) and isinstance(e.record, Shadow))


def _problem(entries: Mapping[str, Entry]) -> str:
    names = [entry.provenance.settings.get("problem", "") for entry in entries.values()]
    return next((str(name) for name in names if name), "a problem")


def _provenance(entries: Mapping[str, Entry]) -> tuple[tuple[str, str], ...]:
    latest = max((entry.provenance for entry in entries.values()), key=lambda made: made.created)
    runs = {record.run.name: record.run for record in _all(entries, Training)}
    strategies = {run.label: run.strategy for run in runs.values()}
    surfaces = _surfaces(entries)
    rows = [
        ("problem", _problem(entries)),
        ("problem settings", str(latest.settings.get("problem_settings") or "defaults")),
    ]
    rows += [(f"strategy {label}", text) for label, text in strategies.items()]
    for group, surface in surfaces:
        rows += [(group, f"{surface.plane.recipe}; {surface.examples} examples, content hash {surface.data}")]
        rows += [(f"{group}, normalisation statistics", surface.batch_norm)]
    rows += [("device", latest.device), ("last result", latest.created)]
    return (*rows, *((name, version) for name, version in latest.versions.items()))


def _timings(entries: Mapping[str, Entry]) -> tuple[tuple[str, str], ...]:
    longest: dict[str, float] = {}
    for group, entry in entries.items():
        stage = STAGES.get(group.split("/")[0], group.split("/")[0])
        longest[stage] = max(longest.get(stage, 0.0), entry.provenance.seconds)
    trained = sum(float(record.seconds[-1]) for record in _all(entries, Training))
    return (("training, all runs added", duration(trained)), *((stage, duration(s)) for stage, s in longest.items()))
