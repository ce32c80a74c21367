"""Data sets: loaders, and a maker of small parts with known defects."""
