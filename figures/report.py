"""A whole study as one page that works offline: what was compared, what came out, every figure and every number."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from analysis.results import (
    FEWEST_SEEDS,
    Alternation,
    Barriers,
    BesideWalk,
    Check,
    Comparison,
    ConflictMap,
    Contrast,
    Density,
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
    Run,
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
)
from figures import files, page, scenes, tables
from figures.alternation_tables import alternation_table, verdict_words
from figures.connectivity_tables import barrier_table, disagreement_table, distance_table, separation_table
from figures.curvature_tables import agreement_table, shares_table, sharpness_table, tracks_table
from figures.density_tables import spectrum_table, traces_table
from figures.exploration_tables import verdict_table, walk_counts, walk_table, words_table
from figures.faithfulness_tables import faithfulness_table, stability_table
from figures.marks import Scene
from figures.moves import Moves, move_scenes
from figures.scenes.explorations import MEASURES
from figures.scenes.words import count, listed, seeds_of
from figures.shape_tables import shape_table
from figures.tables import Table

LARGER, FEW = ("wider", "longer"), "too few seeds"
CLAIMS = {
    "net": ("explores more widely", "explore more widely"),
    "path_steps": ("covers a longer path over steps", "cover a longer path over steps"),
    "path_updates": ("covers a longer path over updates", "cover a longer path over updates"),
    "ratio": ("takes a more winding path", "take a more winding path"),
}
"""What a strategy does, and what it does not do, where its measure is larger than the baseline's."""


@dataclass(frozen=True)
class Trust:
    """How far the surface on one plane can be trusted; `title` is the plane's name."""

    title: str
    faithfulness: Faithfulness | None = None
    stability: PlaneStability | None = None
    feet: tuple[Feet, ...] = ()
    shape: SurfaceShape | None = None


@dataclass(frozen=True)
class Connection:
    """What lies between some points; `paths` of one choice of statistics are drawn over each other."""

    title: str
    barriers: tuple[Barriers, ...] = ()
    paths: tuple[tuple[PathLosses, ...], ...] = ()
    functions: FunctionDistances | None = None
    points: PointDistances | None = None


@dataclass(frozen=True)
class Curvature:
    """What is known of one matrix on some parameters along one run; `densities` of one snapshot stand together, and
    `layers` are the blocks of single layers by name.
    """

    title: str
    tracks: EigenvalueTracks | None = None
    layers: tuple[tuple[str, EigenvalueTracks], ...] = ()
    densities: tuple[tuple[Density, ...], ...] = ()
    spectrum: SpectrumSummary | None = None
    traces: Traces | None = None
    agreement: TaskAgreement | None = None
    sharpness: Sharpness | None = None


@dataclass(frozen=True)
class Contents:
    """What a report is made from; whatever is missing is left out of the page.

    Surfaces, conflict maps and interpolations come with the shadows that lie on them; the first surface is also drawn
    in relief. `changed` holds pairs of surfaces of one plane under other conditions. `summary` holds sentences of
    the study's own, `settings` the text of its settings file, `provenance` and `timings` rows of a name and a value.
    """

    title: str
    summary: tuple[str, ...] = ()
    settings: str = ""
    searches: tuple[RateSearch, ...] = ()
    trainings: tuple[Training, ...] = ()
    surfaces: tuple[tuple[Surface, tuple[Shadow, ...]], ...] = ()
    interpolations: tuple[tuple[Interpolation, tuple[Shadow, ...]], ...] = ()
    changed: tuple[tuple[Surface, Surface], ...] = ()
    ensembles: tuple[SurfaceEnsemble | ProfileEnsemble, ...] = ()
    profiles: tuple[tuple[Profile, ...], ...] = ()
    trust: tuple[Trust, ...] = ()
    conflicts: tuple[tuple[ConflictMap, tuple[Shadow, ...]], ...] = ()
    eigenvalues: tuple[EigenvalueHistory, ...] = ()
    curvatures: tuple[Curvature, ...] = ()
    alternations: tuple[Alternation, ...] = ()
    explorations: tuple[Exploration, ...] = ()
    moves: tuple[Moves, ...] = ()
    distances: tuple[DistanceMatrix, ...] = ()
    connections: tuple[Connection, ...] = ()
    separations: tuple[Separation, ...] = ()
    comparisons: tuple[Comparison, ...] = ()
    contrasts: tuple[Contrast, ...] = ()
    walks: tuple[BesideWalk, ...] = ()
    checks: tuple[Check, ...] = ()
    provenance: tuple[tuple[str, str], ...] = ()
    timings: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Section:
    """A heading with sentences, figures and tables below it."""

    name: str
    title: str
    scenes: tuple[Scene, ...] = ()
    tables: tuple[Table, ...] = ()
    text: str = ""
    words: tuple[str, ...] = ()


def write(contents: Contents, path: str | os.PathLike[str]) -> Path:
    """Write the report to an `.html` file and return its path.

    The page needs no network: plotly is inside once, and every figure is there twice, interactive for the screen and
    static for print and for readers without scripts. The same contents give the same bytes.
    """
    path = Path(path)
    if path.suffix.lower() != ".html":
        raise ValueError(f"expected a report that ends with .html, got {path.name!r}: choose that suffix")
    files.write(path, render(contents))
    return path


def render(contents: Contents) -> bytes:
    """The report as a page."""
    parts = [(section, _drawn(section)) for section in sections(contents)]
    failed = sum(not check.passed for check in contents.checks)
    return page.template(
        "report.html.j2",
        title=contents.title,
        compared=compared(contents),
        summary=contents.summary,
        findings=claims(contents.contrasts) if contents.contrasts else findings(contents.comparisons),
        verdicts=_verdicts(contents),
        scores=tables.scores(contents.trainings) if any(t.metrics for t in contents.trainings) else None,
        alarm=f"{failed} of {count(len(contents.checks), 'check')} failed: see Checks." if failed else "",
        parts=parts,
    )


def _drawn(section: Section) -> tuple[page.Figure, ...]:
    return tuple(page.figure(f"{section.name}-{k}", scene) for k, scene in enumerate(section.scenes, start=1))


def order(contents: Contents) -> tuple[str, ...]:
    """Every strategy once: the order in which they get their looks, the same in all figures of the report."""
    labels = [run.label for run in _runs(contents)]
    labels += [search.label for search in contents.searches]
    labels += [name for c in contents.comparisons for name in (c.baseline, c.strategy)]
    labels += [name for c in contents.contrasts for name in (c.baseline, c.strategy)]
    return tuple(dict.fromkeys(labels))


def _runs(contents: Contents) -> tuple[Run, ...]:
    records: Iterable[Training | Exploration | Movement | Shadow | EigenvalueHistory | Alternation] = (
        *contents.trainings,
        *contents.explorations,
        *(movement for moves in contents.moves for movement in moves.movements),
        *(shadow for _, shadows in contents.surfaces for shadow in shadows),
        *contents.eigenvalues,
        *contents.alternations,
    )
    return tuple({record.run.name: record.run for record in records}.values())


def compared(contents: Contents) -> str:
    """One sentence that says what was compared."""
    runs, labels = _runs(contents), order(contents)
    tasks = _tasks(contents)
    if not labels:
        return ""
    return (
        " ".join(
            [f"{listed(labels)} compared" if len(labels) > 1 else f"{labels[0]}"]
            + [f"on {count(len(tasks), 'task')} ({listed(tasks)})"] * bool(tasks)
            + [f"with {seeds_of(runs)}"] * bool(runs)
        )
        + "."
    )


def _tasks(contents: Contents) -> tuple[str, ...]:
    for records in (contents.trainings, [surface for surface, _ in contents.surfaces]):
        if records:
            return records[0].tasks
    return ()


HEADLINE = "net"
"""The measure whose verdicts come first on the page; all of them stand in the section on exploration."""


def claims(contrasts: Sequence[Contrast]) -> tuple[str, ...]:
    """Verdicts on the net distance, as the comparison worded them, and what each pair of strategies rests on.

    From fewer than three seeds there is one sentence, which says that there is no verdict.
    """
    said: list[str] = []
    for c in contrasts:
        fewest = min(len(c.seeds), len(c.baseline_seeds))
        if fewest < FEWEST_SEEDS:
            said.append(
                f"{c.strategy} against {c.baseline}: no verdict from {count(fewest, 'seed')}, expected at least "
                f"{FEWEST_SEEDS}; train with more seeds."
            )
            continue
        headline = HEADLINE if HEADLINE in c.measures else c.measures[0]
        said += [f"{c.verdicts[c.measures.index(headline)]}.", *([c.note] if c.note else [])]
        said.append(f"{c.strategy} against {c.baseline} is corrected by {c.correction}.")
    return tuple(dict.fromkeys(said))


def _verdicts(contents: Contents) -> Table | None:
    if contents.contrasts:
        return verdict_table(contents.contrasts, (HEADLINE,))
    return tables.verdicts(contents.comparisons) if contents.comparisons else None


def findings(comparisons: Sequence[Comparison]) -> tuple[str, ...]:
    """What came out, a sentence for each strategy, baseline and measure; a claim that fails is said to fail."""
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for c in comparisons:
        groups.setdefault((c.strategy, c.baseline, c.measure), []).append(c)
    notes = dict.fromkeys(c.note for c in comparisons if c.note)
    return (*(_finding(*names, group) for names, group in groups.items()), *notes)


def _finding(strategy: str, baseline: str, measure: str, group: Sequence[Comparison]) -> str:
    budgets = {v: [c.budget for c in group if c.verdict == v] for v in dict.fromkeys(c.verdict for c in group)}
    wider = [budget for verdict in LARGER for budget in budgets.pop(verdict, [])]
    does, do = CLAIMS.get(measure, (f"has a larger {measure}", f"have a larger {measure}"))
    if set(budgets) == {FEW} and not wider:
        return f"{strategy}: with too few seeds it cannot be said whether it {does} than {baseline}."
    rest = " or ".join(f"{listed(names)} ({verdict})" for verdict, names in budgets.items())
    if not wider:
        return f"{strategy} does not {do} than {baseline} at any equal budget: not at equal {rest}."
    but = f", but not at equal {rest}" if rest else ", which are all the budgets that were compared"
    return f"{strategy} {does} than {baseline} at equal {listed(wider)}{but}."


def sections(contents: Contents) -> tuple[Section, ...]:
    """The parts of the report that there is something to show for."""
    return tuple(s for s in _sections(contents) if s.scenes or s.tables or s.text)


def _sections(c: Contents) -> Iterator[Section]:
    first = order(c)
    yield Section("exploration", "Exploration", _exploration(c, first), _exploration_tables(c))
    yield Section("connection", "Are the ends connected?", _connection(c), _connection_tables(c))
    yield Section("surface", "Loss surfaces", _surfaces(c, first))
    yield Section("trust", "How far the surfaces can be trusted", _trust(c, first), _trust_tables(c))
    conflicts = tuple(scenes.conflict_map(record, shadows, first) for record, shadows in c.conflicts)
    yield Section("conflict", "Where tasks disagree", conflicts)
    curvature = [scenes.eigenvalues(h, order=first) for h in (c.eigenvalues,) if h]
    curvature += [scene for one in c.curvatures for scene in curvature_scenes(one).values()]
    told = [tables.eigenvalues(c.eigenvalues)] if c.eigenvalues else []
    told += [table for one in c.curvatures for table in _curvature_tables(one)]
    yield Section("curvature", "Curvature", tuple(curvature), tuple(told))
    yield _alternation(c, first)
    learned = tuple(scenes.training(t, first) for t in (c.trainings,) if t)
    yield Section("training", "Training", learned, (tables.losses(c.trainings),) if c.trainings else ())
    searched = tuple(scenes.rate_search(s, first) for s in (c.searches,) if s)
    yield Section("rates", "Learning rates", searched, (tables.rates(c.searches),) if c.searches else ())
    yield Section("checks", "Checks", tables=(tables.checks(c.checks),) if c.checks else ())
    yield Section("settings", "Settings", text=c.settings)
    provenance = [tables.pairs("Where the numbers come from", ("name", "value"), c.provenance)] * bool(c.provenance)
    provenance += [tables.pairs("Time taken", ("part", "time"), c.timings)] * bool(c.timings)
    yield Section("provenance", "Provenance", tables=tuple(provenance))


def curvature_scenes(one: Curvature) -> dict[str, Scene]:
    """The figures of one matrix along one run, by what they show."""
    drawn: dict[str, Scene] = {}
    if one.tracks is not None:
        drawn["tracks"] = scenes.tracked_eigenvalues(one.tracks)
    if one.layers:
        drawn["layers"] = scenes.layer_eigenvalues(dict(one.layers))
    if one.densities:
        drawn["density"] = scenes.density(one.densities[-1])
        drawn["cumulative"] = scenes.cumulative(one.densities[-1])
    if len(one.densities) > 1:
        drawn["densities"] = scenes.densities_along([density for group in one.densities for density in group])
    if one.spectrum is not None:
        drawn["numbers"] = scenes.spectrum_numbers(one.spectrum)
    elif one.traces is not None:
        drawn["numbers"] = scenes.spectrum_numbers(one.traces)
    if one.agreement is not None:
        drawn["angles"] = scenes.principal_angles(one.agreement)
        drawn["cross-curvature"] = scenes.cross_curvature(one.agreement)
        drawn["shares"] = scenes.eigenvalue_shares(one.agreement)
        drawn["gradients"] = scenes.gradient_agreement(one.agreement)
    if one.sharpness is not None:
        drawn["sharpness"] = scenes.sharpness(one.sharpness)
        drawn["updates"] = scenes.along_updates(one.sharpness)
    return drawn


def _curvature_tables(one: Curvature) -> Iterator[Table]:
    if one.tracks is not None:
        yield tracks_table(one.tracks)
    if one.spectrum is not None:
        yield spectrum_table(one.spectrum)
    elif one.traces is not None:
        yield traces_table(one.traces)
    if one.agreement is not None:
        yield agreement_table(one.agreement)
        yield shares_table(one.agreement)
    if one.sharpness is not None:
        yield sharpness_table(one.sharpness)


def _alternation(c: Contents, first: Sequence[str]) -> Section:
    name, title, found = "alternation", "Is alternation helping?", c.alternations
    if not found:
        return Section(name, title)
    drawn = (
        scenes.alternation(found, first),
        scenes.prediction_and_measurement(found, first),
        scenes.alternation_remainder(found, first),
        scenes.agreement_growth(found, first),
        *(scenes.curvature_tensor(record) for record in found[:1]),
    )
    return Section(name, title, drawn, (alternation_table(found),), words=verdict_words(found))


def _exploration(c: Contents, first: Sequence[str]) -> tuple[Scene, ...]:
    forest = [scenes.contrasts(group, first) for group in by_form(c.contrasts)]
    forest += [scenes.comparisons(c.comparisons, first)] if c.comparisons and not c.contrasts else []
    if c.moves:  # they say the same and more: beside random walks, and at equal loss
        against = tuple(move_scenes(c.moves[0], first).values())
    else:
        against = tuple(scenes.exploration(c.explorations, m, first) for m in MEASURES if c.explorations)
    return (*forest, *against, *(scenes.distance_matrix(matrix) for matrix in c.distances))


def _exploration_tables(c: Contents) -> tuple[Table, ...]:
    of_runs = (tables.distances(c.explorations), tables.runs(c.explorations)) if c.explorations else ()
    told = (words_table(c.contrasts), verdict_table(c.contrasts)) if c.contrasts else ()
    return (*told, *((walk_counts(c.walks), walk_table(c.walks)) if c.walks else ()), *of_runs)


def by_form(contrasts: Sequence[Contrast]) -> tuple[tuple[Contrast, ...], ...]:
    """Contrasts that can be drawn together: of one subset in one form."""
    abouts = dict.fromkeys((c.subset, c.form) for c in contrasts)
    return tuple(tuple(c for c in contrasts if (c.subset, c.form) == about) for about in abouts)


def _connection(c: Contents) -> tuple[Scene, ...]:
    drawn = [scene for one in c.connections for scene in _between(one)]
    return (*drawn, *((scenes.separation(c.separations),) if c.separations else ()))


def _between(one: Connection) -> Iterator[Scene]:
    yield from (scenes.barriers(record, one.barriers) for record in one.barriers)
    yield from (scenes.paths(group) for group in one.paths)
    if one.functions is not None:
        yield scenes.disagreement(one.functions)
    if one.points is not None:
        yield scenes.point_distances(one.points)


def _connection_tables(c: Contents) -> tuple[Table, ...]:
    made = [barrier_table(record) for one in c.connections for record in one.barriers]
    made += [disagreement_table(one.functions) for one in c.connections if one.functions is not None]
    made += [distance_table(one.points) for one in c.connections if one.points is not None]
    return (*made, *((separation_table(c.separations),) if c.separations else ()))


def _surfaces(c: Contents, first: Sequence[str]) -> tuple[Scene, ...]:
    flat = [scenes.surface(surface, shadows, first) for surface, shadows in c.surfaces]
    flat += [scenes.interpolation(record, shadows, first) for record, shadows in c.interpolations]
    relief = [scenes.surface_relief(surface, shadows, first) for surface, shadows in c.surfaces[:1]]
    drawn = [
        scenes.surface_ensemble(record) if isinstance(record, SurfaceEnsemble) else scenes.profile_ensemble(record)
        for record in c.ensembles
    ]
    return (*flat, *relief, *drawn, *(scenes.profile(group) for group in c.profiles))


def _trust(c: Contents, first: Sequence[str]) -> tuple[Scene, ...]:
    shares = [scenes.shares(t.faithfulness, t.stability) for t in c.trust if t.faithfulness is not None]
    gaps = [scenes.gap(t.feet, first) for t in c.trust if t.feet]
    told = [scenes.significant(s, shadows, first) for s, shadows in c.surfaces[:1] if not scenes.in_bfloat16(s)]
    return (*gaps, *shares, *told, *(scenes.difference(one, other) for one, other in c.changed))


def _trust_tables(c: Contents) -> tuple[Table, ...]:
    seen = [faithfulness_table(t.faithfulness, t.title) for t in c.trust if t.faithfulness is not None]
    turned = [stability_table(t.stability, t.title) for t in c.trust if t.stability is not None]
    return (*seen, *turned, *(shape_table(t.shape, t.title) for t in c.trust if t.shape is not None))
