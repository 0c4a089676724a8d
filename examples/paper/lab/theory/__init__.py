"""Clipped and unclipped SGD on functions with known noise: rates of convergence, lower bounds."""
