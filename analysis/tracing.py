"""Groups of exchangeable hidden units from a model's flow of data, followed by torch.fx.

Rules. A linear or convolutional layer makes units; the layers that read them, biases, norm layers and their statistics
follow. Elementwise functions, pooling and dropout pass units on; flattening passes them on as neighbouring entries.
Adding (or multiplying) two layers' units makes them one group. A group norm holds its blocks together. Inputs and
predictions stay where they are, and so does everything that goes through an operation not named here.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass, field, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.utils._pytree import tree_leaves

from analysis.permutations import Axis, Group
from landscape.binding import copied
from landscape.errors import LandscapeError
from landscape.problem import Problem

ELEMENTWISE: set[Any] = {
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.Tanh, nn.Sigmoid),
    *(nn.Softplus, nn.Softsign, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Tanhshrink),
    *(nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout),
}
POOLING = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d, nn.Upsample),
)
ELEMENTWISE_CALLS: set[Any] = {
    *(torch.relu, torch.tanh, torch.sigmoid, torch.sin, torch.cos, torch.exp, torch.abs, torch.square, torch.erf),
    *(F.relu, F.relu6, F.leaky_relu, F.gelu, F.silu, F.mish, F.elu, F.selu, F.celu, F.tanh, F.sigmoid, F.softplus),
    *(F.hardtanh, F.hardswish, F.softsign, F.logsigmoid, F.dropout, operator.neg),
}
ELEMENTWISE_METHODS = {"relu", "tanh", "sigmoid", "sin", "cos", "exp", "abs", "square", "contiguous", "clone", "neg"}
POOLING_CALLS: set[Any] = {
    *(F.max_pool1d, F.max_pool2d, F.avg_pool1d, F.avg_pool2d, F.adaptive_avg_pool1d, F.adaptive_avg_pool2d),
    *(F.adaptive_max_pool2d, F.interpolate),
}
TOGETHER: set[Any] = {operator.add, operator.iadd, operator.sub, operator.mul, torch.add, torch.sub, torch.mul}


def groups_of(problem: Problem) -> tuple[Group, ...]:
    """The groups of exchangeable units of a problem's model, in the order of the flow of data.

    Raises:
        LandscapeError: a model that torch.fx cannot follow, or in which nothing can be exchanged.
    """
    model = copied(problem.model).eval()
    few = problem.evaluation[:2]
    try:
        graph = fx.symbolic_trace(model)
        with torch.no_grad():
            ShapeProp(graph).propagate(few.inputs)
    except Exception as error:
        said = " ".join(str(error).split())[:160]
        raise LandscapeError(
            f"cannot follow the flow of data through {type(model).__name__} by torch.fx ({said}): name the groups of "
            "exchangeable units yourself"
        ) from error
    walk = _Walk(graph, problem)
    for node in graph.graph.nodes:
        walk.visit(node)
    found = walk.groups()
    if not found:
        raise LandscapeError(
            f"no hidden units of {type(model).__name__} can be exchanged by the rules for linear, convolutional and "
            "norm layers: name the groups of exchangeable units yourself"
        )
    return found


@dataclass(eq=False)
class _Units:
    """A set of units, and what follows them; `into` is the set that it has become part of."""

    size: int
    fixed: bool = False
    blocks: int = 0
    axes: list[Axis] = field(default_factory=list)
    into: _Units | None = None

    @property
    def root(self) -> _Units:
        return self if self.into is None else self.into.root


@dataclass(frozen=True)
class _Flow:
    """The units along one axis of what a node gives, `repeat` neighbouring entries each."""

    units: _Units
    axis: int
    repeat: int = 1


class _Walk:
    def __init__(self, graph: fx.GraphModule, problem: Problem) -> None:
        self._modules = dict(graph.named_modules())
        names: dict[int, str] = {id(tensor): name for name, tensor in graph.named_buffers()}
        names |= {id(tensor): name for name, tensor in graph.named_parameters()}  # tied ones under their first name
        self._names = names
        self._stored = {slot.name for slot in (*problem.layout.slots, *problem.buffer_layout.slots)}
        self._flows: dict[fx.Node, _Flow] = {}
        self._of_axis: dict[tuple[str, int], tuple[_Units, int]] = {}
        self._all: list[_Units] = []

    def groups(self) -> tuple[Group, ...]:
        """What can be exchanged, named after the first tensor of each group."""
        kept = [u for u in self._all if u.into is None and not u.fixed and u.axes and u.size > 1]
        return tuple(
            Group(u.axes[0].tensor.rpartition(".")[0] or u.axes[0].tensor, u.size, tuple(u.axes), max(u.blocks, 1))
            for u in kept
        )

    def visit(self, node: fx.Node) -> None:
        """Follows the units through one operation."""
        flow = self._through(node)
        if flow is None:
            for before in node.all_input_nodes:
                self._fix(self._flows.get(before))
        else:
            self._flows[node] = flow

    def _through(self, node: fx.Node) -> _Flow | None:
        """The units that a node gives; None where it does not say what becomes of those that it takes."""
        if node.op == "call_module":
            return self._module(node, self._modules[str(node.target)])
        if node.op not in ("call_function", "call_method"):
            return None
        inputs = node.all_input_nodes
        before = self._flows.get(inputs[0]) if inputs else None
        method = node.op == "call_method"
        if node.target in TOGETHER:
            return self._together(node)
        if before is None:
            return None
        if len(inputs) == 1 and node.target in (ELEMENTWISE_METHODS if method else ELEMENTWISE_CALLS):
            return before
        if node.target in POOLING_CALLS and len(inputs) == 1:
            return before if before.axis == 1 and _rank(inputs[0]) > 2 else None
        if node.target in ("mean", "sum", torch.mean, torch.sum) and _rank(inputs[0]) > 2 and _rank(node) >= 2:
            return _averaged(before, inputs[0], node)
        if node.target in ("flatten", torch.flatten, "view", "reshape", torch.reshape):
            return _flattened(before, inputs[0], node)
        return None

    def _module(self, node: fx.Node, module: nn.Module) -> _Flow | None:
        source = node.all_input_nodes[0]
        before = self._flows.get(source)
        if isinstance(module, nn.Linear):
            return self._layer(module, before, _rank(source) - 1, (1, 0))
        if isinstance(module, _ConvNd) and not module.transposed:
            if module.groups == 1:
                return self._layer(module, before, 1, (1, 0))
            if before is not None and module.groups == module.in_channels == module.out_channels and before.axis == 1:
                return self._follow(module, before)
            return None
        if before is None:
            return None
        if type(module) in ELEMENTWISE:
            return before
        if isinstance(module, POOLING):
            return before if before.axis == 1 and _rank(source) > 2 else None
        if isinstance(module, nn.Flatten):
            return _flattened(before, source, node)
        if isinstance(module, _NormBase):
            return self._follow(module, before) if before.axis == 1 else None
        if isinstance(module, nn.LayerNorm):
            last = before.axis == _rank(source) - 1 and len(module.normalized_shape) == 1
            return self._follow(module, before) if last else None
        if isinstance(module, nn.GroupNorm) and before.axis == 1 and before.repeat == 1:
            self._hold(before.units.root, module.num_groups)
            return self._follow(module, before)
        return None

    def _layer(self, module: nn.Linear | _ConvNd, before: _Flow | None, axis: int, axes: tuple[int, int]) -> _Flow:
        """New units from old ones: the weight's axes are those of what goes in and of what comes out."""
        weight, (inner, outer) = module.weight, axes
        if before is not None and before.axis == axis:
            self._bind(weight, inner, before.units, before.repeat)
        else:
            self._fix(before)
            self._bind(weight, inner, self._new(weight.shape[inner], fixed=True), 1)
        units = self._new(weight.shape[outer])
        self._bind(weight, outer, units, 1)
        if module.bias is not None:
            self._bind(module.bias, 0, units, 1)
        return _Flow(units, axis)

    def _follow(self, module: nn.Module, before: _Flow) -> _Flow:
        """A layer with an entry for each unit in its own tensors."""
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            if tensor.ndim:
                self._bind(tensor, 0, before.units, before.repeat)
        return before

    def _together(self, node: fx.Node) -> _Flow | None:
        flows = [self._flows.get(before) for before in node.all_input_nodes]
        ranks = {_rank(before) for before in node.all_input_nodes}
        if not flows or None in flows or len(ranks) > 1:
            return None
        first, *others = [flow for flow in flows if flow is not None]
        for other in others:
            if (other.axis, other.repeat) != (first.axis, first.repeat):
                return None
            self._merge(first.units.root, other.units.root)
        return first

    def _new(self, size: int, fixed: bool = False) -> _Units:
        self._all.append(_Units(size, fixed))
        return self._all[-1]

    def _bind(self, tensor: Tensor, axis: int, units: _Units, repeat: int) -> None:
        """An axis of a tensor follows some units; where it follows others already, they become one set."""
        name = self._names.get(id(tensor), "")  # none where a weight is computed from others
        units = units.root
        if name not in self._stored or tensor.shape[axis] != units.size * repeat:
            units.fixed = True
        if (name, axis) in self._of_axis:
            other, times = self._of_axis[name, axis]
            if times != repeat:
                units.fixed = other.root.fixed = True
            else:
                self._merge(units, other.root)
            return
        self._of_axis[name, axis] = units, repeat
        units.axes.append(Axis(name, axis, repeat))

    def _hold(self, units: _Units, blocks: int) -> None:
        """A norm over blocks of units: as many blocks as units, or one, hold nothing together."""
        if blocks in (1, units.size):
            return
        if units.blocks not in (0, blocks):
            units.fixed = True
        units.blocks = blocks

    def _merge(self, one: _Units, other: _Units) -> None:
        if one is other:
            return
        other.into = one
        one.axes += other.axes
        one.fixed = one.fixed or other.fixed or one.size != other.size
        if other.blocks:
            self._hold(one, other.blocks)

    def _fix(self, flow: _Flow | None) -> None:
        if flow is not None:
            flow.units.root.fixed = True


def _rank(node: fx.Node) -> int:
    return len(_shape(node))


def _shape(node: fx.Node) -> tuple[int, ...]:
    """The shape of what a node gives; empty where it is no single tensor."""
    meta: Any = node.meta.get("tensor_meta")
    return tuple(meta.shape) if hasattr(meta, "shape") else ()


def _flattened(before: _Flow, source: fx.Node, node: fx.Node) -> _Flow | None:
    """From [B, C, ...] to [B, C ...]: the entries of a unit stay neighbours."""
    shape, flat = _shape(source), _shape(node)
    if before.axis != 1 or len(flat) != 2 or len(shape) < 2 or shape[0] != flat[0]:
        return before if shape == flat else None
    return replace(before, repeat=before.repeat * (flat[1] // shape[1]))


def _averaged(before: _Flow, source: fx.Node, node: fx.Node) -> _Flow | None:
    """A mean or sum over the places of a picture: units stay along axis 1."""
    shape, left = _shape(source), _shape(node)
    dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
    over = {dim % len(shape) for dim in tree_leaves(dims) if isinstance(dim, int)}
    return before if before.axis == 1 and over == set(range(2, len(shape))) and left[:2] == shape[:2] else None
