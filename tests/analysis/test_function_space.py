"""Disagreement and distances of losses and predictions, by hand and against plain loops."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from analysis import function_space
from analysis.function_space import Argmax, RootMeanSquare, Sign, measure, usual_rule
from analysis.subspaces import Place
from landscape.errors import LandscapeError
from tests.analysis import cases
from tests.analysis.synthetic import write_run


@pytest.fixture
def problem():
    return cases.make()


@pytest.fixture
def places(problem, tmp_path):
    theta = problem.read(problem.model)[0].numpy()
    rng = np.random.default_rng(0)
    thetas = theta + np.concatenate([np.zeros((1, theta.size)), 0.5 * rng.standard_normal((2, theta.size))])
    run = write_run(tmp_path / "run.h5", thetas, problem.layout)
    return [Place(run, row) for row in range(3)]


def plain(problem, place):
    """Predictions and losses by the module itself."""
    module = problem.module(torch.tensor(place.theta)).eval()
    with torch.no_grad():
        output = module(problem.evaluation.inputs)
    losses = [t.loss(output[t.name], y) for t, y in zip(problem.tasks, problem.evaluation.targets, strict=True)]
    return {name: part.numpy() for name, part in output.items()}, [loss.numpy() for loss in losses]


def test_matrices_are_those_of_a_plain_loop(problem, places):
    found = measure(problem, places)
    seen = [plain(problem, place) for place in places]
    count = len(problem.evaluation)
    assert found.rules == (Argmax.words, RootMeanSquare.words)
    assert found.points == ("walk-0@0", "walk-0@1", "walk-0@2")
    assert found.examples == 13
    for i in range(3):
        for j in range(3):
            if i == j:
                assert (found.disagreement[:, i, i] == 0).all()
                continue
            (first, first_losses), (second, second_losses) = seen[i], seen[j]
            other = first["one"].argmax(1) != second["one"].argmax(1)
            assert found.disagreement[0, i, j] == pytest.approx(other.mean(), rel=1e-12)
            assert found.disagreement_stderr[0, i, j] == pytest.approx(
                other.std(ddof=1) / np.sqrt(count), rel=1e-9, abs=1e-12
            )
            squares = (first["two"] - second["two"]).ravel() ** 2
            assert found.disagreement[1, i, j] == pytest.approx(np.sqrt(squares.mean()), rel=1e-12)
            error = squares.std(ddof=1) / np.sqrt(count) / (2 * np.sqrt(squares.mean()))
            assert found.disagreement_stderr[1, i, j] == pytest.approx(error, rel=1e-9)
            np.testing.assert_array_equal(found.prediction[1], found.disagreement[1])
            for t in range(2):
                gap = first_losses[t] - second_losses[t]
                assert found.loss[t, i, j] == pytest.approx(np.sqrt((gap**2).mean()), rel=1e-12)


def test_blocks_of_examples_change_nothing_but_the_memory(problem, places, monkeypatch):
    whole = measure(problem, places)
    told = []
    monkeypatch.setattr(function_space, "MEMORY", 1)
    parts = measure(problem, places, told=told.append)
    assert len(told) == 3 * 3  # 13 examples in micro-batches of 5
    assert function_space.blocks(problem, places) == 3
    for name in ("disagreement", "prediction", "loss", "disagreement_stderr", "loss_stderr"):
        np.testing.assert_allclose(getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-15)


def test_a_users_rule_is_used_and_named(problem, places):
    found = measure(problem, places, {"two": Sign()})
    first, second = (plain(problem, place)[0]["two"] > 0 for place in places[:2])
    assert found.disagreement[1, 0, 1] == pytest.approx((first != second).mean())
    assert found.rules[1] == "share of examples with another sign"
    assert found.shares.tolist() == [True, True]


def test_the_usual_rule_looks_at_predictions_and_targets():
    classes, one = torch.randn(4, 3), torch.randn(4, 1)
    whole, real = torch.zeros(4, dtype=torch.int64), torch.zeros(4)
    assert usual_rule(classes, whole) == Argmax()
    assert usual_rule(torch.randn(4, 3, 2, 2), torch.zeros(4, 2, 2, dtype=torch.int64)) == Argmax()
    for prediction, target in ((classes, real), (one, whole), (real, whole), (classes, whole.bool()), ({}, whole)):
        assert usual_rule(prediction, target) == RootMeanSquare()


def test_the_argmax_of_a_picture_is_compared_place_by_place():
    first = torch.zeros(1, 2, 2, 2)
    first[0, 0] = 1
    second = first.clone()
    second[0, 1, 0, 0] = 2
    assert Argmax().differ(first, second).tolist() == [0.25]


def test_predictions_of_several_tensors_are_compared_entry_by_entry():
    first, second = {"a": torch.zeros(2, 3), "b": torch.zeros(2)}, {"a": torch.ones(2, 3), "b": torch.ones(2) * 3}
    assert RootMeanSquare().differ(first, second).tolist() == [3.0, 3.0]  # (1 + 1 + 1 + 9) / 4


def test_one_example_has_no_error(tmp_path):
    problem = cases.make(examples=1)
    theta = problem.read(problem.model)[0].numpy()
    run = write_run(tmp_path / "run.h5", np.stack([theta, theta + 1]), problem.layout)
    found = measure(problem, [Place(run, 0), Place(run, 1)])
    assert np.isnan(found.loss_stderr).all()
    assert found.loss[0, 0, 1] > 0


def test_the_module_stays_as_it_was(problem, places):
    before = {name: tensor.clone() for name, tensor in problem.model.state_dict().items()}
    training = problem.model.training
    measure(problem, places)
    assert problem.model.training is training
    assert all(torch.equal(tensor, before[name]) for name, tensor in problem.model.state_dict().items())


def test_rules_that_do_not_fit_are_refused(problem, places, tmp_path):
    with pytest.raises(LandscapeError, match="unknown task of a rule 'tow': expected one of one, two; did you mean"):
        measure(problem, places, {"tow": Sign()})
    with pytest.raises(LandscapeError, match=r"the rule Whole\(\) gave the shape \[\]: expected one number for each"):
        measure(problem, places, {"one": Whole()})
    other = write_run(tmp_path / "other.h5", np.zeros((1, 4)))
    with pytest.raises(LandscapeError, match=r"expected theta with .* but .*other.h5 has 4 entries"):
        measure(problem, [Place(other)])


class Whole(Argmax):
    def differ(self, first, second):
        return (first - second).abs().mean()

    def __repr__(self):
        return "Whole()"


@pytest.mark.parametrize("cuts", [(), (1,), (3, 11), (1, 2, 3)])
def test_errors_of_values_that_hardly_differ_keep_their_digits(cuts):
    # 1000 -+ 1e-6: the mean of squares minus the squared mean gives 0, the right standard error is 1e-6 / sqrt(n - 1).
    values = torch.tensor([1000 + 1e-6, 1000 - 1e-6] * 10, dtype=torch.float64)
    nothing = [torch.zeros(20, 1, dtype=torch.float64)], torch.zeros(1, 20, dtype=torch.float64)
    seen = [values[:, None].sqrt()], torch.zeros(1, 20, dtype=torch.float64)
    sums = function_space._Sums(2, 1)
    for rows in torch.tensor_split(torch.arange(20), cuts):
        sums.add([RootMeanSquare()], [([one[0][rows]], other[:, rows]) for one, other in (nothing, seen)])
    mean, error = next(sums.parts())
    squares = values.sqrt().square().numpy()
    assert mean[0, 0, 1] == pytest.approx(1000, rel=1e-15)
    # Roundings of 1e-13 in the values, twenty of them in each of the sums.
    assert error[0, 0, 1] == pytest.approx(squares.std(ddof=1) / np.sqrt(20), rel=1e-6)
    assert error[0, 0, 1] == pytest.approx(1e-6 / np.sqrt(19), rel=1e-6)
