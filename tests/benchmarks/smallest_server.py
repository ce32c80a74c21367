"""The smallest HTTP server around a Scorer: what `anomaly serve` cannot be cheaper than in Python.

A thread for each connection reads a request, judges its image and sends score and box; nothing is
checked, limited, counted or logged. Started by load_serve:

    python -m tests.benchmarks.smallest_server RUN
"""

from __future__ import annotations

import json
import socketserver
import sys
import threading

from anomaly.detector.session import available_cores
from anomaly.scorer import Scorer

SCORER = Scorer(sys.argv[1], device="cpu", threads=1, at_once=1000)
AT_ONCE = threading.Semaphore(available_cores())


class Connection(socketserver.StreamRequestHandler):
    """One client, until it goes."""

    def handle(self) -> None:
        while self.rfile.readline():
            length = 0
            while (line := self.rfile.readline()) not in (b"\r\n", b""):
                name, _, value = line.partition(b":")
                if name.lower() == b"content-length":
                    length = int(value)
            body = self.rfile.read(length)
            with AT_ONCE:
                result = SCORER.judge(SCORER.decode(body))
            answer = json.dumps({"score": result.score, "box": result.box}).encode()
            self.request.sendall(
                b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer
            )


class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True


if __name__ == "__main__":
    with Server(("127.0.0.1", 0), Connection) as server:
        print(f"smallest http://127.0.0.1:{server.server_address[1]}", flush=True)
        server.serve_forever()
