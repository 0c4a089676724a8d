"""The comparison of optimizers: plans, trainings, their rows, and the report."""
