"""Logging in with OpenID Connect, in a real browser, at a small provider that runs here; roles by
e-mail.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

pytest.importorskip("streamlit")
pytest.importorskip("sqlalchemy")
pytest.importorskip("authlib")
pytest.importorskip("joserfc")
pytest.importorskip("playwright")

from joserfc import jwk, jwt
from playwright import sync_api

from dashboard.launch import settings_for
from dashboard.settings import Settings
from tests.support.review_server import (
    BROWSER,
    SECRET,
    Server,
    find_chromium,
    free_port,
    new_database,
    train_detector,
)

pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium found: apt-get install chromium"
)


class Provider(BaseHTTPRequestHandler):
    """Logs everybody in, at once, as the user that the server's ``user`` says."""

    server: Any

    def do_GET(self) -> None:
        path, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        home = f"http://127.0.0.1:{self.server.server_port}"
        if path == "/.well-known/openid-configuration":
            ends = {
                name: f"{home}/{name.split('_')[0]}"
                for name in ("authorization_endpoint", "token_endpoint")
            }
            self.answer({"issuer": home, "jwks_uri": f"{home}/keys", **ends})
        elif path == "/keys":
            self.answer({"keys": [self.server.key.as_dict(private=False)]})
        elif path == "/authorization":
            self.server.nonce = query.get("nonce", [""])[0]
            self.send_response(302)
            self.send_header(
                "Location", f"{query['redirect_uri'][0]}?code=c&state={query['state'][0]}"
            )
            self.end_headers()

    def do_POST(self) -> None:
        now = int(time.time())
        home = f"http://127.0.0.1:{self.server.server_port}"
        said = {
            "iss": home,
            "aud": "review",
            "sub": "1",
            "iat": now,
            "exp": now + 600,
            "nonce": self.server.nonce,
        }
        token = jwt.encode(
            {"alg": "RS256", "kid": "k"}, {**said, **self.server.user}, self.server.key
        )
        self.answer({"access_token": "a", "token_type": "Bearer", "id_token": token})

    def answer(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider() -> Iterator[Any]:
    running: Any = ThreadingHTTPServer(("127.0.0.1", 0), Provider)
    running.key = jwk.RSAKey.generate_key(2048, {"kid": "k"})
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    yield running
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def server(session_folder: Path, tmp_path: Path, provider: Any) -> Iterator[Server]:
    made = session_folder / "review"
    train_detector(made)
    database, _ = new_database(made, tmp_path)
    port = free_port()
    values = {
        "redirect_uri": f"http://127.0.0.1:{port}/oauth2callback",
        "cookie_secret": secrets.token_hex(32),
        "client_id": "review",
        "client_secret": "s",
        "server_metadata_url": f"http://127.0.0.1:{provider.server_port}/.well-known/openid-configuration",
    }
    auth, roles = tmp_path / "auth.toml", tmp_path / "roles.toml"
    auth.write_text("[auth]\n" + "".join(f"{name} = {value!r}\n" for name, value in values.items()))
    roles.write_text('"ann@example.com" = "inspector"\n"vic@example.com" = "viewer"\n')
    found = settings_for(
        str(database), "127.0.0.1", insecure=False, roles=roles, auth_file=auth, allowed_hosts=()
    )
    settings = Settings(**{**vars(found), "secret": SECRET, "detectors": (str(made / "run"),)})
    running = Server(settings, port, tmp_path / "server.log", auth)
    try:
        yield running.start()
    finally:
        running.stop()


@pytest.fixture
def log_in(server: Server, provider: Any) -> Iterator[Callable[..., Any]]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=BROWSER)

        def logged_in(**user: Any) -> Any:
            provider.user = user
            page = browser.new_context().new_page()
            page.goto(server.url)
            page.get_by_role("button", name="Log in").click()
            return page

        yield logged_in
        browser.close()


def test_who_logs_in_has_the_role_of_the_file(log_in: Callable[..., Any], server: Server) -> None:
    page = log_in(email="Ann@example.com", email_verified=True)
    page.locator("a.card").first.wait_for()
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Normal").wait_for()
    sync_api.expect(page.locator("[data-part=saving]")).to_contain_text(
        "ann@example.com: all saved"
    )
    sync_api.expect(page.get_by_role("button", name="Normal")).to_be_enabled()

    page = log_in(email="vic@example.com", email_verified=True)
    page.get_by_role("button", name="Look at them").click()
    page.locator("[data-part=name]").wait_for(state="attached")
    sync_api.expect(page.get_by_role("button", name="Normal")).to_be_disabled()

    page = log_in(email="eve@example.com", email_verified=True)
    page.get_by_text("has no role here").wait_for()
    assert page.locator("a.card").count() == 0

    page = log_in(email="ann@example.com", email_verified=False)
    page.get_by_text("does not vouch for an e-mail address").wait_for()
    assert page.locator("a.card").count() == 0
