"""A product recorded as a plain list of operations, and divided into what depends on the vector and what does not."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.func import functionalize
from torch.fx import Graph, GraphModule, Node
from torch.utils._pytree import tree_leaves

from analysis.operations import DTYPE, written_down
from landscape.errors import LandscapeError

ADD, SUBTRACT, MULTIPLY = torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor, torch.ops.aten.mul.Tensor
_FLOATS = ({torch.float32}, {torch.float64})

Function: TypeAlias = Callable[[list[Tensor], list[Tensor]], list[Tensor]]
"""From the tensors of a vector and all else that may change to the tensors of a product, linear in the former."""
Operations: TypeAlias = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True, eq=False)
class Recording:
    """`rest(*vector, *prepare(*given))` is the product: `prepare` has the operations that do not depend on the vector,
    and gives what those in `rest` need of them.
    """

    prepare: Operations
    rest: Operations
    operations: int

    def begun(self, given: Sequence[Tensor]) -> list[Tensor]:
        """What is the same for every vector. Cost: a forward and a backward pass."""
        with torch.no_grad():
            return list(self.prepare(*given))

    def product(self, vector: Sequence[Tensor], begun: Sequence[Tensor]) -> list[Tensor]:
        """Cost: about two gradients, where the recorded operations are those of a Hessian product."""
        with torch.no_grad():
            return list(self.rest(*vector, *begun))


def record(function: Function, vector: list[Tensor], given: list[Tensor]) -> Recording:
    """Runs a product once and writes down its operations, so that it can be run on other tensors of these shapes.

    Operations that write into tensors are replaced by ones that make new tensors: what is kept stays what it is.

    Cost: that of `written_down`, once or twice; nothing of autograd is left in what was recorded.

    Raises:
        LandscapeError: a number or a shape depends on the values of a tensor, or an operation writes into what was
            given.
        RuntimeError, or whatever else torch raises: the function cannot be recorded.
    """
    count = len(vector)

    def flat(*tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(function(list(tensors[:count]), list(tensors[count:])))

    tensors = [*vector, *given]
    made = written_down(flat, tensors)
    _copy_rather_than_write(made.graph)
    if any(_writes(node) for node in made.graph.nodes):
        made = written_down(functionalize(made, remove="mutations"), tensors)
    if any(_writes(node) for node in made.graph.nodes):
        raise LandscapeError("expected a product without operations that write into their inputs")
    _share(made.graph)
    made.graph.eliminate_dead_code()
    return _divided(made, count)


def kept_bytes(begun: Sequence[Tensor], given: Sequence[Tensor]) -> int:
    """Bytes of what is kept, those of the tensors that were there before left out."""
    there = {tensor.untyped_storage()._cdata for tensor in given}
    kept = {tensor.untyped_storage()._cdata: tensor.untyped_storage().nbytes() for tensor in begun}
    return sum(size for storage, size in kept.items() if storage not in there)


def _writes(node: Node) -> bool:
    schema = getattr(node.target, "_schema", None)
    return node.op == "call_function" and schema is not None and bool(schema.is_mutable)


def _copy_rather_than_write(graph: Graph) -> None:
    """Replaces operations that write into a tensor by those that return a new one, if nobody looks at any of the old
    ones, or at a view of them, afterwards.
    """
    root: dict[Node, Node] = {}
    last: dict[Node, int] = {}
    order = {node: number for number, node in enumerate(graph.nodes)}
    for node in graph.nodes:
        root[node] = root[node.all_input_nodes[0]] if _is_view(node) else node
    for node in graph.nodes:
        for one in node.all_input_nodes:
            last[root[one]] = max(last.get(root[one], 0), order[node])
    others: dict[Node, Any] = {}
    for node in filter(_writes, graph.nodes):
        target, into = _that_returns(node), node.args[0] if node.args else None
        if target is None or not isinstance(into, Node):
            return
        if root[into].op != "call_function" or last[root[into]] > order[node]:
            return
        others[node] = target
    for node, target in others.items():
        node.target = target


def _that_returns(node: Node) -> Any:
    """The operation that returns what this one writes; None where there is none."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    other = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    return getattr(other, overload, None)


def _is_view(node: Node) -> bool:
    """Whether a result may share memory with an input: tuples' elements count as such."""
    if node.op != "call_function" or not node.all_input_nodes:
        return False
    schema = getattr(node.target, "_schema", None)
    return schema is None or any(one.alias_info is not None and not one.alias_info.is_write for one in schema.returns)


def _share(graph: Graph) -> None:
    """Has what is computed twice computed once."""
    known: dict[Any, Node] = {}
    for node in list(graph.nodes):
        if node.op == "get_attr":
            key: Any = (node.op, node.target)
        elif node.op == "call_function" and not _draws(node):
            key = (node.target, _frozen(node.args), _frozen(tuple(sorted(node.kwargs.items()))))
        else:
            continue
        if key in known:
            node.replace_all_uses_with(known[key])
            graph.erase_node(node)
        else:
            known[key] = node


def _draws(node: Node) -> bool:
    return torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())


def _frozen(value: Any) -> Any:
    """Something that can be looked up; numbers by their type too, since 1, 1.0 and True are equal."""
    if isinstance(value, list | tuple):
        return tuple(map(_frozen, value))
    return value if isinstance(value, Node) else (type(value), repr(value))


def _divided(made: GraphModule, count: int) -> Recording:
    nodes = list(made.graph.nodes)
    places = [node for node in nodes if node.op == "placeholder"]
    vector, given = places[:count], places[count:]
    moving = set(vector)
    for node in nodes:
        if any(one in moving for one in node.all_input_nodes):
            moving.add(node)
    moving.discard(nodes[-1])
    results = list(nodes[-1].args[0])
    used = [one for node in nodes if node in moving for one in node.all_input_nodes]
    needed = dict.fromkeys(one for one in (*used, *results) if one not in moving)
    first, second = Graph(), Graph()
    before = {node: first.placeholder(node.name) for node in given}
    after = {node: second.placeholder(node.name) for node in (*vector, *needed)}
    for node, place in after.items():
        place.meta.update(node.meta)
    for node in nodes:
        if node.op in ("placeholder", "output"):
            continue
        graph, known = (second, after) if node in moving else (first, before)
        known[node] = graph.node_copy(node, known.__getitem__)
    first.output(tuple(before[node] for node in needed))
    second.output(tuple(after[node] for node in results))
    first.eliminate_dead_code()
    _multiply_and_add_at_once(second)
    return Recording(GraphModule(made, first), GraphModule(made, second), len(second.nodes))


def _multiply_and_add_at_once(graph: Graph) -> None:
    """x + a b as one operation, which goes through memory once, where nobody else looks at a b."""
    for node in list(graph.nodes):
        if node.target not in (ADD, SUBTRACT) or node.kwargs or not _of_one_float_type(node):
            continue
        one, other = node.args
        if node.target is ADD and not _is_a_product_for(node, other):
            one, other = other, one
        if one is other or not _is_a_product_for(node, other):
            continue
        with graph.inserting_before(node):
            sign = 1 if node.target is ADD else -1
            fused = graph.call_function(torch.ops.aten.addcmul.default, (one, *other.args), {"value": sign})
        fused.meta.update(node.meta)
        node.replace_all_uses_with(fused)
        graph.erase_node(node)
        graph.erase_node(other)


def _is_a_product_for(node: Node, other: Node) -> bool:
    return other.target is MULTIPLY and list(other.users) == [node] and _of_one_float_type(other)


def _of_one_float_type(node: Node) -> bool:
    """Whether two tensors of the same floating-point type are combined into one of it."""
    types = {one.meta.get(DTYPE) for one in (node, *node.all_input_nodes)}
    return len(node.args) == 2 and all(isinstance(one, Node) for one in node.args) and types in _FLOATS


def shapes(tree: Any) -> tuple[Any, ...]:
    """What recordings depend on in a tree of tensors, beside their values."""
    return tuple((tuple(leaf.shape), leaf.dtype, str(leaf.device)) for leaf in tree_leaves(tree))
