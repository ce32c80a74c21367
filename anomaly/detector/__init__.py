"""The detector file: its card, the checks before it is loaded, its calibration nodes, golden
samples and signature.
"""
