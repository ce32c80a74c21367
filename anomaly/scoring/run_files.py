"""The files of an unfinished run beside its table: their names, and what is said where they cannot
be written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from anomaly.errors import AnomalyError
from anomaly.files.atomic import no_room
from anomaly.imaging.listing import MARK

RUN, DONE, LOCK = "run.json", "done.json", "lock"
# before what is counted of errors, and of types of defects
ERROR, TYPE = "error: ", "type: "


OF = " of product "  # joins what is counted to the product that it is counted of


TRACES = (MARK, RUN, LOCK, DONE)  # removed last, in this order


PART = re.compile(r"\d{8,}\.(csv|jsonl|parquet)")


OURS = re.compile(
    rf"{PART.pattern}|\d{{8,}}\.json|\..*\.tmp|{re.escape(RUN)}|{re.escape(DONE)}|{LOCK}|{re.escape(MARK)}"
)


def already_finished(out: Path) -> AnomalyError:
    return AnomalyError(
        f"{out}: a finished table found; --force replaces it, or choose another --out"
    )


@contextmanager
def says_when_unwritable(out: Path) -> Iterator[None]:
    """Says what could not be written, and why, in one line."""
    try:
        yield
    except OSError as error:
        named = error.filename if isinstance(error.filename, str) else str(out)
        where = out if named.startswith(str(out)) else named  # a picture, say
        if no_room(error):
            raise AnomalyError(
                f"{where}: no room left to write it ({error.strerror}); what was finished is kept "
                f"in {out.name}.chunks: make room and run the same command again (without --force) "
                "to go on"
            ) from error
        raise AnomalyError(
            f"{where}: cannot be written ({error.strerror or error}): choose another --out"
        ) from error
