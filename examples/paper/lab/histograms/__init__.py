"""The gradient noise of five networks along their training: Figures 1, 2 and 4."""
