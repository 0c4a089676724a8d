import importlib.util

# The Model Garden needs an older TensorFlow than the rest; the `test` extra brings it.
collect_ignore_glob = [] if importlib.util.find_spec("official") else ["test_*.py"]
