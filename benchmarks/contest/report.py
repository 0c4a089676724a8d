"""The rows, the table and the goals of a race, and what it ran on."""

from __future__ import annotations

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shlex
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from contest import methods
from contest.race import Contestant, quartiles, ratio

Row = dict[str, Any]
Times = dict[tuple[str, str], list[float]]

PACKAGES = (
    *("keras", "keras-hub", "tensorflow", "tf_keras", "tf-models-official"),
    *("jax", "jaxlib", "optax", "torch", "numpy"),
)


def times(contestants: Iterable[Contestant]) -> Times:
    """Seconds a step of each (method, mode), round by round."""
    return {(c.method, c.mode): c.seconds for c in contestants}


def rows(contestants: Sequence[Contestant], count: int) -> Iterator[Row]:
    """What the table shows, a dict for each contestant but the C loops.

    Args:
        contestants: All of one race.
        count: The number of parameters.
    """
    seconds = times(contestants)
    for c in contestants:
        if c.mode == "bound":
            continue
        method = methods.of_row(c.method)
        low, median, high = quartiles(c.seconds)
        yield {
            "method": c.method,
            "mode": c.mode,
            "ms": 1e3 * median,
            "quartiles_ms": [1e3 * low, 1e3 * high],
            "bytes_a_parameter": method.bytes,
            "GB/s": method.bytes * count / median / 1e9,
            "of_copy": share_of_copy(seconds, c.method, c.mode),
            "to_adam": ratio(c.seconds, seconds.get((methods.BASELINE, c.mode))),
            "to_bound": ratio(c.seconds, seconds.get((method.loop or "", "bound"))),
            "slot_bytes": c.slot_bytes,
            "extra_bytes": c.extra_bytes,
            "first_step_s": c.first,
        }


def share_of_copy(seconds: Times, method: str, mode: str) -> list[float] | None:
    """Quartiles of the rounds' ratios of a method's bandwidth to the plain copy's."""
    copied, own = seconds.get((methods.COPY, "copy")), seconds.get((method, mode))
    if not copied or not own:
        return None
    share = methods.of_row(method).bytes / methods.of_row(methods.COPY).bytes
    return ratio([share * s for s in copied], own)


def table(results: Sequence[Row], modes: Sequence[str]) -> str:
    """The results as a Markdown table, without the columns that nobody has a number for.

    Args:
        results: What `rows` gave.
        modes: The modes in their order.
    """
    columns = {
        "ms (quartiles)": _milliseconds,
        "bytes": lambda r: str(r["bytes_a_parameter"]),
        "GB/s": lambda r: f"{r['GB/s']:.1f}",
        "of the copy": lambda r: _percent(_middle(r["of_copy"])),
        "÷ Keras Adam": lambda r: _number(_middle(r["to_adam"])),
        "÷ bound": lambda r: _number(_middle(r["to_bound"])),
        "slots GB": lambda r: _number(r["slot_bytes"], 1e9),
        "step's own GB": lambda r: _number(r["extra_bytes"], 1e9),
        "first step s": lambda r: _number(r["first_step_s"]),
    }
    order = [*modes, "copy"]
    ordered = sorted(results, key=lambda r: order.index(r["mode"]))
    cells = {name: [cell(r) for r in ordered] for name, cell in columns.items()}
    cells = {name: column for name, column in cells.items() if set(column) != {"–"}}
    cells = {name: [r[name] for r in ordered] for name in ("method", "mode")} | cells
    lines = [list(cells), *zip(*cells.values(), strict=True)]
    text = [f"| {' | '.join(line)} |" for line in lines]
    return "\n".join([text[0], "|---" * 2 + "|--:" * (len(cells) - 2) + "|", *text[1:]])


def bounds(contestants: Iterable[Contestant]) -> dict[str, float]:
    """Median seconds of each C loop."""
    return {c.method: float(np.median(c.seconds)) for c in contestants if c.mode == "bound"}


def bounds_line(seconds: dict[str, float]) -> str:
    """One line on the C loops."""
    loops = ", ".join(f"{name} {1e3 * s:.1f} ms" for name, s in seconds.items())
    return f"Bound (C loops, {os.cpu_count()} threads): {loops or 'none'}."


def goals(contestants: Iterable[Contestant]) -> list[str]:
    """What was asked of ACClip, beside what it reached: median and quartiles."""
    seconds = times(contestants)

    def to(mode, other, other_mode):
        return ratio(seconds.get(("ACClip", mode)), seconds.get((other, other_mode)))

    reached = [
        ("eager ÷ its own XLA", to("eager", "ACClip", "XLA"), "at most 1.15"),
        *[
            (f"{mode} ÷ {methods.BASELINE} {mode}", to(mode, methods.BASELINE, mode), goal)
            for mode, goal in (("eager", "at most 0.25"), ("graph", "at most 0.7"))
        ],
        (f"XLA ÷ {methods.BASELINE} XLA", to("XLA", methods.BASELINE, "XLA"), "at most 0.6"),
        *[
            (f"{mode} ÷ {peer}", to(mode, peer, peer_mode), "below 1")
            for mode in ("call", "loop", "concurrent")
            for peer, peer_mode in (("optax Adam", mode), methods.FUSED[mode])
        ],
        *[
            (f"{mode}, bandwidth ÷ the copy's", share_of_copy(seconds, "ACClip", mode), goal)
            for mode, goal in (("loop", "at least 0.85"), ("concurrent", "at least 0.85"))
        ],
    ]
    return [
        f"ACClip {name}: {r[1]:.2f} ({r[0]:.2f}–{r[2]:.2f}), goal: {goal}"
        for name, r, goal in reached
        if r is not None
    ]


def surroundings(backend: str) -> dict[str, Any]:
    """Command, day, machine and versions, as every `results.json` has them.

    Args:
        backend: `"tensorflow"` or `"jax"`, whose first device counts as the machine's.
    """
    script = Path(sys.argv[0]).name
    return {
        "command": shlex.join(["python", f"benchmarks/{script}", *sys.argv[1:]]),
        "date": datetime.date.today().isoformat(),
        "machine": {"device": device(backend), "processor": processor(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version()} | _versions(),
    }


def device(backend: str) -> str:
    """What the backend's computations run on, in words."""
    if backend == "jax":
        import jax

        return jax.devices()[0].device_kind
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    return tf.config.experimental.get_device_details(gpus[0])["device_name"] if gpus else "cpu"


def processor() -> str:
    """The processor's name, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def write(path: Path, content: dict[str, Any]) -> None:
    """Writes results as JSON, making the folder where it is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    # A list of numbers on one line.
    text = re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text)
    path.write_text(text + "\n", "utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _milliseconds(row: Row) -> str:
    low, high = row["quartiles_ms"]
    digits = 1 if row["ms"] >= 10 else 3
    return f"{row['ms']:.{digits}f} ({low:.{digits}f}–{high:.{digits}f})"


def _middle(numbers: list[float] | None) -> float | None:
    return numbers[1] if numbers else None


def _number(value: float | None, unit: float = 1.0) -> str:
    return "–" if value is None else f"{value / unit:.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{100 * value:.1f}%"
