"""Independent jobs side by side: one process each, every process on threads of its own."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

import torch

from landscape.errors import LandscapeError

Result = TypeVar("Result")
Tell = Callable[[int], None]
"""Told of every piece of work that was done, with its amount."""

_GRACE = 20.0
"""Seconds that a worker has to put its files in order when it is ended."""

_amounts: Any = None


def _nothing(index: int, result: Any) -> None:
    pass


def run_all(
    job: Callable[..., Result],
    arguments: Sequence[tuple[Any, ...]],
    workers: int,
    tell: Tell,
    each: Callable[[int, Result], None] = _nothing,
) -> list[Result]:
    """`job(*arguments[i], tell)` for every i, results in order; at most `workers` at a time.

    `each(i, result)` is called here as jobs end, in whatever order they do; also of those that ended before another
    one failed.

    With one worker everything runs here. Workers are fresh processes (`spawn`) with one torch thread each: small
    networks gain nothing from more, and a core that two processes share makes both wait. The first error ends all.

    Raises:
        LandscapeError: a worker was killed. And whatever a job raises.
    """
    if workers <= 1 or len(arguments) <= 1:
        found = []
        for index, given in enumerate(arguments):
            found.append(job(*given, tell))
            each(index, found[-1])
        return found
    context = multiprocessing.get_context("spawn")
    amounts = context.SimpleQueue()  # a put is done when it returns, so that no amount comes after its job
    pool = ProcessPoolExecutor(min(workers, len(arguments)), context, _begin, (amounts,))
    try:
        with _sigint_blocked():
            futures = [pool.submit(_in_worker, job, given) for given in arguments]
        _listen(futures, _processes(pool), lambda: _drain(amounts, tell), each)
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        _end(pool)
        raise LandscapeError(
            "a worker process was killed: expected it to end by itself; was there too little memory? give the same "
            "command again with fewer jobs"
        ) from error
    except BaseException:
        _end(pool)
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextlib.contextmanager
def _sigint_blocked() -> Iterator[None]:
    """Processes started meanwhile never see a terminal's Ctrl-C, from their first moment on; ours comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin(amounts: Any) -> None:
    """A worker's start: when it is ended it puts its files in order, when its parent is killed it ends too."""
    global _amounts  # noqa: PLW0603
    _amounts = amounts
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # a closed terminal ends the parent, which ends its workers
    signal.signal(signal.SIGTERM, _end_now)
    signal.signal(signal.SIGALRM, _exit)
    sys.unraisablehook = _end_again
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_now(*_: Any) -> None:
    """Between jobs there is nothing to put in order."""
    os._exit(1)


def _exit(*_: Any) -> None:
    sys.exit(1)


def _end_again(ignored: Any) -> None:
    """Where Python can raise nothing, as while an object is taken away, the exit is lost: it is raised once more."""
    if issubclass(ignored.exc_type, SystemExit):
        signal.setitimer(signal.ITIMER_REAL, 0.01)
    else:
        sys.__unraisablehook__(ignored)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _in_worker(job: Callable[..., Result], arguments: tuple[Any, ...]) -> Result:
    """Runs a job. One that is ended has put its files in order by now; the pool would keep its process alive."""
    try:
        signal.signal(signal.SIGTERM, _exit)
        try:
            return job(*arguments, _amounts.put)
        finally:
            signal.signal(signal.SIGTERM, _end_now)
    except SystemExit:
        os._exit(1)


def _processes(pool: ProcessPoolExecutor) -> list[Any]:
    return list((getattr(pool, "_processes", None) or {}).values())


def _end(pool: ProcessPoolExecutor) -> None:
    """Ends all workers. One that does not put its files in order in time, as in the midst of a long sum, is killed."""
    end = time.monotonic() + _GRACE
    for process in _processes(pool):
        process.terminate()
    for process in _processes(pool):
        process.join(max(0.0, end - time.monotonic()))
        if process.exitcode is None:
            process.kill()


def _drain(amounts: Any, tell: Tell) -> None:
    while not amounts.empty():
        tell(amounts.get())


def _listen(
    futures: Sequence[Future[Result]],
    processes: Sequence[Any],
    hear: Callable[[], None],
    each: Callable[[int, Result], None],
) -> None:
    """Waits for all jobs. Workers are watched here as well: the pool misses the death of one that it started last."""
    pending, numbers = set(futures), {future: index for index, future in enumerate(futures)}
    while pending:
        done, pending = wait(pending, timeout=0.2, return_when=FIRST_EXCEPTION)
        hear()
        for future in sorted(done, key=numbers.__getitem__):
            if future.exception() is None:
                each(numbers[future], future.result())
        for future in done:
            future.result()
        if pending and any(process.exitcode is not None for process in processes):
            raise BrokenProcessPool
