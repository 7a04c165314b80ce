"""Docstrings as Markdown: console sessions become code blocks, and roles of Sphinx become code."""

from __future__ import annotations

import re

import griffe

_ROLE = re.compile(r":(?:class|func|mod|data|meth|attr):`~?([^`]+)`")
_SESSION = re.compile(r"(?:^|(?<=\n))( *)>>> .*(?:\n\1\S.*)*")


def as_markdown(text: str) -> str:
    """A docstring with its sessions in fences and its roles as code."""
    text = _ROLE.sub(lambda found: f"`{found[1].rpartition('.')[2] if '.' in found[1] else found[1]}`", text)

    def fenced(found: re.Match[str]) -> str:
        indent = found[1]
        return f"{indent}```pycon\n{found[0]}\n{indent}```"

    return _SESSION.sub(fenced, text)


class DocstringText(griffe.Extension):
    """Rewrites each docstring when it is read."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Rewrite the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_markdown(obj.docstring.value)
