"""What the benchmarks share: who races, over which variables, how it is timed and written down."""
