"""The variables that an optimizer step runs over: BERT's, of three sizes or any."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

Shape = tuple[int, ...]

# Names for parameter counts: layers and width of a BERT with 30,522 word pieces.
SIZES = {"67M": (6, 768), "110M": (12, 768), "1B": (19, 2048)}

VOCABULARY = 30522


def bert_shapes(
    layers: int, hidden: int = 768, vocabulary: int = VOCABULARY, positions: int = 512
) -> list[Shape]:
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


def parameters_and_gradients(shapes: list[Shape]) -> list[list[np.ndarray]]:
    """Two lists of float32 arrays: weights of BERT's initial size and gradients of a usual one."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [
        [scale * rng.standard_normal(shape, dtype=np.float32) for shape in shapes]
        for scale in (0.02, 1e-3)
    ]
