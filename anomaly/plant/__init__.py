"""The plant around the detectors: its shifts, lines and orders, and who is told when a light turns
red.
"""
