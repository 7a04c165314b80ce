"""What the site is generated from: links of included texts, cells of notebooks, docstrings, codes, parsers."""

from __future__ import annotations

import argparse
import importlib
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def generator(name: str):
    """A module of docs/."""
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(ROOT / "docs"))


LINKS = [
    ("a text that is a page", "[a](SECURITY.md)", "README.md", "readme.md", "[a](explanation/security.md)"),
    ("with its anchor", "[a](../SPEC.md#8-verification)", "certs/x/y.md", "reference/y.md", "[a](specification.md#8-verification)"),
    ("a page of docs", "[a](docs/tutorials/owner.md)", "README.md", "readme.md", "[a](tutorials/owner.md)"),
    ("a file", "[a](certs/policies/default.toml)", "README.md", "readme.md", "[a](files/certs/policies/default.toml)"),
    ("a folder", "see [a](certs/examples)", "README.md", "readme.md", "see a"),
    ("another host", "[a](https://arxiv.org/abs/1)", "README.md", "readme.md", "[a](https://arxiv.org/abs/1)"),
    ("a place in the page itself", "[a](#b)", "README.md", "readme.md", "[a](#b)"),
    ("nothing that exists, for the strict build to name", "[a](no.md)", "README.md", "readme.md", "[a](no.md)"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "text", "source", "place", "turned"), LINKS, ids=[row[0] for row in LINKS])
def test_links_are_turned(what: str, text: str, source: str, place: str, turned: str) -> None:
    assert generator("included").with_links(text, Path(source), place) == turned


def test_a_notebook_becomes_a_page(tmp_path: Path) -> None:
    cells = [
        {"cell_type": "markdown", "source": ["# Why?\n", "\n", "So."]},
        {
            "cell_type": "code",
            "source": ["print(1)"],
            "outputs": [{"text": ["1\n"]}, {"data": {"image/png": "QUJD\n", "text/plain": ["<Figure>"]}}],
        },
    ]
    path = tmp_path / "n.ipynb"
    path.write_text(json.dumps({"cells": cells}))
    text = generator("included")._cells(path)
    assert text.startswith("# Why?\n\nA notebook: [n.ipynb](n.ipynb)")
    assert "```python\nprint(1)\n```\n\n```text\n1\n```" in text
    assert "](data:image/png;base64,QUJD)" in text
    assert "<Figure>" not in text


def test_docstrings_become_markdown() -> None:
    pytest.importorskip("griffe", reason="mkdocstrings is not installed: pip install '.[docs]'")
    found = generator("docstring_text").as_markdown(
        "See :class:`a.b.Thing`.\n\n>>> f(1)\n2\n>>> g()\n\nThen :func:`h`."
    )
    assert found == "See `Thing`.\n\n```pycon\n>>> f(1)\n2\n>>> g()\n```\n\nThen `h`."


def test_a_code_of_the_checker_needs_a_meaning(monkeypatch: pytest.MonkeyPatch) -> None:
    pages = generator("code_pages")
    monkeypatch.setattr(pages, "used_codes", lambda: {"E_NEW": {"checker"}})
    with pytest.raises(ValueError, match=r"codes without a meaning .*: E_NEW"):
        pages._codes_page()


def test_an_option_becomes_a_row() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--kind", choices=["a|b", "c"], required=True, help="what * it _is_")
    parser.add_argument("--size", type=int, default=7, metavar="N", help="rows")
    rows = [generator("command_pages")._row(action) for action in parser._actions[1:]]
    assert rows[0] == r"| `--kind {a|b,c}` | what \* it \_is\_; required |"
    assert rows[1] == "| `--size N` | rows; default 7 |"


def test_every_policy_member_has_a_meaning_and_three_values() -> None:
    from prune_verify.checker.policy import _MEMBERS

    lines = generator("code_pages")._policy_page().splitlines()
    rows = {line.split("`")[1]: line for line in lines if line.startswith("| `")}
    assert set(rows) == {name for names in _MEMBERS.values() for name in names}
    assert all(row.count("|") == 6 and "| |" not in row for row in rows.values())


def test_the_picture_is_of_the_example() -> None:
    svg = generator("pictures").pictures()["images/one-record.svg"]
    assert svg.startswith((b"<svg", b"<?xml"))
    assert b"forgotten" in svg
    assert b"patched" in svg


def test_every_extra_is_on_the_page_of_installs() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    page = (ROOT / "docs" / "how-to" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z]+)` \|", page, flags=re.MULTILINE)) == set(extras)
