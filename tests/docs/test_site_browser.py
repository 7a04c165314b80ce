"""The site in a real browser, on a desk and on a phone: nothing is asked of another host, nothing overflows, it searches."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from tests.audit.browser import Browser, chromium

pytestmark = pytest.mark.slow
PAGES = (
    "index.html", "readme.html", "tutorials/owner.html", "how-to/families.html", "reference/policy.html",
    "reference/commands/repair.html", "reference/commands/trust.html", "reference/api/programming.html",
    "reference/specification.html", "explanation/security.html", "explanation/benchmarks.html",
    "notebooks/03_play_the_dishonest_owner.html",
)  # fmt: skip
FIND = """new Promise(done => {
  const field = document.querySelector("input[name=query]");
  field.focus(); field.value = "conflict"; field.dispatchEvent(new Event("keyup", {bubbles: true}));
  const look = () => {
    const found = [...document.querySelectorAll(".md-search-result__link")].map(link => link.getAttribute("href"));
    found.length ? done(found) : setTimeout(look, 100);
  };
  look();
})"""


# The theme labels a button of the table of contents also on pages that have none.
OF_THE_THEME = "FormLabelForMatchesNonExistingIdError"


def complaints(browser: Browser) -> list[str]:
    return [line for line in browser.complaints() if OF_THE_THEME not in line]


@dataclass(frozen=True)
class Served:
    """A page of the site at its address."""

    address: str

    def as_uri(self) -> str:
        return self.address


@pytest.fixture(scope="module")
def root(site) -> Iterator[str]:
    """The address of the site, which a server on this machine gives."""

    class Silent(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Silent, directory=str(site.folder)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with chromium(tmp_path_factory.mktemp("browser")) as found:
        yield found


@pytest.mark.parametrize("width", [1300, 390], ids=["desk", "phone"])
@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_read(browser: Browser, root: str, page: str, width: int) -> None:
    browser.show(Served(root + page), width=width, height=900)
    assert complaints(browser) == []
    foreign = [url for url in browser.requested() if not url.startswith((root, "data:", "blob:"))]
    assert not foreign
    assert browser.value("document.scrollingElement.scrollWidth <= window.innerWidth"), (
        "the page is wider than its window"
    )
    assert browser.value("getComputedStyle(document.querySelector('.md-header')).position") == "sticky"


def test_the_policy_stops_what_would_load_from_elsewhere(browser: Browser, root: str) -> None:
    browser.show(Served(root + "index.html"))
    browser.value("document.body.append(Object.assign(new Image(), {src: 'https://evil.example/x.png'}))")
    browser.value("new Promise(done => setTimeout(done, 300))")
    assert any("Content Security Policy" in line for line in complaints(browser))


def test_a_search_finds_the_guide(browser: Browser, root: str) -> None:
    browser.show(Served(root + "index.html"), width=1300, height=900)
    found = browser.value(FIND)
    assert any("how-to/conflicts.html" in str(link) for link in found)
    assert complaints(browser) == []


def test_the_dark_scheme_is_dark(browser: Browser, root: str) -> None:
    for scheme, expected in (("light", "default"), ("dark", "slate")):
        browser.show(Served(root + "index.html"), scheme=scheme)
        browser.value("localStorage.clear()")
        browser.show(Served(root + "index.html"), scheme=scheme)
        assert browser.value("document.body.dataset.mdColorScheme") == expected
