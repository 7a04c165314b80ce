"""Addresses, requests and answers of the Open Inference Protocol: anything that is not one is refused where it is wrong."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prune_verify.audit.endpoint_protocol import (
    Answer,
    EndpointError,
    MalformedAnswerError,
    Wire,
    agree,
    parse_address,
    read_answers,
    request_body,
)
from prune_verify.checker.errors import MalformedInputError

WIRE = Wire("input", (2,), 3, "logits", "label")
LOGITS = {"name": "logits", "shape": [2, 3], "datatype": "FP32", "data": [0, 1.5, -2, 3, 4, 5e-1]}
LABEL = {"name": "label", "shape": [2], "datatype": "INT64", "data": [1, 1]}


def answer(*outputs: dict, **more: object) -> bytes:
    return json.dumps({"model_name": "m", "outputs": list(outputs), **more}).encode()


def test_an_answer_is_read_as_the_numbers_that_were_sent() -> None:
    expected = [Answer((0.0, 1.5, -2.0), 1), Answer((3.0, 4.0, 0.5), 1)]
    nested = LOGITS | {"data": [[0, 1.5, -2], [3, 4, 0.5]]}
    column = LABEL | {"shape": [2, 1], "data": [[1], [1]], "datatype": "UINT8"}
    double = LOGITS | {"datatype": "FP64", "parameters": {"content_type": "np"}}
    extra = {"name": "more", "shape": [1], "datatype": "BYTES", "data": ["x"]}
    for outputs in ((LOGITS, LABEL), (nested, column), (LABEL, extra, double)):
        assert read_answers(WIRE, answer(*outputs, id="x"), 2) == expected
    assert read_answers(replace(WIRE, label_output=None), answer(LOGITS), 2)[0] == Answer((0.0, 1.5, -2.0), None)
    assert read_answers(replace(WIRE, output=None), answer(LABEL), 2)[0] == Answer(None, 1)


LONG = "9" * 5000
REFUSED = [
    ("not JSON", b"<html>", "answer"),
    ("cut off", answer(LOGITS, LABEL)[:-1], "answer"),
    ("not UTF-8", b'{"outputs": "\xff"}', "answer"),
    ("a member twice", b'{"outputs": [], "outputs": []}', "answer"),
    ("NaN", answer(LOGITS | {"data": [0, 1, float("nan"), 3, 4, 5]}, LABEL), "answer"),
    ("Infinity", answer(LOGITS | {"data": [0, 1, float("-inf"), 3, 4, 5]}, LABEL), "answer"),
    ("a number that overflows", answer(LOGITS, LABEL).replace(b"1.5", b"1e400"), "answer"),
    ("an integer of thousands of digits", answer(LOGITS, LABEL).replace(b"1.5", LONG.encode()), "answer"),
    ("a deep nesting", b"[" * 200_000 + b"]" * 200_000, "answer"),
    ("a list on top", b"[]", "answer"),
    ("no outputs", b"{}", "answer/outputs"),
    ("an output that is none", answer(LOGITS, LABEL, outputs=[1]), "answer/outputs"),
    ("an output that is missing", answer(LABEL), "answer/outputs"),
    ("an output twice", answer(LOGITS, LOGITS, LABEL), "answer/outputs"),
    ("another data type", answer(LOGITS | {"datatype": "FP16"}, LABEL), "answer/outputs/logits/datatype"),
    ("no data type", answer({k: v for k, v in LOGITS.items() if k != "datatype"}, LABEL), "answer/outputs/logits/datatype"),
    ("a label that is a float", answer(LOGITS, LABEL | {"datatype": "FP32"}), "answer/outputs/label/datatype"),
    ("too few rows", answer(LOGITS | {"shape": [1, 3], "data": [0, 1, 2]}, LABEL), "answer/outputs/logits/shape"),
    ("one label more", answer(LOGITS | {"shape": [2, 4], "data": [0] * 8}, LABEL), "answer/outputs/logits/shape"),
    ("a shape without rows", answer(LOGITS | {"shape": [6]}, LABEL), "answer/outputs/logits/shape"),
    ("a shape below zero", answer(LOGITS | {"shape": [2, -1, -3]}, LABEL), "answer/outputs/logits/shape"),
    ("a shape of booleans", answer(LOGITS | {"shape": [2, True]}, LABEL), "answer/outputs/logits/shape"),
    ("fewer numbers than the shape has", answer(LOGITS | {"data": [0, 1, 2, 3, 4]}, LABEL), "answer/outputs/logits/data"),
    ("ragged rows", answer(LOGITS | {"data": [[0, 1], [2, 3, 4, 5]]}, LABEL), "answer/outputs/logits/data"),
    ("a number as text", answer(LOGITS | {"data": [0, 1, "2", 3, 4, 5]}, LABEL), "answer/outputs/logits/data/2"),
    ("a boolean", answer(LOGITS | {"data": [0, 1, True, 3, 4, 5]}, LABEL), "answer/outputs/logits/data/2"),
    ("null", answer(LOGITS | {"data": [0, 1, 2, 3, 4, None]}, LABEL), "answer/outputs/logits/data/5"),
    ("a label that does not exist", answer(LOGITS, LABEL | {"data": [1, 3]}), "answer/outputs/label/data/1"),
    ("a label below zero", answer(LOGITS, LABEL | {"data": [-1, 1]}), "answer/outputs/label/data/0"),
    ("a label with a point", answer(LOGITS, LABEL | {"data": [1.0, 1]}), "answer/outputs/label/data/0"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "data", "path"), REFUSED, ids=[row[0] for row in REFUSED])
def test_a_malformed_answer_is_refused_where_it_is_wrong(what: str, data: bytes, path: str) -> None:
    with pytest.raises(MalformedAnswerError) as caught:
        read_answers(WIRE, data, 2)
    assert (caught.value.path, caught.value.code) == (path, "E_MALFORMED_ANSWER")


def test_a_deep_nesting_is_refused_whatever_recursion_a_library_has_allowed() -> None:
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(10**6)
    try:
        with pytest.raises(MalformedAnswerError, match="deep nesting"):
            read_answers(WIRE, b"[" * 200_000 + b"]" * 200_000, 2)
    finally:
        sys.setrecursionlimit(before)


@given(st.binary(max_size=80) | st.recursive(st.none() | st.booleans() | st.floats() | st.text(max_size=9), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["outputs", "name", "data", "shape", "datatype", "logits"]), inner, max_size=4)).map(lambda v: json.dumps(v).encode()))  # fmt: skip
def test_any_bytes_give_answers_or_the_one_error(data: bytes) -> None:
    with suppress(MalformedAnswerError):
        assert len(read_answers(WIRE, data, 2)) == 2


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=4, max_size=4))
def test_a_request_holds_the_float32_numbers_exactly(values: list[float]) -> None:
    rows = np.array(values, dtype=np.float32).reshape(2, 2)
    sent = json.loads(request_body(WIRE, rows))
    assert sent["outputs"] == [{"name": "logits"}, {"name": "label"}]
    assert (sent["inputs"][0]["name"], sent["inputs"][0]["shape"], sent["inputs"][0]["datatype"]) == (
        "input",
        [2, 2],
        "FP32",
    )
    assert np.array(sent["inputs"][0]["data"], dtype=np.float32).tobytes() == rows.tobytes()


ADDRESSES = [
    ("http://a:8080/v2/models/m", "http://a:8080", "/v2/models/m", "m", None),
    ("https://A.example/v2/models/m/versions/3/", "https://a.example", "/v2/models/m/versions/3", "m", "3"),
    ("http://a/serving/v2/models/a%2Fb", "http://a", "/serving/v2/models/a%2Fb", "a/b", None),
    ("http://[::1]:9/v2/models/m", "http://[::1]:9", "/v2/models/m", "m", None),
]  # fmt: skip


@pytest.mark.parametrize(("text", "origin", "path", "model", "version"), ADDRESSES)
def test_an_address_names_server_model_and_version(text, origin, path, model, version) -> None:
    found = parse_address(text)
    assert (found.origin, found.path, found.model, found.version) == (origin, path, model, version)
    assert found.infer == path + "/infer"


NO_ADDRESSES = [
    "localhost:8080", "http://a:8080", "http://a/v1/models/m", "ftp://a/v2/models/m", "http:///v2/models/m", "http://a:port/v2/models/m",
    "http://user:word@a/v2/models/m", "http://a/v2/models/m?x=1", "http://a/v2/models/m#f", "http://a/v2/models/m/infer", "http://a/v2/models/\u0430",
]  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_of_a_model_is_refused(text: str) -> None:
    with pytest.raises(MalformedInputError) as caught:
        parse_address(text)
    assert caught.value.path == "ENDPOINT"


def test_only_this_machine_may_be_asked_in_the_clear_without_a_warning() -> None:
    clear = {"http://127.0.0.1:1": False, "http://localhost": False, "https://a": False, "http://a": True}
    assert {origin: parse_address(f"{origin}/v2/models/m").in_the_clear for origin in clear} == clear


INPUT = {"name": "input", "datatype": "FP64", "shape": [-1, 2]}
OUTPUTS = [
    {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
    {"name": "label", "datatype": "INT64", "shape": [-1]},
]


def metadata(inputs: object, outputs: object = OUTPUTS) -> bytes:
    return json.dumps({"name": "m", "platform": "p", "inputs": inputs, "outputs": outputs}).encode()


def test_metadata_that_fits_gives_the_data_type_and_silence_is_accepted() -> None:
    assert agree(WIRE, metadata([INPUT]), 1).datatype == "FP64"
    for data in (b"{}", metadata([], []), metadata(None, None)):
        assert agree(WIRE, data, 1) == WIRE


UNFIT = [
    ("not JSON", b"ready", "metadata"),
    ("another input", metadata([INPUT | {"name": "x"}]), "metadata/inputs"),
    ("a second input", metadata([INPUT, INPUT | {"name": "x"}]), "metadata/inputs"),
    ("an input twice", metadata([INPUT, INPUT]), "metadata/inputs"),
    ("integers as input", metadata([INPUT | {"datatype": "UINT8"}]), "metadata/inputs/input/datatype"),
    ("half precision as input", metadata([INPUT | {"datatype": "FP16"}]), "metadata/inputs/input/datatype"),
    ("another shape", metadata([INPUT | {"shape": [-1, 3]}]), "metadata/inputs/input/shape"),
    ("one axis more", metadata([INPUT | {"shape": [-1, 2, 1]}]), "metadata/inputs/input/shape"),
    ("a fixed batch", metadata([INPUT | {"shape": [8, 2]}]), "metadata/inputs/input/shape"),
    ("no such output", metadata([INPUT], OUTPUTS[1:]), "metadata/outputs"),
    ("logits in half precision", metadata([INPUT], [OUTPUTS[0] | {"datatype": "FP16"}, OUTPUTS[1]]), "metadata/outputs/logits/datatype"),
    ("labels as text", metadata([INPUT], [OUTPUTS[0], OUTPUTS[1] | {"datatype": "BYTES"}]), "metadata/outputs/label/datatype"),
]  # fmt: skip


@pytest.mark.parametrize(("what", "data", "path"), UNFIT, ids=[row[0] for row in UNFIT])
def test_a_model_that_speaks_otherwise_is_no_endpoint_to_audit(what: str, data: bytes, path: str) -> None:
    with pytest.raises(EndpointError) as caught:
        agree(WIRE, data, 1)
    assert (caught.value.path, caught.value.code) == (path, "E_ENDPOINT")
