import gzip
import inspect
import itertools
import json
import os
import re

import pytest

from keras_acclip.text import corpus, docstrings

MODULE = '''"""Of the module."""
raise RuntimeError("imported")

class A:
    """Of the class."""
    def f(self):
        """Of the method,

        over lines.
        """
    async def g(self): "Of the coroutine."
    def no_docstring(self): pass
'''


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Two source trees in the place of the standard library and of one package."""
    sources = {
        "": {"a.py": MODULE, "test/b.py": '"""A test."""', "b/__init__.py": '"""Of b."""'},
        "pack": {
            "__init__.py": '"""Of pack."""',
            "sub/c.py": 'class A: """Of the class."""\ndef h(): """Own."""',
            "broken.py": "def (",
            "tests/d.py": '"""A test."""',
        },
    }
    sources[""]["pydoc_data/topics.py"] = 'topics = {"if": "If it is.", "for": "For all."}'
    for package, files in sources.items():
        for name, text in files.items():
            path = tmp_path / (package or "stdlib") / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    roots = {package: tmp_path / (package or "stdlib") for package in sources}
    monkeypatch.setattr(docstrings, "_source_roots", lambda packages: roots)
    return roots


def test_docstrings_are_read_without_importing(packages):
    assert docstrings.docstrings(packages[""] / "a.py") == [
        "Of the module.",
        "Of the class.",
        "Of the method,\n\nover lines.",
        "Of the coroutine.",
    ]
    assert docstrings.docstrings(packages["pack"] / "broken.py") == []


def test_gathered_docstrings_stand_once_under_their_first_module(packages):
    assert docstrings.gather_docstrings(["pack"], progress=None) == {
        "a": "\n\n".join(docstrings.docstrings(packages[""] / "a.py")),
        "b": "Of b.",
        "pydoc_data.topics.if": "If it is.",
        "pydoc_data.topics.for": "For all.",
        "pack": "Of pack.",
        "pack.sub.c": "Own.",
    }


def test_every_docstring_of_a_real_package_is_found():
    root = docstrings._source_roots([])[""] / "json"
    documents = [
        text for path in docstrings._source_files(root) for text in docstrings.docstrings(path)
    ]
    for thing in (json, json.dumps, json.JSONEncoder, json.JSONDecoder.raw_decode):
        assert inspect.getdoc(thing).strip() in [text.strip() for text in documents]


def test_docstrings_are_found_wherever_a_definition_can_stand(tmp_path):
    blocks = [
        "if x:\n{}else:\n{}",
        "for a in b:\n{}else:\n{}",
        "while x:\n{}",
        "with a as b:\n{}",
        "try:\n{}except E:\n{}else:\n{}finally:\n{}",
        "match x:\n case 1:\n{}",
        "async def g():\n{}",
    ]
    numbers = itertools.count()

    def definition(_):
        return f'    def f():\n        "{next(numbers)}"\n'

    text = "".join(re.sub("{}", definition, block) for block in blocks)
    (tmp_path / "a.py").write_text(text)
    found = docstrings.docstrings(tmp_path / "a.py")
    assert sorted(map(int, found)) == list(range(next(numbers)))
    assert len(found) == 12


def test_garbage_is_collected_again_afterwards(packages):
    import gc

    docstrings.gather_docstrings(["pack"], progress=None)
    assert gc.isenabled()


def test_embedded_corpus_is_gathered_once(packages, tmp_path, monkeypatch):
    first = corpus.embedded_corpus(tmp_path / "cache", ["numpy"])
    monkeypatch.setattr(corpus, "gather_docstrings", lambda *_: pytest.fail("gathered again"))
    assert corpus.embedded_corpus(tmp_path / "cache", ["numpy"]) == first
    monkeypatch.setattr(corpus, "versions", lambda packages: {"Python": "other"})
    with pytest.raises(pytest.fail.Exception):
        corpus.embedded_corpus(tmp_path / "cache", ["numpy"])


def test_a_package_that_is_not_installed_is_named(tmp_path):
    with pytest.raises(corpus.TextError, match="no_such_package: not installed"):
        corpus.embedded_corpus(tmp_path, ["numpy", "no_such_package"])


def test_embedded_corpus_holds_whole_modules_out(tmp_path, monkeypatch):
    documents = {f"package.module{i}": f"text {i}" for i in range(2000)}
    monkeypatch.setattr(corpus, "gather_docstrings", lambda *_: documents)
    whole = corpus.embedded_corpus(tmp_path / "a", ())
    assert sorted(whole.train + whole.validation) == sorted(documents.values())
    assert 60 < len(whole.validation) < 140
    fewer = {name: documents[name] for name in list(documents)[::2]}
    monkeypatch.setattr(corpus, "gather_docstrings", lambda *_: fewer)
    half = corpus.embedded_corpus(tmp_path / "b", ())
    assert set(half.validation) == set(whole.validation) & set(fewer.values())
    assert half.fingerprint != whole.fingerprint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.txt", None, "missing.txt: no such file"),
        ("none*.txt", None, "no such file"),
        ("empty.txt", b"", "empty.txt: the file is empty"),
        ("blank.txt", b" \n\t\n", "blank.txt: the file is empty"),
        ("empty.gz", gzip.compress(b"", mtime=0), "empty.gz: the file is empty"),
        ("image.txt", b"\x89PNG\r\n\x00\x01", "image.txt: not a text file"),
        ("binary.gz", gzip.compress(b"ab\0c", mtime=0), "binary.gz: not a text file"),
        ("latin.txt", "one\ntwo\ncafé".encode("latin-1"), "latin.txt, line 3: not UTF-8"),
        ("plain.gz", b"not gzip", "plain.gz: can't be read"),
        ("cut.gz", gzip.compress(b"words " * 999, mtime=0)[:-9], "cut.gz: can't be read"),
        ("folder", "folder", "folder: a folder; name its files, such as"),
    ],
)
def test_a_bad_file_is_named_with_its_fault(tmp_path, name, content, message):
    path = tmp_path / name
    if content == "folder":
        path.mkdir()
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(corpus.TextError, match=message):
        corpus.text_files([str(path)])


def test_files_are_taken_plain_or_gzipped_by_name_or_glob(tmp_path, english):
    text = english.read_text("utf-8")
    (tmp_path / "b.txt").write_text("\ufeff" + text, "utf-8")
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(text.encode()))
    plain = corpus.text_files([tmp_path / "b.txt"])
    packed = corpus.text_files([str(tmp_path / "a*.gz")])
    assert (plain.train, plain.validation) == (packed.train, packed.validation)
    (tmp_path / "c.txt").write_text("another")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link.txt").symlink_to(tmp_path / "c.txt")
    both = corpus.text_files([str(tmp_path / "*"), str(tmp_path / "folder/../b.txt")])
    assert both.train == (*packed.train, "another")


def test_the_same_text_is_taken_once(tmp_path, capsys):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text("the same text " * 99)
    both, one = (corpus.text_files([tmp_path / name]) for name in ("*.txt", "a.txt"))
    assert both.train == one.train
    assert f"b.txt: the same text as {tmp_path / 'a.txt'}, taken once" in capsys.readouterr().err


def test_all_unusable_files_are_named_at_once(tmp_path, capsys):
    for i in range(300):
        (tmp_path / f"{i:03d}.txt").write_text(f"text {i} " * 30)
    faults = {
        "002.txt": (b"", "the file is empty"),
        "100.txt": (b"a\0", "not a text file: it holds a zero byte at 1"),
        "250.txt": ("caf\u00e9".encode("latin-1"), "not UTF-8 text"),
    }
    for name, (content, _) in faults.items():
        (tmp_path / name).write_bytes(content)
    patterns = [str(tmp_path / "*.txt")]
    for given, missing in ((patterns, 0), ([*patterns, "nowhere.txt"], 1)):
        with pytest.raises(corpus.TextError) as error:
            corpus.text_files(given)
        first, *lines = str(error.value).splitlines()
        assert first.startswith(f"{3 + missing} input files can't be used; --skip_unusable goes on")
        assert len(lines) == 3 + missing and all(len(line) < 200 for line in lines)
        for name, (_, fault) in faults.items():
            assert any(name in line and fault in line for line in lines)
    parts = corpus.text_files(patterns, skip_unusable=True)
    assert "text 0" in "".join(parts.train) and len(parts.name) < 300
    assert parts.name.endswith("295 more")
    assert len(re.findall("^skipped: ", capsys.readouterr().err, re.MULTILINE)) == 3
    with_missing = corpus.text_files([*patterns, "nowhere.txt"], skip_unusable=True)
    assert with_missing == parts
    assert "skipped: nowhere.txt: no such file\n" in capsys.readouterr().err
    # Some text there must be.
    with pytest.raises(corpus.TextError, match=r"^nowhere.txt: no such file$"):
        corpus.text_files(["nowhere.txt"], skip_unusable=True)
    with pytest.raises(corpus.TextError, match=r"empty; --skip_unusable goes on without it$"):
        corpus.text_files([tmp_path / "000.txt", tmp_path / "002.txt"])
    with pytest.raises(corpus.TextError, match=r"002.txt: the file is empty"):
        corpus.text_files([tmp_path / "002.txt"], skip_unusable=True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_another_encoding_is_named(tmp_path, encoding):
    (tmp_path / "a.txt").write_text("some text, é", encoding)
    name = encoding.upper()[:6]
    with pytest.raises(corpus.TextError, match=f"a.txt: {name} text: save it as UTF-8$"):
        corpus.read_text(tmp_path / "a.txt")


def test_a_glob_that_matches_folders_only_is_named(tmp_path):
    (tmp_path / "a.d").mkdir()
    with pytest.raises(corpus.TextError, match=r"\*.d: matches folders only"):
        corpus.text_files([str(tmp_path / "*.d")])


def test_a_pipe_that_a_glob_matches_is_named_and_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe.txt")
    (tmp_path / "text.txt").write_text("some text")
    with pytest.raises(corpus.TextError, match=r"pipe.txt: a pipe, a socket or a device"):
        corpus.read_texts([str(tmp_path / "*.txt")])
    found = corpus.read_texts([str(tmp_path / "*.txt")], skip_unusable=True)
    assert list(found.values()) == ["some text"]


@pytest.mark.parametrize("text", ["a b\nc " * 999, "oneword" * 99, "x " * 7, "é\u3000" * 5000])
def test_held_out_pieces_and_the_rest_are_the_whole_text(tmp_path, text):
    path = tmp_path / "t.txt"
    path.write_text(text, "utf-8")
    parts = corpus.text_files([path])
    assert "".join(corpus.cut(text, 100)) == text
    assert sum(map(len, parts.train + parts.validation)) == len(text)
    if len(text) > 1000:
        assert sum(map(len, parts.validation)) == pytest.approx(len(text) / 20, rel=0.2, abs=700)


def test_whole_files_are_documents_but_for_what_is_held_out(tmp_path):
    """A wrong next sentence is taken from another document: it must not be the own one's."""
    texts = ["".join(f"{name}{i} " for i in range(3000)) for name in "ab"]
    for name, text in zip("ab", texts, strict=True):
        (tmp_path / f"{name}.txt").write_text(text)
    whole = corpus.whole_files([tmp_path / "*.txt"])
    cut = corpus.text_files([tmp_path / "*.txt"])
    assert len(whole.train) == len(whole.validation) == 2
    for number, name in enumerate("ab"):
        for part in ("train", "validation"):
            document = getattr(whole, part)[number]
            pieces = [p for p in getattr(cut, part) if p.startswith(name)]
            assert document.split() == "".join(pieces).split()
            assert all(word.startswith(name) for word in document.split())
    (tmp_path / "c.txt").write_text("held out")
    given = corpus.whole_files([tmp_path / "a.txt"], [tmp_path / "c.txt"])
    assert (given.train, given.validation) == ((texts[0],), ("held out",))


def test_validation_text_leaves_the_training_text_whole(tmp_path, english):
    (tmp_path / "v.txt").write_text("held out")
    parts = corpus.text_files([english], [tmp_path / "v.txt"])
    assert parts.train == (english.read_text("utf-8"),)
    assert parts.validation == ("held out",)


def test_an_excerpt_has_whole_documents_up_to_the_length():
    documents = tuple(f"{number} " * 50 for number in range(100, 400))
    whole = corpus.Corpus("text", documents, documents[:60])
    size = len(documents[0])
    part = corpus.excerpt(whole, 40 * size)
    assert len(part.train) == 40
    assert len(part.validation) == 40 // corpus.HELD_OUT_EVERY
    assert [d for d in documents if d in part.train] == list(part.train)
    assert corpus.excerpt(whole, 40 * size - 1).train == part.train
    assert len(corpus.excerpt(whole, 40 * size + 1).train) == 41

    # Which documents they are does not depend on their places.
    turned = corpus.Corpus("text", documents[::-1], documents[:60])
    assert corpus.excerpt(turned, 40 * size).train == part.train[::-1]

    everything = corpus.excerpt(whole, 10**12)
    assert (everything.train, everything.validation) == (whole.train, whole.validation)
