"""Runs the tutorials as they stand, and keeps them with their output, as the site shows them.

    python docs/tutorials/make.py [NAME ...]

What libraries write to stderr is left out: it is of the machine, not of the tutorial.
"""

import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parent


def run(path: Path) -> None:
    """Runs one notebook in a folder of its own, and writes it with what it printed and drew."""
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        resources = {"metadata": {"path": folder}}
        nbclient.NotebookClient(notebook, timeout=1200, resources=resources).execute()
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [o for o in cell.outputs if o.get("name") != "stderr"]
    notebook.metadata.get("language_info", {}).pop("version", None)
    nbformat.write(notebook, path)


def main(names: list[str]) -> None:
    """Runs the notebooks of these names, or all."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    for path in sorted(FOLDER.glob("*.ipynb")):
        if not names or path.stem in names:
            run(path)
            print(f"Written: {path}")


if __name__ == "__main__":
    main(sys.argv[1:])
