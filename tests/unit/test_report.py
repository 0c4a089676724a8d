import os
import subprocess
import sys
from importlib import metadata

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_acclip
from keras_acclip import report


def test_lines_have_versions_backend_and_devices():
    got = dict(line.split(": ", 1) for line in report.lines())
    assert got["Python"] == sys.version.split()[0]
    assert got["keras_acclip"] == keras_acclip.__version__
    assert got["keras"] == keras.__version__
    assert got["tensorflow"] == tf.__version__
    assert got["numpy"] == np.__version__
    assert got["backend"] == keras.backend.backend()
    assert "CPU" in got["devices (tensorflow)"]
    assert set(report.PACKAGES) <= set(got)


def test_nothing_installed_is_said_line_by_line(monkeypatch):
    def no_version(name):
        raise metadata.PackageNotFoundError(name)

    def no_module(name):
        raise ImportError(f"No module named {name!r}\nmore")

    monkeypatch.setattr(report.metadata, "version", no_version)
    monkeypatch.setattr(report.importlib, "import_module", no_module)
    got = dict(line.split(": ", 1) for line in report.lines())
    assert {got[name] for name in report.PACKAGES} == {"not installed"}
    assert got["backend"] == "not available (ImportError: No module named 'keras')"
    assert got["devices (tensorflow)"].startswith("not available (ImportError")


def test_a_nightly_build_is_named(monkeypatch):
    def version(name):
        if name == "keras-nightly":
            return "3.99.dev1"
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(report.metadata, "version", version)
    assert report._version(report.PACKAGES["keras"]) == "3.99.dev1 (keras-nightly)"


def test_unknown_arguments_exit_with_status_2(capsys):
    with pytest.raises(SystemExit) as stopped:
        report.main(["--nonsense"])
    assert stopped.value.code == 2
    assert capsys.readouterr().err == "error: unrecognized arguments: --nonsense\n"


def test_devices_are_asked_for_elsewhere_where_keras_refuses_the_backend(monkeypatch):
    def refuse(name):
        raise ValueError("Unable to import backend : nonsense")

    monkeypatch.setattr(report.importlib, "import_module", refuse)
    monkeypatch.setattr(report, "_in_a_new_process", lambda: "a GPU")
    got = dict(line.split(": ", 1) for line in report.lines())
    assert got["backend"] == "not available (ValueError: Unable to import backend : nonsense)"
    assert got["devices (tensorflow)"] == "a GPU"


@pytest.mark.slow
def test_an_unknown_backend_hides_no_devices():
    """In a process of its own, as Keras chooses its backend once."""
    done = subprocess.run(
        [sys.executable, "-m", "keras_acclip.report"],
        env=os.environ | {"KERAS_BACKEND": "nonsense", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    got = dict(line.split(": ", 1) for line in done.stdout.splitlines())
    assert got["backend"] == "not available (ValueError: Unable to import backend : nonsense)"
    assert got["devices (tensorflow)"] == "CPU:0"
    assert got["keras"] == keras.__version__


@pytest.mark.slow
def test_the_command_prints_the_report_alone():
    done = subprocess.run(
        [sys.executable, "-m", "keras_acclip.report"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert all(": " in line for line in done.stdout.splitlines())
    assert f"keras_acclip: {keras_acclip.__version__}" in done.stdout
