"""Work shared out among processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

_Task = TypeVar("_Task")
_Result = TypeVar("_Result")


class KilledError(RuntimeError):
    """A process was killed at its work, usually for want of memory."""


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
    if processes == 1 or len(tasks) < 2:
        yield from map(function, tasks)
        return
    # TensorFlow's threads don't survive a fork.
    context = multiprocessing.get_context("spawn")
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(min(processes, len(tasks)), context, _start, (prepare,))
    try:
        for future in as_completed([pool.submit(function, task) for task in tasks]):
            yield future.result()
    except BrokenProcessPool:
        raise KilledError("a process was killed at its work") from None
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)


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
