"""Problems of a user's own: one that is right, and each of the ways in which one can be wrong."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from landscape import Problem, Task


class Net(nn.Module):
    """A shared layer and two heads."""

    def __init__(self, width: int = 4, dropout: nn.Module | None = None) -> None:
        super().__init__()
        self.shared = nn.Linear(3, width)
        self.dropout = dropout or nn.Identity()
        self.up, self.down = nn.Linear(width, 1), nn.Linear(width, 1)

    def forward(self, inputs: Tensor) -> dict[str, Tensor]:
        hidden = self.dropout(self.shared(inputs).tanh())
        return {"up": self.up(hidden), "down": self.down(hidden)}


class Always(nn.Module):
    """Dropout that evaluation mode does not switch off."""

    def forward(self, inputs: Tensor) -> Tensor:
        return nn.functional.dropout(inputs, 0.5, training=True)


def squared(prediction: Tensor, target: Tensor) -> Tensor:
    return ((prediction - target) ** 2).mean(1)


def averaged(prediction: Tensor, target: Tensor) -> Tensor:
    return nn.functional.mse_loss(prediction, target)


def data(count: int = 24, seed: int = 0) -> TensorDataset:
    numbers = torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))
    return TensorDataset(numbers[:, :3], numbers[:, 3:4], numbers[:, 4:])


def problem(
    model: Callable[[], nn.Module] = Net, loss: Any = squared, count: int = 24, names: tuple[str, ...] = ("up", "down")
) -> Problem:
    return Problem(model, [Task(name, loss) for name in names], data(count), data(8, seed=1))


def make(width: int = 4) -> Problem:
    return problem(lambda: Net(width))


def shifted(width: int = 4) -> Problem:
    """The same with another start for every seed."""

    def moved() -> Net:
        net = Net(width)
        net.shared.bias.data += 1
        return net

    return problem(moved)


def needs_a_width(width: int) -> Problem:
    return make(width)


def raises() -> Problem:
    raise FileNotFoundError("the pictures\nare not here")


def ends() -> Problem:
    raise SystemExit("no more")


def returns_something_else() -> int:
    return 3


def other_outputs() -> Problem:
    class Other(Net):
        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {"left": super().forward(inputs)["up"]}

    return problem(Other)


def averaged_loss() -> Problem:
    return problem(loss=averaged)


def mixed_loss() -> Problem:
    return problem(loss=lambda p, t: averaged(p, t).expand(len(p)))


def raises_in_training() -> Problem:
    """Its loss raises in the third step."""
    steps = iter(range(100))

    def raising(prediction: Tensor, target: Tensor) -> Tensor:
        if ready and torch.is_grad_enabled() and next(steps) == 2:
            raise IndexError("no such class")
        return squared(prediction, target)

    ready: list[bool] = []
    made = Problem(Net, [Task("up", squared), Task("down", raising)], data(), data(8, seed=1))
    ready.append(True)
    return made


def unreached() -> Problem:
    class Detached(Net):
        def forward(self, inputs: Tensor) -> dict[str, Tensor]:
            return {**super().forward(inputs), "down": torch.zeros(len(inputs), 1)}

    return problem(Detached)


def empty() -> Problem:
    return problem(count=0)


def not_numbers() -> Problem:
    broken = data()
    broken.tensors[2][5] = torch.nan
    return Problem(Net, [Task("up", squared), Task("down", squared)], broken, data(8, seed=1))


def dropout_in_evaluation() -> Problem:
    return problem(lambda: Net(dropout=Always()))


def fails_in_training() -> Problem:
    """Its loss is finite as long as the weights are small."""

    def explodes(prediction: Tensor, target: Tensor) -> Tensor:
        return torch.where(prediction.abs().mean(1) > 2, torch.inf, squared(prediction, target))

    return Problem(Net, [Task("up", squared), Task("down", explodes)], data(), data(8, seed=1))
