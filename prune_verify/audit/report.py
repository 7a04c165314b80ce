"""The report of a verdict: one self-contained HTML file for a reader who is no programmer.

It loads nothing and runs nothing (a content security policy says so), everything foreign in it is
escaped, and it says of each part where it comes from. The verdict in it is the checker's; the
report decides nothing.

Source: FORMATS 3 (``verify --report``), MATHS 6, THREATS 2 "Text".
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

from prune_verify import __version__
from prune_verify.audit.report_claims import banner, claims, reading, unsaid
from prune_verify.audit.report_data import (
    Accuracy,
    FileIdentity,
    PatchSummary,
    PicturedRecord,
    ReportData,
    report_data_from_files,
)
from prune_verify.audit.report_evidence import (
    again,
    before_after,
    learned,
    parameters,
    pictures,
    roster,
)
from prune_verify.audit.report_measurements import measurements
from prune_verify.audit.report_risk import risks
from prune_verify.audit.report_scope import asked, validity, what, when, who
from prune_verify.files import replace_file
from prune_verify.markup import Html, plain, tag, text

__all__ = [
    "Accuracy",
    "FileIdentity",
    "PatchSummary",
    "PicturedRecord",
    "ReportData",
    "render_report",
    "report_data_from_files",
    "write_report",
]

Section = tuple[str, str, Callable[[ReportData], Html]]
_BODY: tuple[Section, ...] = (
    ("who", "Who signed", who),
    ("what", "What was examined", what),
    ("when", "When", when),
    ("scope", "What was asked, and for what", asked),
    ("claims", "What is claimed, and what was found", claims),
    ("risks", "What can still go wrong", risks),
    ("unsaid", "What this does not say", unsaid),
    ("validity", "How long it holds", validity),
    ("again", "How to check this again", again),
    ("measurements", "Measurements", measurements),
    ("records", "The forgotten records", pictures),
    ("answers", "Before and after", before_after),
    ("patch", "Parameters of the patch", parameters),
    ("learned", "How the patch was learned", learned),
    ("checks", "The checks that were made", roster),
)
_NOT_PLAIN = re.compile(r"[^A-Za-z0-9_=:. -]", re.ASCII)
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@cache
def _style() -> Html:
    return Html(files("prune_verify.audit").joinpath("report.css").read_text(encoding="utf-8"))


def _page_line(line: str) -> Html:
    """What stands at the foot of every printed page: the stable line, in letters that mean nothing to a style sheet."""
    return Html(f'@page {{ @bottom-left {{ content: "{_NOT_PLAIN.sub("?", line)[:160]}"; }} }}\n')


def _head(data: ReportData) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", plain(f"{data.verdict.word}: {data.title}")),
        tag("style", _style(), _page_line(data.verdict.line())),
    )


def _footer(data: ReportData) -> Html:
    made = f" Report made at {data.created}." if data.created else ""
    words = f"prune-verify {__version__}.{made} The verdict is the checker's; this page only shows it."
    return tag("footer", tag("p", text(words)))


def render_report(data: ReportData) -> str:
    """The whole document.

    Args:
        data: what to show.

    Returns:
        HTML that loads nothing, runs nothing and prints on A4; the same data give the same text.

    """
    shown = [item for item in _BODY if item[0] != "learned" or data.learning]
    links = [tag("li", tag("a", text(heading), href=f"#{name}")) for name, heading, _ in shown]
    contents = tag("nav", tag("h2", text("Contents")), tag("ol", *links), aria_label="Contents")
    sections = [
        tag(
            "section",
            tag("h2", text(heading), id=f"{name}-title"),
            fill(data),
            id=name,
            aria_labelledby=f"{name}-title",
        )
        for name, heading, fill in shown
    ]
    skip = tag("a", text("To the contents of the report"), href="#content", class_="skip")
    main = tag("main", reading(data), contents, *sections, id="content", tabindex="-1")
    body = tag("body", skip, banner(data), main, _footer(data))
    return "<!doctype html>\n" + tag("html", _head(data), body, lang="en") + "\n"


def write_report(path: Path, data: ReportData) -> None:
    """Write the report; a reader finds the whole file or none, also after an interruption.

    Args:
        path: the file to write or replace.
        data: what to show.

    Raises:
        OSError: the folder is missing or not writable.

    """
    replace_file(path, render_report(data).encode("utf-8", errors="backslashreplace"))
