"""Messages for inspectors: what a program says of a file, without what only a programmer reads."""

from __future__ import annotations

import re

NO_IMAGE = re.compile(
    r"begins with b(?P<quote>['\"]).*?(?P=quote), which is none of (?P<kinds>[^:]*): convert it"
)
BYTES = re.compile(r"\bb(?P<quote>['\"])(?:\\.|(?!(?P=quote)).)*(?P=quote)")


def readable(message: str) -> str:
    """Returns a message with the bytes in it, ``b'\\x89PNG not'``, put into words."""
    return BYTES.sub(
        "unknown bytes", NO_IMAGE.sub(r"it is damaged or no image (\g<kinds> expected)", message)
    )
