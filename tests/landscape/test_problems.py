"""The built-in problems against their formulas, written again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from landscape import Averaged, LandscapeError, Optimiser, Plan, problems, train
from landscape.problems.toy import STARTS, toy_losses

# Toy


def toy_in_numpy(x: float, y: float) -> tuple[float, float]:
    """arXiv 2110.14048 and its code, term by term."""
    f1 = np.log(max(abs(0.5 * (-x - 7) - np.tanh(-y)), 0.000005)) + 6
    f2 = np.log(max(abs(0.5 * (-x + 3) + np.tanh(-y) + 2), 0.000005)) + 6
    q1 = ((-x + 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    q2 = ((-x - 7) ** 2 + 0.1 * (-y - 8) ** 2) / 10 - 20
    c1, c2 = max(np.tanh(0.5 * y), 0), max(np.tanh(-0.5 * y), 0)
    return f1 * c1 + q1 * c2, f2 * c1 + q2 * c2


@given(st.floats(-12, 12), st.floats(-12, 12))
def test_toy_losses_are_those_of_the_formula(x: float, y: float) -> None:
    found = problems.load("toy")
    losses = found.losses(torch.tensor([x, y], dtype=torch.float64), found.evaluation)
    assert losses.shape == (2, 1)
    # Near a zero of the argument the logarithm enlarges its rounding of 1e-15 by up to 1 / 5e-6.
    assert np.allclose(losses[:, 0].numpy(), toy_in_numpy(x, y), rtol=1e-12, atol=1e-9)


def test_the_floor_of_the_logarithm_holds() -> None:
    # At y = 0.1, f1's argument is zero where x = -7 + 2 tanh(y).
    y = 0.1
    x = -7 + 2 * np.tanh(y)
    first = toy_losses(torch.tensor([x, y], dtype=torch.float64))[0]
    assert first.item() == pytest.approx((np.log(5e-6) + 6) * np.tanh(0.05), rel=1e-12)


def test_the_mean_of_the_toy_losses_is_least_at_the_middle_of_the_pareto_set() -> None:
    x, y = np.meshgrid(np.linspace(-8, 8, 161), np.linspace(-12, -4, 1601))
    losses = toy_losses(torch.tensor(np.stack([x, y], -1)))
    mean = losses.mean(-1).numpy()
    row, column = np.unravel_index(mean.argmin(), mean.shape)
    assert abs(x[row, column]) < 1e-9
    assert y[row, column] == pytest.approx(-8.355, abs=0.03)  # the value in the literature; the grid's step is 0.005


def test_the_toy_gradients_oppose_each_other_on_the_pareto_set() -> None:
    # For x2 < 0, L_i = q_i tanh(-x2 / 2): at its extreme in x2 a weighted mean of both is stationary.
    for x in (-5.0, 0.0, 3.0):
        point = torch.tensor([x, -8.355], dtype=torch.float64)
        jacobian = torch.func.jacrev(toy_losses)(point)
        weights = np.array([7 + x, 7 - x]) / 14
        assert abs(float(weights @ jacobian[:, 0].numpy())) < 1e-12  # exact, whatever x2 is
        assert jacobian[0, 0] < 0 < jacobian[1, 0]
        assert abs(float(weights @ jacobian[:, 1].numpy())) < 0.01  # -8.355 has three decimals, curvature is 0.02


@pytest.mark.parametrize("start", [0, 1, 2])
def test_the_toy_starts_where_the_paper_does(start: int) -> None:
    found = problems.load("toy", {"start": start})
    assert tuple(found.initial(7)[0].tolist()) == ((-8.5, 7.5), (-8.5, -5.0), (9.0, 9.0))[start] == STARTS[start]
    assert found.layout.count() == 2


# Quadratic


@pytest.mark.parametrize("spread", [0.0, 0.7])
@pytest.mark.parametrize("heads", [0, 2])
def test_quadratic_losses_gradients_and_hessians_are_their_closed_forms(spread: float, heads: int) -> None:
    found = problems.load("quadratic", {"tasks": 3, "size": 5, "heads": heads, "spread": spread, "examples": 12})
    a, c = (np.asarray(v) for v in (found.model.hessians, found.model.minima))
    noise = found.evaluation.inputs.numpy()
    assert np.abs(noise.sum(0)).max() < 1e-12  # they come in pairs of opposite sign
    assert (noise.std() > 0.1) == (spread > 0)
    rng = np.random.default_rng(0)
    theta = rng.standard_normal(found.layout.size)
    shared, phi = theta[found.layout.index()], [theta[found.layout.index(name)] for name in found.names]
    losses = found.evaluate(torch.tensor(theta)).losses.numpy()
    for t in range(3):
        d = shared - c[t]
        expected = 0.5 * d @ a[t] @ d + 0.5 * phi[t] @ phi[t] + 0.5 * np.mean([e @ a[t] @ e for e in noise])
        assert losses[t] == pytest.approx(expected, rel=1e-12)  # float64

        def mean(at: torch.Tensor, t: int = t) -> torch.Tensor:
            return found.losses(at, found.evaluation)[t].mean()

        gradient = torch.func.grad(mean)(torch.tensor(theta)).numpy()
        assert np.allclose(gradient[found.layout.index()], a[t] @ d, atol=1e-12)
        hessian = torch.autograd.functional.hessian(mean, torch.tensor(theta)).numpy()
        index = found.layout.index()
        assert np.allclose(hessian[np.ix_(index, index)], a[t], atol=1e-12)


def test_drawn_hessians_are_symmetric_with_eigenvalues_in_the_range_stated() -> None:
    for seed in range(5):
        a = problems.load("quadratic", {"seed": seed, "size": 12}).model.hessians.numpy()
        assert np.array_equal(a, a.transpose(0, 2, 1))
        values = np.linalg.eigvalsh(a)
        assert values.min() >= 0.1 * (1 - 1e-12)
        assert values.max() <= 10 * (1 + 1e-12)
        assert values.max() / values.min() > 10


def test_gradient_descent_on_a_quadratic_is_its_closed_form() -> None:
    found, rate, steps = problems.load("quadratic", {"tasks": 2, "size": 4, "heads": 0}), 0.01, 30
    a, c = found.model.hessians.numpy(), found.model.minima.numpy()
    *_, last = train(found, Averaged(Optimiser("SGD", lr=rate)), Plan(steps, 4), seed=3)
    total, pull = a.sum(0), sum(a[t] @ c[t] for t in range(2))
    least = np.linalg.solve(total, pull)
    start = found.initial(3)[0].numpy()
    expected = least + np.linalg.matrix_power(np.eye(4) - rate * total, steps) @ (start - least)
    assert np.allclose(last.theta, expected, atol=1e-12)  # thirty float64 steps of numbers of order one


def test_given_hessians_and_minima_are_used() -> None:
    a, c = [[[2.0, 1.0], [1.0, 3.0]]] * 2, [[1.0, 2.0], [3.0, 4.0]]
    found = problems.load("quadratic", {"hessians": a, "minima": c, "heads": 0})
    assert found.model.hessians.tolist() == a
    assert found.evaluate(torch.tensor([1.0, 2.0], dtype=torch.float64)).losses.tolist() == [
        0.0,
        0.5 * (2 * 4 + 4 * 2 + 3 * 4),
    ]


# Digits


@pytest.fixture(scope="module")
def digits() -> Any:
    return problems.load("digits", {"train": 600, "evaluation": 200})


def test_a_canvas_is_the_brighter_pixel_of_two_scans() -> None:
    images = {(image / 16).astype(np.float32).tobytes() for image in load_digits().images}
    for offset in (0, 3, 8):
        found = problems.load("digits", {"train": 50, "evaluation": 6, "offset": offset})
        canvases, first = found.evaluation.inputs.numpy(), found.evaluation.targets[2].numpy().reshape(-1, 8, 8)
        assert canvases.shape == (6, 1, 8 + offset, 8 + offset)
        for canvas, scan in zip(canvases[:, 0], first, strict=True):
            assert scan.tobytes() in images
            candidates = [s for s in images if composed(scan, np.frombuffer(s, np.float32), offset) == canvas.tobytes()]
            assert candidates


def composed(first: Any, second: Any, offset: int) -> bytes:
    side = 8 + offset
    canvas = np.zeros((side, side), np.float32)
    for y in range(8):
        for x in range(8):
            canvas[y, x] = first[y, x]
    for y in range(8):
        for x in range(8):
            canvas[y + offset, x + offset] = max(canvas[y + offset, x + offset], second.reshape(8, 8)[y, x])
    return canvas.tobytes()


def test_labels_are_those_of_the_scans() -> None:
    # With the scans apart, both can be read off the canvas.
    found, scans = problems.load("digits", {"train": 50, "evaluation": 200, "offset": 8}), load_digits()
    labels = {(i / 16).astype(np.float32).tobytes(): int(y) for i, y in zip(scans.images, scans.target, strict=True)}
    canvas = found.evaluation.inputs[:, 0].numpy()
    for corner, target in ((canvas[:, :8, :8], 0), (canvas[:, 8:, 8:], 1)):
        read = [labels[np.ascontiguousarray(scan).tobytes()] for scan in corner]
        assert read == found.evaluation.targets[target].tolist()
        assert set(read) == set(range(10))


def test_no_scan_is_in_both_sets() -> None:
    found = problems.load("digits", {"offset": 8})
    train_set = found.train.take(np.arange(len(found.train)))

    def scans(batch: Any) -> set[bytes]:
        canvas = batch.inputs[:, 0].numpy()
        both = (*canvas[:, :8, :8], *canvas[:, 8:, 8:])
        return {np.ascontiguousarray(scan).tobytes() for scan in both}

    assert (len(train_set), len(found.evaluation)) == (4000, 512)
    assert len(scans(train_set)) > 1000
    assert len(scans(found.evaluation)) > 400
    assert not scans(train_set) & scans(found.evaluation)


@pytest.mark.parametrize("norm", ["group", "batch", "none"])
def test_digit_networks_are_small_and_share_their_trunk(norm: str) -> None:
    found = problems.load("digits", {"norm": norm, "train": 40, "evaluation": 20})
    assert 20_000 <= found.layout.size <= 60_000
    owners = {slot.name.split(".")[0]: slot.owner for slot in found.layout.slots}
    assert owners == {"trunk": "shared", "first": "first", "second": "second", "picture": "picture"}
    kinds = {type(part).__name__ for part in found.model.modules()}
    assert ("GroupNorm" in kinds, "BatchNorm2d" in kinds) == (norm == "group", norm == "batch")
    assert (found.buffer_layout.size > 0) == (norm == "batch")


def test_the_default_has_as_many_parameters_as_it_says() -> None:
    assert problems.load("digits", {"train": 40, "evaluation": 20}).layout.size == 27_412


def test_digit_losses_and_metrics_are_their_formulas(digits: Any) -> None:
    double = digits.to(dtype=torch.float64)
    theta, buffers = double.initial(0)
    means = double.evaluate(theta, buffers)
    predictions = double.module(theta, buffers).eval()(double.evaluation.inputs)
    first, second, picture = (predictions[name].detach().numpy() for name in ("first", "second", "picture"))
    targets = [y.numpy() for y in double.evaluation.targets]

    def entropy(logits: Any, labels: Any) -> float:
        shifted = logits - logits.max(1, keepdims=True)
        logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
        return float(-logs[np.arange(len(labels)), labels].mean())

    losses = [
        entropy(first, targets[0]),
        entropy(second, targets[1]),
        0.5 * ((picture - targets[2]) ** 2).sum(1).mean(),
    ]
    metrics = [
        (first.argmax(1) == targets[0]).mean(),
        (second.argmax(1) == targets[1]).mean(),
        np.abs(picture - targets[2]).mean(),
    ]
    assert double.metric_names == ("first.accuracy", "second.accuracy", "picture.absolute error")
    # Float64, sums of 64 terms and means of 200.
    assert np.allclose(means.losses.numpy(), losses, rtol=1e-12)
    assert np.allclose(means.metrics.numpy(), metrics, rtol=1e-12)


def test_the_seed_of_digits_draws_data_and_the_seed_of_a_run_weights(digits: Any) -> None:
    small = {"train": 600, "evaluation": 200}
    assert problems.load("digits", small).data_hash == digits.data_hash
    assert problems.load("digits", {**small, "seed": 1}).data_hash != digits.data_hash
    assert torch.equal(digits.initial(1)[0], problems.load("digits", {**small, "seed": 1}).initial(1)[0])
    assert not torch.equal(digits.initial(1)[0], digits.initial(2)[0])


# Names and settings


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("digit", {}, "unknown problem 'digit': expected one of digits, .*; did you mean 'digits'"),
        ("digits", {"widht": 3}, "unknown setting of the problem digits 'widht': .*; did you mean 'width'"),
        ("digits", {"norm": "grup"}, "unknown norm 'grup': expected one of batch, group, none; did you mean 'group'"),
        ("digits", {"offset": 9}, "expected an offset of 0 to 8 pixels, got 9"),
        ("digits", {"train": 0}, "expected width, features, train and evaluation of 1 or more"),
        ("toy", {"start": 3}, "expected start 0, 1 or 2, got 3"),
        ("quadratic", {"examples": 3}, "expected an even number of examples, got 3"),
        ("quadratic", {"tasks": 0}, "expected 1 or more tasks and a size of 1 or more, got 0 and 10"),
        ("quadratic", {"tasks": "foo"}, "^expected tasks as a whole number, got 'foo'$"),
        ("quadratic", {"tasks": 2.0}, "^expected tasks as a whole number, got 2.0$"),
        ("quadratic", {"tasks": True}, "^expected tasks as a whole number, got True$"),
        ("quadratic", {"spread": "wide"}, "^expected spread as a number, got 'wide'$"),
        ("quadratic", {"spread": False}, "^expected spread as a number, got False$"),
        ("digits", {"norm": 3}, "^expected norm as a text, got 3$"),
        ("quadratic", {"minima": [[1.0]]}, "expected hessians and minima together, got only one of them"),
        (
            "quadratic",
            {"hessians": [[[1.0, 2.0], [0.0, 1.0]]], "minima": [[0.0, 0.0]]},
            r"expected symmetric hessians \[T, n, n\] and minima \[T, n\], got \[1, 2, 2\] and \[1, 2\]",
        ),
    ],
)
def test_settings_that_make_no_sense_are_refused(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        problems.load(name, settings)


def test_a_problem_of_ones_own_comes_from_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import landscape.problems.quadratic as q\n"
        "def make(size=2):\n    return q.make(size=size)\n"
        "def wrong():\n    return 3\n"
    )
    found = problems.load(f"{file}:make", {"size": 3})
    assert found.layout.count() == 3
    assert (found.origin.name, found.origin.settings, found.origin.built_in) == (f"{file}:make", {"size": 3}, False)
    assert problems.load("toy").origin.built_in
    with pytest.raises(LandscapeError, match=r"wrong returned int: expected a landscape\.Problem"):
        problems.load(f"{file}:wrong")
    with pytest.raises(LandscapeError, match=r"unknown function in .*mine\.py 'mak': .*; did you mean 'make'"):
        problems.load(f"{file}:mak")
    with pytest.raises(LandscapeError, match=r"there is no file .*other\.py: expected a Python file"):
        problems.load(f"{tmp_path}/other.py:make")
    with pytest.raises(LandscapeError, match=r"cannot import no_such_package .*: expected an importable module"):
        problems.load("no_such_package:make")


def test_a_whole_number_is_a_number() -> None:
    assert problems.load("quadratic", {"spread": 0, "tasks": 2, "size": 3}).origin.settings["spread"] == 0


@pytest.mark.parametrize("given", ["size", "size, *, depth", "size, **more"])
def test_an_argument_without_a_default_has_to_be_set(tmp_path: Path, given: str) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"import landscape.problems.quadratic as q\ndef make({given}):\n    return q.make(size=size)\n")
    with pytest.raises(
        LandscapeError, match=r"needs a value for 'size', which has no default: set it with --set size="
    ):
        problems.load(f"{file}:make")
    if "depth" in given:
        with pytest.raises(LandscapeError, match=r"needs a value for 'depth'"):
            problems.load(f"{file}:make", {"size": 3})
    else:
        assert problems.load(f"{file}:make", {"size": 3}).layout.count() == 3


def test_a_file_without_its_function_is_refused_with_the_form_expected(tmp_path: Path) -> None:
    with pytest.raises(LandscapeError, match=r"expected the function .* as my\.py:FUNCTION, got 'my\.py' alone"):
        problems.load("my.py")


def test_what_a_users_problem_raises_is_named_with_the_users_line(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(
        "import landscape.problems.quadratic as q\n\ndef make():\n    return q.make(hessians=3, minima='x')\n"
    )
    with pytest.raises(
        LandscapeError, match=r"make failed with \w+Error at .*mine\.py:4 \(.*expected it to make a pro"
    ):
        problems.load(f"{file}:make")
