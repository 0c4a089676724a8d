"""Files of labelled texts, or pairs of texts: TSV, CSV and JSON lines, every row checked."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from keras_acclip.garden.data.shards import DataError
from keras_acclip.text.corpus import TextError, read_text

TEXT_FIELDS = (
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("question", "sentence"),
    ("question", "passage"),
    ("text_a", "text_b"),
    ("text1", "text2"),
    ("text",),
    ("sentence",),
    ("review",),
)
"""Names that the columns of one or two texts usually have; the first that a file has are taken."""
LABEL_FIELDS = ("label", "labels", "gold_label", "label_id", "score", "similarity", "class")
_DELIMITERS = {".tsv": "\t", ".csv": ","}
_HEADER = "A file whose first line is a row already needs a line above it that names the columns"
_JSON = (".jsonl", ".ndjson", ".json")
_LONGEST = 2**31 - 1  # Characters of a cell; a book has more than Python's own limit, 131,072.


@dataclass(frozen=True)
class Labelled:
    """A row: its texts, its label as it is written, and where it stands.

    Attributes:
        texts: One text, or two.
        label: The label.
        place: File and line, for messages.
        columns: Names of the texts' columns and of the label's.
    """

    texts: tuple[str, ...]
    label: str
    place: str
    columns: tuple[str, ...] = ()


def read_labelled(
    path: str | Path, text_fields: Sequence[str] = (), label_field: str | None = None
) -> list[Labelled]:
    """Reads a file of labelled texts.

    Args:
        path: A `.tsv` or `.csv` file whose first line names the columns, or a `.jsonl` file with an
            object a line; plain UTF-8, or gzip where `.gz` is added to the name. A TSV file has no
            quotation marks around its cells, as GLUE's have none.
        text_fields: Names of the columns of one or two texts. Default: the first of `TEXT_FIELDS`
            that the file has, in small letters or capitals.
        label_field: Name of the label's column. Default: the first of `LABEL_FIELDS` that the file
            has, in the same way.

    Returns:
        The rows, in their order.

    Raises:
        DataError: If the file can't be read, has not these columns, or a row is broken or empty;
            the message has the line.

    Example:

    >>> rows = read_labelled("train.tsv")
    >>> rows[0].texts, rows[0].label
    (('A cat sat.', 'Something sat.'), 'entailment')
    """
    path = Path(path)
    kind = next((s.lower() for s in reversed(path.suffixes) if s.lower() != ".gz"), "")
    if kind not in (*_DELIMITERS, *_JSON):
        raise DataError(
            f"{path}: the name must end in .tsv, .csv or .jsonl (or that and .gz), for the form"
        )
    try:
        content = read_text(path)
    except TextError as error:
        raise DataError(str(error)) from error
    if kind in _JSON:
        records = _json_records(path, content)
    else:
        records = _table_records(path, content, _DELIMITERS[kind])
    hint = "" if kind in _JSON else f". {_HEADER}"
    rows: list[Labelled] = []
    fields: tuple[str, ...] = tuple(text_fields)
    for place, record in records:
        fields = fields or _texts(place, record, hint, label_field)
        label_field = label_field or _label(place, record, hint, fields)
        texts = tuple(_cell(place, record, name, hint) for name in fields)
        label = _cell(place, record, label_field, hint)
        rows.append(Labelled(texts, label, place, (*fields, label_field)))
    if not rows:
        raise DataError(f"{path}: holds no row")
    return rows


def _table_records(path: Path, content: str, delimiter: str) -> Iterator[tuple[str, dict]]:
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    lines = io.StringIO(content, newline="")
    csv.field_size_limit(_LONGEST)
    reader = csv.reader(lines, delimiter=delimiter, quoting=quoting, strict=True)
    names: list[str] | None = None
    try:
        for row in reader:
            place = f"{path}, line {reader.line_num}"
            if not row:
                continue
            if names is None:
                names = [name.strip() for name in row]
                if len(names) < 2:
                    between = "tabs" if delimiter == "\t" else "commas"
                    raise DataError(
                        f"{place}: the first line must name two columns or more, {between} "
                        f"between them. Received: {row[0][:80]!r}"
                    )
                if len(set(names)) < len(names):
                    shown = _columns(dict.fromkeys(names))
                    raise DataError(f"{place}: two columns have one name: {shown}. {_HEADER}")
                continue
            if len(row) != len(names):
                raise DataError(
                    f"{place}: has {len(row)} cells, where the first line has {len(names)}"
                )
            yield place, dict(zip(names, row, strict=True))
    except csv.Error as error:
        raise DataError(f"{path}, line {reader.line_num}: {error}") from error


def _json_records(path: Path, content: str) -> Iterator[tuple[str, dict]]:
    start = content.lstrip()
    if start.startswith("["):
        number = 1 + content[: len(content) - len(start)].count("\n")
        raise DataError(
            f"{path}, line {number}: must be an object with the texts and the label, an object a "
            "line, not a list of them"
        )
    for number, line in enumerate(content.split("\n"), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{place}, column {error.colno}: not JSON: {error.msg}") from error
        except RecursionError:
            raise DataError(f"{place}: too many brackets within brackets") from None
        if not isinstance(record, dict):
            raise DataError(f"{place}: must be an object with the texts and the label")
        yield place, record


def _texts(place: str, record: dict, hint: str, label: str | None) -> tuple[str, ...]:
    named = {str(name).lower(): name for name in record if name != label}
    for names in TEXT_FIELDS:
        if all(name in named for name in names):
            return tuple(named[name] for name in names)
    raise DataError(
        f"{place}: which columns hold the texts? There are {_columns(record)}. "
        f"--text_fields names one or two{hint}"
    )


def _label(place: str, record: dict, hint: str, texts: tuple[str, ...]) -> str:
    named = {str(name).lower(): name for name in record if name not in texts}
    for name in LABEL_FIELDS:
        if name in named:
            return named[name]
    raise DataError(
        f"{place}: which column holds the label? There are {_columns(record)}. "
        f"--label_field names it{hint}"
    )


def _columns(record: dict) -> str:
    names = [name if len(name) <= 40 else f"{name[:40]}…" for name in map(str, record)]
    return ", ".join(names)


def _cell(place: str, record: dict, name: str, hint: str) -> str:
    if name not in record:
        raise DataError(f"{place}: there is no {name!r}, but {_columns(record)}{hint}")
    value = record[name]
    if isinstance(value, bool):
        written = json.dumps(value)
        raise DataError(
            f'{place}: {name!r} is {written}, a JSON boolean; write it as a text, "{written}", or '
            f"as a number, {int(value)}"
        )
    if not isinstance(value, str | int | float):
        raise DataError(f"{place}: {name!r} must be a text or a number. Received: {value!r}")
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"{place}: {name!r} is {value}")
    if not str(value).strip():
        raise DataError(f"{place}: {name!r} is empty")
    return str(value).strip()
