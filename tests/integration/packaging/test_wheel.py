"""What `python -m build` makes, used without the sources beside it."""

import email
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import keras_acclip

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("wheel")]

USE = Path(__file__).with_name("use.py")


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, **options)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """The folder with sdist and wheel, built from a copy, so that no build's leftovers matter."""
    # Not by importing: a folder of that name in the clone could be taken for the module.
    if not any(metadata.distributions(name="build")):
        pytest.skip("build is not installed")
    folder = tmp_path_factory.mktemp("dist")
    source = tmp_path_factory.mktemp("source") / "keras-acclip"
    tracked = run(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    for name in filter(None, tracked):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    run([sys.executable, "-m", "build", "--outdir", str(folder)], cwd=source)
    return folder


@pytest.fixture(scope="module")
def wheel(dist):
    (path,) = dist.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def alone(wheel, tmp_path_factory):
    """A new environment with nothing but the wheel and what it asks for itself."""
    home = tmp_path_factory.mktemp("alone")
    run([sys.executable, "-m", "venv", str(home)])
    python = str(home / "bin/python")
    run([python, "-m", "pip", "install", "-q", f"keras-acclip[noise,garden] @ {wheel.as_uri()}"])
    run([python, "-m", "pip", "check"])
    return home / "bin/python"


def test_the_wheel_has_the_package_alone(wheel):
    assert wheel.name == f"keras_acclip-{keras_acclip.__version__}-py3-none-any.whl"
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.partition("/")[0] for name in names}
    assert tops == {"keras_acclip", f"keras_acclip-{keras_acclip.__version__}.dist-info"}
    sources = {
        path.relative_to(ROOT).as_posix()
        for kind in ("*.py", "*.yaml", "py.typed")
        for path in (ROOT / "keras_acclip").rglob(kind)
    }
    assert sources <= set(names)


def test_the_sdist_has_all_that_a_clone_has(dist):
    (path,) = dist.glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = run(["git", "ls-files", "-z"], cwd=ROOT).split("\0")
    # What tells of a clone alone: git's, and the workflows of the place that holds it.
    wanted = {name for name in tracked if name and not name.startswith(".")}
    assert wanted <= names
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]


def test_what_the_package_index_shows_stands_by_itself(wheel):
    """Links and pictures that are relative lead nowhere there."""
    archive = zipfile.ZipFile(wheel)
    (name,) = (n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    shown = email.message_from_bytes(archive.read(name)).get_payload()
    targets = re.findall(r"\]\(([^)]+)\)", shown)
    assert targets and all(target.startswith("https://") for target in targets)


def test_the_wheel_trains_measures_and_reads_its_files(alone, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment["CUDA_VISIBLE_DEVICES"] = ""
    out = run([str(alone), str(USE)], cwd=tmp_path, env=environment)
    used = json.loads(out.splitlines()[-1])
    assert Path(used["home"]).is_relative_to(alone.parents[1])
    assert used["losses"][-1] < used["losses"][0] / 2
    assert used["norms"] == 100
    assert used["verdict"] in ("heavy-tailed", "concentrated", "undecided")
    yaml_files = {path.name for path in (ROOT / "keras_acclip/garden/yaml").glob("*.yaml")}
    assert {Path(name).stem for name in used["files"]} == {Path(f).stem for f in yaml_files}


def test_the_wheel_s_report_says_its_version(alone, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    out = run([str(alone), "-m", "keras_acclip.report"], cwd=tmp_path, env=environment)
    assert f"keras_acclip: {keras_acclip.__version__}" in out
