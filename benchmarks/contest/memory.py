"""The memory that a step needs beside variables, gradients and slots."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path


def tensorflow_peak(function: Callable[[], object], device: str = "CPU:0") -> int | None:
    """Bytes that TensorFlow holds at most while `function` runs, beyond those held before.

    Where TensorFlow's allocator keeps no count (on a CPU it does if oneDNN is in use, and then it
    also keeps freed memory for itself), the process's size tells.
    """
    import tensorflow as tf

    try:
        tf.config.experimental.reset_memory_stats(device)
        before = tf.config.experimental.get_memory_info(device)["current"]
        function()
        return tf.config.experimental.get_memory_info(device)["peak"] - before
    except ValueError:
        return resident_peak(function)


def resident_peak(function: Callable[[], object]) -> int | None:
    """Bytes by which the process's resident memory grows at most while `function` runs.

    `None` where Linux's `/proc` does not tell.
    """
    try:
        ctypes.CDLL(None).malloc_trim(0)
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # resets the peak
        function()
        return max(0, _resident("VmHWM") - before)
    except (OSError, AttributeError):
        return None


def _resident(key: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {key} in /proc/self/status")
