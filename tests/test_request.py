"""``request.json``: parse . emit is the identity; wrong forms are refused by place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from fractions import Fraction

import pytest

from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.errors import MalformedInputError, UnsupportedVersionError
from prune_verify.checker.region import Domain
from prune_verify.request import Request, emit_request, parse_request

ONE = Fraction(1)
REQUEST = Request(
    kind="records+class",
    reference="case 17",
    received_at=datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
    labels=10,
    classes=(3,),
    domain=Domain((Fraction(0),), (ONE,)),
    radius=Fraction(1, 10),
    retained_radius=Fraction(1, 20),
    margin=Fraction(1, 8),
    cover=2,
    delta=None,
    claims=("forget", "retain_exact", "locality", "forget_class", "retain_other_labels"),
    membership_acceptance=(("lira", "0.1"),),
)


def test_parse_of_emit_is_the_identity() -> None:
    many = Domain((Fraction(0), Fraction(-1, 4)), (ONE, Fraction(3, 2)))
    for request in (REQUEST, replace(REQUEST, domain=many, delta=Fraction(1, 100), encoding_sha256="cd" * 32)):
        data = emit_request(request)
        assert parse_request(data, "r") == request
        assert emit_request(parse_request(data, "r")) == data


ROWS = [
    ("another version", "formatVersion", 3, UnsupportedVersionError),
    ("another kind", "kind", "everything", MalformedInputError),
    ("a radius as a number", "radius", 1, MalformedInputError),
    ("a radius with an exponent", "radius", "1e-1", MalformedInputError),
    ("an unknown claim", "claims", ["forgive"], MalformedInputError),
    ("a class that does not exist", "classes", [10], MalformedInputError),
    ("a time without zone", "receivedAt", "2026-01-02T03:04:05", MalformedInputError),
    ("a time that does not exist", "receivedAt", "2026-02-30T03:04:05Z", MalformedInputError),
    ("another tie rule", "tieRule", "highest-index", MalformedInputError),
    ("an empty domain", "domain", {"lower": "1", "upper": "1"}, MalformedInputError),
    ("a boolean count", "cover", True, MalformedInputError),
]


@pytest.mark.parametrize(("sentence", "name", "value", "error"), ROWS, ids=[row[0] for row in ROWS])
def test_refusals(sentence: str, name: str, value: object, error: type) -> None:
    document = json.loads(emit_request(REQUEST))
    document[name] = value
    with pytest.raises(error) as caught:
        parse_request(canonical_json(document), "r")
    assert caught.value.path.startswith("r/" + name) or caught.value.path.startswith(name)
