"""Work shared out among processes."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Self, TypeVar

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class KilledError(RuntimeError):
    """A process was killed at its work, usually for want of memory."""


class Pool:
    """Processes that work at the same time; this process itself where one is enough.

    They are started when the pool is made, to get ready while this process does something else. The
    pool is a context; on leaving it they end, in midst of their work where there is some left, as
    at Ctrl-C.

    Args:
        processes: Number of processes. With 1, work is done in this one.
        prepare: `None`, or a module-level function that each of several processes calls first.

    Attributes:
        size: Number of processes.

    Example:

    >>> with Pool(2, prepare=load_tensorflow) as pool:
    ...     for length in pool.map(len, read_texts()):
    ...         print(length)
    """

    def __init__(self, processes: int, prepare: Callable[[], object] | None = None) -> None:
        self.size = processes
        self._executor, self._given = None, list[Future[Any]]()
        if processes == 1:
            return
        # TensorFlow's threads don't survive a fork.
        context = multiprocessing.get_context("spawn")
        others = set(multiprocessing.active_children())
        self._executor = ProcessPoolExecutor(processes, context, _start, (prepare,))
        for _ in range(processes):  # Each starts a process, as none is idle yet.
            self._executor.submit(_nothing)
        self._children = set(multiprocessing.active_children()) - others

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._executor:
            if not all(future.done() for future in self._given):
                for child in self._children:
                    child.terminate()
            self._executor.shutdown(cancel_futures=True)

    def call(self, function: Callable[..., _Result], *args: Any) -> _Result:
        """What `function(*args)` returns, made by one of the processes.

        Args:
            function: Module-level function.
            *args: Its arguments.

        Raises:
            KilledError: If a process was killed.
        """
        if not self._executor:
            return function(*args)
        future = self._executor.submit(function, *args)
        self._given.append(future)
        with _killing_reported():
            return future.result()

    def map(
        self, function: Callable[[_Task], _Result], tasks: Iterable[_Task]
    ) -> Iterator[_Result]:
        """Yields `function(task)` for each task, in the order in which they are ready.

        With several processes all tasks are given out when the first result is asked for.

        Args:
            function: Module-level function.
            tasks: Its arguments.

        Raises:
            KilledError: If a process was killed.
        """
        if not self._executor:
            yield from map(function, tasks)
            return
        futures = [self._executor.submit(function, task) for task in tasks]
        self._given += futures
        for future in as_completed(futures):
            with _killing_reported():
                result = future.result()
            yield result


def run(
    function: Callable[[_Task], _Result],
    tasks: Sequence[_Task],
    processes: int,
    prepare: Callable[[], object] | None = None,
) -> Iterator[_Result]:
    """Yields `function(task)` for each task, in the order in which they are ready.

    Where the caller stops before the end, as at Ctrl-C, the processes are ended in midst of their
    work.

    Args:
        function: Module-level function; it runs in this process if one is enough, else in others.
        tasks: List of its arguments.
        processes: Most processes at a time.
        prepare: `None`, or a module-level function that each of several processes calls first.

    Raises:
        KilledError: If a process was killed.
    """
    with Pool(max(1, min(processes, len(tasks))), prepare) as pool:
        yield from pool.map(function, tasks)


@contextlib.contextmanager
def _killing_reported() -> Iterator[None]:
    try:
        yield
    except BrokenProcessPool:
        raise KilledError("a process was killed at its work") from None


def _nothing() -> None:
    pass


def _start(prepare: Callable[[], object] | None) -> None:
    """Has a worker die with its parent, and without a word at Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)

    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
    if prepare:
        prepare()


def available_cpus() -> int:
    """Number of CPUs that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
