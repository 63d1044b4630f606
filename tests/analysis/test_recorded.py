"""Operations written down against the functions that ran them, on other tensors than those they were written from."""

from __future__ import annotations

import pytest
import torch
from torch.func import grad, jvp

from analysis.operations import written_down
from analysis.recorded import ADD, SUBTRACT, kept_bytes, record
from landscape.errors import LandscapeError

ADDCMUL = torch.ops.aten.addcmul.default


def numbers(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def targets(recorded):
    return [node.target for node in recorded.rest.graph.nodes if node.op == "call_function"]


def test_what_is_written_down_gives_what_the_function_gives_for_other_tensors():
    def loss(x, w):
        return torch.nn.functional.conv2d(x, w).relu().pow(3).sum()

    def function(flat, w):
        x = flat.view(2, 1, 6, 6)
        return [grad(loss, argnums=1)(x, w), *jvp(lambda y: loss(y, w), (x,), (x,))]

    made = written_down(function, [numbers(2, 36), numbers(5, 1, 3, 3)])
    x, w = numbers(2, 36, seed=1), numbers(5, 1, 3, 3, seed=2)
    for found, expected in zip(made(x, w), function(x, w), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)  # the same operations in the same order
    assert not any(node.op == "get_attr" for node in made.graph.nodes)


def test_tensors_from_elsewhere_are_constants_and_results_may_be_what_was_given():
    outside = numbers(3)
    made = written_down(lambda x: (x * outside + outside, x, outside), [numbers(3, seed=1)])
    x = numbers(3, seed=2)
    total, same, constant = made(x)
    torch.testing.assert_close(total, x * outside + outside)
    assert same is x
    assert torch.equal(constant, outside)
    assert len([node for node in made.graph.nodes if node.op == "get_attr"]) == 1, "one for one tensor"


@pytest.mark.parametrize(
    ("function", "operation"),
    [
        (lambda x: [x * x.sum().item()], "_local_scalar_dense"),
        (lambda x: [x if x.sum() > 0 else -x], "_local_scalar_dense|is_nonzero"),
        (lambda x: [x[x > 0].sum()], "nonzero|index"),
        (lambda x: [x * torch.equal(x, x)], "equal"),
    ],
)
def test_what_depends_on_values_is_refused(function, operation):
    with pytest.raises(
        LandscapeError, match=rf"no number or shape that depends on the values of a tensor, got aten.*({operation})"
    ):
        written_down(function, [numbers(3)])


def test_numbers_that_depend_on_shapes_alone_are_kept():
    made = written_down(lambda x: [x * len(x) * x.shape[1] * x.is_contiguous()], [numbers(2, 3)])
    torch.testing.assert_close(made(numbers(2, 3, seed=1))[0], 6 * numbers(2, 3, seed=1))


def test_a_linear_function_is_divided_and_products_are_added_at_once():
    def function(vector, given):
        (v, w), (a, b) = vector, given
        doubled = v * b
        return [a.exp() * v + w * b, w - v * a, doubled + doubled, doubled * 2 + w]

    vector, given = [numbers(4), numbers(4, seed=1)], [numbers(4, seed=2), numbers(4, seed=3)]
    recorded = record(function, vector, given)
    vector, given = [numbers(4, seed=4), numbers(4, seed=5)], [numbers(4, seed=6), numbers(4, seed=7)]
    begun = recorded.begun(given)
    for found, expected in zip(recorded.product(vector, begun), function(vector, given), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-14, atol=0)
    assert torch.ops.aten.exp.default not in targets(recorded), "it does not depend on the vector"
    # The first sum and the difference; what is used twice is not a product to be added, nor one with a number.
    assert targets(recorded).count(ADDCMUL) == 2
    assert targets(recorded).count(ADD) == 2
    assert SUBTRACT not in targets(recorded)
    assert kept_bytes(begun, given) == 4 * 8, "the exponential; a and b were there before"


def test_sums_of_different_types_and_shapes_stay_right():
    def function(vector, given):
        (v,), (a, b, counts) = vector, given
        return [v.float() * a.float() + b * v.sum(), counts * v + v, b * v + v[:, None]]

    counts = torch.tensor([1, 2, 3])
    given = [numbers(3, seed=1), numbers(3, seed=2), counts]
    recorded = record(function, [numbers(3)], given)
    vector = [numbers(3, seed=4)]
    for found, expected in zip(recorded.product(vector, recorded.begun(given)), function(vector, given), strict=True):
        assert found.dtype == expected.dtype
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-7)  # roundings of float32


def test_a_function_that_writes_into_its_own_tensors_is_recorded_and_one_into_what_is_given_refused():
    def writes(vector, given):
        total = torch.zeros_like(vector[0])
        total += vector[0] * given[0]
        total[1:].mul_(3)
        return [total]

    recorded = record(writes, [numbers(3)], [numbers(3, seed=1)])
    vector, given = [numbers(3, seed=2)], [numbers(3, seed=3)]
    kept = [tensor.clone() for tensor in (*vector, *given)]
    for _ in range(2):
        found = recorded.product(vector, recorded.begun(given))
        torch.testing.assert_close(found, writes(vector, given))
    assert all(torch.equal(one, before) for one, before in zip((*vector, *given), kept, strict=True))

    def spoils(vector, given):
        given[0].add_(1)
        return [vector[0] * given[0]]

    with pytest.raises(LandscapeError, match="without operations that write into their inputs"):
        record(spoils, [numbers(3)], [numbers(3, seed=1)])
