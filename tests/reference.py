"""The paper's methods in NumPy float64, written from the paper (its misprints mended) alone.

Every method takes lists of arrays (one a variable) and a list of steps of such lists, and returns
the variables and the slots, in the order in which the optimizers hold them.
"""

import numpy as np


def joint_norm(arrays):
    return np.sqrt(sum(np.sum(a * a) for a in arrays))


def double(arrays):
    return [np.asarray(a, np.float64) for a in arrays]


def sgd(clip):
    """SGD with momentum on gradients that `clip(gradients, k)` has clipped, step k from 1."""

    def run(x, steps, *, lr, momentum=0.0, nesterov=False, wd=0.0, radius=None):
        x = double(x)
        velocity = [np.zeros_like(v) for v in x]
        weighted, weights = [np.zeros_like(v) for v in x], 0
        for k, gradients in enumerate(map(double, steps), start=1):
            weighted = [w + k * v for w, v in zip(weighted, x, strict=True)]
            weights += k
            for i, g in enumerate(clip(gradients, k)):
                velocity[i] = momentum * velocity[i] - lr * g
                step = momentum * velocity[i] - lr * g if nesterov else velocity[i]
                x[i] = x[i] - lr * wd * x[i] + step
            if radius is not None and joint_norm(x) > radius:
                norm = joint_norm(x)
                x = [v * radius / norm for v in x]
        return x, [[-v] for v in velocity], [w / weights for w in weighted]

    return run


def gclip(x, steps, *, threshold, **kwargs):
    def clip(gradients, k):
        tau = threshold(k) if callable(threshold) else threshold
        norm = joint_norm(gradients)
        return [min(tau / norm, 1) * g if norm > 0 else g for g in gradients]

    return sgd(clip)(x, steps, **kwargs)


def cclip(x, steps, *, threshold, **kwargs):
    def clip(gradients, k):
        tau = threshold(k) if callable(threshold) else threshold
        return [np.clip(g, -tau, tau) for g in gradients]

    return sgd(clip)(x, steps, **kwargs)


def acclip(
    x,
    steps,
    *,
    lr,
    beta_1=0.9,
    beta_2=0.99,
    epsilon=1e-5,
    alpha=1.0,
    step_size="moment",
    wd=0.0,
):
    x = double(x)
    m, tau_power, v = ([np.zeros_like(a) for a in x] for _ in range(3))
    weighted, weights = [np.zeros_like(a) for a in x], 0
    for k, gradients in enumerate(map(double, steps), start=1):
        weights += k
        for i, g in enumerate(gradients):
            weighted[i] += k * x[i]
            m[i] = beta_1 * m[i] + (1 - beta_1) * g
            tau_power[i] = beta_2 * tau_power[i] + (1 - beta_2) * np.abs(g) ** alpha
            v[i] = beta_2 * v[i] + (1 - beta_2) * g**2
            tau = tau_power[i] ** (1 / alpha)
            clipped = np.minimum(tau / (np.abs(m[i]) + epsilon), 1) * m[i]
            eta = {
                "constant": lr,
                "moment": lr / (tau + epsilon),
                "rms": lr / (np.sqrt(beta_2 * v[i]) + epsilon),
            }[step_size]
            x[i] = x[i] - lr * wd * x[i] - eta * clipped
    slots = [
        [a, b, c] if step_size == "rms" else [a, b] for a, b, c in zip(m, tau_power, v, strict=True)
    ]
    return x, slots, [w / weights for w in weighted]


METHODS = {"GClip": gclip, "CClip": cclip, "ACClip": acclip}


def heavy_tailed(rng, shapes, steps, scale=1.0):
    """Gradients with Student's t of 1.5 degrees of freedom: a mean, but no variance."""
    return [
        [np.float32(scale * rng.standard_t(1.5, size=shape)) for shape in shapes]
        for _ in range(steps)
    ]


def relative_error(values, expected):
    """Euclidean norm of all differences together, relative to that of what is expected."""
    pairs = zip(double(values), double(expected), strict=True)
    return joint_norm([v - e for v, e in pairs]) / joint_norm(double(expected))
