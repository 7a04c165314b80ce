"""What a certificate that replaces another still has to cover: a row for each way of covering less."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.checker.supersede import (
    Covered,
    Lost,
    Term,
    covered_by,
    listed_requests,
    lost,
    reference_of,
    weaker_terms,
)
from tests.checker.test_statement import STATEMENT

R, M = Fraction(1, 10), Fraction(1, 20)
BAND = (Fraction(-2), Fraction(-1))
UNIT = Domain((Fraction(0),), (Fraction(1),))
FORGET = Term("C1", "forget", BINARY32, None, R, M, None)
HELD = Term("C2", "band", BINARY32, None, R, None, BAND)
CLASS = Term("C3", "forget_class", BINARY32, 5, None, M, None)
EARLIER = Covered("ab" * 32, None, UNIT, 3, frozenset({5}), ("A", "B"), (FORGET, HELD, CLASS))


def with_terms(*terms: Term, **changed: object) -> Covered:
    return replace(EARLIER, terms=terms, **changed)  # type: ignore[arg-type] # as named


SAME = [
    ("the same", EARLIER),
    ("more records, classes and requests", replace(EARLIER, records=9, classes=frozenset({5, 6}), requests=("B", "C", "A"))),
    ("a wider ball", with_terms(replace(FORGET, radius=2 * R), HELD, CLASS)),
    ("a larger margin", with_terms(replace(FORGET, margin=2 * M), HELD, replace(CLASS, margin=2 * M))),
    ("a narrower band", with_terms(FORGET, replace(HELD, band=(BAND[0], BAND[0])), CLASS)),
    ("a wider domain", replace(EARLIER, domain=Domain((Fraction(-1),), (Fraction(2),)))),
    ("a domain by coordinate that holds it", replace(EARLIER, domain=Domain((Fraction(0), Fraction(-1)), (Fraction(1), Fraction(1))))),
    ("a weaker claim beside one as strong", with_terms(replace(FORGET, radius=R / 2), FORGET, HELD, CLASS)),
    ("another arithmetic as well", with_terms(FORGET, replace(FORGET, arithmetic=REAL), HELD, CLASS)),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "later"), SAME, ids=[row[0] for row in SAME])
def test_nothing_is_lost_or_weaker(sentence: str, later: Covered) -> None:
    assert lost(EARLIER, later).count == 0
    assert list(weaker_terms(EARLIER, later, 0)) == []


LOST = [
    ("a record", replace(EARLIER, records=2), None, Lost(1, (), ()), 1),
    ("all records", replace(EARLIER, records=0), None, Lost(3, (), ()), 3),
    ("a class", replace(EARLIER, classes=frozenset()), None, Lost(0, (5,), ()), 1),
    ("a class for another", replace(EARLIER, classes=frozenset({6})), None, Lost(0, (5,), ()), 1),
    ("a request", replace(EARLIER, requests=("A",)), None, Lost(0, (), ("B",)), 1),
    ("a request for another", replace(EARLIER, requests=("A", "C")), None, Lost(0, (), ("B",)), 1),
    ("a record for another, both sets open", EARLIER, 1, Lost(1, (), ()), 1),
    ("a record, a class and both requests", replace(EARLIER, records=2, classes=frozenset(), requests=()), None, Lost(1, (5,), ("A", "B")), 2),
    ("requests that shared one record", replace(EARLIER, records=2, requests=()), None, Lost(1, (), ("A", "B")), 2),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "later", "missing", "expected", "count"), LOST, ids=[row[0] for row in LOST])
def test_what_is_lost_is_counted(sentence, later: Covered, missing: int | None, expected: Lost, count: int) -> None:
    found = lost(EARLIER, later, missing)
    assert (found, found.count) == (expected, count)


WEAKER = [
    ("a smaller ball", with_terms(replace(FORGET, radius=R / 2), HELD, CLASS), "C1", "radius", ("0.1", "0.05")),
    ("no ball", with_terms(replace(FORGET, radius=None), HELD, CLASS), "C1", "radius", ("0.1", "none")),
    ("a smaller margin", with_terms(replace(FORGET, margin=M / 2), HELD, CLASS), "C1", "margin", ("0.05", "0.025")),
    ("a smaller margin of a class", with_terms(FORGET, HELD, replace(CLASS, margin=M / 2)), "C3", "margin", ("0.05", "0.025")),
    ("a band that reaches lower", with_terms(FORGET, replace(HELD, band=(BAND[0] - 1, BAND[1])), CLASS), "C2", "band", ("-2 to -1", "-3 to -1")),
    ("a band that reaches higher", with_terms(FORGET, replace(HELD, band=(BAND[0], BAND[1] + 1)), CLASS), "C2", "band", ("-2 to -1", "-2 to 0")),
    ("a band that only gates know", with_terms(FORGET, replace(HELD, band=None), CLASS), "C2", "band", ("-2 to -1", "none to none")),
    ("another arithmetic", with_terms(replace(FORGET, arithmetic=REAL), HELD, CLASS), "C1", "claim", (f"forget in {BINARY32}", "none of this kind")),
    ("another kind", with_terms(HELD, CLASS), "C1", "claim", (f"forget in {BINARY32}", "none of this kind")),
    ("no claim about a class that is still named", with_terms(FORGET, HELD), "C3", "claim", (f"forget_class in {BINARY32}", "none of this kind")),
    ("a claim about another class", with_terms(FORGET, HELD, replace(CLASS, label=6)), "C3", "claim", (f"forget_class in {BINARY32}", "none of this kind")),
    ("a narrower domain", replace(EARLIER, domain=Domain((Fraction(0),), (Fraction(1, 2),))), "C1", "domain", ("its domain", "a smaller one")),
    ("domains of two lengths", replace(EARLIER, domain=Domain((Fraction(0),) * 2, (Fraction(1, 2), Fraction(2)))), "C1", "domain", ("its domain", "a smaller one")),
    ("another encoding", replace(EARLIER, encoding_sha256="cd" * 32), "C1", "encoding", ("None", "cd" * 32)),
    ("each of two claims weaker", with_terms(replace(FORGET, radius=R / 2), replace(FORGET, margin=M / 2), HELD, CLASS), "C1", "radius", ("0.1", "0.05")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "later", "name", "what", "shown"), WEAKER, ids=[row[0] for row in WEAKER])
def test_terms_that_are_weaker_are_named(sentence, later: Covered, name: str, what: str, shown: tuple) -> None:
    found = next(weaker_terms(EARLIER, later, 0))
    assert (found.term.name, found.what, (found.before, found.now)) == (name, what, shown)


def test_terms_of_what_was_withdrawn_are_nobodys_any_more() -> None:
    nothing = with_terms(records=0, classes=frozenset())
    assert [item.what for item in weaker_terms(EARLIER, nothing, 2)] == ["claim", "claim"]  # one record is left
    assert list(weaker_terms(EARLIER, nothing, 3)) == []


def test_domains_by_coordinate_of_two_lengths_hold_nothing_of_each_other() -> None:
    two, three = (Domain((Fraction(0),) * n, (Fraction(1),) * n) for n in (2, 3))
    assert next(weaker_terms(replace(EARLIER, domain=two), replace(EARLIER, domain=three), 0)).what == "domain"


REFERENCES = [
    ("none", "", ()),
    ("one", "case 17", ("case 17",)),
    ("two", '["case 17","case 18"]', ("case 17", "case 18")),
    ("a list of one is somebody's own words", '["case 17"]', ('["case 17"]',)),
    ("one twice", '["a","a"]', ('["a","a"]',)),
    ("another spelling", '["a", "b"]', ('["a", "b"]',)),
    ("numbers", "[1,2]", ("[1,2]",)),
    ("an object", '{"a":1}', ('{"a":1}',)),
    ("a bracket", "[", ("[",)),
    ("brackets without end", "[" * 9999, ("[" * 9999,)),
    ("a lone surrogate", "\ud800", ("\ud800",)),
]


@pytest.mark.parametrize(("sentence", "reference", "requests"), REFERENCES, ids=[row[0] for row in REFERENCES])
def test_requests_that_a_reference_names(sentence: str, reference: str, requests: tuple[str, ...]) -> None:
    assert listed_requests(reference) == requests


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=2, unique=True))
def test_every_list_of_requests_is_read_back(requests: list[str]) -> None:
    assert listed_requests(reference_of(tuple(requests))) == tuple(requests)


def test_what_a_certificate_covers_is_read_from_it() -> None:
    found = covered_by(replace(STATEMENT, request_reference='["A","B"]'))
    assert (found.base_sha256, found.domain, found.requests) == (STATEMENT.base_sha256, STATEMENT.domain, ("A", "B"))
    assert found.records == (STATEMENT.forget_set.size if STATEMENT.forget_set else 0)
    assert [term.name for term in found.terms] == [
        c.id for c in STATEMENT.claims if c.claim.kind in ("forget", "band", "forget_class")
    ]
    assert covered_by(replace(STATEMENT, forget_set=None)).records == 0
