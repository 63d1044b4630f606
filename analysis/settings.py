"""The settings of a study: every one has a default, unknown ones are refused with the nearest valid name."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from analysis.archive import distinct_name
from landscape.errors import LandscapeError, unknown
from landscape.optimisers import Optimiser
from landscape.schedules import Every
from landscape.strategies import Strategy, named
from landscape.training import Plan

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def _is_changed(self, name: str) -> bool:
        """Whether a setting has another value than its default."""
        field = type(self).model_fields[name]
        return bool(getattr(self, name) != field.get_default(call_default_factory=True))

    def _require_use(self, names: tuple[str, ...], used: bool, by: str) -> None:
        """Refuses settings that change nothing, since what they are for was not asked for."""
        for name in names:
            if self._is_changed(name) and not used:
                raise ValueError(
                    f"expected {by} for {name} {getattr(self, name)}, got none: add it, or leave {name} out"
                )


class StrategySettings(_Section):
    """One strategy of a study; see `landscape.strategies.named` for the choices."""

    name: str
    label: str = ""
    rate: float = Field(0.0, ge=0, description="learning rate; 0: found by the search")
    movement_of: str = Field(
        "", description="label of a strategy: the rate is such that rate x updates is that one's in every step"
    )
    reduction: str | list[float] | None = None
    order: str | None = None
    batches: str | None = None
    groups: int | None = None
    size: int | None = None
    states: str | None = None
    redraw: int | None = None
    group_seed: int | None = None
    task: str | None = None

    @property
    def searched(self) -> bool:
        """Whether its rate is found by the search."""
        return not (self.rate or self.movement_of)

    @property
    def shown(self) -> str:
        """The label of its runs, by default the strategy's name."""
        return self.label or self.name

    @property
    def title(self) -> str:
        """The same for files and groups of results."""
        return distinct_name(self.shown)

    def strategy(self, optimiser: str, rate: float) -> Strategy:
        """The strategy with this optimiser at this rate."""
        choices = self.model_dump(exclude={"name", "label", "rate", "movement_of"})
        return named(self.name, Optimiser(optimiser, lr=rate), choices)


class Training(_Section):
    """How every run trains."""

    steps: int = Field(600, ge=1)
    batch_size: int = Field(64, ge=1)
    every: int = Field(20, ge=1, description="steps between snapshots")
    optimiser: str = "Adam"

    def plan(self) -> Plan:
        """The plan of every run."""
        return Plan(self.steps, self.batch_size, Every(self.every))


class Search(_Section):
    """How the learning rate of each strategy is found: a short run for every rate, the least averaged evaluation loss
    wins.
    """

    rates: list[PositiveFloat] = Field([3e-4, 1e-3, 3e-3, 1e-2], min_length=1)
    steps: int = Field(200, ge=1)
    seed: int = Field(1000, ge=0, description="one that the study does not use")


LARGEST_SEED = 2**63
"""Results files hold numbers of 64 bits."""
PLANES = ("principal", "random", "through", "eigenvectors", "gradients", "local", "given")
LINES = ("line", "random-line")
PRECONDITIONERS, ORDERS = ("none", "adam", "stored"), ("usual", "all", "none")
_DRAWN = ("random", "random-line")
_AROUND = ("principal", "through", "line")
"""Planes and lines whose range is found from the snapshots that they are made of."""
_ONLY_OF = {
    "centre": tuple(word for word in (*PLANES, *LINES) if word not in ("through", "line")),
    "through": ("through", "line"),
    "tasks": ("eigenvectors", "gradients"),
    "vectors": ("given",),
}
"""Which planes and lines a setting says something about."""
_WORDS = {
    "plane": (*PLANES, *LINES),
    "heads": ("centre", "interpolated", "refitted"),
    "data": ("evaluation", "training"),
    "batch_norm": ("frozen", "reestimated"),
}


class SurfaceSettings(_Section):
    """A plane or a line, the grid on it, and what is measured there under which conditions; see `analysis.recipes`."""

    plane: str = "principal"
    label: str = Field("", description="name in the results file; default: the plane's")
    subset: str = Field("all", description="parameters: all, shared, head:TASK, or patterns of their names")
    heads: str = Field("centre", description="of a plane of some parameters: centre, interpolated, refitted")
    centre: str = Field("", description="RUN@STEP, RUN@first, RUN@last; principal: also mean, which is its default")
    through: list[str] = Field([], description="through: three places as RUN@STEP; line: two")
    tasks: list[str] = Field([], description="eigenvectors: one or two tasks or `average`; gradients: two tasks")
    vectors: str = Field("", description="given: a file with an array [2, P], as numpy.save writes it")
    nx: int = Field(25, ge=3)
    ny: int = Field(25, ge=3)
    margin: float = Field(0.15, ge=0, description="room around what the grid is laid around, a share of its extent")
    reach: float = Field(0.0, ge=0, description="from -reach to reach along each axis; 0: found by itself")
    rise: float = Field(0.0, ge=0, description="as far as the averaged loss rises by this multiple of the centre's")
    seed: int = Field(
        0,
        ge=0,
        lt=LARGEST_SEED,
        description="draws directions, examples, points held out and pieces of examples",
    )
    draws: int = Field(1, ge=1, description="random planes and lines: how many, for an ensemble")
    data: list[str] = Field(["evaluation"], min_length=1, description="evaluation, training, or both")
    batch_norm: list[str] = Field(["frozen"], min_length=1, description="frozen, reestimated, or both")
    examples: int = Field(1024, ge=1, description="training examples, for data, statistics and heads that need some")
    adaptive: float = Field(0.0, ge=0, lt=1, description="tolerance as a share of the range; 0: every point measured")
    budget: float = Field(0.2, gt=0, le=1, description="adaptive: largest share of the points that is measured")
    conflict: bool = Field(
        False, description="also map how the task gradients agree: on evaluation examples, with the plane's statistics"
    )
    engine: str = Field("auto", description="auto (timed once a machine), problem, sequential:64, together:8x64")
    compiled: bool = False
    bfloat16: bool = False
    max_memory: str = Field("2GiB", description="of losses and products, beyond model and data; 1MB: 10^6, 1MiB: 2^20")

    @model_validator(mode="after")
    def _known_words(self) -> SurfaceSettings:
        for name, valid in _WORDS.items():
            given = getattr(self, name)
            words = [given] if isinstance(given, str) else given
            for word in words:
                if word not in valid:
                    raise unknown(name.replace("_", " "), word, valid)
                if words.count(word) > 1:
                    raise ValueError(f"expected every kind of {name.replace('_', ' ')} once, got {word} again")
        for name, planes in _ONLY_OF.items():
            if getattr(self, name) and self.plane not in planes:
                raise ValueError(
                    f"expected {name} with one of {', '.join(planes)}, got it with the plane {self.plane!r}: leave it "
                    "out, or choose another plane"
                )
        if self.reach and self.rise:
            raise ValueError(f"expected a reach or a rise, got both ({self.reach:g} and {self.rise:g}): choose one")
        if self._is_changed("margin") and not self._has_margin:
            raise ValueError(
                f"expected a margin of {self.margin:g} around the snapshots of {', '.join(_AROUND)}, without reach or "
                f"rise; got the plane {self.plane!r}, reach {self.reach:g}, rise {self.rise:g}: leave the margin out"
            )
        self._require_use(("budget",), bool(self.adaptive), "a tolerance (adaptive)")
        if self.draws > 1 and self.plane not in _DRAWN:
            raise ValueError(f"expected several draws of a random plane or line, got the plane {self.plane!r}")
        if self.plane in LINES and (self.adaptive or self.conflict):
            raise ValueError("expected a plane for an adaptive surface or a conflict map, got a line")
        if self.adaptive and self.draws > 1:
            raise ValueError("expected an adaptive surface of one plane, got several draws")
        if self.adaptive and len(self.data) * len(self.batch_norm) > 1:
            raise ValueError(
                f"expected an adaptive surface of one kind of data and of statistics, got {', '.join(self.data)} and "
                f"{', '.join(self.batch_norm)}: measure one after the other, each under a label of its own"
            )
        if self.draws > 1 and self.rise:
            raise ValueError("expected a reach for several draws, got a rise, which gives every draw another range")
        if self.heads != "centre" and self.subset == "all":
            raise ValueError(f"expected a subset of the parameters for {self.heads} heads, as shared, got all")
        return self

    @property
    def _has_margin(self) -> bool:
        return self.plane in _AROUND and not (self.reach or self.rise)

    @property
    def title(self) -> str:
        """The plane's name in a results file."""
        return distinct_name(self.label or (f"{self.plane}-{self.seed}" if self.plane in _DRAWN else self.plane))


class ConnectSettings(_Section):
    """Which points are connected, by which paths, and what is measured of them; see `analysis.connecting`."""

    label: str = Field("", description="name in the results file; default: ends, or the two points")
    at: list[int] = Field([], description="steps of every run; empty: `snapshots` of each, evenly spread")
    snapshots: int = Field(1, ge=1, description="1: the last of every run")
    between: list[str] = Field([], description="two places as RUN@STEP instead")
    points: int = Field(25, ge=3, description="on every path, the two ends among them")
    curve: bool = Field(False, description="also train a Bezier curve of low loss for every pair")
    curve_steps: int = Field(400, ge=1)
    rate: float = Field(3e-3, gt=0)
    batch_size: int = Field(64, ge=1)
    align: bool = Field(False, description="also after matching hidden units by permutation")
    groups: dict[str, list[list[str | int]]] = Field({}, description="of hidden units; empty: traced")
    subset: str = Field("shared", description="parameters that distances between points and runs are over")
    heads: str = Field("interpolated", description="on the way: interpolated or refitted")
    threshold: float = Field(0.5, gt=0, lt=2**0.5, description="relative distance from which runs count as parted")
    paired: bool = Field(False, description="whether runs of one seed have to have one start")
    data: str = "evaluation"
    batch_norm: list[str] = Field([], description="frozen, reestimated; empty: both where there are statistics")
    examples: int = Field(1024, ge=1, description="training examples, for data, statistics and heads that need some")
    seed: int = Field(
        0, ge=0, lt=LARGEST_SEED, description="draws examples, curves' batches and positions, and random subspaces"
    )
    engine: str = Field("auto", description="auto, problem, sequential:64, together:8x64")
    max_memory: str = Field("2GiB", description="of losses on the way, beyond model and data; 1MB: 10^6, 1MiB: 2^20")

    @model_validator(mode="after")
    def _known_words(self) -> ConnectSettings:
        valid = {**_WORDS, "heads": ("interpolated", "refitted")}
        for name in ("heads", "data", "batch_norm"):
            given = getattr(self, name)
            for word in [given] if isinstance(given, str) else given:
                if word not in valid[name]:
                    raise unknown(name.replace("_", " "), word, valid[name])
        self._require_use(("curve_steps", "rate", "batch_size"), self.curve, "curves (curve)")
        self._require_use(("groups",), self.align, "matching (align)")
        if self.between and (self.at or self._is_changed("snapshots")):
            raise ValueError("expected two places alone, got steps or a number of snapshots too: leave these out")
        if len(self.between) not in (0, 2):
            raise ValueError(f"expected two places between which to connect, got {len(self.between)}")
        return self

    @property
    def title(self) -> str:
        """The name in a results file."""
        if self.label or not self.between:
            return distinct_name(self.label or "ends")
        return "-to-".join(_safe_place(text) for text in self.between)


def _safe_place(text: str) -> str:
    """`RUN_STEP` for a group, from `RUN@STEP`."""
    run, at, step = text.rpartition("@")
    return f"{distinct_name(run)}_{distinct_name(step)}" if at else distinct_name(text)


ENDS = ("largest", "smallest", "both", "magnitude")
MATRICES = ("hessian", "gauss-newton", "fisher")


class HessianSettings(_Section):
    """What is computed of the curvature, at which snapshots: the steps named, or some evenly spread over the run."""

    at: list[int] = Field([], description="steps; empty: `snapshots` of them, evenly spread, first and last among them")
    top: int = Field(3, ge=1)
    snapshots: int = Field(5, ge=1)
    tolerance: float = Field(1e-2, gt=0)
    products: int = Field(60, ge=1, description="at most, for each operator at each snapshot")
    end: str = Field("largest", description="of the eigenvalues: largest, smallest, both or magnitude")
    tasks: list[str] = Field(
        [], description="of eigenvalues, densities and traces: names of tasks and `average`; empty: all"
    )
    on: list[str] = Field(["shared"], min_length=1, description="parameters: shared, all, head:TASK, or patterns")
    layers: bool = Field(False, description="also the eigenvalues of every layer's own block")
    matrix: str = Field("hessian", description="hessian, gauss-newton or fisher")
    intervals: int = Field(0, ge=0, description="resamples of the examples for sampling intervals; 0: none")
    density: bool = Field(False, description="also densities, traces, norms, negative shares and effective ranks")
    traces: bool = Field(False, description="also traces, norms and effective ranks, without densities")
    probes: int = Field(10, ge=1, description="of a density")
    degree: int = Field(80, ge=1, description="Lanczos products a probe")
    trace: int = Field(60, ge=1, description="products of a trace and of a Frobenius norm")
    agreement: bool = Field(False, description="also how the tasks' sharp directions and gradients agree")
    batch: int = Field(64, ge=1, description="examples of the mini-batches on which gradients are compared")
    sharpness: bool = Field(False, description="also worst and average case, adaptive forms, critical rates")
    radius: float = Field(0.05, gt=0, description="of the worst case; ten times it relative to each parameter's size")
    pairs: int = Field(16, ge=1, description="pairs of draws of the average case")
    seed: int = Field(0, ge=0, lt=LARGEST_SEED, description="draws starts, probes, resamples and mini-batches")
    max_memory: str = Field("2GiB", description="of products, beyond model and data; 1MB: 10^6, 1MiB: 2^20")

    @model_validator(mode="after")
    def _known_words(self) -> HessianSettings:
        for name, valid in (("end", ENDS), ("matrix", MATRICES)):
            if getattr(self, name) not in valid:
                raise unknown(name, getattr(self, name), valid)
        self._require_use(("probes", "degree"), self.density, "densities (density)")
        self._require_use(("trace",), self.density or self.traces, "traces (traces) or densities (density)")
        self._require_use(("batch",), self.agreement, "agreement")
        self._require_use(("radius", "pairs"), self.sharpness, "sharpness")
        if self.matrix != "hessian" and (self.intervals or self.agreement or self.sharpness):
            raise ValueError(
                f"expected the matrix hessian for intervals, agreement and sharpness, got {self.matrix}: leave them out"
            )
        return self


class AlternationSettings(_Section):
    """Which steps are compared with each other, and at which snapshots; see `analysis.alternation`."""

    at: list[int] = Field([], description="steps; empty: `snapshots` of them, evenly spread, first and last among them")
    snapshots: int = Field(5, ge=1)
    rate: float = Field(0.0, ge=0, description="learning rate of the steps; 0: the run's own")
    order: list[int] = Field([], description="task numbers from 0; empty: the run's own, or first to last")
    orders: str = Field("usual", description="for the random-order mean: usual, all, none, or how many are drawn")
    ladder: int = Field(3, ge=1, le=20, description="how many rates, each half the one before")
    preconditioner: str = Field("none", description="none, adam (from gradients at the snapshot), stored")
    data: str = Field("evaluation", description="evaluation or training")
    examples: int = Field(1024, ge=1, description="training examples")
    seed: int = Field(0, ge=0, lt=LARGEST_SEED, description="draws blocks of examples, orders, and training examples")

    @model_validator(mode="after")
    def _known_words(self) -> AlternationSettings:
        if self.data not in _WORDS["data"]:
            raise unknown("data", self.data, _WORDS["data"])
        self._require_use(("examples",), self.data == "training", "training data")
        if self.preconditioner not in PRECONDITIONERS:
            raise unknown("preconditioner", self.preconditioner, PRECONDITIONERS)
        if self.orders not in ORDERS and not self.orders.isdecimal():
            raise ValueError(f"expected orders as {', '.join(ORDERS)} or a number of them, got {self.orders!r}")
        return self


PAIRINGS = ("auto", "seed", "none")
FORMS = ("raw", "relative", "filterwise", "invariant")


class ExploreSettings(_Section):
    """What exploration is measured on, in which forms, and how it is compared; see `analysis.contrasts`."""

    baseline: str = Field("", description="label of the runs that the others are compared with; default: the first")
    on: list[str] = Field(["shared"], min_length=1, description="parameters: shared, all, head:TASK, or patterns")
    forms: list[str] = Field(["raw"], min_length=1, description="raw, relative, filterwise, invariant")
    without_norm: bool = Field(False, description="leave out the parameters of normalisation layers")
    layers: bool = Field(False, description="also every layer by itself")
    measures: list[str] = Field([], description="measures that are compared; empty: all")
    budgets: list[str] = Field([], description="steps, ..., movement, loss, loss:TASK; empty: all but single tasks'")
    pairing: str = Field("auto", description="auto, seed (pairs or nothing), none")
    null: int = Field(99, ge=0, description="random walks beside every run; 0: none")
    resamples: int = Field(9999, ge=99, description="of the bootstrap, and of permutation tests beyond 16 seeds")
    seed: int = Field(0, ge=0, lt=LARGEST_SEED, description="draws resamples and random walks")

    @model_validator(mode="after")
    def _known_words(self) -> ExploreSettings:
        for name, given, valid in (("form", self.forms, FORMS), ("pairing", [self.pairing], PAIRINGS)):
            for word in given:
                if word not in valid:
                    raise unknown(name, word, valid)
        return self


class ProblemName(_Section):
    """A problem by name, with its settings and its device: all that a process needs to make it."""

    name: str
    settings: dict[str, Any] = {}
    device: str = "cpu"


class Settings(_Section):
    """All settings of a study, as `study.toml` holds them."""

    problem: str = "digits"
    problem_settings: dict[str, Any] = {}
    seeds: list[int] = Field([0, 1, 2], min_length=1)
    device: str = "cpu"
    strategies: list[StrategySettings] = Field(
        [StrategySettings(name=n) for n in ("averaged", "independent", "grouped")], min_length=1
    )
    training: Training = Training()
    search: Search = Search()
    surface: SurfaceSettings = SurfaceSettings()
    hessian: HessianSettings = HessianSettings()
    explore: ExploreSettings = ExploreSettings()

    @property
    def named_problem(self) -> ProblemName:
        """The problem's name with what is needed to make it."""
        return ProblemName(name=self.problem, settings=self.problem_settings, device=self.device)

    @model_validator(mode="before")
    @classmethod
    def _strategies_by_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("strategies"), list):
            named_ones = [{"name": s} if isinstance(s, str) else s for s in data["strategies"]]
            return {**data, "strategies": named_ones}
        return data

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        titles = [s.shown for s in self.strategies]
        files = [s.title.casefold() for s in self.strategies]  # some file systems take these for one
        for title, file in zip(titles, files, strict=True):
            if files.count(file) > 1:
                raise ValueError(f"two strategies are called {title!r}: give one of them another label")
        if self.explore.baseline and self.explore.baseline not in titles:
            raise unknown("label of a baseline in explore.baseline", self.explore.baseline, titles)
        first = f"seed-{self.seeds[0]}"
        if self.surface.label == first and len(self.seeds) > 1:
            raise ValueError(
                f"surface.label: expected another name than {first!r}, which the plane of the first seed's runs has"
            )
        if len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"expected distinct seeds of 0 or more, got {self.seeds}")
        if self.search.seed in self.seeds and any(s.searched for s in self.strategies):
            raise ValueError(
                f"search.seed: expected a seed that the study does not use, got {self.search.seed}, which is among the "
                f"seeds {self.seeds}: rates chosen on a run would favour it; give another seed"
            )
        for strategy in self.strategies:
            self._require_control(strategy, titles)
            strategy.strategy(self.training.optimiser, strategy.rate or self.search.rates[0])
        self._require_snapshots()
        return self

    def _require_control(self, strategy: StrategySettings, titles: list[str]) -> None:
        """Raises unless a control takes the movement of a strategy that has a rate of its own."""
        if not strategy.movement_of:
            return
        if strategy.rate:
            raise ValueError(f"{strategy.shown} has a rate and a movement_of: expected one of them, leave one out")
        if strategy.movement_of not in titles:
            raise unknown("strategy in movement_of", strategy.movement_of, titles)
        if self.strategies[titles.index(strategy.movement_of)].movement_of:
            raise ValueError(
                f"{strategy.shown} takes the movement of {strategy.movement_of}, which takes another's: expected a "
                "strategy with a rate of its own"
            )

    def _require_snapshots(self) -> None:
        """Raises unless every step of `hessian.at` will be stored."""
        last, every = self.training.steps, self.training.every
        for step in self.hessian.at:
            if step not in (0, last) and not (0 < step < last and step % every == 0):
                below = min(max(step, 0), last) // every * every
                nearest = min((below, min(below + every, last)), key=lambda there: abs(there - step))
                raise ValueError(
                    f"hessian.at: expected steps with a snapshot (every {every} from 0 on, and the last one, {last}), "
                    f"got {step}: the nearest is at step {nearest}"
                )


def read(path: Path) -> Settings:
    """Settings from a TOML file."""
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise LandscapeError(f"there is no file {path}: expected the settings of a study in TOML") from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise LandscapeError(f"cannot read {path}: expected settings in TOML, got an error ({error})") from error
    return parse(data, str(path))


def parse(data: dict[str, Any], where: str = "the settings") -> Settings:
    """Settings from plain values; the first thing wrong with them becomes one sentence."""
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        raise LandscapeError(f"{where}: {_sentence(error, _valid)}") from error


def write(settings: Settings) -> str:
    """Settings as TOML text, every one of them, which `read` takes back."""
    return tomli_w.dumps(settings.model_dump(exclude_none=True))


def _sentence(error: ValidationError, valid: Callable[[list[str]], list[str]]) -> str:
    first = error.errors()[0]
    place = [str(part) for part in first["loc"]]
    if first["type"] == "extra_forbidden":
        return str(unknown("setting", ".".join(place), valid(place)))
    cause = first.get("ctx", {}).get("error")
    text = str(cause) if cause is not None else f"{first['msg'].lower()}, got {first['input']!r}"
    return f"{'.'.join(place)}: {text}" if place else text


def _valid(place: list[str]) -> list[str]:
    model: Any = Settings
    for part in place[:-1]:
        if not part.isdecimal():
            model = StrategySettings if part == "strategies" else model.model_fields[part].annotation
    head = ".".join(place[:-1])
    return [f"{head}.{name}" if head else name for name in model.model_fields]


def section(kind: type[_Section], values: dict[str, Any]) -> Any:
    """One section of the settings from plain values, with the same sentences for what is wrong."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise LandscapeError(_sentence(error, lambda _: list(kind.model_fields))) from error
