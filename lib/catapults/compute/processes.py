"""Other processes of this machine: what they inherit, how many threads they use, whom they wait for, and that none
outlives its parent."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any

import psutil


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Environment variables for the processes that are started inside."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def threads(number: int) -> Iterator[None]:
    """PyTorch's threads, here and in the processes that are started inside."""
    inside = {"OMP_NUM_THREADS": str(number), "MKL_NUM_THREADS": str(number)}
    if "torch" not in sys.modules and inside.items() <= os.environ.items():
        yield  # it would begin with as many, and to import it takes seconds
        return
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        with environment(inside):
            yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def alone(path: Path, waiting: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Wait until no other process or thread is at work for this path, whose folder is made if need be.

    The lock is the file ``path`` with ``.lock`` after its name. It goes with the process that holds it, even one that
    is killed: a file that is left behind locks nothing. ``waiting`` is called once if there is somebody to wait for.
    Raises ``OSError`` where no file can be written, or the file system has no locks.
    """
    from filelock import FileLock, Timeout  # which imports asyncio

    path.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(path.with_name(f"{path.name}.lock"), fallback_to_soft=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        waiting()
        lock.acquire(poll_interval=0.05)
    try:
        yield
    finally:
        lock.release()


@contextmanager
def pool(number: int, main: bool = False) -> Iterator[Callable[..., Future]]:
    """The ``submit`` of so many processes, spawned: a fork of a process that has used OpenMP can hang.

    They leave interrupts to this process and end with it, whatever becomes of it. Where the block ends by an exception,
    they are killed with all that they have started. ``main``: whether they import this process's main module, which a
    script without ``if __name__ == "__main__":`` must not have.
    """
    others = multiprocessing.active_children()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(number, context, _begin) as executor:

        def submit(*call: Any) -> Future:
            with nullcontext() if main else _hidden_main():
                return executor.submit(*call)  # which is when a process is started

        try:
            yield submit
        except BaseException:
            for worker in set(multiprocessing.active_children()).difference(others):
                with suppress(psutil.NoSuchProcess):
                    for process in [*psutil.Process(worker.pid).children(recursive=True), worker]:
                        process.kill()
            raise


@contextmanager
def _hidden_main() -> Iterator[None]:
    """Processes that are started inside do not import the main module."""
    main, hidden = sys.modules["__main__"], {}
    for name in ("__spec__", "__file__"):
        if hasattr(main, name):
            hidden[name] = getattr(main, name)
            delattr(main, name)
    main.__spec__ = None
    try:
        yield
    finally:
        for name, value in hidden.items():
            setattr(main, name, value)


def end_with_parent() -> None:
    """In a process that multiprocessing has started: end when the one that has started it does."""

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _begin() -> None:
    """In a worker: leave interrupts to the parent, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()
