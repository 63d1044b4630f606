"""What a function does to tensors, written down operation by operation while it runs."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Node
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.weak import WeakTensorKeyDictionary

from landscape.errors import LandscapeError


def written_down(function: Callable[..., Sequence[Tensor]], tensors: Sequence[Tensor]) -> GraphModule:
    """The operations of one call as a graph, from placeholders for the tensors, in their order, to the results.

    They are seen below transforms and differentiation, of which nothing is left. Tensors that come from elsewhere are
    constants. `make_fx` of torch writes down the same, and takes about eight times as long: for every operation it
    keeps stand-ins for its results and where in the source it was called.

    Cost: one call, and about a tenth of a millisecond an operation.

    Raises:
        LandscapeError: Python reads a number from a tensor, or a shape depends on its values: they would be what they
            are now ever after.
    """
    writing = _Writing(tensors)
    with writing:
        results = list(function(*tensors))
    writing.graph.output(tuple(writing.place_of(result) for result in results))
    return GraphModule(writing.constants, writing.graph)


DTYPE = "dtype"
"""Under which a node says the number type of its tensor."""

_OF_VALUES = frozenset({torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape})


class _Writing(TorchDispatchMode):  # type: ignore[no-untyped-call]
    def __init__(self, tensors: Sequence[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = Graph()
        self.constants: dict[str, Tensor] = {}
        self._places: Any = WeakTensorKeyDictionary()
        for number, tensor in enumerate(tensors):
            self._put(tensor, self.graph.placeholder(f"given_{number}"))

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """False: the first use would else import the compiler, which takes a second."""
        return False

    def place_of(self, tensor: Tensor) -> Node:
        """Where a tensor comes from."""
        if tensor not in self._places:
            name = f"constant_{len(self.constants)}"
            self.constants[name] = tensor
            self._put(tensor, self.graph.get_attr(name))
        found: Node = self._places[tensor]
        return found

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if not _OF_VALUES.isdisjoint(func.tags):
            raise LandscapeError(f"expected no number or shape that depends on the values of a tensor, got {func}")
        kwargs = kwargs or {}
        given = tree_map(self._place_or_value, (args, kwargs))
        found = func(*args, **kwargs)
        if any(isinstance(leaf, Tensor) for leaf in tree_leaves(found)):  # else of shapes and types, which stay
            self._put(found, self.graph.call_function(func, *given))
        return found

    def _place_or_value(self, leaf: Any) -> Any:
        return self.place_of(leaf) if isinstance(leaf, Tensor) else leaf

    def _put(self, found: Any, node: Node) -> None:
        if isinstance(found, Tensor):
            self._places[found] = node
            node.meta[DTYPE] = found.dtype
        elif isinstance(found, tuple | list):
            for number, part in enumerate(found):
                if part is not None:
                    self._put(part, self.graph.call_function(operator.getitem, (node, number)))
