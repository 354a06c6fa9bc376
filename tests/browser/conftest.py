"""Headless Chromium, a server for a folder, and JupyterLab. Skipped, with the reason, where there is no Chromium."""

from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEST_S = 400  # of one test, on a busy machine
WAIT_MS = 60_000  # of one wait for a page
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def executable() -> str | None:
    """Where Chromium is: RESATTN_CHROMIUM, or on the path."""
    given = os.environ.get("RESATTN_CHROMIUM")
    return given or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A browser of Playwright's."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="no Playwright: pip install -e '.[browser]'")
    path = executable()
    if path is None:
        pytest.skip("no Chromium: apt-get install chromium, or give its path in RESATTN_CHROMIUM")
    with sync_api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS, headless=True)
        yield found
        found.close()


@dataclass
class Watched:
    """A page, with what it said and asked for."""

    page: Any
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="session")
def context_of(browser: Any) -> Iterator[Any]:
    """`context_of(**options)`: one session of the browser for each set of options; what was loaded stays in its cache."""
    contexts: dict[str, Any] = {}

    def context_of_(**options: Any) -> Any:
        key = json.dumps(options, sort_keys=True)
        if key not in contexts:
            contexts[key] = browser.new_context(**options)
            contexts[key].set_default_timeout(WAIT_MS)
        return contexts[key]

    yield context_of_
    for context in contexts.values():
        context.close()


@pytest.fixture
def open_page(context_of: Any) -> Iterator[Any]:
    """`open_page(url, **context)`: a page that is watched from the first byte and closed with the test."""
    opened = []

    def open_(url: str, **options: Any) -> Watched:
        watched = Watched(context_of(**options).new_page())
        opened.append(watched.page)
        page = watched.page
        page.on("console", lambda m: watched.errors.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: watched.errors.append(str(error)))
        page.on("request", lambda request: watched.requests.append(request.url))
        page.goto(url)
        return watched

    yield open_
    for page in opened:
        page.close()


@pytest.fixture
def violations() -> Any:
    """`violations(page)`: what axe-core finds wrong on it, a line for each rule with the first element."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="no axe: pip install -e '.[browser]'")

    def violations_(page: Any) -> list[str]:
        found = axe.Axe().run(page).response["violations"]
        return [f"{rule['id']}: {len(rule['nodes'])} times, first {rule['nodes'][0]['html'][:120]}" for rule in found]

    return violations_


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The documentation site, as `make site` builds it."""
    pytest.importorskip("mkdocs", reason="no MkDocs: pip install -e '.[site]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


@pytest.fixture(autouse=True)
def in_time() -> Iterator[None]:
    """No test waits for ever: what asks a page that never answers has no limit of its own."""

    def late(*_: Any) -> None:
        raise TimeoutError(f"a test of the browser took more than {TEST_S} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(TEST_S)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Any]:
    """`serve(folder)`: its address while the test runs."""
    servers = []

    def serve_(folder: Path) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_address[1]}/"

    yield serve_
    for server in servers:
        server.shutdown()
        server.server_close()


# What a person would switch off or never notice: news from the network, and cells that leave the page when scrolled.
SETTINGS = {
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    "notebook-extension/tracker": {"windowingMode": "none", "autosave": False},
    "apputils-extension/themes": {"adaptive-theme": True},
}


@dataclass(frozen=True)
class Lab:
    """JupyterLab on a copy of the notebooks."""

    url: str
    folder: Path


@pytest.fixture(scope="module")
def lab(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """JupyterLab as `make lab` starts it, on a copy of the notebooks, with a home of its own."""
    place = tmp_path_factory.mktemp("lab")
    folder = place / "notebooks"
    shutil.copytree(ROOT / "notebooks", folder, ignore=shutil.ignore_patterns(".*"))
    for name, values in SETTINGS.items():
        extension, _, plugin = name.partition("/")
        path = place / "settings" / "@jupyterlab" / extension / f"{plugin}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    homes = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR", "JUPYTERLAB_WORKSPACES_DIR")
    environment = {
        **os.environ, **{name: str(place / name.lower()) for name in homes},
        "JUPYTERLAB_SETTINGS_DIR": str(place / "settings"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2",
    }  # fmt: skip
    command = [
        sys.executable, "-m", "jupyter", "lab", "--no-browser", "--allow-root", f"--port={port}", "--ip=127.0.0.1",
        "--IdentityProvider.token=", f"--config={folder / 'jupyter_server_config.py'}", f"--notebook-dir={folder}", "--ServerApp.port_retries=0",
    ]  # fmt: skip
    with (place / "server.log").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=place)
    url = f"http://127.0.0.1:{port}/"
    try:
        _wait_for(url + "api/status", server, place / "server.log")
        yield Lab(url, folder)
    finally:
        server.terminate()
        try:
            server.wait(20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_for(url: str, server: subprocess.Popen[bytes], log: Path, limit_s: float = 90) -> None:
    end = time.monotonic() + limit_s
    while time.monotonic() < end and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    pytest.fail(f"JupyterLab did not start:\n{log.read_text()[-2000:]}")
