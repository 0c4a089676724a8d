import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))


@pytest.fixture(scope="session")
def english(tmp_path_factory):
    """A file of about 100,000 characters of English: some of Python's own help topics."""
    import sysconfig

    import corpus

    topics = corpus.language_topics(sysconfig.get_paths()["stdlib"])
    path = tmp_path_factory.mktemp("text") / "english.txt"
    path.write_text("\n\n".join(topics[name] for name in sorted(topics))[:100_000], "utf-8")
    return path
