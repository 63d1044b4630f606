"""Two-task networks of one layer kind each, every one with a plain twin that torch alone runs."""

from __future__ import annotations

import threading
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize
from torch.nn.utils.rnn import pack_padded_sequence
from torch.utils.checkpoint import checkpoint
from torch.utils.data import TensorDataset

from landscape import Problem, Task

WIDTH, TOKENS = 4, 6
EXAMPLES = 11

# Bodies: from inputs to features [B, WIDTH]


class Numbers(nn.Module):
    """Numbers [B, 3] through two linear layers with something between."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle, self.last = nn.Linear(3, WIDTH), middle, nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.last(self.middle(self.first(inputs))))


class Pictures(nn.Module):
    """Pictures [B, 1, 4, 4] through a convolution and something after it."""

    def __init__(self, middle: nn.Module) -> None:
        super().__init__()
        self.first, self.middle = nn.Conv2d(1, WIDTH, 3, padding=1), middle

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.middle(self.first(inputs))).square().mean((2, 3))


class Attention(nn.Module):
    """Sequences [B, 5, 3] that attend to themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)

    def forward(self, inputs: Tensor) -> Tensor:
        here = self.first(inputs)
        return self.attention(here, here, here, need_weights=False)[0].mean(1)


class Encoder(nn.Module):
    """Tokens [B, 5], the 0 of which are padding, through a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 8, dropout=0.0, batch_first=True, activation="gelu")
        self.encoder = nn.TransformerEncoder(layer, 2)

    def forward(self, inputs: Tensor) -> Tensor:
        padding = inputs == 0
        found = self.encoder(self.embedding(inputs), src_key_padding_mask=padding)
        return found.masked_fill(padding[..., None], 0).sum(1)


class Recurrent(nn.Module):
    """Tokens through a recurrent layer; `packed` stops every sequence at its own end."""

    def __init__(self, kind: Callable[..., nn.Module], packed: bool = False) -> None:
        super().__init__()
        self.embedding, self.cell = nn.Embedding(TOKENS, 3), kind(3, WIDTH, batch_first=True)
        self.packed = packed

    def forward(self, inputs: Tensor) -> Tensor:
        given: Any = self.embedding(inputs)
        if self.packed:
            lengths = (inputs != 0).sum(1).cpu()
            given = pack_padded_sequence(given, lengths, batch_first=True, enforce_sorted=False)
        _, state = self.cell(given)
        return (state[0] if isinstance(state, tuple) else state)[-1]


class Tokens(nn.Module):
    """The sum of the tokens' embeddings."""

    def __init__(self, sparse: bool = False, padding: int | None = None) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, WIDTH, padding_idx=padding, sparse=sparse)
        self.last = nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.last(self.embedding(inputs).sum(1)))


class Bag(nn.Module):
    def __init__(self, sparse: bool = False) -> None:
        super().__init__()
        self.bag, self.last = nn.EmbeddingBag(TOKENS, WIDTH, sparse=sparse), nn.Linear(WIDTH, WIDTH)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tanh(self.last(self.bag(inputs)))


class LowRank(nn.Module):
    """A frozen weight and a trained change of rank one (LoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
        self.down, self.up = nn.Parameter(torch.randn(1, WIDTH)), nn.Parameter(torch.randn(WIDTH, 1))

    def forward(self, inputs: Tensor) -> Tensor:
        return self.base(inputs) + inputs @ self.down.T @ self.up.T


class LowRankChange(nn.Module):
    """The same as a parametrisation of a linear layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Parameter(torch.randn(1, WIDTH)), nn.Parameter(torch.randn(WIDTH, 1))

    def forward(self, weight: Tensor) -> Tensor:
        return weight + self.up @ self.down


def low_rank_weight() -> nn.Module:
    layer = nn.Linear(WIDTH, WIDTH).requires_grad_(False)
    parametrize.register_parametrization(layer, "weight", LowRankChange())
    return layer


class Again(nn.Module):
    """A block whose forward pass is run again inside the backward pass."""

    def __init__(self, reentrant: bool | None) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Tanh(), nn.Linear(WIDTH, WIDTH))
        self.reentrant = reentrant

    def forward(self, inputs: Tensor) -> Tensor:
        if self.reentrant is None:
            return self.block(inputs)
        return checkpoint(self.block, inputs, use_reentrant=self.reentrant)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.two.weight = self.one.weight

    def forward(self, inputs: Tensor) -> Tensor:
        return self.two(torch.tanh(self.one(inputs)))


class Sixteenths(nn.Linear):
    """A linear layer with weights that are the same numbers in any type."""

    as_made = True

    def reset_parameters(self) -> None:
        with torch.no_grad():
            self.weight.copy_(torch.arange(self.weight.numel()).reshape(self.weight.shape) / 16 - 0.5)
            if self.bias is not None:
                self.bias.fill_(0.25)


class LazySixteenths(nn.LazyLinear):
    """The same, with a width that the first batch tells."""

    as_made = True

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params():
            Sixteenths.reset_parameters(self)


class Keeping(nn.Module):
    """Keeps what it last made, with its graph, as an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(WIDTH, WIDTH)
        self.features: Tensor | None = None

    def forward(self, inputs: Tensor) -> Tensor:
        self.features = self.layer(inputs)
        return self.features


class Locked(nn.Module):
    """Has an attribute that cannot be copied."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.lock = nn.Linear(WIDTH, WIDTH), threading.Lock()

    def forward(self, inputs: Tensor) -> Tensor:
        with self.lock:
            return self.layer(inputs)


class Complex(nn.Module):
    """A spectrum weighted and transformed back."""

    def __init__(self) -> None:
        super().__init__()
        self.gain, self.phase = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, inputs: Tensor) -> Tensor:
        weights = torch.complex(self.gain * torch.cos(self.phase), self.gain * torch.sin(self.phase))
        return torch.fft.irfft(torch.fft.rfft(inputs) * weights, n=WIDTH)


class Noise(nn.Module):
    """Noise that evaluation mode does not switch off."""

    def forward(self, inputs: Tensor) -> Tensor:
        return inputs + torch.randn_like(inputs)


class Net(nn.Module):
    """A body that two tasks share, and a head of each."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body, self.one, self.two = body, nn.Linear(WIDTH, 3), nn.Linear(WIDTH, 1)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        features = self.body(inputs)
        return {"one": self.one(features), "two": self.two(features)}


# Cases


@dataclass(frozen=True)
class Case:
    """A layer kind. `twin` makes the body that a plain reference runs, where it is another one; `wrap` is what a user
    does to the whole network before the problem is made.
    """

    name: str
    body: Callable[[], nn.Module]
    given: Callable[[torch.Generator], Tensor]
    twin: Callable[[], nn.Module] | None = None
    wrap: Callable[[nn.Module], nn.Module] = lambda module: module
    vectorises: bool = True
    """Whether several parameter vectors can be evaluated in one call."""
    slow: bool = False
    still: int = 0
    """So many entries at the start of theta never train: torch gives them no gradient, whatever the loss does there."""

    def model(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """What the user hands over."""
        return self.wrap(_made(self.body, dtype))

    def plain(self, dtype: torch.dtype = torch.float64) -> nn.Module:
        """Its twin, with the same parameters in the same order, in no library's hands."""
        return _made(self.twin or self.body, dtype)

    def data(self, seed: int) -> TensorDataset:
        own = torch.Generator().manual_seed(seed)
        labels = torch.randint(0, 3, (EXAMPLES,), generator=own)
        return TensorDataset(self.given(own), labels, torch.randn(EXAMPLES, 1, generator=own))

    def problem(self, dtype: torch.dtype = torch.float64, micro_batch: int = 4) -> Problem:
        """Eleven examples in micro-batches of 4, 4 and 3."""
        return Problem(self.model(dtype), TASKS, self.data(1), self.data(2), micro_batch=micro_batch)


def cross_entropy(prediction: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(prediction, target, reduction="none")


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return (prediction - target).square().sum(1)


TASKS = [Task("one", cross_entropy), Task("two", squared)]


def _made(body: Callable[[], nn.Module], dtype: torch.dtype) -> nn.Module:
    """A network with weights and statistics away from their start, tensor by tensor; what is
    `as_made` stays as it is.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Net(body()).to(dtype)
    kept = [p for part in module.modules() if getattr(part, "as_made", False) for p in part.parameters()]
    with torch.no_grad():
        for name, tensor in (*module.named_parameters(), *module.named_buffers()):
            if any(tensor is own for own in kept):
                continue
            own = torch.Generator().manual_seed(zlib.crc32(name.encode()))
            drawn = torch.randn(tensor.shape, generator=own, dtype=torch.float64)
            if name.endswith("running_var"):
                tensor.copy_(0.5 + drawn.square())
            elif name.endswith("running_mean"):
                tensor.copy_(0.3 * drawn)
            elif isinstance(tensor, nn.Parameter):
                tensor.copy_(0.6 * drawn + 0.1)
    return module


def _numbers(own: torch.Generator) -> Tensor:
    return torch.randn(EXAMPLES, 3, generator=own)


def _pictures(own: torch.Generator) -> Tensor:
    return torch.randn(EXAMPLES, 1, 4, 4, generator=own)


def _sequences(own: torch.Generator) -> Tensor:
    return torch.randn(EXAMPLES, 5, 3, generator=own)


def _tokens(own: torch.Generator) -> Tensor:
    """Sequences of 1 to 4 tokens, filled up with zeros to a width that none of them reaches."""
    tokens = torch.randint(1, TOKENS, (EXAMPLES, 5), generator=own)
    lengths = torch.randint(1, 5, (EXAMPLES, 1), generator=own)
    return tokens.masked_fill(torch.arange(5) >= lengths, 0)


def _between(
    name: str, middle: Callable[[], nn.Module], twin: Callable[[], nn.Module] | None = None, **more: Any
) -> Case:
    plain = None if twin is None else lambda: Numbers(twin())
    return Case(name, lambda: Numbers(middle()), _numbers, plain, **more)


def _after(name: str, middle: Callable[[], nn.Module], **more: Any) -> Case:
    return Case(name, lambda: Pictures(middle()), _pictures, **more)


def _whole(name: str, wrap: Callable[[nn.Module], nn.Module], **more: Any) -> Case:
    return _between(name, lambda: nn.BatchNorm1d(WIDTH), wrap=wrap, **more)


def _linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def _weight_norm_hook() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return nn.utils.weight_norm(_linear())


CASES = (
    _between("batch norm 1d", lambda: nn.BatchNorm1d(WIDTH)),
    _between("batch norm, plain mean", lambda: nn.BatchNorm1d(WIDTH, momentum=None), slow=True),
    _between("batch norm without weights", lambda: nn.BatchNorm1d(WIDTH, affine=False), slow=True),
    _between("layer norm", lambda: nn.LayerNorm(WIDTH)),
    _between("RMS norm", lambda: nn.RMSNorm(WIDTH), slow=True),
    _between("PReLU", nn.PReLU),
    _between("dropout", lambda: nn.Dropout(0.5)),
    _between("weight norm, hook", _weight_norm_hook),
    _between("weight norm, parametrisation", lambda: parametrizations.weight_norm(_linear())),
    _between("spectral norm, hook", lambda: nn.utils.spectral_norm(_linear())),
    _between("spectral norm, parametrisation", lambda: parametrizations.spectral_norm(_linear())),
    _between("orthogonal weight", lambda: parametrizations.orthogonal(_linear(), orthogonal_map="cayley"), slow=True),
    _between("low-rank adapter", LowRank, slow=True),
    _between("low-rank parametrisation", low_rank_weight),
    _between("checkpointing", lambda: Again(False), lambda: Again(None)),
    _between("tied weights", Tied),
    _between("lazy", lambda: LazySixteenths(WIDTH), lambda: Sixteenths(WIDTH, WIDTH)),
    _between("keeps an activation", Keeping),
    _between("has a lock", Locked),
    _between("complex numbers", Complex),
    _after("batch norm 2d", lambda: nn.BatchNorm2d(WIDTH)),
    _after("group norm", lambda: nn.GroupNorm(2, WIDTH)),
    _after("instance norm", lambda: nn.InstanceNorm2d(WIDTH, affine=True)),
    _after("instance norm with statistics", lambda: nn.InstanceNorm2d(WIDTH, affine=True, track_running_stats=True)),
    _after("local response norm", lambda: nn.LocalResponseNorm(2), slow=True),
    _after("transposed convolution", lambda: nn.ConvTranspose2d(WIDTH, WIDTH, 2), slow=True),
    Case("attention", Attention, _sequences),
    Case("transformer with padding", Encoder, _tokens),
    Case("LSTM", lambda: Recurrent(nn.LSTM), _tokens, vectorises=False, slow=True),
    Case("LSTM, packed", lambda: Recurrent(nn.LSTM, packed=True), _tokens, vectorises=False),
    Case("GRU", lambda: Recurrent(nn.GRU), _tokens, vectorises=False),
    Case("GRU, packed", lambda: Recurrent(nn.GRU, packed=True), _tokens, vectorises=False, slow=True),
    Case("embedding", Tokens, _tokens),
    Case("embedding with a padding row", lambda: Tokens(padding=0), _tokens, still=WIDTH),
    Case("embedding, sparse", lambda: Tokens(sparse=True), _tokens, Tokens),
    Case("embedding bag", Bag, _tokens, slow=True),
    Case("embedding bag, sparse", lambda: Bag(sparse=True), _tokens, Bag),
    _whole("compiled", lambda module: torch.compile(module, backend="eager"), slow=True),
    _whole("data parallel", nn.DataParallel),
)
"""Right values are expected of every one of these."""


@dataclass(frozen=True)
class Refusal:
    """A layer kind with which no number would be right, and the sentence that says so."""

    case: Case
    match: str


REFUSED = (
    Refusal(
        _between("batch norm without statistics", lambda: nn.BatchNorm1d(WIDTH, track_running_stats=False)),
        r"module 'body.middle' \(BatchNorm1d\) mixes the examples of a batch in evaluation mode",
    ),
    Refusal(
        _between("random numbers in evaluation", Noise),
        r"module 'body.middle' \(Noise\) draws random numbers in evaluation mode",
    ),
    Refusal(_whole("scripted", torch.jit.script), "script"),
    Refusal(_between("checkpointing, reentrant", lambda: Again(True)), "use_reentrant=False"),
)
