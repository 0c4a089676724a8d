"""How text becomes pretraining examples."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How text becomes examples: the Model Garden's values for BERT.

    Attributes:
        seq_length: Tokens of an example, `[CLS]` and both `[SEP]` included. Defaults to 128.
        masked_lm_prob: Part of the tokens that are masked. Defaults to 0.15.
        max_predictions_per_seq: Most masked tokens of an example. `None`, the default, is that part
            of `seq_length`, rounded up: 20 for 128.
        short_seq_prob: How often an example is made shorter than it could be. Defaults to 0.1.
        dupe_factor: How often the training text is gone through, masked anew each time; the
            held-out text is gone through once. Defaults to 10.
        whole_word_mask: Whether all pieces of a word are masked together. Defaults to `False`.
        lower_case: Whether the text is put in lower case. Defaults to `True`.
        dynamic: Whether the TFRecords hold the text, for `acclip/bert_pretraining_text`, which
            pairs and masks it anew at every reading. Defaults to `False`.
        seed: Of the masks, the pairs and the order. Defaults to 12345.

    Raises:
        ValueError: If a value is out of its range.

    Example:

    >>> from keras_acclip.garden.data import Recipe
    >>> Recipe(seq_length=512).max_predictions_per_seq
    77
    """

    seq_length: int = 128
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int | None = None
    short_seq_prob: float = 0.1
    dupe_factor: int = 10
    whole_word_mask: bool = False
    lower_case: bool = True
    dynamic: bool = False
    seed: int = 12345

    def __post_init__(self) -> None:
        for name in ("masked_lm_prob", "short_seq_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"Argument `{name}` must be in [0, 1]. Received: {getattr(self, name)}"
                )
        if self.max_predictions_per_seq is None:
            most = math.ceil(self.seq_length * self.masked_lm_prob)
            object.__setattr__(self, "max_predictions_per_seq", max(1, most))
        elif self.max_predictions_per_seq > self.seq_length:
            raise ValueError(
                f"Argument `max_predictions_per_seq` must be at most seq_length={self.seq_length}. "
                f"Received: {self.max_predictions_per_seq}"
            )
        for name, least in (("seq_length", 8), ("max_predictions_per_seq", 1), ("dupe_factor", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"Argument `{name}` must be at least {least}. Received: {getattr(self, name)}"
                )
