"""Questions to a finished detector: evaluate, check, compare, challenge, recalibrate,
audit, bench.
"""
