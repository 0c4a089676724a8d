"""Time and memory of one optimizer step over BERT's variables, beside peers and the memory limit.

    python benchmarks/step_time.py
    python benchmarks/step_time.py --layers 12 --torch

One step applies given gradients to the variables of BERT-base with 6 layers (67 million
parameters in 106 variables) or with `--layers`, in three modes: eager (`optimizer.apply` as it
stands), graph (inside a `tf.function`) and XLA (inside a `tf.function(jit_compile=True)`). All
contestants take turns, step by step, so that a drift of the machine's speed meets all alike. They
share the variables, so that only slots come on top: 4 GB for 6 layers, 8 GB for 12. Ctrl-C ends
the race early, with the table of the rounds run so far.

Columns: the median time with its quartiles; the bandwidth, counting each byte once that the rule
must read or write; the ratio to Keras's Adam in the same mode; the ratio to the bound, a
multi-threaded C loop that does the same arithmetic in one pass (two for GClip, whose norm comes
first); memory beyond variables and gradients, the slots and the most that a step needs besides; the
time of the first step, which traces and compiles. A ratio is the median of the rounds' ratios.
"""

import argparse
import ctypes
import dataclasses
import functools
import gc
import itertools
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

import keras
import numpy as np
import tensorflow as tf

import keras_acclip

RATE = 1e-3
MODES = ("eager", "graph", "XLA")
BASELINE = "Keras Adam"


@dataclasses.dataclass(frozen=True)
class Method:
    """An optimizer in the race: how to make it, what it must move, and its C loop.

    `reads` and `writes` count the float32 numbers a parameter that the rule must load and store.
    """

    make: Callable
    reads: int
    writes: int
    bound: str

    @property
    def bytes(self):
        """Bytes a parameter that no implementation can avoid moving."""
        return 4 * (self.reads + self.writes)


METHODS = {
    "ACClip": Method(lambda: keras_acclip.ACClip(RATE), 4, 3, "acclip"),
    "ACClip, weight decay": Method(
        lambda: keras_acclip.ACClip(RATE, weight_decay=0.01), 4, 3, "acclip"
    ),
    "GClip": Method(lambda: keras_acclip.GClip(RATE), 3, 1, "gclip"),
    "CClip": Method(lambda: keras_acclip.CClip(RATE, threshold=1e-3), 2, 1, "cclip"),
    "Keras Adam": Method(lambda: keras.optimizers.Adam(RATE), 4, 3, "adam"),
    "Keras AdamW": Method(lambda: keras.optimizers.AdamW(RATE, weight_decay=0.01), 4, 3, "adam"),
    "Keras SGD, momentum": Method(
        lambda: keras.optimizers.SGD(RATE, momentum=0.9), 3, 2, "momentum"
    ),
    "Keras Lion": Method(lambda: keras.optimizers.Lion(RATE), 3, 2, "lion"),
}


def bert_shapes(layers, hidden=768, vocabulary=30522, positions=512):
    """Shapes of BERT's encoder and masked-LM head, as KerasHub has them."""
    heads = max(1, hidden // 64)
    head, inner = (heads, hidden // heads), 4 * hidden
    layer = [
        *[(hidden, *head), head] * 3,
        *[(*head, hidden), (hidden,), (hidden,), (hidden,)],
        *[(hidden, inner), (inner,), (inner, hidden), (hidden,), (hidden,), (hidden,)],
    ]
    embeddings = [(vocabulary, hidden), (positions, hidden), (2, hidden), (hidden,), (hidden,)]
    masked_lm = [(hidden, hidden), (hidden,), (hidden,), (hidden,), (vocabulary,)]
    return embeddings + layer * layers + masked_lm


def parameters_and_gradients(shapes):
    """Two lists of float32 arrays: weights of BERT's initial size and gradients of a usual one."""
    rng = np.random.default_rng(0)
    return [
        [scale * rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        for scale in (0.02, 1e-3)
    ]


@dataclasses.dataclass
class Contestant:
    """One method in one mode: a function that takes a step, and what was measured of it."""

    method: str
    mode: str
    step: Callable
    slot_bytes: int = 0
    peak: Callable = None
    first: float = 0.0
    extra_bytes: int | None = None
    seconds: list = dataclasses.field(default_factory=list)

    def begin(self):
        """Takes the first step, which may compile, and one in which the peak memory is watched."""
        started = time.perf_counter()
        self.step()
        self.first = time.perf_counter() - started
        gc.collect()
        self.extra_bytes = self.peak(self.step) if self.peak else None

    def run(self):
        """Takes one timed step."""
        started = time.perf_counter()
        self.step()
        self.seconds.append(time.perf_counter() - started)


# --- Contestants -------------------------------------------------------------------------------


def keras_contestants(name, variables, gradients, modes):
    """A Keras optimizer in every mode; the modes share the slots."""
    optimizer = METHODS[name].make()
    optimizer.build(variables)
    slot_bytes = sum(4 * math.prod(v.shape) for v in optimizer.variables if v.shape)

    def eager(gradients):
        optimizer.apply(gradients, variables)

    functions = {
        "eager": eager,
        "graph": tf.function(eager),
        "XLA": tf.function(eager, jit_compile=True),
    }

    def finished(mode):
        functions[mode](gradients)
        # On a GPU the call returns before the step is done.
        variables[-1].value[:1].numpy()

    return [
        Contestant(name, mode, functools.partial(finished, mode), slot_bytes, tensorflow_peak)
        for mode in modes
    ]


def torch_contestants(arrays, gradients):
    """PyTorch's Adam in its three forms, and ACClip written in plain PyTorch."""
    import torch

    torch.set_num_threads(os.cpu_count())

    held = [torch.nn.Parameter(torch.tensor(a)) for a in arrays]
    for parameter, gradient in zip(held, gradients, strict=True):
        parameter.grad = torch.tensor(gradient)
    forms = {
        "for-loop": {"foreach": False},
        "foreach": {"foreach": True},
        "fused": {"fused": True},
    }
    slot_bytes = 2 * sum(a.nbytes for a in arrays)
    for form, options in forms.items():
        optimizer = torch.optim.Adam(held, lr=RATE, **options)
        yield Contestant(
            f"PyTorch Adam, {form}", "eager", optimizer.step, slot_bytes, resident_peak
        )

    slots = [(torch.zeros_like(p), torch.zeros_like(p)) for p in held]

    @torch.no_grad()
    def acclip_step(beta_1=0.9, beta_2=0.99, epsilon=1e-5):
        for parameter, (moment, threshold) in zip(held, slots, strict=True):
            gradient = parameter.grad
            moment.mul_(beta_1).add_(gradient, alpha=1 - beta_1)
            threshold.mul_(beta_2).add_(gradient.abs(), alpha=1 - beta_2)
            clipped = torch.clamp(threshold / (moment.abs() + epsilon), max=1.0) * moment
            parameter.sub_(RATE * clipped / (threshold + epsilon))

    yield Contestant("PyTorch ACClip, plain", "eager", acclip_step, slot_bytes, resident_peak)


C_SOURCE = r"""
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


def compile_bound():
    """The C loops as a loaded library, or `None` where there is no C compiler."""
    with tempfile.TemporaryDirectory() as folder:
        source, library = Path(folder) / "bound.c", Path(folder) / "bound.so"
        source.write_text(C_SOURCE)
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


def bound_step(library, held):
    """A function of a C loop's name and a rate that runs it over `held`, in blocks on all cores.

    `held` has a tuple (x, first slot, second slot, gradient) of float32 arrays for each variable.
    """
    threads = os.cpu_count()
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


def bound_contestants(library, arrays, gradients, names):
    """The C loops, over variables and slots of their own that they share."""
    held = [
        (a.copy(), np.zeros_like(a), np.zeros_like(a), g)
        for a, g in zip(arrays, gradients, strict=True)
    ]
    step = bound_step(library, held)
    return [Contestant(name, "bound", functools.partial(step, name, RATE)) for name in names]


# --- Memory ------------------------------------------------------------------------------------


def tensorflow_peak(function, device="CPU:0"):
    """Bytes that TensorFlow holds at most while `function` runs, beyond those held before.

    Where TensorFlow's allocator keeps no count (on a CPU it does if oneDNN is in use, and then it
    also keeps freed memory for itself), the process's size tells.
    """
    try:
        tf.config.experimental.reset_memory_stats(device)
        before = tf.config.experimental.get_memory_info(device)["current"]
        function()
        return tf.config.experimental.get_memory_info(device)["peak"] - before
    except ValueError:
        return resident_peak(function)


def resident_peak(function):
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


def _resident(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key):
            return 1024 * int(line.split()[1])
    raise OSError(f"no {key} in /proc/self/status")


# --- The race and its table --------------------------------------------------------------------


def race(contestants, rounds):
    """Every contestant's first step, then `rounds` timed ones, all taking turns."""
    # The process's first compilation sets up the compiler, at nobody's expense.
    tf.function(lambda: tf.zeros(8) + 1.0, jit_compile=True)()
    for number, contestant in enumerate(contestants, 1):
        _progress(f"first step {number}/{len(contestants)}: {contestant.method}, {contestant.mode}")
        contestant.begin()
    try:
        for number in range(1, rounds + 1):
            _progress(f"round {number}/{rounds}")
            for contestant in contestants:
                contestant.run()
    except KeyboardInterrupt:
        complete = len(contestants[-1].seconds)
        if not complete:
            raise
        print(f"Stopped after {complete} rounds.", file=sys.stderr)
        for contestant in contestants:
            del contestant.seconds[complete:]
    _progress("")


def _progress(text):
    print(f"  {text:60}", end="\r", file=sys.stderr, flush=True)


def rows(contestants, count):
    """What the table shows, a dict for each contestant but the bounds."""
    seconds = {(c.method, c.mode): np.array(c.seconds) for c in contestants}
    for c in contestants:
        if c.mode == "bound":
            continue
        method = METHODS.get(c.method) or METHODS["ACClip" if "ACClip" in c.method else BASELINE]
        low, median, high = np.percentile(c.seconds, [25, 50, 75])
        yield {
            "method": c.method,
            "mode": c.mode,
            "ms": 1e3 * median,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "GB/s": method.bytes * count / median / 1e9,
            "to_adam": ratio(seconds, (c.method, c.mode), (BASELINE, c.mode)),
            "to_bound": ratio(seconds, (c.method, c.mode), (method.bound, "bound")),
            "slot_bytes": c.slot_bytes,
            "extra_bytes": c.extra_bytes,
            "first_step_s": c.first,
        }


def ratio(seconds, one, other):
    """Quartiles of the rounds' ratios of one contestant's time to another's, median second."""
    if one not in seconds or other not in seconds:
        return None
    return np.percentile(seconds[one] / seconds[other], [25, 50, 75]).tolist()


def table(results, bounds):
    """The results as a Markdown table, and one line on the bounds."""
    head = ["method", "mode", "ms (quartiles)", "GB/s", "÷ Keras Adam", "÷ bound"]
    head += ["slots GB", "step's own GB", "first step s"]
    lines = [f"| {' | '.join(head)} |", "|---" * 2 + "|--:" * (len(head) - 2) + "|"]
    for r in sorted(results, key=lambda r: MODES.index(r["mode"])):
        low, high = r["quartiles_ms"]
        cells = [r["method"], r["mode"], f"{r['ms']:.1f} ({low:.1f}–{high:.1f})"]
        cells += [f"{r['GB/s']:.1f}", _middle(r["to_adam"]), _middle(r["to_bound"])]
        cells += [_number(r["slot_bytes"], 1e9), _number(r["extra_bytes"], 1e9)]
        cells += [_number(r["first_step_s"])]
        lines.append(f"| {' | '.join(cells)} |")
    loops = ", ".join(f"{name} {1e3 * seconds:.1f} ms" for name, seconds in bounds.items())
    return "\n".join([*lines, "", f"Bound (C loops, {os.cpu_count()} threads): {loops or 'none'}."])


def _number(value, unit=1.0):
    return "–" if value is None else f"{value / unit:.2f}"


def _middle(quartiles):
    return _number(quartiles and quartiles[1])


def goals(contestants):
    """What was asked of ACClip, beside what it reached: median and quartiles."""
    seconds = {(c.method, c.mode): np.array(c.seconds) for c in contestants}
    wanted = [
        ("eager ÷ its own XLA", ("ACClip", "eager"), ("ACClip", "XLA"), 1.15),
        *[
            (f"{mode} ÷ Keras Adam {mode}", ("ACClip", mode), (BASELINE, mode), most)
            for mode, most in (("eager", 0.25), ("graph", 0.7), ("XLA", 0.6))
        ],
    ]
    reached = [(name, ratio(seconds, a, b), most) for name, a, b, most in wanted]
    return [
        f"ACClip {name}: {r[1]:.2f} ({r[0]:.2f}–{r[2]:.2f}), goal: at most {most}"
        for name, r, most in reached
        if r is not None
    ]


def main(argv=None):
    """Runs the benchmark; returns its rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--layers", type=int, default=6, help="(default: %(default)s)")
    add("--hidden", type=int, default=768, help="(default: %(default)s)")
    add("--vocabulary", type=int, default=30522, help="(default: %(default)s)")
    add("--rounds", type=int, default=15, help="timed steps of each (default: %(default)s)")
    add("--methods", nargs="+", choices=METHODS, default=list(METHODS), metavar="NAME")
    add("--modes", nargs="+", choices=MODES, default=list(MODES))
    add("--torch", action="store_true", help="PyTorch's Adam and a plain ACClip too")
    add("--output", type=Path, help="a JSON file for the results")
    options = parser.parse_args(argv)

    # It warns of retracing, but these are different functions made in the same place.
    tf.get_logger().setLevel("ERROR")
    shapes = bert_shapes(options.layers, options.hidden, options.vocabulary)
    count = sum(map(math.prod, shapes))
    print(f"{count:,} parameters in {len(shapes)} variables, {os.cpu_count()} cores")
    arrays, gradients = parameters_and_gradients(shapes)
    library = compile_bound()
    if library is None:
        print("No C compiler found: without the bound.")
    contestants = []
    if library is not None:
        loops = dict.fromkeys(METHODS[name].bound for name in options.methods)
        contestants += bound_contestants(library, arrays, gradients, loops)
    variables = [keras.Variable(a, name=f"v{i}") for i, a in enumerate(arrays)]
    tensors = [tf.constant(g) for g in gradients]
    for name in options.methods:
        contestants += keras_contestants(name, variables, tensors, options.modes)
    if options.torch:
        contestants += torch_contestants(arrays, gradients)
    race(contestants, options.rounds)

    results = list(rows(contestants, count))
    bounds = {c.method: float(np.median(c.seconds)) for c in contestants if c.mode == "bound"}
    print(table(results, bounds))
    print("\n".join(["", *goals(contestants)]))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        content = {"parameters": count, "cores": os.cpu_count(), "bounds_s": bounds}
        content["versions"] = {m.__name__: m.__version__ for m in (keras, np, tf)}
        options.output.write_text(json.dumps(content | {"rows": results}, indent=1))
    return results


if __name__ == "__main__":
    main()
