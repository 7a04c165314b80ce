"""The report of a verdict: one self-contained HTML file for a reader who is no programmer.

It loads nothing and runs nothing (a content security policy says so), everything foreign in it is
escaped, and it says of each part where it comes from. The verdict in it is the checker's; the
report decides nothing.

Source: FORMATS 3 (``verify --report``), MATHS 6, THREATS 2 "Text".
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib.resources import files
from pathlib import Path

from prune_verify import __version__
from prune_verify.audit.markup import Html, plain, tag, text
from prune_verify.audit.report_claims import asked, banner, claims, reading, unsaid
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
    identity,
    learned,
    measurements,
    parameters,
    pictures,
    roster,
)
from prune_verify.files import replace_file

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

_BODY: tuple[tuple[str, Callable[[ReportData], Html]], ...] = (
    ("What was asked", asked),
    ("What is claimed, and what was found", claims),
    ("What this does not say", unsaid),
    ("The forgotten records", pictures),
    ("Before and after", before_after),
    ("Measurements", measurements),
    ("Parameters", parameters),
    ("Identity", identity),
    ("The checks that were made", roster),
    ("How to check this again", again),
)
_LEARNED: tuple[str, Callable[[ReportData], Html]] = ("How the patch was learned", learned)
_LEARNED_AT = 7  # after the parameters
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


@cache
def _style() -> Html:
    return Html(files("prune_verify.audit").joinpath("report.css").read_text(encoding="utf-8"))


def _head(data: ReportData) -> Html:
    return tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name="color-scheme", content="light dark"),
        tag("meta", name="referrer", content="no-referrer"),
        tag("title", plain(f"{data.verdict.word}: {data.title}")),
        tag("style", _style()),
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
    body_of = [*_BODY[:_LEARNED_AT], _LEARNED, *_BODY[_LEARNED_AT:]] if data.learning else _BODY
    sections = [tag("section", tag("h2", text(heading)), section(data)) for heading, section in body_of]
    body = tag("body", banner(data), tag("main", reading(data), *sections), _footer(data))
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
