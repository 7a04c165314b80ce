"""``prune-verify bench vectors``: what the checker makes of public test vectors, counted, each disagreement named.

Four suites, where they lie in ``DATA/vectors``: Wycheproof (signatures), C2SP/CCTV (points of Ed25519, as
``cctv/ed25519vectors.json``), transparency-dev's vectors of Merkle trees, JSONTestSuite. A vector that must be refused
and is accepted ends the run with 1, and so does one that must be accepted and is refused for no reason stated here.

Source: THREATS section 3; certs/DIVERGENCES.md.
"""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from prune_verify.checker.encoding import parse_json
from prune_verify.checker.envelope import PublicKey, load_public_key
from prune_verify.checker.errors import CheckError, SignatureError
from prune_verify.checker.merkle import verify_inclusion

__all__ = ["Answer", "Suite", "run_bench_vectors", "suites"]

Say = Callable[[str], None]
ACCEPT, REFUSE, EITHER = "accept", "refuse", "either"
_SPKI = bytes.fromhex("302a300506032b6570032100")  # RFC 8410, before the 32 bytes of an Ed25519 key
_POINTS = ("low_order_A", "low_order_component_A", "non_canonical_A", "non_canonical_R", "low_order_residue")
# rules of the parser that refuse what JSON allows, and why
_STRICTER = {
    "JSON number": "no float in any file: two readers round one spelling to two numbers",
    "JSON integer": "one spelling per number, within 2^53 - 1: -0 and longer integers differ between readers",
    "JSON object": "no member twice: readers differ in which one they take",
    "text": "no lone surrogate and UTF-8 only: such text has no bytes, or several",
    "depth of a JSON file": "32 levels: no file of ours is deeper",
}
# suites that speak of what this version does not have
_NOT_HERE = {
    "consistency": "proofs that one tree is the beginning of another: certificates commit to sets, not to logs",
    "subtreeconsistency": "the same of parts of a tree",
    "subtreeinclusion": "inclusion in a part of a tree: a set is committed to as a whole",
}


@dataclass(frozen=True)
class Answer:
    """What became of one vector.

    Args:
        name: file or number, with the vector's comment.
        expected: ``accept``, ``refuse``, or ``either`` where the suite leaves it open.
        reason: the error's rule, or empty when it was accepted.
        why: the reason of ours for refusing what the suite allows, or empty.

    """

    name: str
    expected: str
    reason: str = ""
    why: str = ""

    @property
    def accepted(self) -> bool:
        """Whether the checker took it."""
        return not self.reason

    @property
    def wrong(self) -> bool:
        """Whether the answer is neither the suite's nor explained."""
        if self.expected == ACCEPT:
            return not (self.accepted or self.why)
        return self.expected == REFUSE and self.accepted


@dataclass(frozen=True)
class Suite:
    """One public suite by name, with our answers to its vectors."""

    name: str
    answers: tuple[Answer, ...]

    def count(self, expected: str, *, accepted: bool) -> int:
        """How many vectors were expected to be so and accepted or not."""
        return sum(1 for a in self.answers if a.expected == expected and a.accepted == accepted)

    def text(self) -> str:
        """One line of the table."""
        pairs = "".join(
            f"{self.count(expected, accepted=True):>14}{self.count(expected, accepted=False):>9}"
            for expected in (ACCEPT, REFUSE, EITHER)
        )
        return f"{self.name:<40}{len(self.answers):>8}{pairs}"

    def disagreements(self) -> list[str]:
        """Every vector that was not answered as the suite says, by reason; what it leaves open, counted."""
        wrong = [answer for answer in self.answers if answer.wrong]
        lines = [f"WRONG {self.name}: {a.name}: must {a.expected}, got {a.reason or 'accepted'}" for a in wrong]
        stricter: dict[tuple[str, str], list[str]] = {}
        for a in self.answers:
            if a.expected == ACCEPT and a.reason and not a.wrong:
                stricter.setdefault((a.reason, a.why), []).append(a.name)
        lines += [
            f"{self.name}: {len(names)} refused on purpose ({reason}; {why}): {', '.join(names)}"
            for (reason, why), names in stricter.items()
        ]
        left = Counter(a.reason or "accepted" for a in self.answers if a.expected == EITHER)
        return lines + [
            f"{self.name}: left open by the suite, {count}: {answer}" for answer, count in sorted(left.items())
        ]


HEADER = (
    f"{'must be accepted':>71}{'must be refused':>23}{'left open':>23}\n"
    f"{'suite':<40}{'vectors':>8}" + 3 * f"{'accepted':>14}{'refused':>9}"
)


def _refusal(check: Callable[[], None]) -> str:
    """The rule that refuses; empty when none does."""
    try:
        check()
    except CheckError as error:
        return error.rule
    return ""


@cache
def _key(spki: bytes) -> PublicKey | CheckError:
    """A key, or why it is none: to look for torsion takes a while."""
    try:
        return load_public_key(spki, "key")
    except CheckError as error:
        return error


def _verify(spki: bytes, message: bytes, signature: bytes) -> None:
    """Refuse what the key, as the checker loads it, does not verify."""
    key = _key(spki)
    if isinstance(key, CheckError):
        raise key
    if not key.verifies(message, signature):
        raise SignatureError("vector", "signature")


def _wycheproof(path: Path) -> Iterator[Answer]:
    """Signatures: ``valid``, ``invalid`` and ``acceptable``."""
    expected = {"valid": ACCEPT, "invalid": REFUSE, "acceptable": EITHER}
    for group in _read(path)["testGroups"]:
        for test in group["tests"]:
            spki, message, signature = map(bytes.fromhex, (group["publicKeyDer"], test["msg"], test["sig"]))
            reason = _refusal(partial(_verify, spki, message, signature))
            name = f"{test['tcId']} ({test['comment'] or ', '.join(test['flags'])})"
            yield Answer(name, expected[test["result"]], reason)


def _cctv(path: Path) -> Iterator[Answer]:
    """Points of Ed25519: keys with a low-order part, encodings that are not canonical, equations with the cofactor."""
    for test in _read(path):
        key, signature = _SPKI + bytes.fromhex(test["key"]), bytes.fromhex(test["sig"])
        reason = _refusal(partial(_verify, key, test["msg"].encode(), signature))
        flags = set(test["flags"] or ())
        expected = REFUSE if flags & set(_POINTS) else EITHER
        yield Answer(f"{test['number']} ({', '.join(sorted(flags))})", expected, reason)


def _inclusion(folder: Path) -> Iterator[Answer]:
    """Inclusion proofs of RFC 9162."""
    for path in sorted(folder.rglob("*.json")):
        row = _read(path)
        texts = (row["root"], row["leafHash"], *(row["proof"] or ()))
        root, leaf, *proof = (base64.b64decode(text or "") for text in texts)
        reason = _refusal(partial(verify_inclusion, root, leaf, row["leafIdx"], row["treeSize"], proof))
        yield Answer(str(path.relative_to(folder)), REFUSE if row["wantErr"] else ACCEPT, reason)


def _json(folder: Path, *, canonical: bool = False) -> Iterator[Answer]:
    """Parsing: ``y_`` is JSON, ``n_`` is none, ``i_`` is left to the parser."""
    expected = {"y": ACCEPT, "n": REFUSE, "i": EITHER}
    why = _STRICTER | ({"canonical JSON": "what is signed has one spelling (RFC 8785)"} if canonical else {})
    for path in sorted(folder.glob("*.json")):
        reason = _refusal(partial(_parse, path, canonical=canonical))
        yield Answer(path.name, expected[path.name[0]], reason, why.get(reason, ""))


def _parse(path: Path, *, canonical: bool) -> None:
    parse_json(path.read_bytes(), path.name, canonical=canonical)


def _read(path: Path) -> Any:  # noqa: ANN401 - any JSON
    return json.loads(path.read_text(encoding="utf-8"))


_SUITES: tuple[tuple[str, str, Callable[[Path], Iterator[Answer]]], ...] = (
    ("Wycheproof Ed25519", "wycheproof/ed25519_test.json", _wycheproof),
    ("Wycheproof ECDSA P-256", "wycheproof/ecdsa_secp256r1_sha256_test.json", _wycheproof),
    ("CCTV Ed25519", "cctv/ed25519vectors.json", _cctv),
    ("transparency-dev/merkle inclusion", "merkle/testdata/inclusion", _inclusion),
    ("JSONTestSuite", "json/test_parsing", _json),
    ("JSONTestSuite, as signed files", "json/test_parsing", partial(_json, canonical=True)),
)


def suites(folder: Path, say: Say = lambda _: None) -> list[Suite]:
    """The suites that lie in a folder, answered."""
    found = []
    for name, place, run in _SUITES:
        if (folder / place).exists():
            say(f"{name}: {folder / place}")
            found.append(Suite(name, tuple(run(folder / place))))
    return found


def run_bench_vectors(data: Path, *, say: Say) -> tuple[int, str, dict[str, object]]:
    """Put every public vector in ``data`` to the checker.

    Args:
        data: folder with ``vectors/``.
        say: sink for progress lines.

    Returns:
        Exit code (1 when a vector that must be refused was accepted, or one that must be accepted was refused for no
        stated reason), the table with every disagreement, and the object for ``--json``.

    """
    folder = data / "vectors"
    found = suites(folder, say)
    places = {name: folder / place for name, place, _ in _SUITES}
    absent = [f"{name}: not in {place}, left out" for name, place in places.items() if not place.exists()]
    for name, why in _NOT_HERE.items():
        count = len(list((folder / "merkle" / "testdata" / name).rglob("*.json")))
        absent += [f"transparency-dev/merkle {name}: {count} vectors left out ({why})"] if count else []
    details = [line for suite in found for line in suite.disagreements()]
    wrong = sum(1 for suite in found for answer in suite.answers if answer.wrong)
    total = sum(len(suite.answers) for suite in found)
    lines = [
        HEADER,
        *(suite.text() for suite in found),
        *details,
        *absent,
        f"{total} vectors, {wrong} answered wrongly",
    ]
    rows = {
        suite.name: {
            expected: {word: suite.count(expected, accepted=word == "accepted") for word in ("accepted", "refused")}
            for expected in (ACCEPT, REFUSE, EITHER)
        }
        for suite in found
    }
    return (
        1 if wrong or not found else 0,
        "\n".join(lines),
        {"suites": rows, "wrong": wrong, "details": [*details, *absent]},
    )
