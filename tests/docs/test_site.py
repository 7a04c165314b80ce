"""The site builds without a warning and without a network, loads nothing from elsewhere, and every link leads somewhere."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Hosts that a page may link to (never load from): standards, papers, and the tools themselves.
HOSTS = {
    "arxiv.org", "cryptography.io", "datatracker.ietf.org", "developer.mozilla.org", "docs.python.org", "doi.org",
    "eur-lex.europa.eu", "github.com", "kserve.github.io", "onnx.ai", "pypi.org", "pytorch.org", "scikit-learn.org",
    "slsa.dev", "www.iso.org", "www.rfc-editor.org", "www.vnnlib.org", "in-toto.io", "squidfunk.github.io", "www.mkdocs.org",
}  # fmt: skip
LOADS = {("script", "src"), ("img", "src"), ("iframe", "src"), ("source", "src"), ("video", "src"), ("object", "data")}


class Page(HTMLParser):
    """What a page links to, what it loads, and the places in it."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loads: list[str] = []
        self.places: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.places |= {found[name] for name in ("id", "name") if name in found}
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        if tag == "link" and "canonical" not in found.get("rel", ""):
            self.loads.append(found.get("href", ""))
        self.loads += [found[name] for of, name in LOADS if of == tag and name in found]


@pytest.fixture(scope="module")
def pages(site) -> dict[Path, Page]:
    found = sorted(site.folder.rglob("*.html"))
    return {
        path: Page(path.read_text(encoding="utf-8"))
        for path in found
        if "files" not in path.relative_to(site.folder).parts
    }


def test_the_strict_build_says_nothing(site) -> None:
    assert site.code == 0, site.said
    assert not [line for line in site.said.splitlines() if not line.startswith("INFO ")]


def test_nothing_is_loaded_from_another_host(site, pages) -> None:
    for path, page in pages.items():
        assert not [load for load in page.loads if urlsplit(load).netloc], path
        policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', path.read_text(encoding="utf-8"))
        assert policy is not None, path
        assert "http" not in policy[1], path
    for path in (*site.folder.rglob("*.css"), *site.folder.rglob("*.svg")):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//[^)]*", text), path


def broken(path: Path, link: str, pages: dict[Path, Page], folder: Path) -> bool:
    """Whether a link leads to no file of the site, to no place in its page, or to a host that is not on the list."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return parts.scheme != "https" or parts.netloc not in HOSTS
    target = path if not parts.path else (path.parent / unquote(parts.path)).resolve()
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file() or folder not in target.parents:
        return True
    return bool(parts.fragment) and target in pages and unquote(parts.fragment) not in pages[target].places


def test_every_link_leads_to_a_place(site, pages) -> None:
    found = [
        (str(path.relative_to(site.folder)), link)
        for path, page in pages.items()
        if path.name != "404.html"  # the only page that a server shows at any address
        for link in page.links
        if broken(path, link, pages, site.folder.resolve())
    ]
    assert not found


@pytest.mark.parametrize(
    "link",
    ["nowhere.html", "index.html#nowhere", "https://example.org/", "http://arxiv.org/abs/1", "../../outside.html"],
)
def test_a_broken_link_is_found(site, pages, link: str) -> None:
    assert broken(site.folder / "index.html", link, pages, site.folder.resolve())


def test_every_verb_and_option_is_in_the_reference(site) -> None:
    command_pages = importlib.import_module("command_pages") if "command_pages" in sys.modules else _generator()
    for name, parser in command_pages.verbs().items():
        text = (site.folder / "reference" / "commands" / f"{name}.html").read_text(encoding="utf-8")
        for option in options(parser):
            assert option in text, f"{name} {option}"


def _generator():
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module("command_pages")
    finally:
        sys.path.remove(str(ROOT / "docs"))


def options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Every option of a parser and of the parsers under it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for child in action.choices.values():
                yield from options(child)
        elif action.dest != "help":
            yield from action.option_strings


def test_the_search_index_has_every_verb(site) -> None:
    index = json.loads((site.folder / "search" / "search_index.json").read_text(encoding="utf-8"))
    titles = {entry["title"] for entry in index["docs"]}
    assert {"prune-verify repair", "prune-verify verify", "prune-verify certify"} <= titles
