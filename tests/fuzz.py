"""Looks for a file that crashes, hangs or takes too much memory: libFuzzer, by atheris (extra
`fuzz`).

python -m tests.fuzz image|zip|tar|csv|parquet|names [--seconds 60] [--corpus FOLDER]

It begins with the odd files of tests/attacks (or with what an earlier call left in FOLDER) and
changes them, led by which lines of Python they reach. A finding is a file `crash-...`,
`timeout-...` or `oom-...` in FOLDER, and exit status 77 or so.
"""

from __future__ import annotations

import argparse
import io
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

try:
    import atheris
except ImportError:
    sys.exit("fuzz: this needs atheris, which is not installed: pip install 'anomaly[fuzz]'")

with atheris.instrument_imports(include=["anomaly", "PIL", "csv", "tarfile", "zipfile"]):
    from anomaly.errors import DatasetError, ImageError
    from anomaly.imaging.decode import decode
    from anomaly.inputs import archives, manifests, remote
    from anomaly.inputs.sources import list_sources
from tests.attacks.corpus import encoded, files, picture
from tests.inputs.test_archives import write_tar, write_zip

INSTRUMENTED = (archives, manifests, remote)  # which would otherwise be imported on the way

MAX_PIXELS = 4_000_000
LIMIT = 1 << 22  # bytes of an image in an archive or manifest
LARGEST_SEED = 20_000
HANG_SECONDS, MEMORY_MB = 20, 1500


def image(data: bytes) -> None:
    """Anything is an image or an ImageError of one line."""
    try:
        decoded = decode(data, max_pixels=MAX_PIXELS)
    except ImageError as error:
        assert error.kind and "\n" not in str(error)
    else:
        assert decoded.pixels.shape[0] * decoded.pixels.shape[1] <= MAX_PIXELS


def listing(path: Path) -> Callable[[bytes], None]:
    """Returns a target: anything in the place of an archive or manifest is a list of sources or a
    DatasetError.
    """

    def target(data: bytes) -> None:
        path.write_bytes(data)
        try:
            for source in list_sources([path], limit=LIMIT):
                try:
                    # what a manifest names is not opened: it may be any file of this machine
                    if type(source).__name__ not in ("File", "Remote"):
                        assert len(source.read(LIMIT)) <= LIMIT
                except ImageError as error:
                    assert error.kind and "\n" not in str(error)
        except DatasetError as error:
            assert str(error)

    return target


def names(data: bytes) -> None:
    """Anything on standard input is names or a DatasetError."""
    for end in (b"\n", b"\0"):
        found = [source.name for source in list_sources(["-"], end=end, stdin=io.BytesIO(data))]
        assert all(found) and len(found) <= data.count(end) + 1


def seeds(target: str, folder: Path) -> list[bytes]:
    """Returns files to begin with."""
    if target == "image":
        return [content for _, content, _ in files() if len(content) < LARGEST_SEED]
    png = encoded(picture(size=(9, 7)), "PNG")
    members = {
        "a.png": png,
        "b/c.jpg": encoded(picture(size=(9, 7)), "JPEG"),
        "d.txt": b"text",
        "x" * 200 + ".png": b"",
    }
    if target == "zip":
        return [write_zip(folder / "x.zip", members, kind).read_bytes() for kind in (0, 8, 12, 14)]
    if target == "tar":
        return [
            write_tar(folder / "x.tar", members, kind).read_bytes()
            for kind in ("", "gz", "bz2", "xz")
        ]
    if target == "parquet":
        pq.write_table(
            pa.table({"image": [{"bytes": png, "path": "a.png"}], "path": ["b.png"]}),
            folder / "x.parquet",
        )
        return [(folder / "x.parquet").read_bytes()]
    return [
        b"path,label\na.png,good\n",
        b"bytes,path\naGVsbG8=,a\n",
        b'path\n"a\n""b"\n',
        b"a.png\0b\nc.png\r\n",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("target", choices=("image", "zip", "tar", "csv", "parquet", "names"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--corpus", type=Path, help="a folder to keep what was found interesting")
    options = parser.parse_args()
    folder = options.corpus or Path(tempfile.mkdtemp(prefix="fuzz-"))
    folder.mkdir(exist_ok=True)
    for number, content in enumerate(seeds(options.target, folder)):
        (folder / f"seed-{number}").write_bytes(content)
    targets = {"image": image, "names": names}
    words = [
        str(folder),
        f"-max_total_time={options.seconds}",
        f"-timeout={HANG_SECONDS}",
        f"-rss_limit_mb={MEMORY_MB}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    atheris.Setup(
        [sys.argv[0], *words],
        targets.get(options.target) or listing(folder / f"input.{options.target}"),
    )
    atheris.Fuzz()


if __name__ == "__main__":
    main()
