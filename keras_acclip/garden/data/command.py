"""Makes what the Model Garden's experiments train on.

    python -m keras_acclip.garden.data pretraining --output data
    python -m keras_acclip.garden.data pretraining --input 'books/*.txt.gz' --vocab_size 8192 \\
        --output data
    python -m keras_acclip.garden.data questions --output questions
    python -m keras_acclip.garden.data squad --train questions/train.json \\
        --dev questions/dev.json --vocab data/vocab.txt --output squad
    python -m keras_acclip.garden.data sentences --train train.tsv --dev dev.tsv \\
        --vocab data/vocab.txt --output sentences

`pretraining` makes a vocabulary and sharded TFRecords of masked pairs of segments out of text;
`squad` makes TFRecords out of SQuAD files; `questions` makes such files out of text; `sentences`
makes TFRecords out of labelled texts or pairs of texts, in TSV, CSV or JSON lines. Each folder of
TFRecords gets a `data.yaml` for `--config_file` of `python -m keras_acclip.garden.train`; name it
last there. A command that was stopped goes on where it was when it is given again.
"""

from __future__ import annotations

import argparse
import dataclasses
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from keras_acclip._utils.commands import Parser, positive, quiet_tensorflow, to_path
from keras_acclip.garden.data.classification import Sentences, make_sentence_data
from keras_acclip.garden.data.pretraining import (
    PACKAGES,
    check_vocabulary,
    make_pretraining_data,
)
from keras_acclip.garden.data.questions import make_questions
from keras_acclip.garden.data.recipe import Recipe
from keras_acclip.garden.data.sentences import sentence_files
from keras_acclip.garden.data.shards import DataError
from keras_acclip.garden.data.squad import Windows, make_squad_data
from keras_acclip.text import corpus
from keras_acclip.text.vocabulary import VocabularyError

_Settings = TypeVar("_Settings", Recipe, Sentences, Windows)
_Add = Callable[..., Any]


def parse_arguments(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line, checked.

    Args:
        arguments: Its words. Default: the process's.

    Raises:
        SystemExit: With status 2 where it can't be understood.
    """
    parser = Parser(
        prog="python -m keras_acclip.garden.data",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, description, add_options in (
        (
            "pretraining",
            pretraining,
            "a vocabulary and TFRecords out of text",
            _pretraining_options,
        ),
        ("squad", squad, "TFRecords out of SQuAD files", _squad_options),
        ("sentences", sentences, "TFRecords out of labelled texts", _sentences_options),
        ("questions", questions, "SQuAD v1.1 files out of text", _questions_options),
    ):
        command = commands.add_parser(name, help=description, description=f"Makes {description}.")
        command.set_defaults(run=run)
        add_options(command.add_argument)
        command.add_argument("--output", type=to_path, required=True, metavar="DIR")
    return parser.parse_args(arguments)


def _text_options(add: _Add) -> None:
    add(
        "--input",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="text, plain or .gz, globs; default: docstrings",
    )
    add(
        "--validation_input",
        nargs="+",
        action="extend",
        metavar="FILE",
        help="default: a part of the input",
    )
    add(
        "--one_sentence_per_line",
        action="store_true",
        help="the files hold a sentence a line and blank lines between documents, as the Model "
        "Garden has it; default: running text",
    )
    add(
        "--skip_unusable",
        action="store_true",
        help="leave out input files that are missing or can't be used",
    )
    cache = corpus.default_cache_dir()
    add("--cache", type=to_path, default=cache, help="of the docstrings; default: %(default)s")


def _pretraining_options(add: _Add) -> None:
    default = Recipe()
    _text_options(add)
    add("--vocab", type=to_path, metavar="FILE", help="default: learned from the text")
    add("--vocab_size", type=positive, default=30522, metavar="N", help="default: %(default)s")
    add(
        "--seq_length",
        type=positive,
        default=default.seq_length,
        help="tokens of an example; default: %(default)s",
    )
    add("--masked_lm_prob", type=float, default=default.masked_lm_prob, help="default: %(default)s")
    add(
        "--max_predictions_per_seq",
        type=positive,
        help="default: that part of the length, rounded up; 20 for 128",
    )
    add("--short_seq_prob", type=float, default=default.short_seq_prob, help="default: %(default)s")
    add(
        "--dupe_factor",
        type=positive,
        default=default.dupe_factor,
        help="times the training text is gone through, masked anew each time; default: %(default)s",
    )
    add("--whole_word_mask", action="store_true", help="mask all pieces of a word together")
    add(
        "--dynamic",
        action="store_true",
        help="write the text itself: acclip/bert_pretraining_text masks it while it reads",
    )
    add("--seed", type=int, default=default.seed, help="default: %(default)s")
    add("--num_shards", type=positive, metavar="N", help="default: one a million characters")
    _shared_options(add)


def _squad_options(add: _Add) -> None:
    default = Windows()
    add(
        "--train",
        type=to_path,
        required=True,
        metavar="FILE",
        help="SQuAD v1.1 JSON to train on",
    )
    add(
        "--dev",
        type=to_path,
        required=True,
        metavar="FILE",
        help="SQuAD v1.1 JSON to evaluate on",
    )
    add("--vocab", type=to_path, required=True, metavar="FILE", help="the encoder's vocabulary")
    add(
        "--skip_unanswerable",
        action="store_true",
        help="leave out the questions without an answer, which SQuAD v2.0 has",
    )
    for name, meaning in (
        ("seq_length", "tokens of an example"),
        ("query_length", "most tokens of a question"),
        ("doc_stride", "step between the windows of a long context"),
    ):
        value = getattr(default, name)
        add(f"--{name}", type=positive, default=value, help=f"{meaning}; default: {value}")
    _shared_options(add)


def _sentences_options(add: _Add) -> None:
    default = Sentences()
    what = "a .tsv or .csv file whose first line names the columns, or .jsonl"
    add("--train", type=to_path, required=True, metavar="FILE", help=f"{what}; to train on")
    add("--dev", type=to_path, required=True, metavar="FILE", help="the same, to evaluate on")
    add("--vocab", type=to_path, required=True, metavar="FILE", help="the encoder's vocabulary")
    add(
        "--text_fields",
        nargs="+",
        action="extend",
        default=[],
        metavar="NAME",
        help="columns of one or two texts; default: the usual names, such as sentence1 sentence2, "
        "premise hypothesis, text",
    )
    add("--label_field", metavar="NAME", help="default: the usual names, such as label")
    add(
        "--label_type",
        choices=("int", "float"),
        help="int for classes, float for numbers to predict; default: numbers if a label has a "
        "point, as 2.0",
    )
    add("--seq_length", type=positive, default=default.seq_length, help="default: %(default)s")
    add("--seed", type=int, default=default.seed, help="of the order; default: %(default)s")
    _shared_options(add)


def _questions_options(add: _Add) -> None:
    _text_options(add)
    for part, most in (("train", 10_000), ("dev", 1000)):
        add(f"--{part}_questions", type=positive, default=most, metavar="N", help="default: most")
    add("--seed", type=int, default=12345, help="default: %(default)s")


def _shared_options(add: _Add) -> None:
    add("--cased", dest="lower_case", action="store_false", help="keep capitals and accents")
    add("--processes", type=positive, metavar="N", help="default: as many as there are CPUs")


def _settings(kind: type[_Settings], options: argparse.Namespace) -> _Settings:
    """The dataclass `kind` with the values of the options that are named like its fields."""
    values = {field.name: getattr(options, field.name) for field in dataclasses.fields(kind)}
    try:
        return kind(**values)
    except ValueError as error:
        raise DataError(error) from error


def load_text(options: argparse.Namespace) -> corpus.Corpus:
    """The text that the options name."""
    if options.input:
        both = set(options.input) & set(options.validation_input or ())
        if both:
            raise DataError(f"{min(both)}: given as --input and as --validation_input")
        read = corpus.text_files
        if options.one_sentence_per_line:
            read = sentence_files
        elif options.command == "pretraining":
            read = corpus.whole_files
        return read(options.input, options.validation_input or (), options.skip_unusable)
    if options.validation_input or options.one_sentence_per_line or options.skip_unusable:
        raise DataError("--validation_input, --one_sentence_per_line, --skip_unusable need --input")
    return corpus.embedded_corpus(options.cache, PACKAGES)


def pretraining(options: argparse.Namespace) -> dict[str, int]:
    """Makes pretraining data."""
    # Before the text is read, which may take a minute.
    recipe = _settings(Recipe, options)
    check_vocabulary(options.vocab, options.vocab_size)
    return make_pretraining_data(
        load_text(options),
        options.output,
        vocab=options.vocab,
        vocab_size=options.vocab_size,
        recipe=recipe,
        one_sentence_per_line=options.one_sentence_per_line,
        num_shards=options.num_shards,
        processes=options.processes,
    )


def squad(options: argparse.Namespace) -> dict[str, int]:
    """Makes question-answering data."""
    windows = _settings(Windows, options)
    return make_squad_data(
        options.train,
        options.dev,
        options.vocab,
        options.output,
        windows,
        options.processes,
        options.skip_unanswerable,
    )


def sentences(options: argparse.Namespace) -> dict[str, int]:
    """Makes sentence prediction data."""
    return make_sentence_data(
        options.train,
        options.dev,
        options.vocab,
        options.output,
        _settings(Sentences, options),
        options.text_fields,
        options.label_field,
        options.label_type,
        options.processes,
    )


def questions(options: argparse.Namespace) -> dict[str, int]:
    """Makes questions."""
    return make_questions(
        load_text(options),
        options.output,
        options.train_questions,
        options.dev_questions,
        options.seed,
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the command line and makes what it asks for. Returns the exit status."""
    options = parse_arguments(arguments)
    quiet_tensorflow()
    if threading.current_thread() is threading.main_thread():
        # A shell's background jobs ignore it, and would lose their processes alone.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        made = options.run(options)
    except (DataError, corpus.TextError, VocabularyError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nStopped. The same command goes on from here ({options.output}).")
        return 130
    found = ", ".join(f"{number:,} {name}" for name, number in made.items())
    print(f"{options.output}: {found}")
    if (options.output / "data.yaml").exists():
        print(f"train with --config_file={options.output / 'data.yaml'}, named last")
    return 0
