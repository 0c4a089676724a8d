"""Takes samples along a training: keeps, saves and logs them."""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from keras_acclip._utils import arguments
from keras_acclip.noise.sample import LEAST_BATCHES

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_acclip.noise.data import Batches
    from keras_acclip.noise.measure import NoiseMeter
    from keras_acclip.noise.sample import NoiseSample

LOGS = (
    "noise_norm",
    "noise_std",
    "noise_tail_index",
    "noise_tail_index_low",
    "noise_tail_index_high",
    "noise_scale",
    "noise_kurtosis",
    "noise_skewness",
    "noise_mean_gradient_norm",
    "noise_nonfinite",
)


class NoiseRecorder:
    """Keeps the samples of a training, in memory, in files and for TensorBoard.

    Args:
        num_batches: Most batches a measurement. Defaults to 256.
        log_dir: Folder for TensorBoard: scalars, a histogram of the norms and figures, under
            `noise/`. Default: none.
        save_dir: Folder for the samples, `noise-<step>.npz`, written as they are taken. Default:
            none.
        verbose: 0 silent, 1 a progress bar, 2 one line a measurement. Defaults to 1.

    Attributes:
        samples: The `NoiseSample`s, in the order taken, those of an earlier run before them.
        numbers: The newest numbers by the names of `LOGS`; NaN until first measured, or where there
            are too few norms.

    Raises:
        ImportError: If SciPy is missing, or matplotlib where `log_dir` is given.
        ValueError: If `num_batches` is out of range.
    """

    def __init__(
        self,
        *,
        num_batches: int = 256,
        log_dir: str | os.PathLike[str] | None = None,
        save_dir: str | os.PathLike[str] | None = None,
        verbose: int = 1,
    ) -> None:
        # Both are needed in the end: better to miss them before hours of training than after.
        from keras_acclip.noise import tails  # noqa: F401

        if log_dir is not None:
            from keras_acclip.noise import plots  # noqa: F401
        self._num_batches = arguments.positive_integer("num_batches", num_batches)
        self._log_dir = log_dir
        self._save_dir = save_dir
        self._verbose = verbose
        self._writer: Any = None
        self.samples: list[NoiseSample] = []
        self.numbers: dict[str, float] = dict.fromkeys(LOGS, float("nan"))

    def restore(self, samples: Sequence[NoiseSample]) -> None:
        """Takes over the samples of an earlier run of the same training.

        Args:
            samples: They take the place of those kept so far.
        """
        self.samples = list(samples)

    def measure(self, meter: NoiseMeter, batches: Batches) -> NoiseSample:
        """Takes a sample, keeps it and returns it.

        Args:
            meter: A `NoiseMeter` of the model.
            batches: What to measure on.

        Raises:
            KeyboardInterrupt: If the measurement was interrupted, after what was measured is kept.
        """
        name = meter.model.name
        if self._verbose:
            print(f"\nGradient noise of {name}:", flush=True)
        sample = meter.measure(batches, self._num_batches, verbose=self._verbose)
        self.keep(sample)
        if sample.interrupted:
            raise KeyboardInterrupt
        return sample

    def keep(self, sample: NoiseSample) -> None:
        """Keeps a sample, prints a line on it, and writes its file and its summaries.

        Args:
            sample: The newest.
        """
        self.samples.append(sample)
        self.numbers = _numbers(sample)
        if self._verbose:
            print(f"  {line(sample)}", flush=True)
        if self._save_dir is not None:
            sample.save(os.path.join(self._save_dir, f"noise-{sample.step:08d}.npz"))
        if self._log_dir is not None:
            self._write_summaries(self._log_dir, sample)

    def plot_evolution(self, title: str | None = None) -> Figure:
        """Draws the distribution of the norms at each stage of training (Figure 2 of the paper).

        Args:
            title: What is trained. Default: the model's name.

        Raises:
            ValueError: If nothing was measured.
        """
        from keras_acclip.noise import plots

        samples = [sample for sample in self.samples if len(sample)]
        labels = [f"step {sample.step:,}" for sample in samples]
        return plots.evolution(samples, labels, title or (samples[0].model if samples else None))

    def close(self) -> None:
        """Closes TensorBoard's file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _write_summaries(self, log_dir: str | os.PathLike[str], sample: NoiseSample) -> None:
        import tensorflow as tf

        if self._writer is None:
            self._writer = tf.summary.create_file_writer(os.path.join(log_dir, "noise"))
        with self._writer.as_default(step=max(sample.step, 0)):
            for name, value in self.numbers.items():
                tf.summary.scalar(name, value)
            if len(sample):
                verdict = sample.classify()
                tf.summary.text("noise_verdict", f"{verdict.label}: {verdict.reason}")
                tf.summary.histogram("noise_norms", sample.norms)
                figures = {"noise": sample.plot(), "noise_evolution": self.plot_evolution()}
                for name, figure in figures.items():
                    png = io.BytesIO()
                    figure.savefig(png, format="png")
                    tf.summary.image(name, tf.image.decode_png(png.getvalue())[tf.newaxis])
        self._writer.flush()


def line(sample: NoiseSample) -> str:
    """A sample's verdict, tail index, noise scale, noise norm and gradient norm in one line.

    Args:
        sample: A `NoiseSample`.
    """
    verdict = sample.classify() if len(sample) else None
    words = [f"step {sample.step:,}, {len(sample)} batches"]
    if verdict is not None:
        words.append(verdict.label)
        index, low, high = verdict.tail_index
        if not math.isnan(index):
            value = "past all bounds" if math.isinf(index) else f"{index:.3g}"
            words.append(f"tail index {value} (95% {low:.3g} to {high:.3g})")
    if len(sample) >= LEAST_BATCHES:
        words.append(f"noise scale {sample.noise_scale()}")
    else:
        words.append(f"too few for a noise scale, which takes {LEAST_BATCHES}")
    words.append(f"noise norm {sample.norm:.4g}, std {sample.std:.4g}")
    words.append(f"gradient norm {sample.mean_gradient_norm:.4g}")
    if sample.nonfinite:
        words.append(f"{sample.nonfinite} batches not finite")
    return "; ".join(words)


def _numbers(sample: NoiseSample) -> dict[str, float]:
    """Returns the `LOGS` of a sample; NaN where it has too few norms."""
    from keras_acclip.noise import tails

    def of(statistic: Callable[[], float]) -> float:
        try:
            return float(statistic())
        except ValueError:
            return float("nan")

    nothing = (math.nan, math.nan, math.nan)
    index = sample.classify().tail_index if len(sample) else nothing
    values = (
        sample.norm,
        sample.std,
        *index,
        of(lambda: sample.noise_scale().value),
        of(lambda: tails.kurtosis(sample.norms).value),
        of(lambda: tails.skewness(sample.norms).value),
        sample.mean_gradient_norm,
        float(sample.nonfinite),
    )
    return dict(zip(LOGS, values, strict=True))
