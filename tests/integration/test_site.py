"""The docs site, built as a reader builds it: no dead link, nothing that a browser loads from elsewhere, a search."""

import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from html.parser import HTMLParser
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import chromium, wait_until
from tests.conftest import ROOT

for package in ("mkdocs", "material", "mkdocstrings"):
    pytest.importorskip(package, reason="the docs site needs an extra: pip install -c constraints.txt -e .[docs]")

# `mkdocs build`, with no way to a network.
BUILD = """
import sys
from mkdocs.__main__ import cli

def watch(event, _):
    if event in ("socket.connect", "socket.getaddrinfo"):
        raise OSError("no network")

sys.addaudithook(watch)
cli()
"""
LOADED = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("link", "href"), ("object", "data")}


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-c", BUILD, "build", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


class Addresses(HTMLParser):
    """What a browser loads with a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attributes if (tag, name) in LOADED]


def test_nothing_is_loaded_from_elsewhere(site: Path) -> None:
    pages = {path: path.read_text() for path in site.rglob("*.html")}
    addresses = {address for text in pages.values() for address in Addresses(text).found}
    for path in site.rglob("*.css"):
        addresses |= set(re.findall(r"(?:url\(|@import)\s*[\"']?([^\"')]+)", path.read_text()))
    assert len(pages) > 30 and len(addresses) > 50
    assert not [address for address in addresses if re.match(r"(\w+:)?//", address)]
    # The theme's script fetches the program for diagrams from elsewhere, for pages that have one.
    assert not [path for path, text in pages.items() if 'class="mermaid"' in text]


def test_the_reference_explains_parameters(site: Path) -> None:
    page = (site / "api" / "the-package" / "index.html").read_text().replace("\n", "")
    assert 'id="genvs.sample_views"' in page and "<li><strong>near, far</strong>: depth planes" in page


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(site))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def test_a_browser_searches_and_fits_pages_on_a_phone(address: str, tmp_path: Path) -> None:
    pytest.importorskip("websockets", reason="browsers are driven through websockets, which the extra viewer brings")
    with chromium(tmp_path) as browser:
        tab = browser.open(address)
        tab.run("document.querySelector('.md-search__input').focus()")
        tab.call("Input.insertText", text="fisheye")
        tab.run("document.activeElement.dispatchEvent(new Event('keyup'))")  # the page searches when a key is let go
        links = "[...document.querySelectorAll('.md-search-result__link')].map(link => link.href)"
        found = wait_until(lambda: tab.run(links))
        assert f"{address}docs/data/" in {link.partition("#")[0].partition("?")[0] for link in found}
        tab.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        for path in ("", "docs/data/", "docs/results/", "docs/options/", "api/cameras/"):
            tab.call("Page.navigate", url=address + path)
            wait_until(lambda path=path: tab.run("document.readyState + location.href") == "complete" + address + path)
            assert tab.run("document.documentElement.scrollWidth") == 390, path
        assert all(url.startswith((address, "blob:", "data:", "about:")) for url in browser.requested)
