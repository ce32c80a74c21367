"""`python -m anomaly`: the same as the command `anomaly`."""

from anomaly.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
