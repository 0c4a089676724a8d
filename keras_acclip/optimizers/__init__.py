"""GClip, CClip and ACClip for Keras 3, on every Keras backend."""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.optimizers.acclip import ACClip as ACClip
    from keras_acclip.optimizers.cclip import CClip as CClip
    from keras_acclip.optimizers.clip import Clip as Clip
    from keras_acclip.optimizers.gclip import GClip as GClip

__all__ = ["ACClip", "CClip", "Clip", "GClip"]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__, {"ACClip": "acclip", "CClip": "cclip", "Clip": "clip", "GClip": "gclip"}
    )
