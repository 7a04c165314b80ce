"""A vector as its author states it: what is changed, and the answer that the specification demands for it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from certs.vector_maker.expressions import Expression, envelope_of
from certs.vector_maker.owner import CERTIFICATE, Chain, key, sign
from certs.vectors.run import evaluate

__all__ = [
    "CERT", "OK", "PAYLOAD", "Answer", "Build", "Case", "Group", "Note", "at", "demand", "edit", "files", "payload",
    "refused", "signed_expression", "then", "undecided", "unusable",
]  # fmt: skip

CERT = CERTIFICATE
PAYLOAD = f"{CERTIFICATE}/payload"


@dataclass(frozen=True)
class Answer:
    """What a checker must answer.

    Args:
        exit_code: 0, 1, 2 or 3.
        code: ``OK`` or the error's code.
        path: the place that the error names.

    """

    exit_code: int
    code: str
    path: str

    @property
    def result(self) -> str:
        """The word of Wycheproof's schema."""
        return {0: "valid", 3: "undecided"}.get(self.exit_code, "invalid")


OK = Answer(0, "OK", "")


def refused(code: str, path: str) -> Answer:
    """REJECTED, exit 1."""
    return Answer(1, f"E_{code}", path)


def undecided(code: str, path: str = "") -> Answer:
    """UNDECIDED, exit 3."""
    return Answer(3, f"E_{code}", path)


def unusable(code: str, path: str) -> Answer:
    """The auditor's own files cannot be used: exit 2, no verdict."""
    return Answer(2, f"E_{code}", path)


Files = dict[str, bytes | Expression]
Build = Callable[[Chain], Chain | Files]


@dataclass(frozen=True)
class Case:
    """One vector.

    Args:
        flag: the attack, a key of the notes.
        comment: one sentence.
        build: changes a copy of the honest files, or gives files to put in place of honest ones.
        answer: what the specification demands.
        args: words of the command line after the group's own.

    """

    flag: str
    comment: str
    build: Build
    answer: Answer
    args: tuple[str, ...] = ()


@dataclass(frozen=True)
class Note:
    """What a flag means.

    Args:
        kind: of the bug that it finds.
        threat: the row of THREATS.
        lax: what a lax checker would let through.

    """

    kind: str
    threat: str
    lax: str


@dataclass(frozen=True)
class Group:
    """Vectors over one set of honest files.

    Args:
        name: of the group.
        base: folder of the honest files.
        cases: the vectors.
        notes: the flags that they use.
        command: arguments of the program.

    """

    name: str
    base: str
    cases: list[Case]
    notes: dict[str, Note]
    command: tuple[str, ...] = field(
        default=(
            CERTIFICATE, "--base", "base.onnx", "--patched", "patched.onnx", "--trust", "trust.json", "--policy",
            "policy.toml", "--forget", "forget.npz", "--retain", "retain.npz", "--at-time", "2030-01-01T00:00:00Z",
            "--json",
        )
    )  # fmt: skip


# --- the forger's hand ---


def edit(change: Callable[[dict[str, Any]], object]) -> Build:
    """Change the statement and sign it with the owner's key."""

    def build(chain: Chain) -> Chain:
        document = chain.statement()
        change(document)
        return chain.put(document)

    return build


def at(path: str, value: object) -> Build:
    """Another value at one place of the statement, signed; list places are numbers, ``None`` may stand there."""

    def change(document: dict[str, Any]) -> None:
        *parents, last = path.split("/")
        found: Any = document
        for name in parents:
            found = found[int(name)] if isinstance(found, list) else found[name]
        found[int(last) if isinstance(found, list) else last] = value

    return edit(change)


def payload(old: str | bytes, new: str | bytes) -> Build:
    """Other bytes of the payload, once, signed."""
    before = old.encode() if isinstance(old, str) else old
    after = new.encode() if isinstance(new, str) else new

    def build(chain: Chain) -> Chain:
        data = chain.files["statement.json"]
        if before not in data:
            raise ValueError(before)
        return chain.put_payload(data.replace(before, after, 1))

    return build


def files(**changed: bytes | Expression) -> Build:
    """Other files in place; ``__`` in a name stands for a dot and ``___`` for a slash."""
    return lambda _: {name.replace("___", "/").replace("__", "."): part for name, part in changed.items()}


def signed_expression(part: Expression, base: Path) -> Expression:
    """An envelope, signed by the owner, over a payload that is too long to be written down."""
    whole = sign(evaluate(part, base), key("owner"))
    return envelope_of(part, whole[whole.index(b'","payloadType"') :])


def then(*builds: Build) -> Build:
    """One change after the other, each seeing the files that the one before left."""

    def build(chain: Chain) -> Files:
        forms: Files = {}
        for one in builds:
            found = one(chain)
            for name, part in (found.files if isinstance(found, Chain) else found).items():
                if isinstance(part, bytes):
                    chain.files[name] = part
                else:
                    forms[name] = part
        return chain.files | forms

    return build


def demand(**changed: str) -> Build:
    """The auditor's policy with other values in some lines."""

    def build(chain: Chain) -> Files:
        lines = chain.files["policy.toml"].decode().split("\n")
        for name, value in changed.items():
            place = next(place for place, line in enumerate(lines) if line.startswith(f"{name} ="))
            lines[place] = f"{name} = {value}"
        return {"policy.toml": "\n".join(lines).encode()}

    return build
