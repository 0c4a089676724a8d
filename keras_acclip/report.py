"""Prints what a report of a problem needs: versions, backend and devices, one a line.

    python -m keras_acclip.report

Takes no options. What isn't installed, or can't be loaded, is said in its line; the command still
ends with status 0.
"""

from __future__ import annotations

import importlib
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib import metadata

from keras_acclip._utils.commands import Parser

# Distributions in the order of the report; several names are builds of one package.
PACKAGES = {
    "keras": ("keras", "keras-nightly"),
    "tensorflow": ("tensorflow", "tensorflow-cpu", "tf-nightly"),
    "jax": ("jax",),
    "torch": ("torch",),
    "tf_keras": ("tf_keras",),
    "tf-models-official": ("tf-models-official", "tf-models-nightly"),
    "keras-hub": ("keras-hub",),
    "numpy": ("numpy",),
    "scipy": ("scipy",),
}


def lines() -> Iterator[str]:
    """Yields the report's lines, each `name: value`.

    Returns:
        An iterator of strings: versions first, then the Keras backend and its devices.

    Example:
        >>> print(*lines(), sep="\\n")
        platform: ...
        Python: 3...
        keras_acclip: 0...
    """
    from keras_acclip import __version__

    yield f"platform: {platform.platform()}"
    yield f"Python: {platform.python_version()}"
    yield f"keras_acclip: {__version__}"
    for name, builds in PACKAGES.items():
        yield f"{name}: {_version(builds)}"
    backend = _attempt(_backend)
    yield f"backend: {backend}"
    # Without a backend TensorFlow's devices still tell something: the package depends on it.
    library = backend if backend in _DEVICES else "tensorflow"
    yield f"devices ({library}): {_attempt(_DEVICES[library])}"


def main(argv: list[str] | None = None) -> None:
    """Prints the report; the arguments are those of the command line, which takes none."""
    parser = Parser(
        prog="python -m keras_acclip.report",
        description="Print what a report of a problem needs: versions, backend, devices.",
    )
    parser.parse_args(argv)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    for line in lines():
        print(line, flush=True)


def _version(builds: tuple[str, ...]) -> str:
    found = []
    for build in builds:
        try:
            found.append((build, metadata.version(build)))
        except metadata.PackageNotFoundError:
            continue
    if not found:
        return "not installed"
    return ", ".join(v if build == builds[0] else f"{v} ({build})" for build, v in found)


def _attempt(read: Callable[[], str]) -> str:
    """What `read` returns, or in one line why it can't."""
    try:
        return read()
    except Exception as error:
        # A broken installation is what people report, so it's a value here, not a failure.
        first = (str(error).strip() or "no message").splitlines()[0]
        return f"not available ({type(error).__name__}: {first})"


def _backend() -> str:
    return importlib.import_module("keras").backend.backend()


def _tensorflow_devices() -> str:
    try:
        tf = importlib.import_module("tensorflow")
    except ValueError:
        # TensorFlow loads Keras, which has refused a backend that it doesn't know. Half loaded, it
        # would refuse any.
        return _in_a_new_process()
    devices = []
    for device in tf.config.list_physical_devices():
        details = tf.config.experimental.get_device_details(device)
        devices.append(details.get("device_name", device.name.removeprefix("/physical_device:")))
    return ", ".join(devices)


def _in_a_new_process() -> str:
    """TensorFlow's devices, with Keras on TensorFlow whatever `KERAS_BACKEND` says."""
    code = "from keras_acclip.report import _tensorflow_devices as devices; print(devices())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"KERAS_BACKEND": "tensorflow"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()[-1]


def _jax_devices() -> str:
    jax = importlib.import_module("jax")
    return ", ".join(f"{d.device_kind} ({d.platform}:{d.id})" for d in jax.devices())


def _torch_devices() -> str:
    torch = importlib.import_module("torch")
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return ", ".join(["cpu", *gpus])


_DEVICES = {"tensorflow": _tensorflow_devices, "jax": _jax_devices, "torch": _torch_devices}


if __name__ == "__main__":
    main(sys.argv[1:])
