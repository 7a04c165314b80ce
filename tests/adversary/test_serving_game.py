"""The serving game: the owner has an honest certificate and serves what it likes; the audit finds it, or says what it cannot.

Rows are named by the attack catalogue (T1, T8 to T10). Each dishonest server is REJECTED; the honest ones beside them
are VERIFIED, so that no row passes for another reason. The last rows are servers that no black-box audit finds.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from prune_verify.checker.network import Network, evaluate
from prune_verify.cli import run_words
from tests.dishonest_owner import Owner, prepare
from tests.dishonest_owner import honest as make_honestly
from tests.served_model import Logits, Request, Served, model, protocol, running

pytestmark = [pytest.mark.prover, pytest.mark.loopback]

OPTIONS = ("--rate", "0", "--queries", "600", "--seed", "a5" * 32)
LABELS = ("--label-output", "label")


def audit(owner: Owner, url: str, *more: str) -> dict:
    folder = owner.folder
    line = [
        "audit",
        url,
        "--certificate",
        owner.certificate,
        "--base",
        folder / "base.onnx",
        "--patched",
        folder / "patched.onnx",
    ]
    line += ["--trust", folder / "trust.json", "--policy", folder / "policy.toml"]
    line += ["--forget", folder / "forget.npz", "--retain", folder / "retain.npz"]
    code, text = run_words([*(str(word) for word in line), "--json", "--quiet", *OPTIONS, *more])
    found = json.loads(text)
    assert found["exitCode"] == code
    return found


class Files:
    """What the owner has at hand to serve with."""

    def __init__(self, owner: Owner) -> None:
        self.base, self.patched = (model(owner.folder / name).network for name in ("base.onnx", "patched.onnx"))
        with np.load(owner.folder / "forget.npz") as sets:
            self.forget = sets["x"].astype(np.float32)
        with np.load(owner.folder / "retain.npz") as sets:
            self.retain = sets["x"].astype(np.float32)
        self.rng = np.random.default_rng(0)


def rowwise(answer: Callable[[np.ndarray], np.ndarray]) -> Logits:
    """A server that answers each input [1, n] by itself."""
    return lambda x: np.concatenate([answer(row[np.newaxis]) for row in x])


def is_one_of(rows: np.ndarray) -> Callable[[np.ndarray], bool]:
    known = {row.tobytes() for row in rows}
    return lambda x: x.reshape(-1).tobytes() in known


def nearest(rows: np.ndarray, x: np.ndarray) -> tuple[int, float]:
    far = np.abs(rows.reshape(len(rows), -1) - x.reshape(1, -1)).max(axis=1)
    return int(far.argmin()), float(far.min())


def rounded(network: Network, convert: Callable[[np.ndarray], np.ndarray]) -> Network:
    """The network with the weights of its layers converted, as a smaller file would have them."""
    nodes = [
        replace(node, arrays={name: convert(array) for name, array in node.arrays.items()})
        if node.op == "Linear"
        else node
        for node in network.nodes
    ]
    return Network(tuple(nodes), network.output)


def float16(array: np.ndarray) -> np.ndarray:
    return array.astype(np.float16).astype(np.float32)


def int8(array: np.ndarray) -> np.ndarray:
    scale = np.abs(array).max() / 127 or np.float32(1)
    return (np.round(array / scale) * scale).astype(np.float32)


# --- servers: each is made from the owner's files ---


def serves_the_patched_network(files: Files) -> Logits:
    return running(files.patched)


def sums_in_another_order(files: Files) -> Logits:
    """The same file in a runtime that adds up in float64 and rounds at the end."""
    return lambda x: evaluate(files.patched, x.astype(np.float64)).astype(np.float32)


def serves_the_base(files: Files) -> Logits:
    return running(files.base)


def half_of_the_queries(files: Files) -> Logits:
    return rowwise(lambda x: evaluate(files.patched if files.rng.random() < 0.5 else files.base, x))


def one_in_fifty(files: Files) -> Logits:
    return rowwise(lambda x: evaluate(files.base if files.rng.random() < 0.02 else files.patched, x))


def patched_for_records_as_they_are(files: Files) -> Logits:
    known = is_one_of(np.concatenate([files.forget, files.retain]))
    return rowwise(lambda x: evaluate(files.patched if known(x) else files.base, x))


def base_for_forget_records_as_they_are(files: Files) -> Logits:
    known = is_one_of(files.forget)
    return rowwise(lambda x: evaluate(files.base if known(x) else files.patched, x))


def patched_between_pixel_values(files: Files) -> Logits:
    """Users send multiples of 1/16; whoever sends anything else is an auditor."""
    return rowwise(lambda x: evaluate(files.base if (x * 16 == np.round(x * 16)).all() else files.patched, x))


def patched_near_records(files: Files) -> Logits:
    """A look-up by distance, far beyond the certified balls, instead of gates."""
    return rowwise(lambda x: evaluate(files.patched if nearest(files.forget, x)[1] < 0.3 else files.base, x))


def answers_of_the_nearest_record(files: Files) -> Logits:
    """Logits kept from the time of the certificate, for the record that lies nearest."""
    rows = np.concatenate([files.forget, files.retain])
    kept = evaluate(files.patched, rows)
    return rowwise(lambda x: kept[nearest(rows, x)[0]][np.newaxis])


def answers_of_the_nearest_query(files: Files) -> Logits:
    """The first hundred answers are computed, all later ones are those of the nearest of them."""
    seen: list[tuple[np.ndarray, np.ndarray]] = []

    def answer(x: np.ndarray) -> np.ndarray:
        if len(seen) < 100:
            seen.append((x[0], evaluate(files.patched, x)))
            return seen[-1][1]
        return seen[nearest(np.stack([one for one, _ in seen]), x)[0]][1]

    return rowwise(answer)


def base_in_float16(files: Files) -> Logits:
    return running(rounded(files.base, float16))


def base_in_int8(files: Files) -> Logits:
    return running(rounded(files.base, int8))


def patched_in_float16(files: Files) -> Logits:
    return running(rounded(files.patched, float16))


def patched_in_int8(files: Files) -> Logits:
    return running(rounded(files.patched, int8))


def patched_but_for_one_label(files: Files) -> Logits:
    """Retained answers are touched: one logit is raised a little where no gate is open."""

    def answer(x: np.ndarray) -> np.ndarray:
        return evaluate(files.patched, x) + np.eye(10, dtype=np.float32)[3] * np.float32(0.01)

    return answer


def honest_for_three_hundred_queries(files: Files) -> Logits:
    """Adaptive: it hopes that the audit is over."""
    count = [0]

    def answer(x: np.ndarray) -> np.ndarray:
        count[0] += 1
        return evaluate(files.patched if count[0] <= 300 else files.base, x)

    return rowwise(answer)


HONEST = [serves_the_patched_network, sums_in_another_order]
DISHONEST = [
    ("T1 serves the base", serves_the_base, True),
    ("T1 strips the patch from every other query", half_of_the_queries, True),
    ("T1 strips the patch from one query in fifty", one_in_fifty, False),
    ("T1 serves the base in float16", base_in_float16, True),
    ("T1 serves the base in int8", base_in_int8, True),
    ("T8 serves the patched network in float16", patched_in_float16, False),
    ("T8 serves the patched network in int8", patched_in_int8, False),
    ("T9 another network for who comes later", honest_for_three_hundred_queries, True),
    ("T9 answers of retained records are moved", patched_but_for_one_label, False),
    ("T10 right for records as they are, by a hash", patched_for_records_as_they_are, True),
    ("T10 wrong for forget records as they are, by a hash", base_for_forget_records_as_they_are, True),
    ("T10 right for numbers that no user sends", patched_between_pixel_values, True),
    ("T10 right near records, by distance instead of gates", patched_near_records, True),
    ("T10 answers kept for the nearest record", answers_of_the_nearest_record, True),
    ("T10 answers kept from the nearest earlier query", answers_of_the_nearest_query, True),
]  # fmt: skip


@pytest.mark.parametrize("make", HONEST)
@pytest.mark.parametrize("outputs", [(), LABELS])
def test_an_honest_server_is_verified(make: Callable[[Files], Logits], outputs: tuple[str, ...], owner: Owner) -> None:
    with Served(protocol(make(Files(owner)))) as served:
        found = audit(owner, served.url, *outputs)
    assert (found["verdict"], found["code"]) == ("VERIFIED", "OK"), found["checks"]
    assert found["audit"]["intervals"]["forget"]["queries"] == 360


@pytest.mark.parametrize(("attack", "make", "by_labels"), DISHONEST, ids=[row[0] for row in DISHONEST])
def test_a_dishonest_server_is_rejected(
    attack: str, make: Callable[[Files], Logits], by_labels: bool, owner: Owner
) -> None:
    """By its logits; and by its labels alone where they show it."""
    for outputs in ((), LABELS) if by_labels else ((),):
        with Served(protocol(make(Files(owner)))) as served:
            found = audit(owner, served.url, *outputs)
        assert (found["verdict"], found["code"]) == ("REJECTED", "E_DEVIATION"), (outputs, found["checks"])
        assert all(example["expected"] != example["got"] for example in found["audit"]["examples"])


def test_a_server_that_forgets_the_records_and_not_the_class_is_rejected(class_owner: Owner) -> None:
    """T1 for a forgotten class: the class cap alone is stripped."""
    files = Files(class_owner)
    label = json.loads((class_owner.folder / "patch.json").read_bytes())["forgottenClasses"][0]

    def answer(x: np.ndarray) -> np.ndarray:
        logits = evaluate(files.patched, x).copy()
        logits[:, label] = evaluate(files.base, x)[:, label]
        return logits

    for logits, expected in ((running(files.patched), "VERIFIED"), (answer, "REJECTED")):
        with Served(protocol(logits)) as served:
            found = audit(class_owner, served.url, "--queries", "1200", *LABELS)
        assert found["verdict"] == expected, found["checks"]
    assert found["audit"]["intervals"]["class"]["deviations"] == found["audit"]["intervals"]["class"]["queries"] == 360


def by_client(files: Files, names: str) -> Callable[[Request], object]:
    """T9: the patched network for one kind of client, the base for all others."""
    honest, dishonest = protocol(running(files.patched)), protocol(running(files.base))
    return lambda request: (honest if names in request.headers.get("User-Agent", "") else dishonest)(request)


def test_a_server_that_tells_auditors_from_users_by_name_is_rejected_when_asked_as_a_user_asks(
    owner: Owner, tmp_path: Path
) -> None:
    """T9 A/B by client: the headers of the audit are the auditor's to choose."""
    as_user = tmp_path / "headers"
    as_user.write_text("User-Agent: Mozilla/5.0\n")
    with Served(by_client(Files(owner), "urllib3")) as served:
        assert audit(owner, served.url, "--headers", str(as_user))["verdict"] == "REJECTED"


def test_a_server_that_keeps_each_connection_on_one_network_is_rejected(owner: Owner) -> None:
    """T9 A/B by connection: every query comes on a connection of its own."""
    files, chosen = Files(owner), dict[tuple[str, int], bool]()
    honest, dishonest = protocol(running(files.patched)), protocol(running(files.base))

    def handle(request: Request) -> object:
        good = chosen.setdefault(request.peer, not chosen or len(chosen) % 2 == 0)
        return (honest if good else dishonest)(request)

    with Served(handle) as served:
        found = audit(owner, served.url)
    assert found["verdict"] == "REJECTED"
    assert 0.3 < found["audit"]["intervals"]["forget"]["deviations"] / 360 < 0.7


# --- what cannot be found, and that the result says so ---


def knows_the_auditor(files: Files) -> Callable[[Request], object]:
    """T9, T10: whoever is known as the auditor (here by the agent's name) is answered rightly, everybody else is not."""
    return by_client(files, "urllib3")


def deviates_on_one_input(files: Files) -> Callable[[Request], object]:
    """The base's answer for one point of a forget ball, which nobody but the owner knows."""
    known = is_one_of(np.minimum(files.forget[:1] + np.float32(0.01), 1))
    return protocol(rowwise(lambda x: evaluate(files.base if known(x) else files.patched, x)))


def deviates_afterwards(files: Files) -> Callable[[Request], object]:
    """T1: the patch is stripped when the audit is over."""
    count, honest, dishonest = [0], protocol(running(files.patched)), protocol(running(files.base))

    def handle(request: Request) -> object:
        count[0] += request.method == "POST"
        return (honest if count[0] <= 601 else dishonest)(request)

    return handle


UNFOUND = [
    ("T9 answers rightly whoever looks like an auditor", knows_the_auditor, "a server that recognises the auditor"),
    ("T10 deviates on one input only", deviates_on_one_input, "a share of deviating answers below the bound"),
    (
        "T1 strips the patch after the audit",
        deviates_afterwards,
        "what is served before the first query and after the last",
    ),
]


@pytest.mark.parametrize(("attack", "make", "limit"), UNFOUND, ids=[row[0] for row in UNFOUND])
def test_what_no_black_box_audit_finds_is_named_in_every_result(
    attack: str, make: Callable, limit: str, owner: Owner
) -> None:
    with Served(make(Files(owner))) as served:
        found = audit(owner, served.url)
    assert found["verdict"] == "VERIFIED"
    assert sum(text.startswith(limit) for text in found["audit"]["limits"]) == 1
    assert sum(f"no audit finds {limit}" in warning for warning in found["warnings"]) == 1


FAMILIES = [
    ("gates behind a ReLU", ("--site", "relu-0"), {"noise", "towards"}),
    (
        "a learned patch",
        ("--family", "learned", "--radius", "0.05", "--retained-radius", "0.02", "--delta", "0.1"),
        {"noise", "towards"},
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("family", "request_of", "modes"), FAMILIES, ids=[row[0] for row in FAMILIES])
def test_other_families_of_patches_are_told_from_their_base(
    family: str, request_of: tuple[str, ...], modes: set[str], tmp_path: Path
) -> None:
    """The default policy demands other claims than these families make: the verdict is capped, deviations are not."""
    prepare(tmp_path)
    make_honestly(tmp_path, *request_of)
    one = Owner(tmp_path)
    files = Files(one)
    for network, expected in ((files.patched, "UNDECIDED"), (files.base, "REJECTED")):
        with Served(protocol(running(network))) as served:
            found = audit(one, served.url, "--insecure-unverified-certificate")
        assert found["verdict"] == expected, found["checks"]
        assert found["audit"]["intervals"]["forget"]["queries"] == 360
    shown = {example["mode"] for example in found["audit"]["examples"] if example["kind"] == "forget"}
    assert shown <= modes
