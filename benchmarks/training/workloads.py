"""What is trained: models, data and losses, of sizes that the harness and its report know.

Everything here is a function of the seed, so that all contestants of a seed begin with the same
weights and see the same examples in the same order.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

FIFTHS = 5  # Parts of a text by the frequency of its words.
TOKENS = "TRAINING_TOKENS"  # Environment variable: a folder of what another machine made.
CHECKPOINTS = 16  # How often a training's held-out loss is taken; its steps are a multiple.


@dataclasses.dataclass(frozen=True)
class Workload:
    """One problem at one size.

    Attributes:
        make: A function of the workload, a seed and a number of steps to a `Problem`.
        steps: Steps of a whole training.
        batch: Examples a step.
        tokens: Tokens a step; for problems without text, examples.
        tuning_seeds: What hyperparameters are chosen on.
        seeds: What the chosen ones are compared on: for AdamW and ACClip, and for the others.
        rates: The factor of every contestant's grid of rates.
        all_take_part: Whether the contestants outside the core take part.
        by_name_alone: Whether it is trained only where it is asked for by its name.
        refined: Whether the best is refined with the whole budget, as a part of it prefers what
            starts early.
        pieces: How many equal pieces of a batch go through the model one after another, so that
            their activations need not fit the memory together.
        sizes: What `make` needs besides.
    """

    make: Callable[..., Problem]
    steps: int
    batch: int
    tokens: int
    tuning_seeds: tuple[int, ...]
    seeds: tuple[int, int]
    rates: float = 1.0
    all_take_part: bool = True
    by_name_alone: bool = False
    refined: bool = False
    pieces: int = 1
    sizes: dict[str, Any] = dataclasses.field(default_factory=dict)

    @property
    def of_words(self) -> bool:
        """Whether its labels are words of a text."""
        return self.make in (_mlm, _lm)


@dataclasses.dataclass
class Problem:
    """What a training needs.

    Attributes:
        model: A Keras model with its initial weights.
        losses: A function of the model's outputs and the labels to the loss of each label.
        shared: A pytree of arrays that does not depend on the seed.
        own: A pytree of arrays that does.
        batch: A function of `shared`, `own` and a step's number to inputs and labels.
        held_out: A function of `shared` and `own` to inputs and labels with a leading axis of
            batches.
        fifths: int array, for each label there is, the fifth of the training text's labels that it
            counts among, 0 with the most frequent; `None` where the labels are no words.
    """

    model: Any
    losses: Callable[[Any, Any], Any]
    shared: Any
    own: Any
    batch: Callable[[Any, Any, Any], tuple[Any, Any]]
    held_out: Callable[[Any, Any], tuple[Any, Any]]
    fifths: Any = None


def _problem_of(module: str, function: str) -> Callable[..., Problem]:
    """A workload's `make`, whose module is loaded when it is called: the plan needs no JAX."""

    def make(workload: Workload, seed: int, steps: int) -> Problem:
        made = getattr(importlib.import_module(f"training.{module}"), function)
        return made(workload, seed, steps)

    return make


_zipf = _problem_of("zipf", "problem")
_mlm = _problem_of("text", "masked_lm")
_lm = _problem_of("text", "language_model")
_images = _problem_of("images", "problem")
_squad = _problem_of("questions", "problem")
_outliers = _problem_of("outliers", "problem")

ZIPF = {"classes": 128, "features": 16, "spread": 0.5, "held_out": 8_192}
BERT = {
    "sequence_length": 64,
    "layers": 2,
    "hidden": 128,
    "vocabulary_size": 4096,
    "held_out": 1024,
}
GPT = {
    "sequence_length": 128,
    "layers": 4,
    "hidden": 128,
    "head": 32,
    "vocabulary_size": 4096,
    "held_out": 256,
    "dtype": "float32",
}
# 30.9 million parameters.
LARGE_GPT = {
    "sequence_length": 512,
    "layers": 7,
    "hidden": 512,
    "head": 64,
    "vocabulary_size": 16_384,
    "held_out": 1024,
    "dtype": "mixed_bfloat16",
}

WORKLOADS = {
    # The best rates of a regression are some ten times those of networks.
    "zipf-full": Workload(
        _zipf, 512, 8_192, 8_192, (1000, 1001), (32, 32), 10.0, sizes=ZIPF | {"full": True}
    ),
    "zipf-64": Workload(
        _zipf, 2_048, 64, 64, (1000, 1001), (32, 32), 10.0, sizes=ZIPF | {"full": False}
    ),
    "mlm-16": Workload(_mlm, 3_200, 16, 1_024, (1000, 1001), (8, 4), refined=True, sizes=BERT),
    "mlm-128": Workload(
        _mlm, 1_024, 128, 8_192, (1000,), (8, 4), all_take_part=False, refined=True, sizes=BERT
    ),
    "lm": Workload(
        _lm, 2_048, 32, 4_096, (1000,), (8, 4), all_take_part=False, refined=True, sizes=GPT
    ),
    "images": Workload(
        _images,
        640,
        32,
        32,
        (1000, 1001),
        (16, 16),
        all_take_part=False,
        sizes={"blocks": 1, "width": 16},
    ),
    "outliers": Workload(
        _outliers, 768, 16, 512, (1000, 1001), (16, 16), sizes={"outliers": 0.01, "held_out": 1024}
    ),
    # The pretraining's model; rates as of other fine-tunings are a tenth of its.
    "squad": Workload(
        _squad,
        512,
        16,
        1_024,
        (1000, 1001),
        (8, 4),
        0.1,
        all_take_part=False,
        sizes=BERT | {"questions": 12_000, "held_out": 1_000},
    ),
    # 600 million tokens, for a GPU.
    "gpt-30m": Workload(
        _lm,
        4_576,
        256,
        131_072,
        (1000,),
        (8, 4),
        all_take_part=False,
        by_name_alone=True,
        refined=True,
        pieces=8,
        sizes=LARGE_GPT,
    ),
}


def usual() -> list[str]:
    """The names of the workloads that are trained without being asked for."""
    return [name for name, made in WORKLOADS.items() if not made.by_name_alone]


def named(names: list[str]) -> list[str]:
    """The workloads of these names; `zipf` and `mlm` stand for all of their sizes.

    Raises:
        ValueError: If there is none of a name.
    """
    found = []
    for name in names:
        of_name = [w for w in WORKLOADS if w == name or w.split("-")[0] == name]
        if not of_name:
            raise ValueError(f"no workload {name!r}; there are {', '.join(WORKLOADS)}")
        found += of_name
    return list(dict.fromkeys(found))


def texts(names: list[str]) -> list[tuple[int, int]]:
    """What rows of text workloads read: sizes of the vocabulary and lengths of a row."""
    found = []
    for name in names:
        made = WORKLOADS[name]
        if made.of_words:
            length = made.sizes["sequence_length"] + (made.make is _lm)
            found.append((made.sizes["vocabulary_size"], length))
    return list(dict.fromkeys(found))


def name_of_text(name: str) -> str | None:
    """Tells the text of a workload from others, as made on this machine; `None` without one."""
    if texts([name]):
        from training import text

        return text.name(*texts([name])[0])
    if WORKLOADS[name].make is _outliers:
        from training import outliers

        return outliers.name()
    if WORKLOADS[name].make is _squad:
        from training import questions

        return questions.name()
    return None


def has_masks(name: str) -> bool:
    """Whether a workload's model fills in masked words."""
    return WORKLOADS[name].make is _mlm
