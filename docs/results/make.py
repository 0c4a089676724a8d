"""Writes the tables of the pages in this folder, and README's, from the committed results.

    python docs/results/make.py
    python docs/results/make.py --check

Each page `NAME.md` has its numbers in `NAME/results.json`. A table stands in the page between the
lines `<!-- table: KEY -->` and `<!-- end -->`, where `KEY` is one of the file's tables, or
`measured`: when, where and how they were measured. `index.md` has the table `pages`, README the
table `headlines`. `--check` writes nothing and fails where a page differs from its results.

In `results.json` are:

- `title`, `claim` (what the paper says), `paper` (where), `outcome` (each in a few words);
- `measured`: list of dicts of `what`, `command`, `seeds`, `machine`, `versions`, `recorded` (a
  date) and `source` (`"raw"`: from files of the run, which are here or were read by a script;
  `"transcribed"`: from what was written down then);
- `tables`: dict from a key to `columns` (texts, or dicts of `name`, `digits` behind the point and
  `sign`) and `rows`. Where a script wrote them, `file` (in the same folder) and `list` (its names
  in the file, parted by dots) stand instead of `rows`, and a column takes the `key` of a row, or as
  `interval` three of its keys, or one key of three numbers; with `optional` a row may lack it.
  `summary_of` is a `file` whose list is its `summary`. `page`, a file beside this folder, says that
  it stands there instead;
- `rows`, where a script made the tables from a file of rows: `file` (in the same folder), its
  `sha256` when they were made, and `by`, the command that makes them anew;
- `headlines`, where README quotes some: list of dicts of `order`, `claim`, `result`, `seeds`, and
  `digits`, `sign`, `unit` of the result; or `file`, `list` and `key` or `interval` for `result`.

A cell is a text, a number, a list of numbers (one a seed), `null` (not measured), or a dict: `mean`
and `sd`, or `value`, `low` and `high` of a 95% interval. Other kinds of cells are an error.
"""

import argparse
import hashlib
import json
import math
import re
import sys
from pathlib import Path

from keras_acclip._utils.commands import Parser

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
MEASURED = ("what", "command", "seeds", "machine", "versions", "recorded", "source")
MARKED = re.compile(r"(<!-- table: (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)


class ResultsError(ValueError):
    """Results or a page that can't be used; the message names the file."""


# --- Cells -----------------------------------------------------------------------------------


def cell_text(cell, digits=None, sign=False):
    """A cell as a reader sees it.

    Args:
        cell: As in `results.json`.
        digits: Behind the point; `None` for three that count.
        sign: Whether to show a plus.
    """
    if cell is None:
        return "–"
    if isinstance(cell, str):
        return cell
    if isinstance(cell, bool):
        raise ResultsError(f"{cell!r} is no cell")
    if isinstance(cell, int | float):
        return _number(cell, digits, sign)
    if isinstance(cell, list):
        return ", ".join(_number(value, digits, sign) for value in cell)
    if set(cell) == {"mean", "sd"}:
        if cell["sd"] is None:
            return _number(cell["mean"], digits, sign)
        return f"{_number(cell['mean'], digits, sign)} ± {_number(cell['sd'], digits)}"
    if set(cell) == {"value", "low", "high"}:
        value, low, high = (_number(cell[k], digits, sign) for k in ("value", "low", "high"))
        return f"{value} ({low} to {high})"
    raise ResultsError(f"{cell!r} is no cell")


def _number(value, digits, sign=False):
    if value is None or not math.isfinite(value):
        return "diverged" if value is None or math.isnan(value) else "∞"
    if isinstance(value, int) and digits is None:
        text = f"{value:{'+' if sign else ''},}"
    elif digits is None:
        text = re.sub(r"e([+-])0", r"e\1", f"{value:{'+' if sign else ''}.3g}")
    else:
        text = f"{value:{'+' if sign else ''},.{digits}f}"
    return text.replace("-", "−")


# --- Tables ----------------------------------------------------------------------------------


def table_text(table, folder):
    """A table as Markdown.

    Args:
        table: As in `results.json`.
        folder: Where the file is that the table names.
    """
    columns = [{"name": c} if isinstance(c, str) else c for c in table["columns"]]
    rows = table.get("rows")
    if rows is None:
        found = _in_file(table, folder)
        rows = [[_cell_of(row, column) for column in columns] for row in found]
    texts = []
    for row in rows:
        if len(row) != len(columns):
            raise ResultsError(f"{folder}: a row of {len(row)} cells: {row}")
        cells = zip(row, columns, strict=True)
        texts.append([cell_text(cell, c.get("digits"), c.get("sign", False)) for cell, c in cells])
    numeric = [not all(isinstance(row[i], str) for row in rows) for i in range(len(columns))]
    return _markdown([[c["name"] for c in columns], *texts], numeric)


def _in_file(table, folder):
    """What a table or a headline takes from a file that a script wrote."""
    if "summary_of" in table:
        path, names = folder / table["summary_of"], "summary"
    else:
        path, names = folder / table["file"], table["list"]
    found = json.loads(path.read_text("utf-8"))
    for name in names.split("."):
        found = found[int(name)] if isinstance(found, list) else found[name]
    return found


def _cell_of(row, column):
    """What a column takes from a row that a script wrote."""
    if "interval" not in column:
        return row.get(column["key"]) if column.get("optional") else row[column["key"]]
    names = column["interval"]
    values = row[names] if isinstance(names, str) else [row[name] for name in names]
    return None if None in values else dict(zip(("value", "low", "high"), values, strict=True))


def _markdown(rows, right=()):
    header, *body = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    right = right or [False] * len(header)
    line = ["--:" if r else "---" for r in right]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, line, *body)) + "\n"


def measured_text(results):
    """Where, when and how a page's numbers were measured."""
    rows = [[f"`{m[k]}`" if k == "command" else m[k] for k in MEASURED] for m in results]
    return _markdown([list(MEASURED), *rows])


def headline_text(headline, folder):
    """A headline's number with its unit and interval."""
    if "file" in headline:
        result = _cell_of(_in_file(headline, folder), headline)
    else:
        result = headline["result"]
    text = cell_text(result, headline.get("digits"), headline.get("sign", False))
    return f"{text} {headline.get('unit', '')}".strip()


# --- Pages -----------------------------------------------------------------------------------


def read_results():
    """Dict from a page's name to its results."""
    found = {}
    for path in sorted(HERE.glob("*/results.json")):
        try:
            found[path.parent.name] = json.loads(path.read_text("utf-8"))
        except ValueError as error:
            raise ResultsError(f"{path}: {error}") from error
        check_rows(path, found[path.parent.name].get("rows"))
    return found


def check_rows(path, rows):
    """Raises where results were made from other rows than those beside them.

    Args:
        path: The results.
        rows: What they say of the rows; `None` where they were not made from any.
    """
    if rows is None:
        return
    beside = path.parent / rows["file"]
    if hashlib.sha256(beside.read_bytes()).hexdigest() != rows["sha256"]:
        raise ResultsError(f"{path}: made from other rows than {beside.name}: {rows['by']}")


def page_text(path, tables):
    """A page with its tables as the results have them.

    Args:
        path: The page.
        tables: Dict from a key to the Markdown of its table; each must stand in the page once.

    Raises:
        ResultsError: If the page has a table that the results lack, or lacks one.
    """
    text = path.read_text("utf-8")
    standing = [match.group(2) for match in MARKED.finditer(text)]
    if sorted(standing) != sorted(tables):
        raise ResultsError(f"{path}: has the tables {standing}; the results have {list(tables)}")
    return MARKED.sub(lambda match: match.group(1) + tables[match.group(2)] + match.group(3), text)


def pages(results):
    """Dict from a page's path to its text, index and README among them."""
    index, headlines = [["page", "of the paper", "claim", "here"]], []
    standing: dict[Path, dict[str, str]] = {}
    for name, found in results.items():
        folder = HERE / name
        page = HERE / f"{name}.md"
        standing[page] = {"measured": measured_text(found["measured"])}
        for key, table in found["tables"].items():
            where = HERE.parent / table["page"] if "page" in table else page
            standing.setdefault(where, {})[key] = table_text(table, folder)
        link = f"[{found['title']}]({name}.md)"
        index.append([link, found["paper"], found["claim"], found["outcome"]])
        for headline in found.get("headlines", []):
            link = f"[{headline['claim']}](docs/results/{name}.md)"
            row = [link, headline_text(headline, folder), headline["seeds"]]
            headlines.append((headline["order"], row))
    standing[HERE / "index.md"] = {"pages": _markdown(index)}
    rows = [["what", "result", "from"], *(row for _, row in sorted(headlines))]
    standing[README] = {"headlines": _markdown(rows)}
    return {path: page_text(path, tables) for path, tables in standing.items()}


def main(arguments=None):
    """Writes the pages, or checks them. Returns the exit status."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    options = parser.parse_args(arguments)
    try:
        made = pages(read_results())
    except (ResultsError, OSError, KeyError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    different = [path for path, text in made.items() if path.read_text("utf-8") != text]
    if options.check:
        for path in different:
            print(f"{path} differs from its results: python docs/results/make.py", file=sys.stderr)
        return int(bool(different))
    for path in different:
        path.write_text(made[path], "utf-8")
        print(f"Written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
