"""An optimizer whose hyperparameters are array values: one compiled step serves all trials."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras
import numpy as np

from training.contestants import CONTESTANTS, WITHOUT_DECAY
from training.schedules import WarmUp

_KERAS = (keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule)
STEPS = "steps"  # A hyperparameter of the schedule, besides those that are tuned.


class Traced:
    """A contestant's optimizer, without its weight decay, that takes its hyperparameters later.

    Constructors check what they are given, which no traced value passes. So they get stand-ins,
    valid and like no other value, and what is meant takes their place wherever they are held.

    Args:
        contestant: A key of `CONTESTANTS`.
        variables: What the optimizer is built with.
        fixed: One value of each hyperparameter, for a contestant that is not `traced`, whose
            optimizer branches on them; else `None`.

    Attributes:
        optimizer: The optimizer, built.
        schedule: Its rate.
    """

    def __init__(
        self, contestant: str, variables: list, fixed: dict[str, float] | None = None
    ) -> None:
        made = CONTESTANTS[contestant]
        self.decays_outside = "weight_decay" in made.grid and not made.decays_by_itself
        given = dict(made.default) if fixed is None else dict(fixed)
        stand_ins = {name: _odd(v, i) for i, (name, v) in enumerate(given.items())}
        if fixed is not None:
            stand_ins |= {n: v for n, v in given.items() if n not in ("rate", "warmup")}
        stand_ins[STEPS] = 1e3 + 2.0**-10
        self.schedule = WarmUp(
            stand_ins["rate"], stand_ins["warmup"], stand_ins[STEPS], made.decays
        )
        rest = {n: v for n, v in stand_ins.items() if n not in ("rate", "warmup", STEPS)}
        if self.decays_outside:
            rest["weight_decay"] = 0.0
        self.optimizer = made.make(self.schedule, **rest)
        self.optimizer.build(variables)
        self._decayed = [not any(w in v.path for w in WITHOUT_DECAY) for v in variables]
        wanted = dict.fromkeys(("rate", "warmup", STEPS))
        if fixed is None:
            wanted |= dict.fromkeys(
                n for n in rest if not (self.decays_outside and n == "weight_decay")
            )
        self._held = {name: _holders(self.optimizer, stand_ins[name], set()) for name in wanted}
        values = [np.asarray(v.value) for v in self.optimizer.variables]
        self._in_variables = {
            name: [i for i, v in enumerate(values) if _is(v, stand_ins[name])] for name in wanted
        }
        for name in wanted:
            if not self._held[name] and not self._in_variables[name]:
                raise ValueError(f"{contestant} holds no hyperparameter {name}")

    def slots(self, settings: dict[str, float]) -> list:
        """The optimizer's initial variables, with the hyperparameters that are held in them."""
        values = [v.value for v in self.optimizer.variables]
        for name, places in self._in_variables.items():
            for i in places:
                values[i] = np.asarray(settings[name], values[i].dtype)
        return values

    def fill(self, settings: dict[str, Any]) -> None:
        """Puts hyperparameters in, JAX's scalars, `steps` among them."""
        for name, holders in self._held.items():
            for attributes, attribute in holders:
                attributes[attribute] = settings[name]

    def decayed(self, variables: list, settings: dict[str, Any], step: Any) -> list:
        """The variables after the weight decay of a step, which comes before it."""
        if not self.decays_outside:
            return variables
        factor = 1 - self.schedule(step) * settings["weight_decay"]
        pairs = zip(variables, self._decayed, strict=True)
        return [x * factor if decayed else x for x, decayed in pairs]


def _odd(value, number):
    return (value or 0.01) * (1 - (number + 1) * 2.0**-16)


def _is(array, value):
    return array.ndim == 0 and array.dtype.kind == "f" and array == np.asarray(value, array.dtype)


def _holders(of, value, seen):
    """Where an optimizer, and what it holds, has a value: pairs of a dict and a key of it."""
    if id(of) in seen:
        return []
    seen.add(id(of))
    found = []
    for name, held in vars(of).items():
        if isinstance(held, float) and held == value:
            found.append((vars(of), name))
        elif dataclasses.is_dataclass(held) or isinstance(held, _KERAS):
            found += _holders(held, value, seen)
    return found
