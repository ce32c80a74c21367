"""Everything that can go wrong in a way the user can mend.

    AnomalyError
      ImageError          one image could not be judged; its row says why and the others go on
      DatasetError        a folder, manifest or set of images cannot be used as it is
      CalibrationError    the good images cannot carry the guarantee that was asked for
      DetectorError       the file is not a detector, is damaged, unsafe or of a newer format
      RuntimeMissing      ONNX Runtime, a provider or an optional extra is not there
      TrainingError       training cannot go on (NaN, too few images, a checkpoint that misfits)
      RequestError        `anomaly serve` cannot answer a request; carries the HTTP status

A message says what was found, what was expected and what to do, in one line. The command line
prints it and exits with 1; a traceback is a bug.
"""

from __future__ import annotations


class AnomalyError(Exception):
    """What the user can mend; ``str(error)`` is one line."""


class ImageError(AnomalyError):
    """One image could not be judged.

    ``kind`` is a short name for tables and summaries: ``missing``, ``unreadable``, ``empty``,
    ``not an image``, ``truncated``, ``damaged``, ``unsupported``, ``too large``, ``too slow``,
    ``not finite``, ``not a file``, ``runtime`` or ``unreachable`` (its disk or server has gone,
    which says nothing of the image).
    """

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


class DatasetError(AnomalyError):
    """A folder, manifest or set of images cannot be used as it is."""


class CalibrationError(AnomalyError):
    """The good images cannot carry the guarantee that was asked for."""


class DetectorError(AnomalyError):
    """The file is not a detector, is damaged, unsafe or of a newer format."""


class RuntimeMissing(AnomalyError):
    """ONNX Runtime, an execution provider or an optional extra is not there."""

    @classmethod
    def extra(cls, package: str, extra: str, what_for: str) -> RuntimeMissing:
        """The error for a missing optional dependency, naming the extra that brings it."""
        return cls(
            f"{what_for} needs {package}, which is not installed: pip install 'anomaly[{extra}]'"
        )


class TrainingError(AnomalyError):
    """Training could not go on."""


class RequestError(AnomalyError):
    """A request to `anomaly serve` cannot be answered; ``status`` is the HTTP status that
    says so.
    """

    def __init__(self, status: int, message: str, kind: str | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind


# Exit statuses of the command line. 0: done; 2: wrong usage, which argparse says.
FAILED = 1  # one line says why
NOT_ALL_JUDGED = 3  # done, but some images could not be judged, or were left out
FOUND_ANOMALY = 4  # `score --fail-on-anomaly`; `check --fail-unless-keep` was not told to keep
INTERRUPTED = 130  # Ctrl-C
