"""How heavy the tail of a sample of norms is: estimators, references and a verdict.

Every function takes a plain one-dimensional sample of norms (a NumPy array or anything that
converts to one) and knows nothing of models or frameworks: NumPy and SciPy are all that it needs.

Example:
    >>> import numpy as np
    >>> from keras_acclip.noise import tails
    >>> norms = 1 + np.random.default_rng(0).pareto(1.2, size=500)
    >>> tails.classify(norms).label
    'heavy-tailed'
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.noise.tails.bootstrap import Interval as Interval
    from keras_acclip.noise.tails.bootstrap import bootstrap_interval as bootstrap_interval
    from keras_acclip.noise.tails.curve import HillPlot as HillPlot
    from keras_acclip.noise.tails.curve import hill_plot as hill_plot
    from keras_acclip.noise.tails.excesses import ExcessEstimate as ExcessEstimate
    from keras_acclip.noise.tails.excesses import generalized_pareto as generalized_pareto
    from keras_acclip.noise.tails.goodness import end_p_value as end_p_value
    from keras_acclip.noise.tails.goodness import fit_p_value as fit_p_value
    from keras_acclip.noise.tails.goodness import trend_p_value as trend_p_value
    from keras_acclip.noise.tails.moments import Estimate as Estimate
    from keras_acclip.noise.tails.moments import VarianceGrowth as VarianceGrowth
    from keras_acclip.noise.tails.moments import alpha_moment as alpha_moment
    from keras_acclip.noise.tails.moments import kurtosis as kurtosis
    from keras_acclip.noise.tails.moments import max_to_sum as max_to_sum
    from keras_acclip.noise.tails.moments import skewness as skewness
    from keras_acclip.noise.tails.moments import variance_growth as variance_growth
    from keras_acclip.noise.tails.ratio import LikelihoodRatio as LikelihoodRatio
    from keras_acclip.noise.tails.ratio import likelihood_ratio as likelihood_ratio
    from keras_acclip.noise.tails.references import Reference as Reference
    from keras_acclip.noise.tails.references import gaussian_reference as gaussian_reference
    from keras_acclip.noise.tails.references import stable_reference as stable_reference
    from keras_acclip.noise.tails.samples import LEAST_FOR_EXCESSES as LEAST_FOR_EXCESSES
    from keras_acclip.noise.tails.samples import LEAST_FOR_MOMENTS as LEAST_FOR_MOMENTS
    from keras_acclip.noise.tails.samples import LEAST_FOR_TAIL as LEAST_FOR_TAIL
    from keras_acclip.noise.tails.samples import LEAST_FOR_VERDICT as LEAST_FOR_VERDICT
    from keras_acclip.noise.tails.stability import StableIndex as StableIndex
    from keras_acclip.noise.tails.stability import stable_index as stable_index
    from keras_acclip.noise.tails.tail_index import TailEstimate as TailEstimate
    from keras_acclip.noise.tails.tail_index import hill as hill
    from keras_acclip.noise.tails.verdict import Verdict as Verdict
    from keras_acclip.noise.tails.verdict import classify as classify

if importlib.util.find_spec("scipy") is None:
    raise ImportError("keras_acclip.noise.tails needs SciPy: pip install 'keras-acclip[noise]'")

__all__ = [
    "LEAST_FOR_EXCESSES",
    "LEAST_FOR_MOMENTS",
    "LEAST_FOR_TAIL",
    "LEAST_FOR_VERDICT",
    "Estimate",
    "ExcessEstimate",
    "HillPlot",
    "Interval",
    "LikelihoodRatio",
    "Reference",
    "StableIndex",
    "TailEstimate",
    "VarianceGrowth",
    "Verdict",
    "alpha_moment",
    "bootstrap_interval",
    "classify",
    "end_p_value",
    "fit_p_value",
    "gaussian_reference",
    "generalized_pareto",
    "hill",
    "hill_plot",
    "kurtosis",
    "likelihood_ratio",
    "max_to_sum",
    "skewness",
    "stable_index",
    "stable_reference",
    "trend_p_value",
    "variance_growth",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "Estimate": "moments",
            "ExcessEstimate": "excesses",
            "HillPlot": "curve",
            "Interval": "bootstrap",
            "LEAST_FOR_EXCESSES": "samples",
            "LEAST_FOR_MOMENTS": "samples",
            "LEAST_FOR_TAIL": "samples",
            "LEAST_FOR_VERDICT": "samples",
            "LikelihoodRatio": "ratio",
            "Reference": "references",
            "StableIndex": "stability",
            "TailEstimate": "tail_index",
            "VarianceGrowth": "moments",
            "Verdict": "verdict",
            "alpha_moment": "moments",
            "bootstrap_interval": "bootstrap",
            "classify": "verdict",
            "end_p_value": "goodness",
            "fit_p_value": "goodness",
            "gaussian_reference": "references",
            "generalized_pareto": "excesses",
            "hill": "tail_index",
            "hill_plot": "curve",
            "kurtosis": "moments",
            "likelihood_ratio": "ratio",
            "max_to_sum": "moments",
            "skewness": "moments",
            "stable_index": "stability",
            "stable_reference": "references",
            "trend_p_value": "goodness",
            "variance_growth": "moments",
        },
    )
