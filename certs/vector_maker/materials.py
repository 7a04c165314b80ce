"""Vectors about files, records and commitments (THREATS section 2, paragraphs Files and Merkle; T1, T13, T18, T23, T26)."""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import hashlib
import hmac
import io
import json
import warnings
import zipfile
from collections.abc import Callable, Sequence

import numpy as np

from certs.vector_maker.cases import PAYLOAD, Build, Case, Files, Note, at, edit, files, refused, undecided, unusable
from certs.vector_maker.expressions import Expression
from certs.vector_maker.owner import CERTIFICATE, Chain, npz, policy, sets
from prune_verify.checker.encoding import canonical_json
from prune_verify.checker.records import canonical_record

__all__ = ["CASES", "NOTES"]

F = np.float32
_X, _Y, _OTHERS, _LABELS = sets()
_NAME = f"{PAYLOAD}/predicate/evidence/0/name"
_PATCH = "evidence/patch.json"
_TERABYTE = 2**40


def _at(name: str, part: Expression) -> Build:
    """Something else in a file's place."""
    return lambda _: {name: part}


def _evidence(name: str) -> Build:
    return at("predicate/evidence/0/name", name)


def _openings(change: Callable[[dict[str, str]], object]) -> Build:
    def build(chain: Chain) -> Files:
        value = json.loads(chain.files["openings.json"])
        change(value)
        return {"openings.json": canonical_json(value)}

    return build


# --- commitments that are not those of SPEC section 7 ---


def _records() -> list[bytes]:
    return [canonical_record(row, int(label)) for row, label in zip(_OTHERS, _LABELS, strict=True)]


def _salted(chain: Chain) -> list[bytes]:
    key = bytes.fromhex(json.loads(chain.files["openings.json"])["retain"])
    return [hmac.digest(key, place.to_bytes(8, "big"), "sha256") + record for place, record in enumerate(_records())]


def _tree(leaves: Sequence[bytes], node: bytes = b"\x01", *, repeat_last: bool = False) -> str:
    level = list(leaves)
    while len(level) > 1:
        odd = [level[-1]] if len(level) % 2 else []
        if odd and repeat_last:
            level, odd = level + odd, []
        level = [hashlib.sha256(node + a + b).digest() for a, b in zip(level[::2], level[1::2], strict=False)] + odd
    return level[0].hex()


def _root(of: Callable[[Chain], str]) -> Build:
    def build(chain: Chain) -> Chain:
        document = chain.statement()
        document["predicate"]["retainSet"]["root"] = of(chain)
        return chain.put(document)

    return build


def _hashed(parts: Sequence[bytes], prefix: bytes = b"\x00") -> list[bytes]:
    return [hashlib.sha256(prefix + part).digest() for part in parts]


def _inner_nodes_as_leaves(chain: Chain) -> Chain:
    """21 'records' whose leaves are the inner nodes of the true tree: the root is the same, the size is not."""
    document = chain.statement()
    document["predicate"]["retainSet"]["size"] = 21
    return chain.put(document)


# --- records ---


def _retain(x: np.ndarray, y: np.ndarray = _LABELS) -> Build:
    """Another retained set, committed to anew."""
    return lambda chain: chain.records("retain", x.astype(F), y)


def _shown(x: np.ndarray, y: np.ndarray = _LABELS) -> Build:
    """Another retained set is shown than was committed to."""
    return lambda _: {"retain.npz": npz(x, y)}


def _with(place: tuple[int, int], value: float) -> np.ndarray:
    x = _OTHERS.copy()
    x[place] = value
    return x


def _one_in_both() -> tuple[np.ndarray, np.ndarray]:
    x, y = _OTHERS.copy(), _LABELS.copy()
    x[7], y[7] = _X[2], _Y[2]
    return x, y


def _minus_zero_in_both() -> np.ndarray:
    x = _OTHERS.copy()
    x[7] = np.where(_X[2] == 0, F(-0.0), _X[2])
    return x


def _near(chain: Chain) -> Chain:
    """A retained record beside a forgotten one, and a statement that hides it."""
    x, y = _OTHERS.copy(), _LABELS.copy()
    x[7], y[7] = np.clip(_X[2] + F(2**-10), 0, 1), _Y[2]
    return chain.records("retain", x, y)


def _near_and_said(chain: Chain) -> Chain:
    _near(chain)
    document = chain.statement()
    for claim in document["predicate"]["claims"][2:4]:
        claim["conflicts"] = [7]
        claim["counts"] |= {"proved": claim["counts"]["total"] - 1, "conflict": 1}
    return chain.put(document)


def _relabelled(*, said: bool) -> Build:
    """Forget records under labels that the base never answered."""

    def build(chain: Chain) -> Chain:
        wrong = (_Y + 1) % 4
        chain.records("forget", _X, wrong)
        document = chain.statement()
        for claim in document["predicate"]["claims"][:2]:
            claim["counts"] |= {"proved": 0, "unknown": 4}
            claim["unknowns"] = [0, 1, 2, 3]
            if said:
                claim["counts"]["alreadyWrong"] = 4
                claim["alreadyWrong"] = [{"index": i, "baseAnswer": int(y)} for i, y in enumerate(_Y)]
        return chain.put(document)

    return build


def _archive(members: Sequence[tuple[str, bytes]]) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        warnings.simplefilter("ignore")  # one name twice is meant
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data)
    return buffer.getvalue()


def _npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, array, version=(1, 0))
    return buffer.getvalue()


_XN, _YN = _npy(_OTHERS), _npy(_LABELS)
_PICKLE = _YN.replace(b"'<i8'", b"'|O' ")
_IN_BOTH, _TWIN = _one_in_both(), _minus_zero_in_both()
_MANY = np.repeat(_OTHERS[:1], 41, axis=0)
_FIRST = f"retain.npz: row 0, value {5}"

CASES = [
    Case("T1", "the base is deployed in the patched network's place", lambda c: {"patched.onnx": c.files["base.onnx"]}, refused("SUBJECT", "subject/0/digest")),
    Case("T9", "the patched network is shown as the base", lambda c: {"base.onnx": c.files["patched.onnx"]}, refused("SUBJECT", "predicate/originalModel/sha256")),
    Case("FileNames", "evidence named ../patch.json", _evidence("../patch.json"), refused("MALFORMED", _NAME)),
    Case("FileNames", "evidence with an absolute name", _evidence("/etc/passwd"), refused("MALFORMED", _NAME)),
    Case("FileNames", "evidence named ..", _evidence(".."), refused("MALFORMED", _NAME)),
    Case("FileNames", "evidence in a folder", _evidence("a/patch.json"), refused("MALFORMED", _NAME)),
    Case("FileNames", "evidence with a backslash in its name", _evidence("..\\patch.json"), refused("MALFORMED", _NAME)),
    Case("FileNames", "evidence with a null character in its name", _evidence("patch.json\0.txt"), refused("MALFORMED", _NAME)),
    Case("FileNames", "evidence without a name", _evidence(""), refused("MALFORMED", _NAME)),
    Case("FileNames", "one name for two files of evidence", edit(lambda d: d["predicate"]["evidence"].append(d["predicate"]["evidence"][0])), refused("MALFORMED", f"{PAYLOAD}/predicate/evidence")),
    Case("OtherContent", "one byte of the evidence is another", lambda c: {_PATCH: c.files[_PATCH].replace(b'"gates"', b'"gate5"', 1)}, refused("SUBJECT", "predicate/evidence/patch.json")),
    Case("OtherContent", "the evidence is cut short", lambda c: {_PATCH: c.files[_PATCH][:-1]}, refused("SUBJECT", "predicate/evidence/patch.json")),
    Case("OtherContent", "the patch named in the statement is no evidence", at("predicate/patch/sha256", "00" * 32), refused("MALFORMED", "predicate/patch/sha256")),
    Case("Symlink", "a symbolic link to another file stands in the evidence's place", _at(_PATCH, {"symlink": "../trust.json"}), refused("SUBJECT", "predicate/evidence/patch.json")),
    Case("Symlink", "a symbolic link to itself", _at(_PATCH, {"symlink": "patch.json"}), undecided("DATA_MISSING")),
    Case("HardLink", "the base is a hard link to the patched network", _at("base.onnx", {"hardlink": "patched.onnx"}), refused("SUBJECT", "predicate/originalModel/sha256")),
    Case("Fifo", "a FIFO in the evidence's place, which never ends", _at(_PATCH, {"fifo": True}), undecided("DATA_MISSING")),
    Case("Fifo", "a FIFO in the patched network's place", _at("patched.onnx", {"fifo": True}), unusable("MALFORMED", "patched.onnx")),
    Case("Fifo", "a FIFO in the certificate's place", _at(CERTIFICATE, {"fifo": True}), unusable("MALFORMED", CERTIFICATE)),
    Case("Fifo", "a FIFO in the retained set's place", _at("retain.npz", {"fifo": True}), refused("MALFORMED", "retain.npz")),
    Case("Fifo", "a folder in the base's place", _at("base.onnx", {"folder": True}), unusable("MALFORMED", "base.onnx")),
    Case("Sparse", "a patched network of a terabyte", _at("patched.onnx", {"sparse": _TERABYTE}), undecided("LIMIT", "patched.onnx")),
    Case("Sparse", "evidence of a terabyte", _at(_PATCH, {"sparse": _TERABYTE}), undecided("LIMIT", _PATCH)),
    Case("Sparse", "a certificate of a terabyte", _at(CERTIFICATE, {"sparse": _TERABYTE}), refused("LIMIT", CERTIFICATE)),
    Case("Sparse", "evidence that is said to be a terabyte", at("predicate/evidence/0/bytes", _TERABYTE), undecided("LIMIT", "predicate/evidence/patch.json")),
    Case("Sparse", "a retained set of a terabyte", _at("retain.npz", {"sparse": _TERABYTE}), undecided("LIMIT", "retain.npz")),
    Case("EvidenceSize", "evidence that is said to be longer than it is", at("predicate/evidence/0/bytes", 100000), refused("SUBJECT", "predicate/evidence/patch.json/bytes")),
    Case("EvidenceSize", "evidence that is said to be shorter than it is", at("predicate/evidence/0/bytes", 1), refused("SUBJECT", "predicate/evidence/patch.json/bytes")),
    Case("Sparse", "openings of a terabyte", _at("openings.json", {"sparse": _TERABYTE}), undecided("LIMIT", "openings.json")),
    Case("Missing", "no patched network", _at("patched.onnx", {"absent": True}), unusable("MALFORMED", "patched.onnx")),
    Case("Missing", "no evidence", _at(_PATCH, {"absent": True}), undecided("DATA_MISSING")),
    Case("Missing", "no openings", _at("openings.json", {"absent": True}), undecided("DATA_MISSING")),
    Case("T19", "the opening of the retained set is kept back", _openings(lambda o: o.update(retain=None)), undecided("DATA_MISSING")),
    Case("Openings", "another key", _openings(lambda o: o.update(retain="00" * 32)), refused("SUBJECT", "predicate/retainSet/root")),
    Case("Openings", "the keys of the two sets exchanged", _openings(lambda o: o.update(retain=o["forget"], forget=o["retain"])), refused("SUBJECT", "predicate/forgetSet/root")),
    Case("Openings", "a key of 31 bytes", _openings(lambda o: o.update(retain="00" * 31)), refused("MALFORMED", "openings.json/retain")),
    Case("Openings", "a key in upper case", _openings(lambda o: o.update(retain=o["retain"].upper())), refused("MALFORMED", "openings.json/retain")),
    Case("Openings", "openings of version 2", _openings(lambda o: o.update(formatVersion=2)), refused("MALFORMED", "openings.json/formatVersion")),
    Case("Merkle", "leaves without the prefix 0x00", _root(lambda c: _tree(_hashed(_salted(c), b""))), refused("SUBJECT", "predicate/retainSet/root")),
    Case("Merkle", "nodes without the prefix 0x01", _root(lambda c: _tree(_hashed(_salted(c)), b"")), refused("SUBJECT", "predicate/retainSet/root")),
    Case("Merkle", "inner nodes pass for leaves: a smaller size under the same root", _inner_nodes_as_leaves, refused("SUBJECT", "predicate/retainSet/size")),
    Case("Merkle", "the last node is hashed with itself (CVE-2012-2459)", _root(lambda c: _tree(_hashed(_salted(c)), repeat_last=True)), refused("SUBJECT", "predicate/retainSet/root")),
    Case("Unsalted", "leaves without salt", _root(lambda _: _tree(_hashed(_records()))), refused("SUBJECT", "predicate/retainSet/root")),
    Case("HashLength", "a root of 31 bytes", at("predicate/retainSet/root", "00" * 31), refused("MALFORMED", f"{PAYLOAD}/predicate/retainSet/root")),
    Case("HashLength", "a root of 33 bytes", at("predicate/retainSet/root", "00" * 33), refused("MALFORMED", f"{PAYLOAD}/predicate/retainSet/root")),
    Case("SizeZero", "an empty retained set", at("predicate/retainSet/size", 0), refused("MALFORMED", f"{PAYLOAD}/predicate/retainSet/size")),
    Case("SizeZero", "a size of 2^53", at("predicate/retainSet/size", 2**53), refused("MALFORMED", PAYLOAD)),
    Case("SameLeaf", "one easy record forty-one times", _retain(_MANY, np.repeat(_LABELS[:1], 41)), refused("POLICY", "predicate/retainSet")),
    Case("OtherSet", "one value of a retained record is the next float", _shown(_with((0, 5), float(np.nextafter(_OTHERS[0, 5], F(1))))), refused("SUBJECT", "predicate/retainSet/root")),
    Case("OtherSet", "two retained records exchanged", _shown(_OTHERS[[1, 0, *range(2, 41)]], _LABELS[[1, 0, *range(2, 41)]]), refused("SUBJECT", "predicate/retainSet/root")),
    Case("OtherSet", "a retained record is left out", _shown(_OTHERS[:-1], _LABELS[:-1]), refused("SUBJECT", "predicate/retainSet/size")),
    Case("OtherSet", "another label of a retained record", _shown(_OTHERS, np.where(np.arange(41) == 0, (_LABELS + 1) % 4, _LABELS)), refused("SUBJECT", "predicate/retainSet/root")),
    Case("OtherSet", "-0 in the place of 0: the commitment is to bits", _shown(np.where(_OTHERS == 0, F(-0.0), _OTHERS)), refused("SUBJECT", "predicate/retainSet/root")),
    Case("T13", "a forgotten record in the retained set", _retain(*_IN_BOTH), refused("POLICY", "retain set")),
    Case("T13", "the same, with -0 for 0", _retain(_TWIN), refused("POLICY", "retain set")),
    Case("T18", "a retained record inside a gate, hidden", _near, refused("PROOF", "predicate/claims/C3/counts")),
    Case("T18", "a retained record inside a gate, said: the policy allows none", _near_and_said, refused("POLICY", "predicate/claims/C3/conflicts")),
    Case("T18", "one conflict allowed, but a smaller share of the set", lambda c: _near_and_said(c).files | {"policy.toml": policy(max_conflicts="1")}, refused("POLICY", "predicate/claims/C3/conflicts")),
    Case("T26", "forget records under labels that the base never answered, said", _relabelled(said=True), refused("POLICY", "predicate/claims/C1/alreadyWrong")),
    Case("T26", "the same, hidden", _relabelled(said=False), refused("PROOF", "predicate/claims/C1/counts")),
    Case("T23", "a retained record outside the domain", _retain(_with((0, 5), 1.5)), refused("MALFORMED", _FIRST)),
    Case("T23", "a retained record with a NaN", _retain(_with((0, 5), float("nan"))), refused("MALFORMED", _FIRST)),
    Case("RecordFile", "values in float64", files(retain__npz=npz(_OTHERS.astype(np.float64), _LABELS)), refused("MALFORMED", "retain.npz: x.npy")),
    Case("RecordFile", "an array of pickled objects", files(retain__npz=_archive([("x.npy", _XN), ("y.npy", _PICKLE)])), refused("MALFORMED", "retain.npz: y.npy")),
    Case("RecordFile", "the member x.npy twice", files(retain__npz=_archive([("x.npy", _XN), ("x.npy", _XN), ("y.npy", _YN)])), refused("MALFORMED", "retain.npz")),
    Case("RecordFile", "no labels", files(retain__npz=_archive([("x.npy", _XN)])), refused("MALFORMED", "retain.npz")),
    Case("RecordFile", "a label that the network does not have", _shown(_OTHERS, np.where(np.arange(41) == len(_Y) - 1, len(_Y), _LABELS)), refused("MALFORMED", "retain.npz: row 3")),
    Case("RecordFile", "records of another length", files(retain__npz=npz(_OTHERS[:, :-1], _LABELS)), refused("MALFORMED", "retain.npz")),
    Case("Log", "a checkpoint of a log, which version 1 does not have, signed by the owner", at("predicate/checkpoint", {"origin": "log", "root": "00" * 32, "size": 1}), refused("MALFORMED", f"{PAYLOAD}/predicate")),
    Case("Log", "an inclusion proof beside the signatures, unsigned", lambda c: {CERTIFICATE: c.files[CERTIFICATE][:-1] + b',"tlog":[]}'}, refused("MALFORMED", CERTIFICATE)),
]  # fmt: skip

NOTES = {
    "T1": Note("BINDING", "1 T1", "The patch is stripped after certification."),
    "FileNames": Note("FILES", "2 files: ../, absolute", "The certificate names a file outside its folder, and the auditor's own files are read or compared in its place."),
    "OtherContent": Note("FILES", "2 proofs: truncated evidence", "Other evidence is read than was signed for."),
    "Symlink": Note("FILES", "2 files: symlink", "A link leads to a file of the auditor's."),
    "HardLink": Note("FILES", "2 files: hard link", "Two names, one file: comparing names says nothing of contents."),
    "Fifo": Note("FILES", "2 files: FIFO", "The checker waits for ever, and whoever waits for its exit code."),
    "EvidenceSize": Note("BINDING", "1 T9", "The statement says another size than the file has."),
    "Sparse": Note("RESOURCES", "2 files: sparse huge file", "A file that costs nothing to make takes all memory."),
    "Missing": Note("MEANING", "1 T19", "What is not shown counts as shown: a missing file must never give VERIFIED."),
    "T19": Note("MEANING", "1 T19", "A set that the auditor may not see counts as checked."),
    "Openings": Note("BINDING", "2 Merkle: committed set differs from opened set", "An opening of another set, or of none, is taken for the committed one's."),
    "Merkle": Note("BINDING", "2 Merkle: leaf/node second preimage", "Two different sets have one root."),
    "Unsalted": Note("PRIVACY", "2 Merkle: unsalted leaves", "A leaf without salt can be guessed: whoever sees it learns whether a record is in the set."),
    "HashLength": Note("PARSING", "2 Merkle: wrong hash length", "A short hash is compared on its own length, or not at all."),
    "SizeZero": Note("PARSING", "2 Merkle: size 0", "All of no records hold."),
    "SameLeaf": Note("POLICY", "2 Merkle: same leaf twice", "One easy record many times passes for a large retained set."),
    "OtherSet": Note("BINDING", "2 Merkle: committed set differs from opened set", "The claims are checked on other records than those committed to."),
    "T26": Note("PROOF", "1 T26", "To forget what was never answered passes for forgetting."),
    "RecordFile": Note("PARSING", "2 files: swapped between hash and parse", "A record file is read loosely: code runs, or values change on the way."),
    "Log": Note("BINDING", "2 Merkle: split view, rollback, checkpoint unsigned or by the wrong key", "Something that looks like a log entry is shown and believed, although nothing checks it."),
}  # fmt: skip
