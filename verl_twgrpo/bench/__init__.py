"""Benchmarks: ratios taken in one run, with their plots."""
