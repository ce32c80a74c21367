"""The command `anomaly serve`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from anomaly.errors import RuntimeMissing


def add_serve(commands: Any) -> None:
    """Adds `serve` to the command line."""
    from anomaly.cli import command, number

    p = command(commands, "serve", run_serve, "judge images sent over HTTP", "anomaly serve run --port 8000")
    p.add_argument("detectors", type=Path, nargs="+", metavar="RUN", help="run folder or file; its name names the detector")
    p.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine only)")
    p.add_argument("--port", type=number(0), default=8000, help="0: a free one")
    p.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    p.add_argument("--workers", type=number(1), metavar="N", help="images judged at once (default: the cores)")
    p.add_argument("--waiting", type=number(0), default=32, metavar="N", help="requests that may wait; more get 429 (32)")
    p.add_argument("--timeout", type=number(1), default=10, metavar="S", help="seconds for a request (10)")
    p.add_argument("--max-bytes", type=number(1), default=32 << 20, metavar="N", help="of a body; more get 413 (33554432)")
    p.add_argument(
        "--max-pixels", type=number(1), default=100_000_000, metavar="N", help="of an image; more get 422 (100000000)"
    )
    p.add_argument("--api-keys", type=Path, metavar="FILE", help="a line NAME KEY for each client")
    p.add_argument("--key", type=Path, metavar="PUB", help="a public key by which every detector must be signed")
    p.add_argument("--insecure", action="store_true", help="a public address without keys")


def run_serve(options: argparse.Namespace) -> int:
    try:
        from anomaly.serve.launch import serve
    except ImportError as error:
        if error.name and error.name.split(".")[0] == "anomaly":
            raise
        raise RuntimeMissing.extra(error.name or "fastapi", "serve", "the service") from error
    return serve(
        options.detectors,
        options.host,
        options.port,
        device=options.device,
        workers=options.workers,
        waiting=options.waiting,
        timeout=options.timeout,
        max_bytes=options.max_bytes,
        max_pixels=options.max_pixels,
        keys_file=options.api_keys,
        insecure=options.insecure,
        key=options.key,
    )
