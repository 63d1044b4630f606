"""A user's module with other tensors in the place of its parameters and buffers, for as long as anything refers to it.

`torch.func.functional_call` puts a module's own tensors back when the forward pass is over. Whatever runs the module
once more in the backward pass, as activation checkpointing does, then sees those. A bound module keeps what it was
given: it is another module, of new and empty shells that share all else with the user's, and lives as long as a graph
that needs it.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from landscape.back_references import Carry, remembered, ways_back
from landscape.errors import LandscapeError
from landscape.modules import buffers_of, joined, parameters_of, parts, unwrapped


def require_bindable(module: nn.Module) -> None:
    """Raises where a module's tensors cannot be exchanged, with the name of the part at fault."""
    for name, tensor in {**parameters_of(module), **buffers_of(module)}.items():
        if tensor.is_meta and not is_lazy(tensor):
            raise LandscapeError(
                f"{name!r} is on the meta device, without values: expected a model with weights; give it some "
                "(to_empty, load_state_dict(..., assign=True)) before the problem is made"
            )
    for name, parameter in parameters_of(module).items():
        if not isinstance(parameter, nn.UninitializedParameter) and parameter.is_inference():
            raise LandscapeError(
                f"{name!r} was made under torch.inference_mode, so that it has no gradient: expected a model with "
                "parameters that can be trained; make the model outside of it"
            )
    for name, part in parts(module):
        called = f"module {name!r} ({type(part).__name__})" if name else f"the model ({type(part).__name__})"
        if isinstance(part, torch.jit.ScriptModule):
            raise LandscapeError(
                f"{called} is compiled by TorchScript, so that its parameters cannot be exchanged: expected the module "
                "as it was before torch.jit.script or torch.jit.trace; give that one"
            )
        sharded = type(part).__name__ == "FullyShardedDataParallel" or any(
            type(tensor).__name__ == "DTensor" for tensor in part._parameters.values()
        )
        if sharded:
            raise LandscapeError(
                f"{called} holds a share of its parameters only: expected a module with all of them; make the problem "
                "from an unsharded copy, and load the gathered state into it"
            )


def bind(module: nn.Module, state: Mapping[str, Tensor]) -> nn.Module:
    """A module like this one whose parameters and buffers are those of `state` where it names them, and the module's
    own where not.

    Names are those of `parameters_of` and `buffers_of`; tied tensors go by their first name. All else is shared with
    the module, which is not touched: flags and attributes that are set on the bound one stay there. Attributes
    that lead to a part or a tensor of the module (lists, closures, bound methods, objects of the user's) lead to the
    bound ones; generators of random numbers are copies in the same state. What a module keeps of its weights, as cached
    properties or until it trains again, is made anew. Sparse gradients of embeddings are switched off: they have no
    second derivative and no place in theta.

    Cost: about that of `torch.func.functional_call`.
    """
    root = unwrapped(module)
    named = list(parts(root))
    exchanged: dict[int, Any] = {}
    for name, part in named:
        for tensors in (part._parameters, part._buffers):
            for key, tensor in tensors.items():
                if tensor is not None:
                    exchanged.setdefault(id(tensor), state.get(joined(name, key), tensor))
    ways = ways_back(root, named)
    shells = {id(part): _shell(part) for _, part in named}
    for _, part in named:
        shell = shells[id(part)]
        own = shell.__dict__
        own["_parameters"] = {key: exchanged.get(id(tensor)) for key, tensor in part._parameters.items()}
        own["_buffers"] = {key: exchanged.get(id(tensor)) for key, tensor in part._buffers.items()}
        own["_modules"] = {
            key: None if child is None else shells[id(unwrapped(child))] for key, child in part._modules.items()
        }
        exchanged[id(part)] = shell
    carry = Carry(exchanged, ways.objects)
    for part, keys in ((part, ways.attributes.get(id(part), ())) for _, part in named):
        shells[id(part)].__dict__.update({key: carry(part.__dict__[key]) for key in keys})
    if ways.keeps:
        forget(shells[id(root)], shells.values())
    return shells[id(root)]


def forget(root: nn.Module, every: Collection[nn.Module]) -> None:
    """Has a module's parts make anew what they keep of their weights: cached properties, and, of those whose `train` is
    their own, what they keep for evaluations.
    """
    for part in every:
        for name in remembered(type(part)):  # type: ignore[arg-type]
            part.__dict__.pop(name, None)
    if any(type(part).train is not nn.Module.train for part in every):
        modes = [(part, part.training) for part in every]
        root.train()
        root.train(False)
        for part, training in modes:
            part.training = training


def draws_of(module: nn.Module) -> tuple[str, ...]:
    """Attributes of a module that lead to generators of random numbers."""
    root = unwrapped(module)
    return ways_back(root, list(parts(root))).draws


def with_own_hooks(module: nn.Module) -> nn.Module:
    """The same bound module, whose hooks, as far as they are those of the user's, are its own from now on."""
    for _, part in parts(module):
        own = part.__dict__
        own.update({name: value.copy() for name, value in own.items() if name.endswith(_HOOKS) and value is not None})
    return module


_HOOKS = ("_hooks", "_hooks_with_kwargs", "_hooks_always_called")


def copied(module: nn.Module, device: torch.device | None = None, dtype: torch.dtype | None = None) -> nn.Module:
    """A module of its own like this one, with copies of all parameters and buffers, floating-point ones in `dtype`.

    Unlike `copy.deepcopy` it takes modules that keep an activation, a lock or a file.
    """

    def own_copy(tensor: Tensor) -> Tensor:
        kind = dtype if tensor.is_floating_point() else None
        return tensor.detach().to(device=device, dtype=kind, copy=True)

    own = {name: nn.Parameter(own_copy(p), p.requires_grad) for name, p in parameters_of(module).items()}
    buffers = {name: own_copy(buffer) for name, buffer in buffers_of(module).items()}
    return with_own_hooks(bind(module, {**own, **buffers}))


@contextlib.contextmanager
def without_autocast() -> Iterator[None]:
    """In the tensors' own number types, whatever `torch.autocast` is in force around."""
    with contextlib.ExitStack() as stack:
        for kind in ("cpu", "cuda"):
            if torch.is_autocast_enabled(kind):
                stack.enter_context(torch.autocast(kind, enabled=False))
        yield


@contextlib.contextmanager
def plain_kernels(module: nn.Module) -> Iterator[None]:
    """Runs a module's forward pass by kernels whose values do not depend on whether gradients are wanted, and that have
    gradients in evaluation mode.

    Transformer layers go operation by operation: their fused path drops padded positions, and has no gradient.
    Recurrent layers in evaluation mode on a GPU do without cuDNN, which has no backward pass there.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.backends.cudnn.flags(enabled=False) if _needs_plain_recurrence(module) else contextlib.nullcontext():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def uncompiled() -> contextlib.AbstractContextManager[Any]:
    """Runs what `torch.compile` has made as the Python code that it was made from."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else contextlib.nullcontext()


def _needs_plain_recurrence(module: nn.Module) -> bool:
    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return False
    recurrent = (part for _, part in parts(module) if isinstance(part, nn.RNNBase))
    return any(not part.training and next(part.parameters()).is_cuda for part in recurrent)


def _shell(part: nn.Module) -> nn.Module:
    shell: nn.Module = object.__new__(type(part))
    own = shell.__dict__
    own.update(part.__dict__)
    if own.get("_compiled_call_impl") is not None:  # of `module.compile()`: it calls the user's module
        own["_compiled_call_impl"] = None
    if isinstance(part, nn.Embedding | nn.EmbeddingBag):
        own["sparse"] = False
    return shell
