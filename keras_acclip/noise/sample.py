"""A sample of gradient-noise norms: its numbers, its file and its summary."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np

from keras_acclip._utils import files

LEAST_BATCHES = 10
"""Batches that a noise scale needs."""
LEAST_DISTINCT = 0.9
"""The share of a sample's examples that must differ, or it is said that they recur."""

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_acclip.noise.advice import Advice
    from keras_acclip.noise.scale import NoiseScale
    from keras_acclip.noise.tails import TailEstimate, Verdict

_FORMAT = "keras_acclip.NoiseSample/1"
_ARRAYS = (
    "norms",
    "gradient_norms",
    "losses",
    "batch_sizes",
    "group_norms",
    "group_gradient_norms",
    "group_mean_gradient_norms",
    "coordinates",
)


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
        coordinates: g − ḡ of each batch in some coordinates; float64, shape `(n, coordinates)`;
            `(n, 0)` where none were asked for.
        nonfinite: How many further batches had a gradient that is not finite.
        dropped: How many further batches were left out for their size.
        parameters: Number of trainable parameters.
        model: The model's name.
        step: Training steps that the model had taken; -1 if unknown.
        interrupted: Whether the measurement was interrupted.
        settings: How it was taken: the arguments of `measure_noise`, and the method used.

    Example:

    >>> import numpy as np
    >>> from keras_acclip.noise import NoiseSample
    >>> norms = np.random.default_rng(0).pareto(1.5, 1000) + 1
    >>> sample = NoiseSample(norms, norms, norms, np.full(1000, 8), mean_gradient_norm=1.0)
    >>> len(sample), sample.classify().label
    (1000, 'heavy-tailed')
    """

    norms: np.ndarray
    gradient_norms: np.ndarray
    losses: np.ndarray
    batch_sizes: np.ndarray
    mean_gradient_norm: float
    groups: tuple[str, ...] = ()
    group_norms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    group_gradient_norms: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    group_mean_gradient_norms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    group_parameters: tuple[int, ...] = ()
    coordinates: np.ndarray = field(default_factory=lambda: np.zeros((0, 0)))
    nonfinite: int = 0
    dropped: int = 0
    parameters: int = 0
    model: str = ""
    step: int = -1
    interrupted: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        """How many norms there are."""
        return len(self.norms)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """The norms."""
        return np.array(self.norms, dtype=dtype, copy=True if copy is None else copy)

    @property
    def weights(self) -> np.ndarray:
        """Weight of each batch in ḡ; float64, shape `(n,)`, summing to 1."""
        return self.batch_sizes / self.batch_sizes.sum()

    @property
    def norm(self) -> float:
        """Mean of the norms, weighted by batch sizes; NaN of no norms."""
        return float(np.sum(self.weights * self.norms)) if len(self) else float("nan")

    def variance(self, unbiased: bool = True) -> float:
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
    def std(self) -> float:
        """σ = √E‖g − ∇f(x)‖², from the unbiased variance."""
        return float(np.sqrt(self.variance()))

    def group(self, name: str) -> NoiseSample:
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
            coordinates=np.zeros((len(self), 0)),
            parameters=self.group_parameters[i],
            model=f"{self.model}/{name}",
        )

    def tail_index(self, k: int | None = None, confidence: float = 0.95) -> TailEstimate:
        """Returns Hill's `TailEstimate` of the norms.

        Args:
            k: How many of the largest norms to use. Default: chosen from the data.
            confidence: Level of the interval, between 0 and 1. Defaults to 0.95.

        Raises:
            ValueError: As `tails.hill`.
        """
        from keras_acclip.noise import tails

        return tails.hill(self.norms, k, confidence)

    def classify(self) -> Verdict:
        """Returns the `Verdict` on the norms: heavy-tailed, concentrated or undecided."""
        from keras_acclip.noise import tails

        return tails.classify(self.norms)

    def classify_coordinates(self) -> list[Verdict]:
        """Returns the `Verdict` on the size of the noise in each of `coordinates`.

        A coordinate's tail and the norm's can differ: a norm sums many coordinates, and is
        concentrated where each is but for rare ones. `tails.stable_index(sample.coordinates)` gives
        the index that publications on coordinates report.

        Raises:
            ValueError: If no coordinates were kept.

        References:
            U. Şimşekli and others, ICML 2019, section 4; Zhang et al. (2020), appendix H, on why
            the two need not agree.
        """
        from keras_acclip.noise import tails

        if not self.coordinates.size:
            raise ValueError(
                "No coordinates were kept: measure_noise(..., coordinates=100) keeps some."
            )
        return [tails.classify(np.abs(column)) for column in self.coordinates.T]

    def noise_scale(self, confidence: float = 0.95) -> NoiseScale:
        """Estimates tr Σ/‖∇f‖², the batch at which noise and gradient are equally large.

        Σ is the covariance of ONE example's gradient. Below the noise scale a batch twice as large
        needs about half the steps; above it, hardly fewer. It is a rough guide to the largest
        useful batch, not more. With infinite variance there is no such scale: what is measured
        grows with the sample.

        Args:
            confidence: Level of the interval, between 0 and 1. Defaults to 0.95.

        Returns:
            A `NoiseScale`, in examples; `per_token(row_length)` gives it in tokens. Where ‖∇f‖²
            can't be told from 0 it is a lower bound alone; of a sample that followed a training's
            own gradients, an upper bound.

        Raises:
            ValueError: If there are fewer than 10 batches, or `confidence` is out of range.

        Example:

        >>> norms = np.random.default_rng(0).normal(10, 1, 400)
        >>> sample = NoiseSample(norms, norms, norms, np.full(400, 8), mean_gradient_norm=1.0)
        >>> print(sample.noise_scale())
        1.07e+03 examples (95% interval 952 to 1.23e+03)

        References:
            S. McCandlish and others, "An empirical model of large-batch training" (2018), section
            2 and appendix A (https://arxiv.org/abs/1812.06162).
        """
        from keras_acclip.noise import scale

        return scale.noise_scale(self, confidence)

    def plot(self, title: str | None = None) -> Figure:
        """Draws the panel of Figure 1 of the paper; returns a matplotlib `Figure`.

        Args:
            title: What was measured; the verdict comes behind it. Default: the model, the step and
                the noise scale.
        """
        from keras_acclip.noise import plots

        if title is None and len(self) >= LEAST_BATCHES:
            title = f"{self.where}, noise scale {self.noise_scale().short}"
        return plots.panel(self, title=title or self.where)

    def summary(self) -> str:
        """Returns a few lines of text: what was measured, the noise, and the verdict."""
        from keras_acclip.noise.summary import summarize

        return summarize(self)

    def advice(
        self,
        steps: int = 10_000,
        smoothness: float = 1.0,
        initial_gap: float | None = None,
    ) -> Advice:
        """Says what the noise suggests for training, and how sure that is.

        The threshold is a quantile of the measured gradient norms, 25%, or 90% where the noise is
        concentrated; `docs/results/clipping_advice.md` has how near that comes to the best. What is
        said of the batch rests on `noise_scale`. The constants of Theorem 2 stand in the last line;
        they hold for the worst function.

        Args:
            steps: K of Theorem 2, the number of steps that will be taken. Defaults to 10,000.
            smoothness: L of Theorem 2, the Lipschitz constant of ∇f. It is not measured: the
                default of 1 is a stand-in.
            initial_gap: F₀ of Theorem 2, f(x) − inf f in the loss's units. Default: the mean loss,
                so inf f = 0.

        Returns:
            An `Advice`; print it.

        Raises:
            ValueError: If there are fewer than two norms, they are all 0, or an argument is out of
                range.

        References:
            Zhang et al. (2020), Theorem 2 and Section 4; McCandlish et al. (2018).
        """
        from keras_acclip.noise.advice import advise

        return advise(self, steps, smoothness, initial_gap)

    @property
    def where(self) -> str:
        """The model's name, and the step where it is known."""
        return self.model + (f" at step {self.step:,}" if self.step >= 0 else "")

    def save(self, path: str | os.PathLike[str]) -> str:
        """Writes the sample to one `.npz` file, whole or not at all.

        Args:
            path: Where to; `.npz` is appended if missing, and its folder is made.

        Returns:
            The path written, a string.
        """
        path = os.fspath(path)
        path += "" if path.endswith(".npz") else ".npz"
        header = {
            f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in _ARRAYS
        }
        contents: dict[str, Any] = {"format": _FORMAT, "header": json.dumps(header)}
        contents |= {name: getattr(self, name) for name in _ARRAYS}
        files.write_atomically(path, lambda file: np.savez(file, **contents))
        return path

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> NoiseSample:
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
                # Files of before 0.2.0 hold no coordinates.
                older = {"coordinates"} - set(file.files)
                arrays = {name: file[name] for name in _ARRAYS if name not in older}
        except (AttributeError, EOFError, KeyError, TypeError, ValueError, BadZipFile) as error:
            raise ValueError(f"{path} holds no NoiseSample: {error}") from error
        tuples = {name: tuple(header[name]) for name in ("groups", "group_parameters")}
        return cls(**arrays, **header | tuples)
