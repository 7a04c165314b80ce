"""Who, what, when, and about what: the identity of a certificate, the files, the validity and the scope of its claims.

Source: FORMATS 2 (predicate), 3 (``verify --report``); THREATS T11 (stale and foreign certificates).
"""

from __future__ import annotations

from collections.abc import Mapping

from prune_verify.audit.report_data import ReportData
from prune_verify.audit.report_values import (
    CHECKED,
    MOST_ITEMS,
    STATED,
    at,
    facts,
    member_name,
    predicate,
    radii,
    shown,
    source,
)
from prune_verify.audit.wording import arithmetic_words
from prune_verify.checker.verdict import VERIFIED
from prune_verify.markup import Html, cells, joined, said, table, tag, text

__all__ = ["asked", "validity", "validity_of", "what", "when", "who"]

_NO_SIGNATURE = "none: no signature was accepted"
_FILES = {
    "certificate": "certificate",
    "trust": "the auditor's trust store",
    "policy": "the auditor's policy",
    "base": "base network",
    "patched": "patched network",
}
_FILE_HEADS = ("File", "SHA-256", "Bytes")
_REQUEST_KINDS = {
    "records": "records: single records are to be forgotten",
    "class": "class: a whole label is to be forgotten",
    "records+class": "records and a class: single records and a whole label are to be forgotten",
}
_REQUEST_NAMES = {"kind": "Kind of request", "sha256": "SHA-256 of the request"}
_REQUEST_FIRST = ("kind", "labels", "label", "reference", "receivedAt", "radius", "retainedRadius", "tau", "margin")
_TIMES = (
    ("issuedAt", "Issued"),
    ("notBefore", "Valid from"),
    ("expiresAt", "Valid until"),
    ("challenge", "Answers the auditor's challenge"),
    ("supersedes", "Replaces the certificate"),
)
_ENDS = (
    "if the deployed file is replaced: one byte of difference makes another network",
    "if the signing key is revoked in your trust store, or that store expires",
    "if a later certificate replaces it: later requests may have changed the network",
    "for you, if your policy demands more than the one that was used here",
)


def who(data: ReportData) -> Html:
    """Whose signatures were accepted, by whose trust store."""
    verdict, stated = data.verdict, predicate(data)
    signers = [joined([said(name), text(" "), tag("code", text(keyid))]) for keyid, name in verdict.signers]
    accepted = tag("ul", *(tag("li", s) for s in signers), class_="plain") if signers else text(_NO_SIGNATURE)
    digest = tag("code", text(verdict.payload_sha256)) if verdict.payload_sha256 else text(_NO_SIGNATURE)
    parts = [
        source(f"{CHECKED} Names are those of the auditor's own trust store."),
        facts(
            "Signatures",
            [
                (text("Signed by, with the SHA-256 of the key"), accepted),
                (text("Identity of the certificate: SHA-256 of what was signed"), digest),
            ],
        ),
    ]
    listed = [
        (member_name(key), shown(stated[key])) for key in ("certificateId", "prover", "environment") if key in stated
    ]
    if listed:
        parts += [tag("h3", text("Made with")), source(STATED, data), facts("Tool and environment", listed)]
    return joined(parts)


def what(data: ReportData) -> Html:
    """Which files were judged, and by which."""
    checked = dict(data.verdict.digests)
    rows = [
        cells([text(words), tag("code", text(checked[name])), text("\u2013")], _FILE_HEADS, numbers_from=2)
        for name, words in _FILES.items()
        if name in checked and not any(f.name == words for f in data.files)
    ]
    rows += [
        cells([said(f.name), tag("code", text(f.sha256)), text(f"{f.size:,}")], _FILE_HEADS, numbers_from=2)
        for f in data.files
    ]
    parts = []
    if rows:
        parts += [
            source("read from the files."),
            table("Files", _FILE_HEADS, rows, numbers_from=2, class_="files stack"),
        ]
    stated, subject = predicate(data), at(data.statement, "subject")
    listed = [(member_name(key), shown(stated[key])) for key in ("originalModel",) if key in stated]
    if subject is not None:
        listed.insert(0, (text("The patched network"), shown(subject)))
    if listed:
        parts += [tag("h3", text("The networks that the certificate names")), source(STATED, data)]
        parts.append(facts("Networks", listed))
    return joined(parts) if parts else tag("p", text("No file could be read."))


def when(data: ReportData) -> Html:
    """The times of the certificate and of the check."""
    verdict, stated = data.verdict, predicate(data)
    pairs = [(text(words), shown(stated[key])) for key, words in _TIMES if key in stated]
    parts = []
    if pairs:
        parts += [source(STATED, data), facts("Times of the certificate", pairs)]
    judged = said(verdict.at_time) if verdict.at_time else text("not judged")
    made = said(data.created) if data.created else text("not recorded")
    parts += [
        source(CHECKED) if verdict.at_time else Html(""),
        facts("Times of the check", [(text("Validity judged at"), judged), (text("Report made at"), made)]),
    ]
    return joined(parts)


def asked(data: ReportData) -> Html:
    """What was asked, on which inputs, for which records."""
    stated = predicate(data)
    found = stated.get("request")
    if not isinstance(found, Mapping) or not found:
        return joined([source(STATED, data), tag("p", text("There is no request that can be read."))])
    order = {key: place for place, key in enumerate(_REQUEST_FIRST)}
    keys = sorted(found, key=lambda k: order.get(k, len(order)))[:MOST_ITEMS]
    pairs = [
        (text(_REQUEST_NAMES[key]) if key in _REQUEST_NAMES else member_name(str(key)), _request_value(key, found[key]))
        for key in keys
    ]
    for kinds, words in (
        (("forget", "band"), "Claims speak of inputs within this distance of a forgotten record"),
        (
            ("retain_exact", "retain_label", "retain_close"),
            "Claims speak of inputs within this distance of a retained record",
        ),
    ):
        if distances := radii(data, kinds):
            pairs.append((text(words), said(", ".join(distances))))
    for key, words in (("forgetSet", "Forgotten records"), ("retainSet", "Retained records")):
        if key in stated:
            pairs.append((text(words), _set(stated[key])))
    parts = [source(f"{STATED} Where the checker was given the records, it compared them with these sets.", data)]
    parts.append(facts("The request and its sets", pairs))
    semantics = stated.get("semantics")
    if isinstance(semantics, Mapping) and semantics:
        listed = [(member_name(str(k)), _semantics_value(str(k), v)) for k, v in list(semantics.items())[:MOST_ITEMS]]
        parts += [tag("h3", text("What the claims are about")), facts("Domain and arithmetic", listed)]
    return joined(parts)


def _set(value: object) -> Html:
    """A committed set: how many records, under which root."""
    size, root = at(value, "size"), at(value, "root")
    if not isinstance(size, int) or not isinstance(root, str):
        return shown(value)
    return joined([text(f"{size:,} records, committed to under "), tag("code", text(root))])


def _request_value(key: str, value: object) -> Html:
    if key == "kind" and isinstance(value, str):
        return said(_REQUEST_KINDS.get(value, value))
    return shown(value)


def _semantics_value(key: str, value: object) -> Html:
    if key == "arithmetic" and isinstance(value, list):
        return joined((said(arithmetic_words(str(name))) for name in value[:MOST_ITEMS]), "; ")
    return shown(value)


def validity_of(data: ReportData) -> tuple[str, ...]:
    """When the verdict holds, and when it ends, as sentences."""
    if data.verdict.word != VERIFIED:
        return ("There is nothing that could expire: the certificate is not verified.",)
    ends = at(predicate(data), "expiresAt")
    until = ends if isinstance(ends, str) else "the time that the certificate states"
    return (
        f"It was valid at {data.verdict.at_time or 'the time of the check'} and expires at {until}.",
        "It stops holding before that:",
        *_ENDS,
    )


def validity(data: ReportData) -> Html:
    """How long the verdict may be relied upon."""
    first, *rest = validity_of(data)
    if not rest:
        return tag("p", said(first))
    lead, *ends = rest
    return joined([tag("p", said(first)), tag("p", text(lead)), tag("ul", *(tag("li", text(line)) for line in ends))])
