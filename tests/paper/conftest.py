from tests.scripts import cache, command, interrupt_next  # noqa: F401
