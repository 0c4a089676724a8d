from tests.unit.garden.conftest import collect_ignore_glob, corpus, made  # noqa: F401
