"""Calibration, metrics and drift: no image and no file is read here."""
