"""PyTorch's Adam in its forms and ACClip in plain PyTorch, on the GPU where PyTorch has one."""

from __future__ import annotations

import functools
import math
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch

from contest.memory import resident_peak
from contest.methods import RATE
from contest.race import TURN_SECONDS, Contestant, calls_in

if TYPE_CHECKING:
    from contest.shapes import Shape

FORMS = {
    "for-loop": {"foreach": False},
    "foreach": {"foreach": True},
    "fused": {"fused": True},
}


class Field:
    """The variables that every contestant changes in its turn, with gradients of a usual size."""

    def __init__(self, shapes: list[Shape]) -> None:
        torch.set_num_threads(os.cpu_count() or 1)
        self.on_gpu = torch.cuda.is_available()
        device = "cuda" if self.on_gpu else "cpu"
        torch.manual_seed(0)
        self.variables = [torch.nn.Parameter(0.02 * torch.randn(s, device=device)) for s in shapes]
        for variable in self.variables:
            variable.grad = 1e-3 * torch.randn_like(variable)
        self.slot_bytes = 2 * 4 * sum(map(math.prod, shapes))


def adam(field: Field, form: str, mode: str = "eager") -> Contestant:
    """PyTorch's Adam in one of `FORMS`; its slots are dropped after a turn on a GPU."""
    optimizer = torch.optim.Adam(field.variables, lr=RATE, **FORMS[form])
    done = optimizer.state.clear if field.on_gpu else None
    return _contestant(field, f"PyTorch Adam, {form}", mode, optimizer.step, done)


def adam_graph(field: Field, mode: str) -> Contestant:
    """PyTorch's fused Adam as a CUDA graph: the GPU's work without the host's."""
    optimizer = torch.optim.Adam(field.variables, lr=RATE, fused=True, capturable=True)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        optimizer.step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        optimizer.step()

    def replay(kept=optimizer):  # the graph works on its slots
        graph.replay()

    return _contestant(field, "PyTorch Adam, fused, CUDA graph", mode, replay)


def acclip(field: Field, mode: str = "eager") -> Contestant:
    """ACClip as one would write it in PyTorch."""
    slots = [(torch.zeros_like(p), torch.zeros_like(p)) for p in field.variables]

    @torch.no_grad()
    def step(beta_1=0.9, beta_2=0.99, epsilon=1e-5):
        for parameter, (moment, threshold) in zip(field.variables, slots, strict=True):
            gradient = parameter.grad
            moment.mul_(beta_1).add_(gradient, alpha=1 - beta_1)
            threshold.mul_(beta_2).add_(gradient.abs(), alpha=1 - beta_2)
            clipped = torch.clamp(threshold / (moment.abs() + epsilon), max=1.0) * moment
            parameter.sub_(RATE * clipped / (threshold + epsilon))

    return _contestant(field, "PyTorch ACClip, plain", mode, step)


def contestants(shapes: list[Shape]) -> Iterator[Contestant]:
    """All of them, in eager mode."""
    field = Field(shapes)
    for form in FORMS:
        yield adam(field, form)
    yield acclip(field)


def beside_jax(shapes: list[Shape], modes: list[str]) -> Iterator[Contestant]:
    """The fastest Adam in JAX's modes: called step by step, and on a GPU as its work alone."""
    field = Field(shapes)
    if "call" in modes:
        yield adam(field, "fused", "call")
    if "loop" in modes and field.on_gpu:
        yield adam_graph(field, "loop")


def _contestant(
    field: Field, name: str, mode: str, step: Callable[[], Any], done: Callable | None = None
) -> Contestant:
    known = {"method": name, "mode": mode, "slot_bytes": field.slot_bytes}
    if not field.on_gpu:
        return Contestant(step=step, peak=resident_peak, **known)

    def take(calls):
        for _ in range(calls):
            step()
        torch.cuda.synchronize()

    take(2)
    calls = calls_in(TURN_SECONDS, functools.partial(take, 2), 2)
    ready = functools.partial(take, 2)
    return Contestant(
        step=functools.partial(take, calls), steps=calls, ready=ready, done=done, **known
    )
