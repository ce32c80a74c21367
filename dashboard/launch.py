"""`anomaly review`: checks who could reach the dashboard, starts it, and stops it on Ctrl-C."""

from __future__ import annotations

import importlib.util
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import tomllib
import urllib.request
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import NamedTuple

from anomaly.errors import AnomalyError, RuntimeMissing
from anomaly.files.regular_files import read_small_text
from anomaly.plant.settings import read_plant
from dashboard.access import check_host_name, is_private, read_roles
from dashboard.settings import PREFIX, UPLOAD_MB, Settings
from dashboard.stations import state_folder

APP = Path(__file__).with_name("app.py")
START_SECONDS, STOP_SECONDS = 60, 10
AUTH_NEEDS = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
OWN_NAMES = ("127.0.0.1", "localhost", "::1")

# Streamlit's own defaults are to report usage, to show tracebacks in the browser and to answer to
# any host name.
SAFE = {
    "browser.gatherUsageStats": "false",
    "client.showErrorDetails": "none",
    "client.toolbarMode": "viewer",
    "global.developmentMode": "false",
    "logger.hideWelcomeMessage": "true",
    "logger.level": "warning",
    "server.enableAgentApi": "false",
    "server.enableCORS": "true",
    "server.enableStaticServing": "false",
    "server.enableXsrfProtection": "true",
    "server.fileWatcherType": "none",
    "server.headless": "true",
    "server.maxUploadSize": str(UPLOAD_MB),
    "server.maxMessageSize": "50",
    "server.runOnSave": "false",
    "server.websocketPingInterval": "20",
}
# Neutral greys: a coloured surround shifts how a defect's colour is seen.
THEME = {
    "theme.baseFontSize": "14",
    "theme.baseRadius": "4px",
    "theme.buttonRadius": "4px",
    "theme.metricValueFontSize": "1.35rem",
    "theme.headingFontSizes": "1.35rem,1.1rem,1rem",
    "theme.paddingTop": "0.5rem",
    "theme.paddingBottom": "0.5rem",
    "theme.showWidgetBorder": "true",
    "theme.light.primaryColor": "#1a5ecb",
    "theme.light.backgroundColor": "#f4f5f6",
    "theme.light.secondaryBackgroundColor": "#ffffff",
    "theme.light.textColor": "#0f1215",
    "theme.light.borderColor": "#d5d8dc",
    "theme.dark.primaryColor": "#4c9aff",
    "theme.dark.backgroundColor": "#16181b",
    "theme.dark.secondaryBackgroundColor": "#202327",
    "theme.dark.textColor": "#e4e6e9",
    "theme.dark.borderColor": "#363b41",
}


class Places(NamedTuple):
    """What the pages read besides the database. ``detectors``: run folders or files of those that
    scored, for heatmaps and expected pictures; ``stations``: STATION.toml or state folders;
    ``jobs``: folders below which admins may start trainings.
    ``plant``: PLANT.toml.
    """

    detectors: Sequence[Path] = ()
    stations: Sequence[Path] = ()
    jobs: Sequence[Path] = ()
    plant: Path | None = None


def launch(
    database_url: str,
    host: str = "127.0.0.1",
    port: int = 8501,
    *,
    insecure: bool = False,
    roles: Path | None = None,
    auth_file: Path | None = None,
    allowed_hosts: Sequence[str] = (),
    places: Places | None = None,
) -> int:
    """Runs the dashboard until Ctrl-C or SIGTERM and returns its exit status (0: stopped as asked).

    ``auth_file``: secrets in Streamlit's format with the section [auth] of an OpenID provider;
    ``roles``: who may do what. ``allowed_hosts``: names under which browsers reach it (of a proxy,
    say). Without a login it binds to addresses of this machine only, unless ``insecure``.
    Raises AnomalyError, RuntimeMissing.
    """
    if importlib.util.find_spec("streamlit") is None:
        raise RuntimeMissing.extra("streamlit", "dashboard", "the review dashboard")
    detectors, stations, jobs, plant = places or Places()
    read_plant(plant)
    settings = settings_for(
        database_url,
        host,
        insecure=insecure,
        roles=roles,
        auth_file=auth_file,
        allowed_hosts=allowed_hosts,
        detectors=detectors,
    )
    settings = replace(
        settings,
        stations=tuple(str(state_folder(place)) for place in stations),
        jobs=job_folders(jobs, settings),
        plant="" if plant is None else str(plant.resolve()),
    )
    check_port(host, port)
    check_store(database_url, detectors)
    command = server_command(settings, host, port, auth_file)
    return run_server(command, {**os.environ, **environment(settings)}, address(host, port))


def settings_for(
    database_url: str,
    host: str,
    *,
    insecure: bool,
    roles: Path | None,
    auth_file: Path | None,
    allowed_hosts: Sequence[str],
    detectors: Sequence[Path] = (),
) -> Settings:
    """Returns the settings of a server; AnomalyError where strangers could reach it without a
    login.
    """
    names = tuple(check_host_name(name) for name in allowed_hosts)
    public = [name for name in (host, *names) if not is_private(name)]
    if public and auth_file is None and not insecure:
        raise AnomalyError(
            f"{public[0]} can be reached from other machines and nobody would have to log in: give "
            "--auth FILE and --roles FILE, or --insecure where the network itself keeps strangers "
            "out"
        )
    if (auth_file is None) != (roles is None):
        raise AnomalyError(
            f"{'--auth without --roles' if roles is None else '--roles without --auth'} found: a "
            "login says who somebody is, the roles say what they may do; give both or neither"
        )
    if auth_file is not None:
        check_auth(auth_file)
    return Settings(
        database=database_url,
        # given where several servers share a proxy
        secret=os.environ.get(f"{PREFIX}SECRET") or secrets.token_hex(32),
        hosts=(*OWN_NAMES, *server_names(host), *names),
        login=auth_file is not None,
        roles=None if roles is None else read_roles(roles),
        open_role="inspector" if public else "admin",
        detectors=tuple(str(place.resolve()) for place in detectors),
    )


def job_folders(folders: Sequence[Path], settings: Settings) -> tuple[str, ...]:
    """Returns the folders below which jobs may work; AnomalyError for one that is not there, or
    where nobody could start a job.
    """
    for folder in folders:
        if not folder.is_dir():
            raise AnomalyError(f"--jobs {folder}: no such folder; one with images was expected")
    if folders and not settings.login and settings.open_role != "admin":
        raise AnomalyError(
            "--jobs with --insecure found: other machines can reach this address, so only who logs "
            "in as an admin may start jobs: give --auth FILE and --roles FILE"
        )
    return tuple(str(folder.resolve()) for folder in folders)


def check_store(database_url: str, detectors: Sequence[Path]) -> None:
    """Opens the database once (an older one is migrated), so that what is wrong with it, or with
    the files of the detectors, is said here, in one line."""
    from anomaly.review import Store
    from dashboard.detectors import check_places

    with Store(database_url, create=False) as store:
        for line in check_places(store, detectors):
            print(line, file=sys.stderr, flush=True)


def check_auth(auth_file: Path) -> None:
    """Raises AnomalyError where a login could not work: the file, its section [auth] or the package
    for it is missing.
    """
    if not auth_file.is_file():
        raise AnomalyError(
            f"{auth_file}: no such file; a TOML file with the section [auth] was expected"
        )
    try:
        found = tomllib.loads(read_small_text(auth_file, 1 << 20)).get("auth")
    except (AnomalyError, ValueError, RecursionError) as error:
        raise AnomalyError(
            f"{auth_file}: cannot be read ({error}); a TOML file with the section [auth] was "
            "expected"
        ) from error
    missing = [name for name in AUTH_NEEDS if not isinstance(found, dict) or not found.get(name)]
    if missing:
        raise AnomalyError(
            f"{auth_file}: [auth] without {', '.join(missing)} found; {', '.join(AUTH_NEEDS)} "
            "expected"
        )
    if importlib.util.find_spec("authlib") is None:
        raise RuntimeMissing.extra("Authlib", "dashboard", "a login")


def server_names(host: str) -> tuple[str, ...]:
    """Returns the names under which a server that binds to ``host`` is called by browsers."""
    if host in ("0.0.0.0", "::", ""):
        return tuple(
            dict.fromkeys(name.lower() for name in (socket.gethostname(), socket.getfqdn()))
        )
    return (host.strip("[]").lower(),)


def check_port(host: str, port: int) -> None:
    """Raises AnomalyError where the address cannot be bound to: taken, or not one of
    this machine.
    """
    try:
        family, kind, protocol, _, where = socket.getaddrinfo(
            host or None, port, type=socket.SOCK_STREAM
        )[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise AnomalyError(
            f"{host}:{port} cannot be listened on ({error.strerror or error}): choose another "
            "--port"
        ) from error


def server_command(settings: Settings, host: str, port: int, auth_file: Path | None) -> list[str]:
    """Returns the command that serves the pages: Streamlit's, with everything set that is not safe
    by itself.
    """
    options = {**SAFE, **THEME, "server.address": host, "server.port": str(port)}
    flags = [part for name, value in options.items() for part in (f"--{name}", value)]
    flags += [
        part for name in dict.fromkeys(settings.hosts) for part in ("--server.allowedHosts", name)
    ]
    if auth_file is not None:
        flags += ["--secrets.files", str(auth_file.resolve())]
    return [sys.executable, "-m", "dashboard.server", "run", str(APP), *flags]


def environment(settings: Settings) -> dict[str, str]:
    """Returns what the server's process needs besides ours: its settings, and where our packages
    are.
    """
    here = str(APP.parent.parent)  # Streamlit puts only the script's own folder on the path
    path = os.pathsep.join(filter(None, (here, os.environ.get("PYTHONPATH"))))
    return {**settings.to_environment(), "PYTHONPATH": path}


def address(host: str, port: int) -> str:
    """Returns where a browser on this machine finds the server."""
    name = "127.0.0.1" if host in ("0.0.0.0", "::", "") else host
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def run_server(command: Sequence[str], variables: dict[str, str], url: str) -> int:
    """Runs the server, says where it is once it answers, and stops it when this process is asked to
    stop.
    """
    signal.signal(signal.SIGTERM, _stop)
    # Its standard input closes when this process is gone, however that ended: then it ends too.
    server = subprocess.Popen(
        command, env={**variables, f"{PREFIX}FOLLOWS": "1"}, stdin=subprocess.PIPE
    )
    try:
        if wait_until_up(server, url):
            print(f"review               {url}   (Ctrl-C stops it)", flush=True)
        return server.wait()
    except KeyboardInterrupt:
        return 0
    finally:
        stop(server)


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def wait_until_up(server: subprocess.Popen[bytes], url: str) -> bool:
    """Whether the server answers; it may also have ended, with a message of its own."""
    until = time.monotonic() + START_SECONDS
    # no proxy stands before one's own machine
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while server.poll() is None and time.monotonic() < until:
        try:
            direct.open(f"{url}/healthz", timeout=2).close()
            return True
        except OSError:
            time.sleep(0.1)
    return False


def stop(server: subprocess.Popen[bytes]) -> None:
    """Ends the server: asks first (it has got Ctrl-C itself already), then insists."""
    if server.poll() is None:
        server.terminate()
        try:
            server.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
