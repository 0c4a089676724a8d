"""Thresholds that move beside fixed ones: what moving_thresholds.py trains and how it tunes."""
