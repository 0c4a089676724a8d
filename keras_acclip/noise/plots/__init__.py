"""Figures of gradient noise: the paper's Figures 1, 2 and 4 for samples of one's own.

Each function takes norms (an array, or anything with a `.norms` array, such as a `NoiseSample`) and
returns a Matplotlib figure. None shows a window, registers the figure with pyplot or changes
Matplotlib's settings.

Example:
    >>> from keras_acclip.noise import plots
    >>> plots.save(plots.panel(norms, title="BERT, step 1000"), "noise.png")
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.noise.plots.look import NORM as NORM
    from keras_acclip.noise.plots.look import save as save
    from keras_acclip.noise.plots.look import style as style
    from keras_acclip.noise.plots.several import evolution as evolution
    from keras_acclip.noise.plots.several import grid as grid
    from keras_acclip.noise.plots.several import side_by_side as side_by_side
    from keras_acclip.noise.plots.single import hill_plot as hill_plot
    from keras_acclip.noise.plots.single import histogram as histogram
    from keras_acclip.noise.plots.single import panel as panel
    from keras_acclip.noise.plots.single import tail as tail
    from keras_acclip.noise.plots.single import variance_growth as variance_growth

if importlib.util.find_spec("matplotlib") is None:
    raise ImportError("keras_acclip.noise.plots needs Matplotlib: pip install 'keras-acclip[plot]'")

__all__ = [
    "NORM",
    "evolution",
    "grid",
    "hill_plot",
    "histogram",
    "panel",
    "save",
    "side_by_side",
    "style",
    "tail",
    "variance_growth",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "NORM": "look",
            "evolution": "several",
            "grid": "several",
            "hill_plot": "single",
            "histogram": "single",
            "panel": "single",
            "save": "look",
            "side_by_side": "several",
            "style": "look",
            "tail": "single",
            "variance_growth": "single",
        },
    )
