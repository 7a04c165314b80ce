"""Keyword arguments are the options of the commands: all of them, and no others."""

from __future__ import annotations

import argparse
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import prune_verify.api as pv
from prune_verify.api import options as keywords
from prune_verify.api.auditing import _add_verify
from prune_verify.api.words import REPEATED, _Parser, parsed
from prune_verify.audit.endpoint_options import add_audit
from prune_verify.audit.key_options import add_sign
from prune_verify.measure.command import WORDS
from prune_verify.repair_options import add_repair
from prune_verify.verb_options import add_certify, add_request

PLACES = {"base", "patched", "certificate", "endpoint", "statement"}


def dests(add) -> dict[str, argparse.Action]:
    parser = _Parser(add_help=False)
    add(parser)
    return {action.dest: action for action in parser._actions}


@pytest.mark.parametrize(
    ("add", "options", "beside"),
    [
        (add_repair, keywords.RepairOptions, {"out", "forget"}),
        (add_request, keywords.RequestOptions, {"out", "forget", "retain", "label_column", "encoding"}),
        (add_certify, keywords.CertifyOptions, set()),
        (add_sign, keywords.SignOptions, {"key"}),
        (_add_verify, keywords.VerifyOptions, {"trust", "policy"}),
        (add_audit, keywords.AuditOptions, {"trust", "policy"}),
    ],
    ids=["repair", "request", "certify", "sign", "verify", "audit"],
)
def test_every_option_of_a_command_is_a_keyword(add, options, beside) -> None:
    of_command = set(dests(add)) - beside - PLACES
    of_call = set(options.__annotations__) - PLACES - {"example", "progress"}
    if options is keywords.CertifyOptions:
        of_call -= set(keywords.RequestOptions.__annotations__)
    assert of_command == of_call


def test_every_option_of_a_word_of_measure_is_a_keyword() -> None:
    of_words = {name for word, _ in WORDS.values() for name in dests(word.add_options)}
    assert of_words - PLACES == set(keywords.MeasureOptions.__annotations__) - PLACES - {"example", "progress"}


def test_options_that_are_repeated_are_those_of_the_parsers() -> None:
    repeated = {
        name
        for add in (
            *(add_repair, add_request, add_certify, add_sign, _add_verify, add_audit),
            *(word.add_options for word, _ in WORDS.values()),
        )
        for name, action in dests(add).items()
        if isinstance(action, argparse._AppendAction)
    }
    assert repeated == REPEATED - {"base"}  # of trust


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (1e-07, "0.0000001"),
        (np.float32(0.5), "0.5"),
        (Fraction(1, 8), "0.125"),
        (Decimal("1E-3"), "0.001"),
        (1, "1"),
        ("0.25", "0.25"),
    ],
)
def test_numbers_are_written_as_exact_decimals(value, text) -> None:
    found = parsed("repair", add_repair, ["base.onnx"], {"out": "out", "radius": value})
    assert found.radius == text


def test_lists_are_repeated_or_joined() -> None:
    found = parsed("repair", add_repair, ["-base.onnx"], {"out": Path("o"), "forget_class": [1, 2], "domain": (-1, 1)})
    assert (found.forget_class, found.domain, found.base) == ([1, 2], "-1,1", Path("./-base.onnx"))


def test_switches_and_options_with_an_optional_value() -> None:
    found = parsed("repair", add_repair, ["b"], {"out": "o", "minimal": True, "strict": True, "concept": False})
    assert (found.minimal, found.strict, found.concept) == (10.0, True, False)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"family": "round"}, "argument --family: invalid choice: 'round'"),
        ({"cover": "two"}, "argument --cover: invalid int value: 'two'"),
        ({"radius": Fraction(1, 3)}, "a finite decimal: expected at most 64 characters, got 1/3"),
        ({"radius": object()}, "radius: expected text, a path or a number, got object"),
    ],
)
def test_values_that_the_parser_does_not_take(options, text, tmp_path) -> None:
    with pytest.raises(pv.RefusalError, match=text):
        pv.repair(tmp_path / "base.onnx", out=tmp_path, forget=tmp_path / "forget.npz", **options)


@pytest.mark.parametrize(
    "call",
    [
        lambda: pv.repair("base.onnx", out="out", radios=0.1),
        lambda: pv.certify("patched.onnx", radios=0.1),
        lambda: pv.sign("statement.json", key="k", radios=0.1),
        lambda: pv.verify("c.json", trust="t", radios=0.1),
        lambda: pv.audit("http://h/v2/models/m", certificate="c.json", trust="t", radios=0.1),
        lambda: pv.trust("trust.json", {}, radios=0.1),
    ],
)
def test_keywords_that_there_are_not(call) -> None:
    with pytest.raises(TypeError, match="unexpected keyword argument 'radios'"):
        call()


def test_the_nearest_keyword_is_named() -> None:
    with pytest.raises(TypeError, match="did you mean 'radius'"):
        pv.repair("base.onnx", out="out", radios=0.1)
