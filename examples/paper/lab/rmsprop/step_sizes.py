"""The two step sizes, and their ratio over coordinates."""

import math

import numpy as np

QUANTILES = (0, 0.01, 0.25, 0.5, 0.75, 0.99, 0.999, 1)
BOUNDS = (0.5, 2)  # The paper's, of h_clip / h_Adam.
BINS = np.linspace(1, 2, 51)
GROUPS = {  # Part of the network: what its variables' paths hold; a variable belongs to the first.
    "token embeddings": "token_embedding",
    "attention": "self_attention",
    "feed-forward": "feedforward",
    "the rest": "",
}


def adam_step(v, g, rate, beta_2, epsilon, ops=np):
    """What RMSProp multiplies each coordinate of the gradient with, h_Adam.

    Args:
        v: Mean square of the earlier gradients.
        g: Gradient.
        rate: α.
        beta_2: β2.
        epsilon: ε.
        ops: Where `sqrt`, `abs` and `maximum` come from: NumPy or `keras.ops`.
    """
    return rate / (epsilon + ops.sqrt(beta_2 * v + (1 - beta_2) * g * g))


def clip_step(v, g, rate, beta_2, epsilon, ops=np):
    """What clipping multiplies each coordinate with, h_clip = η·min(τ/|g|, 1); see `adam_step`."""
    tau = threshold(v, beta_2, epsilon, ops)
    eta = rate / (epsilon + ops.sqrt(beta_2 * v))
    return eta * (tau / ops.maximum(tau, ops.abs(g)))


def threshold(v, beta_2, epsilon, ops=np):
    """The threshold τ that each coordinate is clipped at."""
    return (epsilon + ops.sqrt(beta_2 * v)) / math.sqrt(1 - beta_2)


STEPS = {"rmsprop": adam_step, "clipping": clip_step}


# --- Their ratio over the coordinates --------------------------------------------------------


def distribution(v, g, groups, beta_2, epsilon):
    """How h_clip / h_Adam is distributed over coordinates.

    Args:
        v: Mean squares, one-dimensional.
        g: Gradients, of the same shape.
        groups: Of each coordinate, the place of its group in `GROUPS`.
        beta_2: β2.
        epsilon: ε.

    Returns:
        dict: `coordinates` (their number); `quantiles` of the ratio, at `QUANTILES`; `outside`
        (number outside the paper's bounds); `below_one` (number below 1 by more than rounding);
        `counts` of the ratio in `BINS`; and shares of the coordinates: `clipped` (|g| above τ),
        `clipped_by_group`, `still` (g = 0), `small` (√(β2·v) below ε).
    """
    v, g = np.asarray(v, np.float64), np.asarray(g, np.float64)
    ratio = clip_step(v, g, 1.0, beta_2, epsilon) / adam_step(v, g, 1.0, beta_2, epsilon)
    clipped = np.abs(g) > threshold(v, beta_2, epsilon)
    low, high = BOUNDS
    sizes = np.bincount(groups, minlength=len(GROUPS))
    by_group = np.bincount(groups, clipped, len(GROUPS)) / np.maximum(sizes, 1)
    return {
        "coordinates": len(ratio),
        "quantiles": np.quantile(ratio, QUANTILES).tolist(),
        "outside": int(np.sum((ratio < low) | (ratio > high))),
        "below_one": int(np.sum(ratio < 1 - 1e-12)),
        "counts": np.histogram(np.clip(ratio, BINS[0], BINS[-1]), BINS)[0].tolist(),
        "clipped": float(np.mean(clipped)),
        "clipped_by_group": dict(zip(GROUPS, by_group.tolist(), strict=True)),
        "still": float(np.mean(g == 0)),
        "small": float(np.mean(np.sqrt(beta_2 * v) < epsilon)),
    }


def group_of(path):
    """The place in `GROUPS` of a variable with this path."""
    return next(i for i, part in enumerate(GROUPS.values()) if part in path)
