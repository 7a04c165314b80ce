"""What the calls give back: frozen, with paths, counts and notes; in a notebook, as a table.

Everything that is shown is escaped: names come from files that others wrote.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, cast

from prune_verify.checker.verdict import VERIFIED, ClaimVerdict

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Certificate", "Files", "Key", "Patched", "Statement", "TrustStore", "Verdict", "claims_of", "html_table"]


def html_table(title: str, rows: Sequence[tuple[str, object]], text: str = "") -> str:
    """An HTML table of names and values, and text below it; escaped.

    Args:
        title: its caption.
        rows: names and values, shown as text.
        text: shown below, as it is spaced.

    """
    cells = "".join(f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>" for name, value in rows)
    more = f"<pre>{escape(text)}</pre>" if text else ""
    return f"<table><caption>{escape(title)}</caption>{cells}</table>{more}"


def claims_of(found: object) -> tuple[ClaimVerdict, ...]:
    """The claims of a verdict.

    Args:
        found: as ``--json`` prints them.

    """
    listed = cast("list[dict[str, object]]", found)
    return tuple(
        ClaimVerdict(
            id=str(claim["id"]),
            kind=str(claim["kind"]),
            arithmetic=str(claim["arithmetic"]),
            region=str(claim["region"]),
            total=cast("int", claim["total"]),
            proved=cast("int", claim["proved"]),
            refuted=cast("int", claim["refuted"]),
            unknown=cast("int", claim["unknown"]),
            conflict=cast("int", claim["conflict"]),
            already_wrong=cast("int", claim["alreadyWrong"]),
        )
        for claim in listed
    )


def _counted(claims: Sequence[ClaimVerdict]) -> list[tuple[str, object]]:
    """One line for each claim."""
    return [(f"{c.id} {c.kind}", f"{c.proved} of {c.total} proved ({c.arithmetic})") for c in claims]


@dataclass(frozen=True)
class Files:
    """The files that a chain of calls is about; each call hands them to the next.

    Args:
        base: the network before.
        patched: the network after.
        forget: the records to be forgotten, as the verbs take them: a path or ``IMAGES,LABELS``; or None.
        retain: the records that stay; or None.
        label_column: of csv files.
        encoding: of csv files.

    """

    base: Path
    patched: Path
    forget: str | None = None
    retain: str | None = None
    label_column: str | None = None
    encoding: str | None = None


@dataclass(frozen=True)
class Patched:
    """A patched network, found by :func:`~prune_verify.api.repair` and not proved yet.

    Args:
        files: base, patched network and records.
        patch: ``patch.json``, the parameters of the patch. It holds numbers of the forgotten records.
        request: ``request.json``, what was asked.
        family: of the patch.
        gates: how many.
        disclosed_bits: of records that the patch holds.
        conflicts: retained records inside a support of the patch, whose answers may change.
        notes: what was rounded, assumed or not met.
        text: what the command prints.
        data: what the command prints under ``--json``.

    """

    files: Files
    patch: Path
    request: Path
    family: str
    gates: int
    disclosed_bits: int
    conflicts: tuple[int, ...]
    notes: tuple[str, ...]
    text: str = field(repr=False)
    data: Mapping[str, object] = field(repr=False)

    @property
    def path(self) -> Path:
        """``patched.onnx``, the network to deploy."""
        return self.files.patched

    def onnx(self) -> bytes:
        """The patched network's ONNX file."""
        return self.files.patched.read_bytes()

    def module(self) -> nn.Module:
        """The patched network as a PyTorch module in evaluation mode: float32 [rows, *input shape] to logits.

        Its answers are those of the ONNX file up to what float32 rounds. What is certified is the file.
        """
        from prune_verify.api.errors import refusals

        with refusals():
            from prune_verify.api.modules import module_of

            return module_of(self.onnx(), str(self.path))

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        rows: list[tuple[str, object]] = [
            ("network", self.path),
            ("family", self.family),
            ("gates", self.gates),
            ("bits of records in the patch", self.disclosed_bits),
            ("retained records in conflict", len(self.conflicts)),
        ]
        return html_table("patched network (not proved yet)", rows, "\n".join(self.notes))


@dataclass(frozen=True)
class Statement:
    """What was proved of a patched network, accepted by the checker, not signed yet.

    Args:
        path: ``statement.json``.
        files: the networks and the records.
        claims: with their counts; each proved count is the checker's own.
        refuted: (claim, record) of counterexamples that onnxruntime confirms.
        exit_code: of the command: 0 all proved or listed as conflicts, 1 some refuted, 3 some unknown.
        notes: of a request that was made here.
        text: what the command prints.
        data: what the command prints under ``--json``.

    """

    path: Path
    files: Files
    claims: tuple[ClaimVerdict, ...]
    refuted: tuple[tuple[str, int], ...]
    exit_code: int
    notes: tuple[str, ...]
    text: str = field(repr=False)
    data: Mapping[str, object] = field(repr=False)

    @property
    def complete(self) -> bool:
        """Whether nothing that was asked was refuted or left unknown."""
        return self.exit_code == 0

    @property
    def evidence(self) -> Path:
        """The folder of what the checker needs beside the certificate."""
        return self.path.parent / "evidence"

    @property
    def openings(self) -> Path:
        """What opens the commitments of the record sets; confidential."""
        return self.path.parent / "openings.json"

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return html_table("statement (not signed yet)", [("file", self.path), *_counted(self.claims)])


@dataclass(frozen=True)
class Certificate:
    """A signed statement.

    Args:
        path: the file that auditors check, with ``evidence/`` and ``openings.json`` beside it.
        payload_sha256: identity of the certificate.
        keyid: of the key that signed.
        files: the networks and the records; nothing that an auditor believes.

    """

    path: Path
    payload_sha256: str
    keyid: str
    files: Files | None = None

    def _repr_html_(self) -> str:
        rows = [("file", self.path), ("payload sha256", self.payload_sha256), ("signed by", self.keyid)]
        return html_table("certificate", rows)


@dataclass(frozen=True)
class Verdict:
    """The checker's answer; true only where it is VERIFIED.

    Args:
        word: ``VERIFIED``, ``REJECTED`` or ``UNDECIDED``.
        code: ``OK``, or the code of the first reason.
        exit_code: 0, 1 or 3.
        claims: with the counts that the checker found itself.
        signers: (keyid, name) of accepted signatures.
        assumptions: what the verdict rests on beside the trust base.
        warnings: sentences that a reader should see.
        text: the stable line, and every step.
        data: what the command prints under ``--json``; of an audit, with ``audit``.

    """

    word: str
    code: str
    exit_code: int
    claims: tuple[ClaimVerdict, ...]
    signers: tuple[tuple[str, str], ...]
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    text: str = field(repr=False)
    data: Mapping[str, object] = field(repr=False)

    @classmethod
    def of(cls, text: str, found: object) -> Verdict:
        """A verdict as a command hands it back.

        Args:
            text: for people.
            found: the object for ``--json``.

        """
        data = cast("dict[str, object]", found)
        signers = cast("list[dict[str, str]]", data["signers"])
        return cls(
            word=str(data["verdict"]),
            code=str(data["code"]),
            exit_code=cast("int", data["exitCode"]),
            claims=claims_of(data["claims"]),
            signers=tuple((one["keyid"], one["name"]) for one in signers),
            assumptions=tuple(cast("list[str]", data["assumptions"])),
            warnings=tuple(cast("list[str]", data["warnings"])),
            text=text,
            data=data,
        )

    @property
    def verified(self) -> bool:
        """Whether every step passed."""
        return self.word == VERIFIED

    def __bool__(self) -> bool:
        return self.verified

    def __str__(self) -> str:
        return self.text

    def _repr_html_(self) -> str:
        return html_table(f"{self.word} ({self.code})", _counted(self.claims), self.text)


@dataclass(frozen=True)
class Key:
    """A key pair that was written.

    Args:
        private: the half to sign with; mode 0600.
        public: the half for the auditor's trust store.
        keyid: digest of the public half.

    """

    private: Path
    public: Path
    keyid: str


@dataclass(frozen=True)
class TrustStore:
    """An auditor's trust store and policy that were written.

    Args:
        path: the store.
        policy: what is demanded; to be read, and set as you need it.
        version: of the store; the policy refuses older ones.

    """

    path: Path
    policy: Path
    version: int
