"""Examples in all their forms become the same batches; what would spoil a number is refused by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import IterableDataset, TensorDataset

from landscape import Batch, LandscapeError, Problem, Task
from landscape.data import Source
from tests.landscape.examples import NAMES, Listed, Net, data, made, squared, tasks, tensors

X, *YS = tensors(11)
ROWS = range(len(X))
FORMS: dict[str, list[Any]] = {
    "dict": [(X[i], {name: y[i] for name, y in zip(NAMES, YS, strict=True)}) for i in ROWS],
    "dict in another order, with more": [
        (X[i], {"more": 1, **{name: y[i] for name, y in reversed(list(zip(NAMES, YS, strict=True)))}}) for i in ROWS
    ],
    "tuple": [(X[i], tuple(y[i] for y in YS)) for i in ROWS],
    "list": [[X[i], [y[i] for y in YS]] for i in ROWS],
    "flat": [(X[i], *(y[i] for y in YS)) for i in ROWS],
    "arrays": [(X[i].numpy(), *(y[i].numpy() for y in YS)) for i in ROWS],
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_targets_gives_the_batches_of_a_tensor_data_set(form: str) -> None:
    source, fast = Source(Listed(FORMS[form]), NAMES, "training"), Source(TensorDataset(X, *YS), NAMES, "training")
    for rows in ([0], [3, 1, 10], list(ROWS)):
        batch, expected = source.take(np.array(rows)), fast.take(np.array(rows))
        assert torch.equal(batch.inputs, X[rows])
        assert all(torch.equal(mine, y[rows]) for mine, y in zip(batch.targets, YS, strict=True))
        assert len(batch) == len(rows)
        assert batch.hash() == expected.hash()
    assert source.freeze().hash() == fast.freeze().hash()


def test_one_task_may_have_its_target_alone_or_in_a_sequence() -> None:
    for examples in ([(X[i], YS[0][i]) for i in ROWS], [(X[i], [YS[0][i]]) for i in ROWS]):
        batch = Source(Listed(examples), ["only"], "training").take(np.array([2, 5]))
        assert torch.equal(batch.targets[0], YS[0][[2, 5]])


def test_nested_inputs_and_whole_numbers_pass_through() -> None:
    examples = [({"text": torch.arange(3) + i, "more": [X[i], float(i)]}, i) for i in ROWS]
    batch = Source(Listed(examples), ["only"], "training").take(np.array([4, 0])).to(torch.device("cpu"), torch.float32)
    assert torch.equal(batch.inputs["text"], torch.tensor([[4, 5, 6], [0, 1, 2]]))
    assert batch.inputs["more"][1].dtype == torch.float32
    assert batch.targets[0].dtype == torch.int64
    assert torch.equal(batch[1:].inputs["more"][0], X[:1])


def test_a_subclass_of_tensor_data_set_gives_its_own_examples() -> None:
    class Doubled(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            inputs, *targets = super().__getitem__(index)
            return 2 * inputs, *targets

    batch = Source(Doubled(X, *YS), NAMES, "training").take(np.array([3, 1]))
    assert torch.equal(batch.inputs, 2 * X[[3, 1]])


def test_float64_data_take_the_models_type_and_whole_numbers_keep_theirs() -> None:
    class Embedding(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(7, 2)

        def forward(self, inputs: dict[str, Tensor]) -> Tensor:
            return self.table(inputs["word"]) * inputs["scale"][:, None]

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(prediction, target, reduction="none")

    examples = [({"word": i % 7, "scale": np.float64(0.1 * i)}, i % 2) for i in range(20)]
    found = Problem(made(Embedding), [Task("only", loss)], Listed(examples), Listed(examples))
    assert found.evaluation.inputs["scale"].dtype == torch.float32
    assert found.evaluation.inputs["word"].dtype == torch.int64
    assert found.evaluation.targets[0].dtype == torch.int64


@given(st.integers(1, 40), st.integers(1, 45))
def test_pieces_are_the_set_in_order(count: int, size: int) -> None:
    numbers = torch.arange(count)
    pieces = list(Batch(numbers, (numbers,)).pieces(size))
    assert torch.equal(torch.cat([piece.inputs for piece in pieces]), numbers)
    assert {len(piece) for piece in pieces[:-1]} <= {size}


def batch_of(*leaves: Tensor) -> Batch:
    return Batch(leaves[0], leaves[1:])


def test_a_hash_does_not_see_strides_or_storage() -> None:
    square = torch.arange(12.0).reshape(3, 4)
    strided = torch.arange(24.0).reshape(3, 8)[:, ::2] / 2
    assert torch.equal(square, strided)
    turned = square.t().contiguous().t()
    assert batch_of(square).hash() == batch_of(strided).hash() == batch_of(turned).hash()


def test_a_hash_sees_order_type_shape_and_place() -> None:
    a, b = torch.arange(6.0), torch.arange(6.0) + 1
    different = [
        batch_of(a, b),
        batch_of(b, a),
        batch_of(a.flip(0), b.flip(0)),
        batch_of(a.double(), b),
        batch_of(a.reshape(2, 3), b),
        batch_of(a, b, torch.zeros(6, 0)),
        batch_of(a, b.to(torch.int32)),
        batch_of(a, torch.ones(6, dtype=torch.bool)),
    ]
    assert len({batch.hash() for batch in different}) == len(different)


@given(st.integers(0, 4 * 6 * 8 - 1))
def test_a_hash_sees_one_bit(bit: int) -> None:
    values = np.arange(6, dtype=np.float32)
    changed = values.copy()
    changed.view(np.uint8)[bit // 8] ^= 1 << bit % 8
    assert batch_of(torch.from_numpy(values)).hash() != batch_of(torch.from_numpy(changed)).hash()


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize(("leaf", "where"), [(0, "in the inputs of"), (2, "in the targets of task 'green' of")])
def test_a_nan_is_named_with_its_task_and_example(fast: bool, leaf: int, where: str) -> None:
    leaves = tensors(11)
    leaves[leaf][7, -1] = torch.nan
    broken = TensorDataset(*leaves)
    with pytest.raises(LandscapeError, match=f"NaN in the training data, {where} example 7: expected numbers; "):
        Source(broken if fast else Listed(list(broken)), NAMES, "training").freeze()


def test_a_nan_in_the_targets_of_a_task_called_inputs_is_not_blamed_on_the_inputs() -> None:
    with pytest.raises(LandscapeError, match="in the targets of task 'inputs' of example 1"):
        Source(TensorDataset(torch.zeros(2, 1), torch.tensor([0.0, torch.nan])), ["inputs"], "training")


def test_a_target_without_entries_is_no_nan() -> None:
    source = Source(TensorDataset(X, torch.zeros(11, 0)), ["empty"], "training")
    assert source.freeze().targets[0].shape == (11, 0)


def test_an_empty_set_is_refused() -> None:
    for empty in (TensorDataset(X[:0], *(y[:0] for y in YS)), Listed([])):
        with pytest.raises(LandscapeError, match="the evaluation data set is empty: expected at least one example"):
            Source(empty, NAMES, "evaluation")


def test_an_iterable_data_set_is_refused() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(FORMS["flat"])

    with pytest.raises(LandscapeError, match=r"expected the training data as a map-style .* got Stream: wrap"):
        Source(Stream(), NAMES, "training")
    with pytest.raises(LandscapeError, match="map-style data set with a length, got int: "):
        Source(3, NAMES, "training")  # type: ignore[arg-type]


def test_a_data_set_that_changes_when_it_is_read_again_is_refused() -> None:
    class Augmented(Listed):
        def __getitem__(self, index: int) -> Any:
            inputs, *targets = self.examples[index]
            return inputs + torch.randn(4), *targets

    with (
        torch.random.fork_rng(),
        pytest.raises(LandscapeError, match="other examples when it is read again: "),
    ):
        Source(Augmented(FORMS["flat"]), NAMES, "evaluation").freeze()


@pytest.mark.parametrize(
    ("examples", "message"),
    [
        ([(X[0], YS[0][0])], r"do not match the 3 tasks red, green, blue: expected .* got 2 parts \(Tensor, Tensor\)"),
        ([{"x": X[0]}], "got a dict with x"),
        ([X[0]], "got Tensor"),
        ([(X[0], {"red": 1, "green": 2})], r"got 2 parts \(Tensor, dict\)"),
        ([(X[0], "a", "b", "c")], "the training examples hold str: expected tensors, arrays or numbers; leave"),
        ([(X[0], *YS), (X[0, :2], *YS)], "cannot be stacked into a batch .* of one shape"),
        ([(X[0], 1, 2, None)], "cannot be stacked into a batch .* expected tensors, arrays or numbers"),
        ([({"a": 1}, 1, 2, 3), ({"b": 1}, 1, 2, 3)], r"cannot be stacked into a batch \(KeyError"),
    ],
)
def test_examples_of_another_form_are_refused(examples: list[Any], message: str) -> None:
    with pytest.raises(LandscapeError, match=message):
        Source(Listed(examples), NAMES, "training").freeze()


def test_the_evaluation_hash_of_a_problem_is_that_of_its_examples_not_of_their_form() -> None:
    problems = [Problem(made(Net), tasks(), data(), TensorDataset(X, *YS))]
    problems += [Problem(made(Net), tasks(), data(), Listed(FORMS[form])) for form in FORMS]
    assert len({p.data_hash for p in problems}) == 1
    other = Problem(made(Net), tasks(), data(), TensorDataset(X.flip(0), *YS))
    assert other.data_hash != problems[0].data_hash
    assert squared(X, X).shape == (11,)
