"""Runs of the TensorFlow Model Garden: their flags, and how a script makes and compares them."""
