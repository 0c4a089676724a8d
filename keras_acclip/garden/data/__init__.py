"""What the Model Garden's experiments train on, made out of text, labelled texts or SQuAD's files.

`python -m keras_acclip.garden.data` is the command; the functions behind it stand here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from keras_acclip._utils import lazy

if TYPE_CHECKING:
    from keras_acclip.garden.data.classification import Sentences as Sentences
    from keras_acclip.garden.data.classification import make_sentence_data as make_sentence_data
    from keras_acclip.garden.data.labelled_files import read_labelled as read_labelled
    from keras_acclip.garden.data.pretraining import PACKAGES as PACKAGES
    from keras_acclip.garden.data.pretraining import make_pretraining_data as make_pretraining_data
    from keras_acclip.garden.data.questions import make_questions as make_questions
    from keras_acclip.garden.data.recipe import Recipe as Recipe
    from keras_acclip.garden.data.sentences import sentence_files as sentence_files
    from keras_acclip.garden.data.shards import DataError as DataError
    from keras_acclip.garden.data.squad import Windows as Windows
    from keras_acclip.garden.data.squad import make_squad_data as make_squad_data
    from keras_acclip.garden.data.squad_files import read_squad as read_squad

__all__ = [
    "PACKAGES",
    "DataError",
    "Recipe",
    "Sentences",
    "Windows",
    "make_pretraining_data",
    "make_questions",
    "make_sentence_data",
    "make_squad_data",
    "read_labelled",
    "read_squad",
    "sentence_files",
]

# Type checkers would otherwise take any name for one of the package.
if not TYPE_CHECKING:
    __getattr__, __dir__ = lazy.attach(
        __name__,
        {
            "Sentences": "classification",
            "make_sentence_data": "classification",
            "read_labelled": "labelled_files",
            "PACKAGES": "pretraining",
            "make_pretraining_data": "pretraining",
            "make_questions": "questions",
            "Recipe": "recipe",
            "sentence_files": "sentences",
            "DataError": "shards",
            "Windows": "squad",
            "make_squad_data": "squad",
            "read_squad": "squad_files",
        },
    )
