"""Against real servers, started here: moto's S3, and Python's own for HTTP."""

from __future__ import annotations

import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import fsspec
import pytest
from moto.server import ThreadedMotoServer

from anomaly.errors import AnomalyError, DatasetError, RuntimeMissing
from anomaly.inputs.remote import place_source
from anomaly.inputs.source import Source
from anomaly.inputs.sources import list_sources
from anomaly.scoring.batch import RunOptions, score_in_threads, score_table
from tests.attacks.corpus import encoded, picture
from tests.inputs.test_archives import LISTED, write_tar, write_zip
from tests.inputs.test_sources import said
from tests.scoring.test_batch import Brightness, undated

PNG = encoded(picture(), "PNG")
SIZE = str(len(PNG))


@pytest.fixture(scope="module")
def bucket(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """An S3 server with a bucket `parts` of four images, archives and a manifest; fsspec's file
    system of it.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    files = fsspec.filesystem("s3", use_listings_cache=False)
    files.mkdir("parts")
    for name in (
        "night/b.png",
        "night/a/1.png",
        "night/a/2.JPG",
        "night/a/.hidden.png",
        "night/c.png",
        "night/notes.txt",
    ):
        files.pipe(f"parts/{name}", PNG)
    files.pipe("parts/night/empty.png", b"")
    files.pipe("parts/list.csv", b"path\nnight/b.png\nnight/none.png\n")
    folder = tmp_path_factory.mktemp("archives")
    files.put(str(write_zip(folder / "x.zip")), "parts/x.zip")
    files.put(str(write_tar(folder / "x.tar")), "parts/x.tar")
    yield files
    server.stop()
    for name, value in before.items():
        os.environ.pop(name) if value is None else os.environ.update({name: value})


def outcomes(*inputs: str, limit: int = 1 << 20) -> list[tuple[str, str]]:
    sources: list[Source] = list(list_sources(inputs, limit=limit))
    return [(source.name, said(source, limit)) for source in sources]


NIGHT = [
    ("s3://parts/night/a/1.png", SIZE),
    ("s3://parts/night/a/2.JPG", SIZE),
    ("s3://parts/night/b.png", SIZE),
    ("s3://parts/night/c.png", SIZE),
    ("s3://parts/night/empty.png", "0"),
]


@pytest.mark.parametrize("place", ["s3://parts/night", "s3://parts/night/", "s3://parts"])
def test_a_bucket_is_searched_like_a_folder(bucket: Any, place: str) -> None:
    assert outcomes(place) == NIGHT


def test_images_patterns_and_manifests_in_a_bucket(bucket: Any) -> None:
    assert outcomes("s3://parts/night/b.png") == NIGHT[2:3]
    assert outcomes("s3://parts/night/a/[12].*") == outcomes("s3://parts/night/a*") == NIGHT[:2]
    assert outcomes("s3://parts/**/[bc].png") == NIGHT[2:4]
    assert outcomes("s3://parts/list.csv") == [NIGHT[2], ("s3://parts/night/none.png", "missing")]
    assert outcomes("s3://parts/night/none.png", "s3://nowhere/a.png") == [
        ("s3://parts/night/none.png", "missing"), ("s3://nowhere/a.png", "missing"),
    ]  # fmt: skip


@pytest.mark.parametrize("archive", ["x.zip", "x.tar"])
def test_archives_in_a_bucket(bucket: Any, archive: str) -> None:
    found = outcomes(f"s3://parts/{archive}")
    assert [name for name, _ in found] == [
        f"{archive[2:]}://{name}::s3://parts/{archive}" for name in LISTED
    ]
    assert all(size.isdigit() for _, size in found)
    assert outcomes(found[0][0]) == found[:1]


def test_an_object_of_too_many_bytes_is_not_fetched(bucket: Any) -> None:
    assert outcomes("s3://parts/night/b.png", limit=len(PNG) - 1) == [
        ("s3://parts/night/b.png", "too large")
    ]
    assert outcomes("s3://parts/night/b.png", limit=len(PNG)) == [("s3://parts/night/b.png", SIZE)]


def test_a_server_that_is_not_there_says_nothing_of_the_image(
    bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    type(bucket).clear_instance_cache()
    try:
        assert said(place_source("s3://parts/night/b.png")) == "unreachable"
        with pytest.raises(DatasetError, match="s3://parts/night: cannot be reached"):
            list(list_sources(["s3://parts/night"]))
    finally:
        type(bucket).clear_instance_cache()


class Odd(http.server.BaseHTTPRequestHandler):
    """Ignores that only a part of a file is asked for, and answers some addresses by errors."""

    def do_GET(self) -> None:
        status = {"/none.png": 404, "/secret.png": 403, "/broken.png": 500}.get(
            self.path.split("?")[0], 200
        )
        self.send_response(status)
        self.end_headers()
        if status == 200 and self.command == "GET":
            try:
                for _ in range(3000 if self.path == "/endless.png" else 1):
                    self.wfile.write(PNG)
            except OSError:  # whoever asked has enough
                pass

    do_HEAD = do_GET

    def log_message(self, *words: object) -> None:
        pass


@pytest.fixture(scope="module")
def site() -> Iterator[str]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Odd) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "outcome"),
    [
        ("/a.png", SIZE),
        ("/a.png?token=[1]", SIZE),
        ("/page", SIZE),
        ("/none.png", "missing"),
        ("/secret.png", "unreadable"),
        ("/broken.png", "unreachable"),
        ("/endless.png", "too large"),
    ],
)
def test_images_on_a_web_server(site: str, path: str, outcome: str) -> None:
    assert outcomes(site + path) == [(site + path, outcome)]


def test_other_addresses(tmp_path: Path, bucket: Any) -> None:
    memory = fsspec.filesystem("memory")
    memory.pipe("/made/a.png", PNG)
    memory.pipe("/made/up/b.png", PNG)
    assert outcomes("memory://made") == [
        ("memory:///made/a.png", SIZE),
        ("memory:///made/up/b.png", SIZE),
    ]
    (tmp_path / "a.png").write_bytes(PNG)
    assert outcomes(f"file://{tmp_path}/a.png") == [(f"file://{tmp_path}/a.png", SIZE)]
    assert outcomes("nothing-like-it://a.png") == [("nothing-like-it://a.png", "unreadable")]


def test_a_missing_library_is_named() -> None:
    with pytest.raises(RuntimeMissing, match=r"gs://parts: .*gcsfs"):
        list(list_sources(["gs://parts"]))


def test_a_bucket_that_is_unplugged_and_comes_back(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server goes in the middle of a run and the run stops; the next call ends with the table
    of an undisturbed one.
    """
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
    type(bucket).clear_instance_cache()
    try:
        score_table(
            Brightness(),
            list_sources(["s3://parts/night"]),
            tmp_path / "whole.csv",
            options=RunOptions(chunk_rows=1),
        )
        with pytest.raises(
            AnomalyError,
            match=r"s3://parts/night/\S+: cannot be reached .* to go on when it is back",
        ):
            one = partial(score_in_threads, workers=1)
            score_table(
                Brightness(),
                _unplugged(server),
                tmp_path / "t.csv",
                options=RunOptions(chunk_rows=1, engine=one),
            )
        server = ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        summary = score_table(
            Brightness(),
            list_sources(["s3://parts/night"]),
            tmp_path / "t.csv",
            options=RunOptions(chunk_rows=1),
        )
        assert 0 < summary.resumed < summary.images == len(NIGHT)
        assert undated(tmp_path / "t.csv") == undated(tmp_path / "whole.csv")
    finally:
        server.stop()
        type(bucket).clear_instance_cache()


def _unplugged(server: ThreadedMotoServer) -> Iterator[Source]:
    for number, source in enumerate(list(list_sources(["s3://parts/night"]))):
        if number == 4:  # the first one or two have been read
            server.stop()
        yield source
