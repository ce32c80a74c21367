"""The version, which every part may read without importing the public names."""

__version__ = "0.1.0"
