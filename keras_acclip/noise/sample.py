"""A sample of gradient-noise norms: its numbers, its file, its verdict and what follows from it."""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from zipfile import BadZipFile

import numpy as np

from keras_acclip import thresholds

_FORMAT = "keras_acclip.NoiseSample/1"
_ARRAYS = (
    "norms",
    "gradient_norms",
    "losses",
    "batch_sizes",
    "group_norms",
    "group_gradient_norms",
    "group_mean_gradient_norms",
)
# Theorem 2 needs α in (1, 2], and its threshold overflows near 1.
_LEAST_ALPHA = 1.1


@dataclass(frozen=True)
class Advice:
    """What a measured gradient noise suggests for training; `str()` gives it in plain words.

    Attributes:
        optimizer: `"ACClip"` or `"SGD with momentum"`: what to start with.
        learning_rate: η of Theorem 2 for GClip.
        threshold: τ of Theorem 2 for GClip, in the gradient's units.
        alpha: The α in (1, 2] that they are taken at.
        sigma: σ = (mean norm^α)^(1/α), in the gradient's units.
        text: The advice, how it was reached and how sure it is.
    """

    optimizer: str
    learning_rate: float
    threshold: float
    alpha: float
    sigma: float
    text: str

    def __str__(self):
        return self.text


@dataclass(frozen=True, eq=False)
class NoiseSample:
    """Norms of the gradient noise g − ∇f(x) over mini-batches at fixed weights x.

    ∇f(x) is taken as ḡ, the mean of the n batches' gradients, weighted by their sizes. As each g is
    part of ḡ, a norm² comes out (1 − 1/n) of what it would be against ∇f(x), on average; `variance`
    and `std` make up for it, `norms` do not. Likewise ‖ḡ‖² exceeds ‖∇f(x)‖² by variance/n.

    Functions of `keras_acclip.noise.tails` and `keras_acclip.noise.plots` take it as it is.

    Attributes:
        norms: ‖g − ḡ‖ of each batch; float64, shape `(n,)`, in loss per parameter unit.
        gradient_norms: ‖g‖ of each batch; float64, shape `(n,)`.
        losses: Loss of each batch; float64, shape `(n,)`.
        batch_sizes: Examples in each batch; int64, shape `(n,)`.
        mean_gradient_norm: ‖ḡ‖.
        groups: Names of the groups of variables; empty without a break-down.
        group_norms: ‖g − ḡ‖ within each group; float64, shape `(len(groups), n)`.
        group_gradient_norms: ‖g‖ within each group; float64, shape `(len(groups), n)`.
        group_mean_gradient_norms: ‖ḡ‖ within each group; float64, shape `(len(groups),)`.
        group_parameters: Number of trainable parameters of each group.
        nonfinite: How many further batches had a gradient that is not finite.
        dropped: How many further batches were left out for their size.
        parameters: Number of trainable parameters.
        model: The model's name.
        step: Training steps that the model had taken; -1 if unknown.
        interrupted: Whether the measurement was interrupted.
        settings: How it was taken: the arguments of `measure_noise`, and the method used.
    """

    norms: np.ndarray
    gradient_norms: np.ndarray
    losses: np.ndarray
    batch_sizes: np.ndarray
    mean_gradient_norm: float
    groups: tuple = ()
    group_norms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    group_gradient_norms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    group_mean_gradient_norms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    group_parameters: tuple = ()
    nonfinite: int = 0
    dropped: int = 0
    parameters: int = 0
    model: str = ""
    step: int = -1
    interrupted: bool = False
    settings: dict = field(default_factory=dict)

    def __len__(self):
        """How many norms there are."""
        return len(self.norms)

    def __array__(self, dtype=None, copy=None):
        """The norms."""
        return np.array(self.norms, dtype=dtype, copy=True if copy is None else copy)

    @property
    def weights(self):
        """Weight of each batch in ḡ; float64, shape `(n,)`, summing to 1."""
        return self.batch_sizes / self.batch_sizes.sum()

    @property
    def norm(self):
        """Mean of the norms, weighted by batch sizes; NaN of no norms."""
        return float(np.sum(self.weights * self.norms)) if len(self) else float("nan")

    def variance(self, unbiased=True):
        """E‖g − ∇f(x)‖², in the gradient's units squared; NaN of fewer than two norms.

        Args:
            unbiased: Whether to divide by 1 − Σ w², which is 1 − 1/n for equal batches, as the
                norms are taken against ḡ.
        """
        if len(self) < 2:
            return float("nan")
        weights = self.weights
        biased = float(np.sum(weights * self.norms**2))
        return biased / (1 - float(np.sum(weights**2))) if unbiased else biased

    @property
    def std(self):
        """σ = √E‖g − ∇f(x)‖², from the unbiased variance."""
        return float(np.sqrt(self.variance()))

    def group(self, name):
        """Returns the sample of one group of variables, by its name in `groups`.

        Raises:
            KeyError: If there is no such group.
        """
        if name not in self.groups:
            raise KeyError(f"No group {name!r}. There are: {', '.join(self.groups) or 'none'}")
        i = self.groups.index(name)
        return dataclasses.replace(
            self,
            norms=self.group_norms[i],
            gradient_norms=self.group_gradient_norms[i],
            mean_gradient_norm=float(self.group_mean_gradient_norms[i]),
            groups=(),
            group_norms=np.zeros((0, 0)),
            group_gradient_norms=np.zeros((0, 0)),
            group_mean_gradient_norms=np.zeros(0),
            group_parameters=(),
            parameters=self.group_parameters[i],
            model=f"{self.model}/{name}",
        )

    def tail_index(self, **kwargs):
        """Returns Hill's `TailEstimate` of the norms; arguments as in `tails.hill`."""
        from keras_acclip.noise import tails

        return tails.hill(self.norms, **kwargs)

    def classify(self):
        """Returns the `Verdict` on the norms: heavy-tailed, concentrated or undecided."""
        from keras_acclip.noise import tails

        return tails.classify(self.norms)

    def plot(self, title=None):
        """Draws the panel of Figure 1 of the paper; returns a matplotlib `Figure`."""
        from keras_acclip.noise import plots

        return plots.panel(self, title=title or self._where())

    def summary(self):
        """Returns a few lines of text: what was measured, the noise, and the verdict."""
        lines = [
            f"Gradient noise of {self._where()}: {len(self)} batches, "
            f"{self.parameters:,} parameters, method {self.settings.get('method', '?')}"
        ]
        lines += [
            f"  {count} {what}"
            for count, what in (
                (self.nonfinite, "batches with a gradient that is not finite, left out"),
                (self.dropped, "batches of another size, left out"),
            )
            if count
        ]
        if self.interrupted:
            lines.append("  interrupted before all batches were measured")
        if len(self) >= 2:
            low, median, high = np.quantile(self.norms, [0.05, 0.5, 0.95])
            lines += [
                f"  noise norm    mean {self.norm:.4g}, median {median:.4g}, "
                f"5% to 95% {low:.4g} to {high:.4g}, largest {self.norms.max():.4g}",
                f"  noise std     {self.std:.4g}",
                f"  gradient norm of a batch {self.gradient_norms.mean():.4g}, "
                f"of the mean {self.mean_gradient_norm:.4g}; mean loss {self.losses.mean():.4g}",
            ]
        if len(self):
            verdict = self.classify()
            lines.append(f"  {verdict.label}: {verdict.reason}")
        lines += [
            f"  {name:<30} noise norm {norms.mean():.4g}, gradient {mean:.4g}"
            for name, norms, mean in zip(
                self.groups, self.group_norms, self.group_mean_gradient_norms, strict=True
            )
            if len(norms)
        ]
        return "\n".join(lines)

    def advice(self, steps=10_000, smoothness=1.0, initial_gap=None):
        """Says what the noise suggests for training, and how sure that is.

        The threshold and learning rate are those of Theorem 2 for GClip, at the measured α (Hill's,
        if the noise is called heavy-tailed, else 2) and σ = (mean norm^α)^(1/α). They hold for the
        worst function with these constants: expect to get by with a larger learning rate.

        Args:
            steps: K, the number of steps that will be taken. Defaults to 10,000.
            smoothness: L, the Lipschitz constant of ∇f. It is not measured: the default of 1
                is a stand-in, and the learning rate falls like 1/L.
            initial_gap: F₀ = f(x) − inf f, in the loss's units. Default: the mean loss, so
                inf f = 0.

        Returns:
            An `Advice`; print it.

        Raises:
            ValueError: If there are fewer than two norms, they are all 0, or an argument is out of
                range.

        References:
            Zhang et al. (2020), Theorem 2 and Section 4.
        """
        from keras_acclip.noise import tails

        if len(self) < 2 or not self.norms.any():
            raise ValueError(f"No advice on {len(self)} norms, {np.sum(self.norms > 0)} above 0.")
        verdict = self.classify()
        heavy = verdict.label == "heavy-tailed"
        alpha = float(np.clip(verdict.hill.alpha, _LEAST_ALPHA, 2.0)) if heavy else 2.0
        sigma = tails.alpha_moment(self.norms, alpha) ** (1 / alpha)
        if initial_gap is None:
            gap = max(float(np.mean(self.losses)), np.finfo(np.float32).eps)
        else:
            gap = initial_gap
        rate, threshold = thresholds.nonconvex_constants(smoothness, sigma, alpha, steps, gap)
        optimizer = "SGD with momentum" if verdict.label == "concentrated" else "ACClip"
        clipped = np.mean(self.gradient_norms > threshold)
        text = (
            f"{_FIRST[verdict.label]} {verdict.reason}\n"
            f"GClip by Theorem 2, with alpha = {alpha:.3g}, sigma = {sigma:.3g}, "
            f"{steps:,} steps, L = {smoothness:g}"
            f"{' (assumed)' if smoothness == 1.0 else ''} and F0 = {gap:.3g}"
            f"{' (the mean loss)' if initial_gap is None else ''}: threshold {threshold:.3g}, "
            f"learning rate {rate:.3g}. The threshold lies above {1 - clipped:.0%} of the measured "
            "gradient norms. These are worst-case constants: a larger learning rate may do.\n"
            f"How sure: {self._certainty(verdict)}"
        )
        return Advice(optimizer, rate, threshold, alpha, sigma, text)

    def _certainty(self, verdict):
        sure = {
            "heavy-tailed": "the interval of the tail index lies below 2, but a few laws with "
            "finite variance look the same in samples of this size",
            "concentrated": f"{len(self)} batches show no event rarer than about 1 in {len(self)}",
            "undecided": "not sure at all; measure more batches, or single examples",
        }[verdict.label]
        return (
            f"{sure}. It holds for this model, these batch sizes and "
            f"{'this point of training' if self.step < 0 else f'step {self.step:,}'}; "
            "noise changes during training."
        )

    def _where(self):
        return self.model + (f" at step {self.step:,}" if self.step >= 0 else "")

    def save(self, path):
        """Writes the sample to one `.npz` file, whole or not at all.

        Args:
            path: Where to; `.npz` is appended if missing.

        Returns:
            The path written, a string.
        """
        path = os.fspath(path)
        path += "" if path.endswith(".npz") else ".npz"
        header = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _ARRAYS
        }
        partial = f"{path}.partial"
        with open(partial, "wb") as file:
            np.savez(
                file,
                format=_FORMAT,
                header=json.dumps(header),
                **{name: getattr(self, name) for name in _ARRAYS},
            )
        os.replace(partial, path)
        return path

    @classmethod
    def load(cls, path):
        """Reads a sample that `save` wrote.

        Raises:
            FileNotFoundError: If there is no such file.
            ValueError: If the file holds no `NoiseSample`.
        """
        path = os.fspath(path)
        try:
            with np.load(path, allow_pickle=False) as file:
                if str(file["format"]) != _FORMAT:
                    raise ValueError(f"its format is {str(file['format'])!r}, not {_FORMAT!r}")
                header = json.loads(str(file["header"]))
                arrays = {name: file[name] for name in _ARRAYS}
        except (AttributeError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
            raise ValueError(f"{path} holds no NoiseSample: {error}") from error
        tuples = {name: tuple(header[name]) for name in ("groups", "group_parameters")}
        return cls(**arrays, **header | tuples)


_FIRST = {
    "heavy-tailed": "Heavy-tailed noise: clip. Start with ACClip, or GClip as below; plain "
    "momentum may be thrown off by single batches.",
    "concentrated": "Concentrated noise: clipping isn't needed for it. SGD with momentum suits "
    "this noise; an adaptive method may still help for other reasons.",
    "undecided": "Undecided noise: ACClip or GClip are the safe choice, and cost little if the "
    "noise turns out concentrated.",
}
