"""Benchmarks and ablations: run by hand, not in the wheel."""
