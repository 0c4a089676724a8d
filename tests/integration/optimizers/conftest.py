from tests.unit.optimizers.conftest import method, version  # noqa: F401
