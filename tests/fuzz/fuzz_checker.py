"""Any bytes give a result or a CheckError: fuzz targets for everything in the checker that reads what an owner wrote.

``python tests/fuzz/fuzz_checker.py TARGET -max_total_time=600`` runs one target with atheris where it is installed,
else with the mutation loop of this file (``--engine builtin``, which takes the same options). The seed corpus is made
from certs/examples and from the tables of tests/checker into a temporary folder. A crash is any exception that is not
a CheckError, any warning, and any broken promise of a parser (parse and emit give the same bytes).

Source: STYLE "Tests"; THREATS 2; ``tests/fuzz/README.md`` has the commands.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import importlib
import importlib.util
import json
import random
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prune_verify.checker.claim import Problem
    from prune_verify.checker.network import Network
    from prune_verify.checker.patch import Patch

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from tests.fuzz.mutations import (  # noqa: E402 - found from the root of the repository
    LARGEST,
    canonical,
    mutate_bytes,
    mutate_document,
    mutate_network,
    mutate_proof,
)

EXAMPLES = ROOT / "certs" / "examples"


class BrokenPromiseError(Exception):
    """A parser took bytes that its own emitter would not write."""


# --- what is attacked; every function imports the checker when it is called, so that atheris can instrument it first ---


def _kept(emitted: bytes, data: bytes) -> None:
    if emitted != data:
        raise BrokenPromiseError


def network(data: bytes) -> None:
    """load_network, and on what it takes: digest, shapes, evaluation and the interval pass."""
    import numpy as np

    from prune_verify.checker.interval import interval_pass
    from prune_verify.checker.load_onnx import LoadLimits, load_network
    from prune_verify.checker.network import evaluate_all

    limits = LoadLimits(max_bytes=2**18, max_nodes=64, max_elements=2**13, max_total=2**15)
    found = load_network(data, "net.onnx", limits).network
    found.digest()
    x = np.linspace(-1, 1, 2 * int(np.prod(found.input_shape))).reshape(2, *found.input_shape)
    for node, value in zip(found.nodes, evaluate_all(found, x.astype(np.float32)), strict=True):
        if value.shape[1:] != node.shape:
            raise BrokenPromiseError(node.op)
    for arithmetic in ("real", "ieee754-binary32"):
        interval_pass(found, x - 0.125, x + 0.125, arithmetic)


def _json(data: bytes) -> None:
    from prune_verify.checker.encoding import canonical_json, parse_json

    again = canonical_json(parse_json(data, "file.json"))
    _kept(canonical_json(parse_json(again, "file.json", canonical=True)), again)


def _envelope(data: bytes) -> None:
    from prune_verify.checker.envelope import emit_envelope, open_envelope, parse_envelope
    from prune_verify.checker.errors import SignatureError

    _kept(emit_envelope(parse_envelope(data, "a.unlearn.json")), data)
    with contextlib.suppress(SignatureError):  # no key is trusted here
        open_envelope(data, "a.unlearn.json", {}, 1)


def _statement(data: bytes) -> None:
    from prune_verify.checker.statement import emit_statement, parse_statement
    from prune_verify.checker.supersede import covered_by, lost, weaker_terms

    found = parse_statement(data, "payload")
    written = emit_statement(found)  # a decimal may have been written longer
    _kept(emit_statement(parse_statement(written, "payload")), written)
    covered = covered_by(found)
    if lost(covered, covered).count or any(weaker_terms(covered, covered, 0)):  # nothing covers less than itself
        raise BrokenPromiseError


def _policy(data: bytes) -> None:
    from prune_verify.checker.policy import parse_policy

    parse_policy(data, "policy.toml").permits("z3_unsat:x")


def _trust(data: bytes) -> None:
    from datetime import UTC, datetime

    from prune_verify.checker.policy import emit_trust, parse_trust

    store = parse_trust(data, "trust.json")
    written = emit_trust(store)
    _kept(emit_trust(parse_trust(written, "trust.json")), written)
    store.unusable("prover", datetime(2026, 1, 1, tzinfo=UTC))


def _patch(data: bytes) -> None:
    from prune_verify.checker.patch_json import emit_patch, parse_patch, require_disclosed

    found = parse_patch(data, "patch.json")
    require_disclosed(data, "patch.json", found.patch, 64)
    _kept(emit_patch(found, 64), data)
    _rebuilt(found.patch)


def _small_base(labels: int) -> Network:
    """64 inputs, a ReLU of 64 neurons, and logits."""
    import numpy as np

    from prune_verify.checker.network import Network, Node

    def linear(source: int, out: int) -> Node:
        return Node("Linear", (source,), (out,), {"axis": (-1,)}, {"weight": np.eye(out, 64, dtype=np.float32)})

    return Network((Node("Input", (), (64,)), linear(0, 64), Node("Relu", (1,), (64,)), linear(2, labels)), 3)


def _rebuilt(patch: Patch) -> None:
    """What is read can be built on a base that it fits, or is refused; the network keeps its outputs' shape."""
    from prune_verify.checker.rebuild import build, coordinates_of

    base = _small_base(min(patch.labels, 64))
    coordinates_of(base, patch)
    if build(base, patch).output_shape != base.output_shape:
        raise BrokenPromiseError


@cache
def _shifted() -> Problem:
    """A shift of 1 around the input 0 of the small base."""
    from fractions import Fraction

    import numpy as np

    from prune_verify.checker.claim import LabelledRows, Problem
    from prune_verify.checker.patch import Gate, Interval, ShiftPatch
    from prune_verify.checker.rebuild import build
    from prune_verify.checker.region import Domain

    gate = Gate(0, np.float32(1), (Interval(0, None, np.float32(1)),), (0,))
    patch, base = ShiftPatch(2, (gate,), ("relu-0",), np.ones((1, 2), np.float32)), _small_base(2)
    rows = LabelledRows(np.zeros((1, 64), np.float32), np.zeros(1, np.int64))
    return Problem(base, build(base, patch), patch, Domain((Fraction(0),), (Fraction(1),)), forget=rows)


def _points(data: bytes) -> None:
    """The evidence of least shifts; on that ball L is at most 9/16."""
    from fractions import Fraction

    from prune_verify.checker.claim import Claim
    from prune_verify.checker.shift_minimality import decide_shift_minimality

    claim = Claim("minimality", "real", "shift-point", radius=Fraction(1, 8), margin=Fraction(1))
    if decide_shift_minimality(_shifted(), claim, data, "points").proved:
        raise BrokenPromiseError


def _openings(data: bytes) -> None:
    from prune_verify.checker.opened_sets import read_openings

    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        read_openings(Path(file.name))


def _commitment(data: bytes) -> None:
    from prune_verify.checker.commitment import emit_commitment, parse_commitment

    _kept(emit_commitment(parse_commitment(data, "commitment")), data)


def _receipt(data: bytes) -> None:
    from prune_verify.checker.receipt import emit_receipt, parse_receipt

    _kept(emit_receipt(parse_receipt(data, "receipt")), data)


def _encoding(data: bytes) -> None:
    from prune_verify.checker.record_encoding import emit_encoding, parse_encoding

    _kept(emit_encoding(parse_encoding(data, "encoding.json")), data)


def _public_key(data: bytes) -> None:
    from prune_verify.checker.envelope import load_public_key

    load_public_key(data, "key.pub")


DOCUMENTS: tuple[Callable[[bytes], None], ...] = (
    _json, _envelope, _statement, _policy, _trust, _patch, _openings, _encoding, _public_key, _points, _commitment,
    _receipt,
)  # fmt: skip


def documents(data: bytes) -> None:
    """The parsers of text; the first byte chooses which."""
    if data:
        DOCUMENTS[data[0] % len(DOCUMENTS)](data[1:])


def proof(data: bytes) -> None:
    """The proof reader; the digest of the first line is made to fit, as an attacker would."""
    from prune_verify.checker.proof import emit, parse

    _kept(emit(parse(sealed(data), "C1.proof")), sealed(data))


def sealed(data: bytes) -> bytes:
    """The bytes with the right digest at the end of the first line."""
    head, end, body = data.partition(b"\n")
    return head[:-64] + hashlib.sha256(body).hexdigest().encode() + end + body if end else data


@dataclass(frozen=True)
class Target:
    """One target.

    Args:
        run: raises CheckError on what it refuses; any other exception is a crash.
        seeds: bytes that are accepted, or nearly.
        mutate: a change that knows the form.

    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    mutate: Callable[[random.Random, bytes, list[bytes]], bytes]


# --- seeds ---


def network_seeds() -> list[bytes]:
    """The committed models, and one small model per row of the loader's table."""
    found = [path.read_bytes() for path in sorted(EXAMPLES.glob("*/*.onnx"))]
    with contextlib.suppress(ImportError):  # the table needs pytest
        from tests.checker.test_load_onnx import CASES, proto

        found += [
            proto(nodes, constants, shape, opset=opset).SerializeToString()
            for _, nodes, constants, shape, opset in CASES
        ]
    return sorted(set(found))


def document_seeds() -> list[bytes]:
    """The committed documents, and small ones of the forms that no example has."""
    from prune_verify.checker.envelope import parse_envelope

    pairs: list[tuple[Callable[[bytes], None], bytes]] = []
    for folder in sorted(EXAMPLES.iterdir()):
        envelope = (folder / "digits.unlearn.json").read_bytes()
        pairs += [(_envelope, envelope), (_json, envelope)]
        with contextlib.suppress(Exception):  # an example with a changed byte has no payload
            pairs.append((_statement, parse_envelope(envelope, "e").payload))
        for run, name in (
            (_policy, "policy.toml"),
            (_trust, "trust.json"),
            (_openings, "openings.json"),
            (_patch, "evidence/patch.json"),
        ):
            pairs.append((run, (folder / name).read_bytes()))
        for key in json.loads((folder / "trust.json").read_bytes()).get("keys", []):
            spki = base64.b64decode(key["spki"])
            pem = b"-----BEGIN PUBLIC KEY-----\n" + key["spki"].encode() + b"\n-----END PUBLIC KEY-----\n"
            pairs += [(_public_key, spki), (_public_key, pem)]
    columns = [
        {"kind": "number", "lower": "0", "name": "a", "upper": "17"},
        {"kind": "category", "name": "b", "values": ["x", "y"]},
    ]
    encoding = {"columns": columns, "formatVersion": 1, "label": {"name": "c", "values": ["0", "1"]}}
    pairs.append((_encoding, canonical(encoding)))
    weights = base64.b64encode(b"\x00\x00\x80\x3f" * 64).decode()
    bias = base64.b64encode(bytes(4)).decode()
    layers = [
        {"bias": bias, "shape": [1, 64], "weight": weights},
        {"bias": bias * 1, "shape": [1, 1], "weight": bias},
    ]
    head = {"baseNetwork": "ab" * 32, "family": "learned", "formatVersion": 1, "labels": 2, "site": "input"}
    pairs.append((_patch, canonical(head | {"layers": layers})))
    pairs += [(_patch, canonical(one)) for one in _patches_at_sites(head | {"conflicts": []})]
    point = base64.b64encode(bytes(256)).decode()
    pairs.append((_points, canonical({"formatVersion": 1, "points": [point]})))
    pairs += _committed()
    return sorted({bytes([DOCUMENTS.index(run)]) + data for run, data in pairs})


def _committed() -> list[tuple[Callable[[bytes], None], bytes]]:
    """A commitment, a receipt, and openings of a training set."""
    import numpy as np

    from prune_verify.checker.records import canonical_record

    record = base64.b64encode(canonical_record(np.zeros(4, dtype=np.float32), 3)).decode()
    digest, salt = "ab" * 32, "cd" * 32
    receipt = {"formatVersion": 1, "index": 0, "of": "training-set", "path": [salt], "record": record, "root": digest}
    training = {"forgetIndices": [1, 0], "key": salt, "twins": [{"index": 2, "record": record}]}
    predicate = {
        "committedAt": "2026-01-01T00:00:00Z",
        "encodingSha256": None,
        "purpose": "training-set",
        "size": 2,
        "tool": {"name": "t", "version": "1"},
    }
    statement = {
        "_type": "https://in-toto.io/Statement/v1",
        "predicate": predicate,
        "predicateType": "https://prune-verify.example/data-commitment/v1",
        "subject": [{"digest": {"saltedMerkleSha256": digest}, "name": "train"}],
    }
    return [
        (_commitment, canonical(statement)),
        (_receipt, canonical(receipt | {"salt": salt, "size": 2, "source": digest})),
        (_openings, canonical({"forget": salt, "formatVersion": 1, "retain": None, "training": training})),
    ]


def _patches_at_sites(head: dict[str, Any]) -> list[dict[str, Any]]:
    """Gates at a hidden site, gates that hold margins, and a shift."""
    zero, one = "00000000", "3f800000"
    gate = {"label": 1, "gamma": one, "intervals": [[2, zero, one], [63, None, one]], "records": [0]}
    joint = head | {"family": "box", "forgottenClasses": [], "tau": one, "shift": one, "slack": one, "gates": [gate]}
    bits = 32 * 3 + 2 * 6
    held = {"tau": zero, "shift": zero, "gates": [gate | {"hold": ["bf800000", one]}]}
    shift = {name: value for name, value in head.items() if name != "conflicts"} | {"family": "linear-region"}
    return [
        joint | {"site": ["relu-0"], "disclosed": {"coordinates": 2, "bits": bits}},
        joint | held | {"disclosed": {"coordinates": 2, "bits": bits + 64}},
        shift
        | {
            "site": ["relu-0"],
            "gates": [gate],
            "shifts": base64.b64encode(b"\x00\x00\x80\x3f" * 2).decode(),
            "disclosed": {"coordinates": 2, "bits": bits + 64},
        },
    ]


def proof_seeds() -> list[bytes]:
    """Proofs in the form of certs/SPEC.md section 5.4: choices alone, slopes, trees, records that rest on z3."""
    import numpy as np

    from prune_verify.checker.proof import Proof, emit

    def i4(*values: int) -> np.ndarray:
        return np.array(values, dtype=np.int32)

    def f4(*values: float) -> np.ndarray:
        return np.array(values, dtype=np.float32)

    digest = "ab" * 32
    listed = [
        Proof("forget", "real", "relaxation", digest, 2, choices=i4(1, 2)),
        Proof(
            "forget", "real", "relaxation+smt", digest, 3, choices=i4(1, 2, -1), hinted=i4(0), smt=i4(2),
            active={3: i4(0, 2)}, slopes={3: f4(0.5, 0.5).reshape(1, 2)},
        ),
        Proof(
            "retain_close", "ieee754-binary32", "relaxation", digest, 1, combinations=f4(0.5, 0.25), trees=i4(0),
            steps=i4(1, 2, 0, 3, 0, 0, 0, 0, -1, 2, 0, 0, 0, 1, 1, 0, 0, -1), cuts=f4(0.5), multipliers=f4(1, 2, 3),
            active={2: i4(0, 1, 4)}, slopes={2: f4(0, 1, 0.5, 0.25, 1, -1).reshape(2, 3)},
        ),
    ]  # fmt: skip
    return [emit(one) for one in listed]


TARGETS = {
    "network": Target(network, network_seeds, mutate_network),
    "documents": Target(documents, document_seeds, mutate_document),
    "proof": Target(proof, proof_seeds, mutate_proof),
}


# --- engines ---


def attempt(target: Target, data: bytes) -> bool:
    """Run one input; True if it was accepted, False if refused by a CheckError. Anything else is a crash."""
    from prune_verify.checker.errors import CheckError

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            target.run(data)
        except CheckError as error:
            str(error)
            return False
    return True


@dataclass
class Found:
    """What a run of the builtin engine has seen."""

    runs: int = 0
    accepted: int = 0
    crash: bytes | None = None
    text: str = ""


@contextlib.contextmanager
def _at_most(seconds: int) -> Iterator[None]:
    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def builtin(
    target: Target, *, seed: int, seconds: float, runs: int | None = None, timeout: int = 10, rss_mb: int = 4096
) -> Found:
    """Mutate seeds, and what came of them and was accepted, until a crash or the end of the time."""
    rng, pool, found = random.Random(seed), target.seeds(), Found()
    end, queue = time.monotonic() + seconds, list(pool)
    while found.crash is None and time.monotonic() < end and (runs is None or found.runs < runs):
        if found.runs < len(pool):
            data = pool[found.runs]
        else:
            data = rng.choice(queue)
            for _ in range(rng.randint(1, 3)):
                data = (target.mutate if rng.random() < 0.6 else mutate_bytes)(rng, data, pool)
        found.runs += 1
        try:
            with _at_most(timeout):
                accepted = attempt(target, data)
        except Exception:  # noqa: BLE001 - this is what is looked for
            found.crash, found.text = data, traceback.format_exc()
            break
        found.accepted += accepted
        if accepted and len(queue) < 4096:
            queue.append(data)
        if resource.getrusage(resource.RUSAGE_SELF).ru_maxrss > rss_mb * 1024:
            found.crash, found.text = data, f"more than {rss_mb} MB"
    return found


def with_atheris(target: Target, words: list[str]) -> None:
    """Hand over to libFuzzer, which ends the process."""
    import atheris

    with atheris.instrument_imports(include=["prune_verify.checker"]):
        importlib.import_module("prune_verify.checker.verify")
    pool = target.seeds()

    def one(data: bytes) -> None:
        attempt(target, data)

    def change(data: bytes, max_size: int, seed: int) -> bytes:
        rng = random.Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, max_size))
        return target.mutate(rng, bytes(data), pool)[:max_size]

    with tempfile.TemporaryDirectory() as folder:
        for place, data in enumerate(pool):
            (Path(folder) / f"seed-{place:03d}").write_bytes(data)
        atheris.Setup([sys.argv[0], folder, f"-max_len={LARGEST}", *words], one, custom_mutator=change)
        atheris.Fuzz()


def main(argv: list[str]) -> int:
    """Run one target.

    Returns:
        0 without a crash, 1 with one (the builtin engine); atheris ends the process itself.

    """
    parser = argparse.ArgumentParser(description="fuzz the checker")
    parser.add_argument("target", choices=sorted(TARGETS))
    parser.add_argument("--engine", choices=("atheris", "builtin"), default=None)
    parser.add_argument("--reproduce", type=Path, help="run one input and show what it raises")
    for name, default in (("max_total_time", 600), ("timeout", 10), ("rss_limit_mb", 4096), ("seed", 1)):
        parser.add_argument(f"-{name}", type=int, default=default)
    parser.add_argument("-artifact_prefix", default="")
    options, more = parser.parse_known_args(argv)
    target = TARGETS[options.target]
    if options.reproduce is not None:
        sys.stdout.write(f"accepted: {attempt(target, options.reproduce.read_bytes())}\n")
        return 0
    engine = options.engine or ("atheris" if importlib.util.find_spec("atheris") else "builtin")
    if engine == "atheris":
        named = ("max_total_time", "timeout", "rss_limit_mb", "seed", "artifact_prefix")
        with_atheris(target, [*(f"-{name}={getattr(options, name)}" for name in named), *more])
        return 0
    found = builtin(
        target,
        seed=options.seed,
        seconds=options.max_total_time,
        timeout=options.timeout,
        rss_mb=options.rss_limit_mb,
    )
    sys.stdout.write(f"{options.target}: {found.runs} inputs, {found.accepted} accepted\n")
    if found.crash is None:
        return 0
    path = Path(f"{options.artifact_prefix}crash-{hashlib.sha256(found.crash).hexdigest()[:16]}")
    path.write_bytes(found.crash)
    sys.stdout.write(f"{found.text}\nwritten to {path}\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
