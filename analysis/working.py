"""From the way that is asked for to one that works: held to the reference, and fallen back from where it must be."""

from __future__ import annotations

from analysis import memory
from analysis.product_choice import Auto, chosen
from analysis.products import (
    Block,
    CentralDifferences,
    ReverseOverReverse,
    Running,
    Way,
    apart,
    tolerance,
)
from landscape.errors import LandscapeError


def opened(block: Block, asked: Way | Auto) -> tuple[Running, list[str]]:
    """A way at work, and what was done otherwise than asked for.

    The first micro-batch of a random vector's product is compared with the reference's, and the last one where it has
    another size. Cost: what the way takes at its start, and 5 gradients of one or two micro-batches.
    """
    way = chosen(block, asked) if isinstance(asked, Auto) else asked
    if isinstance(way, ReverseOverReverse | CentralDifferences):
        return way.begin(block), []
    reference = ReverseOverReverse(way.micro_batch).begin(block)
    vector = block.drawn()
    first, last = (len(reference.pieces[number]) for number in (0, -1))
    looked_at = [0] if first == last else [0, len(reference.pieces) - 1]
    expected = {number: reference.of_piece(number, vector) for number in looked_at}
    try:
        running = way.begin(block)
        if isinstance(asked, Auto) and asked.max_memory is not None and running.held > asked.max_memory:
            raise LandscapeError(f"it keeps {running.held / 2**20:.0f} MiB, more than is allowed")
        off = apart(running, expected, vector)
    except Exception as error:  # whatever a transform, a recording or a compiler cannot do
        return reference, [f"{way!r} was not used: {_short(error)}"]
    if not off <= tolerance(block.problem.dtype):
        return reference, [f"{way!r} was not used: its product is {off:.1g} from the reference's"]
    return running, []


def smaller(running: Running, reason: str) -> Way:
    """A way that needs less memory than one for which there was not enough: without what it keeps, then with half the
    micro-batch.
    """
    size = running.way.micro_batch or running.block.problem.micro_batch
    size = min(size, len(running.block.loss.data))
    if not isinstance(running.way, ReverseOverReverse):
        return ReverseOverReverse(size)
    if size == 1:
        raise LandscapeError(
            f"memory runs out with the product of one example ({reason}): expected room for it; free memory, or use a "
            "smaller model or another device"
        )
    return ReverseOverReverse(size // 2)


def _short(error: BaseException) -> str:
    said = " ".join(str(error).split())
    return f"{type(error).__name__}: {said[:160]}" if not memory.ran_out(error) else "memory ran out"
