import gzip

import pytest

from keras_acclip.garden.data.examples import Task
from keras_acclip.garden.data.recipe import Recipe
from keras_acclip.garden.data.sentences import sentence_files, sentences


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        (
            "It is 3.5, e.g. Keras, i.e. This\none. And\n  more",
            ["It is 3.5, e.g. Keras, i.e. This one.", "And more"],
        ),
        ('He said "Yes." Then (so.) [It] left.', ['He said "Yes."', "Then (so.)", "[It] left."]),
        (
            "a title\n\n a body. with lower case\n \nend",
            ["a title", "a body. with lower case", "end"],
        ),
        (" \n\n ", []),
    ],
)
def test_sentences(text, expected):
    assert list(sentences(text)) == expected


def test_files_of_sentences_are_taken_line_by_line(tmp_path):
    lines = "First line. Still the first.\nsecond line\n\n \nother document {}\n\n"
    path = tmp_path / "a.txt.gz"
    path.write_bytes(gzip.compress("".join(lines.format(i) for i in range(30)).encode()))
    corpus = sentence_files([path])
    assert (len(corpus.train), len(corpus.validation)) == (57, 3)
    assert corpus.validation == ("First line. Still the first.\nsecond line",) * 3
    own = sentence_files([path], [path])
    assert len(own.train) == len(own.validation) == 60
    task = Task(corpus.train[:2], True, "", Recipe(), 1, "")
    assert list(task.lines()) == ["First line. Still the first.\nsecond line", "other document 0"]
