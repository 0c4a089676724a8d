"""The bound on a CPU: multi-threaded C loops that do a rule's arithmetic in one pass."""

from __future__ import annotations

import ctypes
import functools
import itertools
import math
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from contest.methods import RATE
from contest.race import Contestant

SOURCE = r"""
#include <math.h>
#include <stddef.h>
#define F float *restrict
#define LOOP for (size_t i = 0; i < n; i++)
void acclip(F x, F m, F t, const F g, size_t n, float lr) {
  LOOP { m[i] = .9f*m[i] + .1f*g[i]; t[i] = .99f*t[i] + .01f*fabsf(g[i]);
    x[i] -= lr * (m[i] / fmaxf(t[i], fabsf(m[i]) + 1e-5f)) * (t[i] / (t[i] + 1e-5f)); } }
void adam(F x, F m, F v, const F g, size_t n, float lr) {
  LOOP { m[i] = .9f*m[i] + .1f*g[i]; v[i] = .999f*v[i] + .001f*g[i]*g[i];
    x[i] -= lr * m[i] / (sqrtf(v[i]) + 1e-7f); } }
void momentum(F x, F m, F unused, const F g, size_t n, float lr) {
  LOOP { m[i] = .9f*m[i] - lr*g[i]; x[i] += m[i]; } }
void lion(F x, F m, F unused, const F g, size_t n, float lr) {
  LOOP { float c = .9f*m[i] + .1f*g[i]; x[i] -= c > 0 ? lr : c < 0 ? -lr : 0;
    m[i] = .99f*m[i] + .01f*g[i]; } }
void cclip(F x, F unused, F unused2, const F g, size_t n, float lr) {
  LOOP x[i] -= lr * fminf(fmaxf(g[i], -1e-3f), 1e-3f); }
void gclip(F x, F unused, F unused2, const F g, size_t n, float lr) { LOOP x[i] -= lr * g[i]; }
float squares(F x, F unused, F unused2, const F g, size_t n, float lr) {
  float sum = 0; LOOP sum += g[i]*g[i]; return sum; }
"""


def compiled() -> ctypes.CDLL | None:
    """The C loops as a loaded library, or `None` where there is no C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "bound.c", Path(folder) / "bound.so"
        source.write_text(SOURCE)
        flags = ["-O3", "-march=native", "-ffast-math", "-shared", "-fPIC"]
        try:
            subprocess.run([os.environ.get("CC", "cc"), *flags, source, "-o", library], check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        loaded = ctypes.CDLL(str(library))
    for name in ("acclip", "adam", "momentum", "lion", "cclip", "gclip", "squares"):
        function = getattr(loaded, name)
        function.argtypes = [ctypes.c_void_p] * 4 + [ctypes.c_size_t, ctypes.c_float]
        function.restype = ctypes.c_float if name == "squares" else None
    return loaded


def step_of(
    library: ctypes.CDLL, held: list[tuple[np.ndarray, ...]]
) -> Callable[[str, float], None]:
    """A function of a C loop's name and a rate that runs it over `held`, in blocks on all cores.

    Args:
        library: What `compiled` returned.
        held: A tuple (x, first slot, second slot, gradient) of float32 arrays for each variable.
    """
    threads = os.cpu_count() or 1
    pool = ThreadPoolExecutor(threads)
    jobs = []
    for arrays in held:
        size = arrays[0].size
        edges = np.linspace(0, size, max(1, size >> 18) + 1).astype(int)
        for low, high in itertools.pairwise(edges):
            pointers = [a.ctypes.data + 4 * int(low) for a in arrays]
            jobs.append((*pointers, int(high - low)))
    shares = [jobs[i::threads] for i in range(threads)]

    def step(name, rate, held=held):  # which keeps the arrays alive
        def work(share, function, rate):
            return sum(function(*job, rate) or 0.0 for job in share)

        if name == "gclip":
            norm = math.sqrt(sum(pool.map(lambda s: work(s, library.squares, 0.0), shares)))
            rate = rate / max(1.0, norm)
        list(pool.map(lambda s: work(s, getattr(library, name), rate), shares))

    return step


def contestants(
    library: ctypes.CDLL,
    arrays: list[np.ndarray],
    gradients: list[np.ndarray],
    names: Iterable[str],
) -> list[Contestant]:
    """The C loops of these names, over variables and slots of their own that they share."""
    held = [
        (a.copy(), np.zeros_like(a), np.zeros_like(a), g)
        for a, g in zip(arrays, gradients, strict=True)
    ]
    step = step_of(library, held)
    return [Contestant(name, "bound", functools.partial(step, name, RATE)) for name in names]
