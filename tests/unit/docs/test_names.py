"""The code in sentences and tables: its paths, options, extras and names are there."""

import ast
import configparser
import contextlib
import importlib
import importlib.util
import inspect
import io
import itertools
import json
import pkgutil
import re
import shlex
import subprocess
import sys

import pytest

from tests.unit.docs.pages import PAGES, ROOT, blocks, notebooks, spans
from tests.unit.docs.test_api import MODULES

pytest.importorskip("official.core.exp_factory", reason="the Model Garden is not installed")

from keras_acclip.garden import compare, flags
from keras_acclip.garden.data import command

# Of the changelog the newest section: older ones name what was there then.
TEXTS = PAGES | notebooks()
TEXTS["CHANGELOG.md"] = TEXTS["CHANGELOG.md"].split("\n## ")[1]
SPANS = [(page, span) for page, text in TEXTS.items() for span in dict.fromkeys(spans(text))]
TREES = ("keras_acclip", "tests", "docs", "examples", "benchmarks", ".github", ".ci")
FILES = [
    path.relative_to(ROOT).as_posix()
    for path in (*ROOT.glob("*.*"), *(p for tree in TREES for p in (ROOT / tree).rglob("*")))
    if path.is_file() and "__pycache__" not in path.parts
]
FOLDERS = {path.rpartition("/")[0] for path in FILES}


def chosen(keep):
    """The spans that a test is for, in their pages."""
    found = [(page, span) for page, span in SPANS if keep(span)]
    assert found
    return found


# --- Every word ---


@pytest.fixture(scope="module")
def words():
    """The words of the package's code, of its scripts and settings, and of all files' paths."""
    kinds = (".py", ".yaml", ".yml", ".cfg", ".toml", ".sh", ".cff")
    folders = ("keras_acclip/", "examples/", "benchmarks/", ".github/")
    texts = [*FILES]
    for path in FILES:
        if path.endswith(kinds) and (path.startswith(folders) or "/" not in path):
            texts.append((ROOT / path).read_text("utf-8"))
    return {word for text in texts for word in re.findall(r"\w+", text)}


# A scheme of URLs, and classes of Keras and TensorFlow that no code of ours names.
ELSEWHERE = {"gs", "ClusterCoordinator", "DataParallel", "Huber"}


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_every_word_of_code_in_the_text_is_in_the_code(page, words):
    # What the reader's commands name on the page itself.
    own = {w for block in blocks(TEXTS[page]) for w in re.findall(r"\w+", block.text)}
    for span in spans(TEXTS[page]):
        for word in re.findall(r"\w+", span):
            placeholder = word.removeprefix("v").isupper() or word[0].isdigit()
            known = word in words or word in own | ELSEWHERE or placeholder
            ends = word.startswith("_") and any(each.endswith(word) for each in words)
            assert known or ends, span


# --- Paths ---


def is_path(span):
    """Whether it is a path in the repository, not one of the reader's or of a run."""
    at_root = re.match(r"(tests|docs|examples|benchmarks|keras_acclip|\.ci|\.github)/", span)
    source = re.fullmatch(r"[\w./]+\.(py|md|cff|sh|ipynb)", span)
    return bool(at_root or source) and "NAME" not in span


def exists(path):
    path = path.rstrip("/")
    return any(each == path or each.endswith(f"/{path}") for each in (*FILES, *FOLDERS))


@pytest.mark.parametrize(("page", "span"), chosen(is_path))
def test_a_path_is_there(page, span):
    assert exists(span)


# --- Commands ---


def extras():
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", "utf-8")
    return set(setup["options.extras_require"])


@pytest.mark.parametrize("page", sorted(TEXTS))
def test_extras_are_the_package_s(page):
    for group in re.findall(r"(?:(?<![\w\]])\.|keras-acclip)\[([\w,]+)\]", TEXTS[page]):
        assert set(group.split(",")) <= extras()


@pytest.mark.parametrize(("page", "span"), chosen(lambda s: s.startswith("pytest ")))
def test_a_command_of_pytest_names_what_is_there(page, span):
    paths = [word for word in span.split()[1:] if "/" in word]
    assert all(map(exists, paths))
    if marker := re.search(r" -m (\w+)", span):
        assert f'"{marker[1]}: ' in (ROOT / "pyproject.toml").read_text("utf-8")
    assert paths or marker


def is_command(span):
    return span.startswith("python ") or re.match(r"\w+\.py ", span)


def parted(span):
    """A command's program, a path or a module, and the rest of its words."""
    first, *rest = shlex.split(re.sub(r"[\[\]]", "", span).removeprefix("python "))
    return (rest[0], rest[1:]) if first == "-m" else (first, rest)


# In one process, as each would take a while to start.
ASK = """
import contextlib, io, json, runpy, sys
path, found = sys.path[:], {}
for script in json.loads(sys.argv[1]):
    sys.path[:] = [script.rpartition("/")[0], *path]
    sys.argv, out = [script, "--help"], io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        runpy.run_path(script, run_name="__main__")
    found[script] = out.getvalue()
print(json.dumps(found))
"""
EXAMPLES = [p for p in FILES if re.fullmatch(r"examples/(paper/)?\w+\.py", p)]
# Where CONTRIBUTING speaks of its option.
ASKED = {
    "docs/results/make.py",
    *(parted(span)[0] for _, span in SPANS if is_command(span) and " --" in span),
}
PROGRAMS = sorted({p for p in FILES for a in ASKED if p == a or p.endswith(f"training/{a}")})


@pytest.fixture(scope="module")
def helps():
    """What the examples, and the scripts that pages give options to, print for `--help`."""
    scripts = [str(ROOT / path) for path in {*EXAMPLES, *PROGRAMS}]
    done = subprocess.run(
        [sys.executable, "-c", ASK, json.dumps(scripts)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    return {path.removeprefix(f"{ROOT}/"): text for path, text in json.loads(done.stdout).items()}


@pytest.fixture(scope="module")
def garden_helps():
    """What the commands of the Model Garden's pages print for `--help`, by their modules."""
    printed = {}
    for name, call in {
        "train": lambda: flags.read(["train", "--help"]),
        "compare": lambda: compare.main(["--help"]),
        **{
            f"data {kind}": lambda kind=kind: command.parse_arguments([kind, "--help"])
            for kind in ("pretraining", "squad", "sentences", "questions")
        },
    }.items():
        out = io.StringIO()
        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            call()
        printed[f"keras_acclip.garden.{name}"] = out.getvalue().replace("--[no]", "--")
    return printed


def takes(text, option, value=None):
    """Whether a help has an option, and where it lists its values, this one or these."""
    if not re.search(rf"(?<![\w-]){re.escape(option)}(?![\w-])", text):
        return False
    choices = re.search(rf"{re.escape(option)} \{{([^}}]+)\}}", text)
    if not choices or value is None:
        return True
    return set(value.split("|")) <= set(choices[1].split(","))


def options(words):
    """The options among words, each with its value, or None."""
    found = []
    for word, after in itertools.zip_longest(words, words[1:], fillvalue="--"):
        if word.startswith("--"):
            name, has_value, value = word.partition("=")
            following = None if after.startswith("-") else after
            found.append((name, value if has_value else following))
    return found


@pytest.mark.parametrize(("page", "span"), chosen(is_command))
def test_a_command_names_a_program_and_its_options(page, span, helps):
    program, rest = parted(span)
    if program.endswith(".py"):
        assert exists(program)
    else:
        assert importlib.util.find_spec(program)
    for option, value in options(rest):
        (text,) = (text for path, text in helps.items() if path.endswith(program))
        assert takes(text, option, value), option


def test_a_mistake_in_a_command_is_seen(helps):
    text = helps["examples/paper/bert.py"]
    assert takes(text, "--scale", "small")
    assert takes(text, "--scale", "smoke|small|paper")
    assert not takes(text, "--scale", "smok|small|paper")
    assert not takes(text, "--skale")
    assert not takes(text, "--scal")


# Not a message that begins with an option.
@pytest.mark.parametrize(
    ("page", "span"), chosen(lambda s: re.fullmatch(r"--[\w-]+(=\S+| [\w|]+)?", s))
)
def test_an_option_is_one_of_the_page_s_programs(page, span, helps, garden_helps):
    ((option, value),) = options(span.split())
    gardens = page.startswith("docs/model_garden/") or page == "docs/troubleshooting.md"
    texts = [*garden_helps.values(), *(() if gardens else helps.values())]
    assert any(takes(text, option, value) for text in texts)


def is_set_flag(span):
    flag = re.fullmatch(r"--(\w+)=\S+", span)
    return flag and flag[1] in flags.define()


@pytest.mark.parametrize(("page", "span"), chosen(is_set_flag))
def test_an_option_s_value_is_taken(page, span):
    flags.read(["train", "--experiment=acclip/bert_squad", "--mode=eval", "--model_dir=x", span])


# --- Names ---

HEADS = {
    "optimizer": "keras_acclip.Clip",
    "sample": "keras_acclip.noise.NoiseSample",
    "advice": "keras_acclip.noise.NoiseSample.advice",
    "model": "keras.Model",
    "noise": "keras_acclip.noise",
    "garden": "keras_acclip.garden",
    "thresholds": "keras_acclip.thresholds",
    "rules": "keras_acclip.rules",
    "samples": "keras_acclip.noise.tails.samples",
    "corpus": "keras_acclip.text.corpus",
    "tf": "tensorflow",
}
# Where a name that stands alone is looked for.
PLACES = (
    *MODULES,
    "keras_acclip.thresholds",
    "keras_acclip.rules",
    "keras_acclip.garden.configs.optimizers",
    "official.core.config_definitions",
    "official.modeling.optimization",
    "keras_acclip.optimizers.record",
    "keras",
    "keras.optimizers",
    "keras.losses",
    "tensorflow:distribute",
    "tensorflow:distribute.coordinator",
)
# Words that messages begin with.
WORDS = {"Argument", "Field"}
# Under "What an earlier program must change".
GONE = {"Advice.optimizer", "keras_acclip.corpus", "noise.sampling", "noise.batches"}
MISSING = (AttributeError, ImportError)
# Each defines its flags in the process that imports it, where another may have.
DRIVERS = {"official.nlp.train", "official.vision.train"}


def is_name(span):
    """Whether it is a name with dots, a class or a call of one: no file's and no parameter's."""
    if span in WORDS or is_path(span) or re.search(r"NAME|\.(yaml|jsonl?|txt|typed|md)$", span):
        return False
    head = re.match(r"([A-Za-z_]\w*)((\.\w+|\(.*\))*)$", span)
    if not head or head[1] in ("task", "trainer", "runtime"):
        return False
    return "." in span or bool(re.match(r"[A-Z]\w*[a-z]", head[1]))


def standing_for(head):
    """All that a first name may stand for."""
    if head in HEADS or head in ("keras", "keras_acclip", "official"):
        return [pkgutil.resolve_name(HEADS.get(head, head))]
    places = map(pkgutil.resolve_name, PLACES)
    return [getattr(place, head) for place in places if hasattr(place, head)]


def walked(value, node):
    """What an expression stands for, whose first name stands for a value."""
    if isinstance(node, ast.Call):
        called = walked(value, node.func)
        check_call(called, node)
        if inspect.isclass(called):
            return called
        # Of what it returns one can only go on where it says so.
        return next(iter(standing_for(str(inspect.signature(called).return_annotation))), None)
    if isinstance(node, ast.Attribute):
        owner = walked(value, node.value)
        if node.attr in getattr(owner, "__dataclass_fields__", ()):
            return None
        if inspect.ismodule(owner) and not hasattr(owner, node.attr):
            name = f"{owner.__name__}.{node.attr}"
            if name in DRIVERS:
                assert importlib.util.find_spec(name)
                return None
            return importlib.import_module(name)
        return getattr(owner, node.attr)
    return value


def check_call(value, call):
    """That a call names parameters; `lr` is understood, and so are classes."""
    known = inspect.signature(value).parameters
    names = [arg.id for arg in call.args if isinstance(arg, ast.Name) and arg.id != "lr"]
    names = [name for name in names if not name[0].isupper()]
    assert {*names, *(k.arg for k in call.keywords)} <= set(known)


def check_name(span):
    """That a name stands for something.

    Raises:
        AttributeError, ImportError: If for nothing.
        AssertionError: If for a call without such parameters.
    """
    tree = ast.parse(span.replace("…", "..."), mode="eval").body
    missing = AttributeError(span)
    for value in standing_for(re.match(r"\w+", span)[0]):
        try:
            return walked(value, tree)
        except MISSING as error:
            missing = error
    raise missing


@pytest.mark.parametrize(("page", "span"), chosen(is_name))
def test_a_name_is_there(page, span):
    if page == "CHANGELOG.md" and span in GONE:
        with pytest.raises(MISSING):
            check_name(span)
    else:
        check_name(span)


@pytest.mark.parametrize(
    "span", ["CKlip(lr)", "MovngMoment(multiple)", "keras_acclip.tf_keras.Klip", "sample.plott()"]
)
def test_a_mistake_in_a_name_is_seen(span):
    assert is_name(span)
    with pytest.raises(MISSING):
        check_name(span)


@pytest.mark.parametrize("span", ["MovingMoment(multipl)", "GClip(lr, momentu=0.9)"])
def test_a_mistake_in_a_call_is_seen(span):
    with pytest.raises(AssertionError):
        check_name(span)
