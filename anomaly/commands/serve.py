"""The command `anomaly serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.commands.arguments import add_device, command, number
from anomaly.errors import AnomalyError, RuntimeMissing


def add_serve(commands: Any) -> None:
    """Adds `serve` to the command line."""
    p = command(
        commands, "serve", run_serve, "serve detectors over HTTP", "anomaly serve run --port 8000"
    )
    p.add_argument(
        "detectors",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="run folder or detector file; its name is the name of the detector",
    )
    p.add_argument(
        "--host", default="127.0.0.1", help="address to listen on (default: this machine only)"
    )
    p.add_argument("--port", type=number(0), default=8000, help="0: any free port")
    add_device(p)
    p.add_argument(
        "--workers",
        type=number(1),
        metavar="N",
        help="images judged at the same time (default: number of cores)",
    )
    p.add_argument(
        "--waiting",
        type=number(0),
        default=32,
        metavar="N",
        help="requests that may wait; others get 429 (32)",
    )
    p.add_argument(
        "--timeout", type=number(1), default=10, metavar="S", help="seconds per request (10)"
    )
    p.add_argument(
        "--connections",
        type=number(1),
        default=512,
        metavar="N",
        help="open connections, at most half of them from one address (512)",
    )
    p.add_argument(
        "--max-bytes",
        type=number(1),
        default=32 << 20,
        metavar="N",
        help="largest body; larger ones get 413 (33554432)",
    )
    p.add_argument(
        "--max-pixels",
        type=number(1),
        default=100_000_000,
        metavar="N",
        help="largest image; larger ones get 422 (100000000)",
    )
    p.add_argument(
        "--api-keys", type=Path, metavar="FILE", help="file with one line NAME KEY per client"
    )
    p.add_argument(
        "--key",
        type=Path,
        metavar="PUB",
        help="public key; every detector must be signed with it",
    )
    add_review_arguments(p)
    p.add_argument("--insecure", action="store_true", help="allow a public address without keys")


def add_review_arguments(p: argparse.ArgumentParser) -> None:
    """Adds the review database and what goes into it."""
    p.add_argument(
        "--review",
        metavar="DB",
        help="store flagged images and an audit sample in a review database",
    )
    p.add_argument(
        "--create-review",
        action="store_true",
        help="create the database of --review if it does not exist",
    )
    p.add_argument(
        "--review-images",
        type=Path,
        default=Path("findings"),
        metavar="DIR",
        help="folder for their images (findings)",
    )
    p.add_argument(
        "--audit-share",
        type=share,
        default=0.01,
        metavar="R",
        help="share of all images drawn for the audit sample (0.01)",
    )


def share(text: str) -> float:
    """Reads a share of all images; 0 and 1 are allowed."""
    try:
        value = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} found, a share such as 0.01 or 1% expected")
    return value


def run_serve(options: argparse.Namespace) -> int:
    project = next((place for place in options.detectors if place.suffix == ".toml"), None)
    if project is not None:
        raise AnomalyError(
            f"{project}: a project file found, run folders or detector files expected: serve all "
            "its detectors (anomaly serve runs/a runs/b), and name one in each request (POST "
            "/score?detector=a)"
        )
    if options.create_review and options.review is None:
        raise AnomalyError(
            "--create-review without --review found, both expected: give --review DB"
        )
    try:
        from anomaly.serve.launch import Review, ServeOptions, serve
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "anomaly":
            raise
        raise RuntimeMissing.extra(error.name or "fastapi", "serve", "the service") from error
    review = None
    if options.review is not None:
        review = Review(
            options.review, options.review_images, options.audit_share, options.create_review
        )
    return serve(
        options.detectors,
        ServeOptions(
            host=options.host,
            port=options.port,
            device=options.device,
            workers=options.workers,
            waiting=options.waiting,
            timeout=options.timeout,
            connections=options.connections,
            max_bytes=options.max_bytes,
            max_pixels=options.max_pixels,
            keys_file=options.api_keys,
            insecure=options.insecure,
            key=options.key,
            review=review,
        ),
    )
