from __future__ import annotations

import os
from pathlib import Path

import pytest

from anomaly.errors import AnomalyError
from anomaly.files.regular_files import open_own, read_own

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links and pipes as POSIX has them")


def test_a_file_of_its_own_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"mine")
    assert read_own(tmp_path / "a") == b"mine"
    with open(tmp_path / "new", "a", opener=open_own) as file:
        file.write("x")
    assert read_own(tmp_path / "new") == b"x"


@pytest.mark.parametrize("kind", ["link", "dangling", "pipe", "folder", "device", "missing"])
def test_whatever_else_has_its_name_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    """A pipe that nobody writes to would be waited for, for ever."""
    (tmp_path / "secret").write_bytes(b"not mine")
    place = tmp_path / "a"
    if kind in ("link", "dangling", "device"):
        place.symlink_to(
            {"link": tmp_path / "secret", "dangling": tmp_path / "none", "device": "/dev/zero"}[
                kind
            ]
        )
    elif kind == "pipe":
        os.mkfifo(place)
    elif kind == "folder":
        place.mkdir()
    with pytest.raises(AnomalyError, match=r"a link found|no regular file found|cannot be read"):
        read_own(place)
