"""A conformance case as a folder: what its author states, the files that differ, and a page that says how they differ.

Source: sigstore-conformance (one folder per case, ``_fail`` for what must not verify).
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from certs.vector_maker.cases import Case, Note
from certs.vector_maker.differences import differences
from certs.vector_maker.owner import AT_TIME, CERTIFICATE, Chain

__all__ = ["DATA", "Folder", "index", "laid", "name_of"]

DATA = ("--forget", "forget.npz", "--retain", "retain.npz")
_VERDICTS = {0: "VERIFIED", 1: "REJECTED", 2: None, 3: "UNDECIDED"}
_SUFFIXES = {0: "", 1: "_fail", 2: "_unusable_fail", 3: "_undecided_fail"}
_FORMS = ("absent", "symlink", "hardlink", "fifo", "folder", "sparse")
_STEPS = {
    1: "the auditor's own files", 2: "the envelope", 3: "signatures", 4: "the statement", 5: "time and challenge",
    6: "digests of the files", 7: "networks and patch", 8: "records and commitments", 9: "claims",
    10: "what the policy demands",
}  # fmt: skip


@dataclass(frozen=True)
class Folder:
    """One conformance case.

    Args:
        name: of the folder, without the suffix that its answer gives it.
        step: of FORMATS 3 and ``verify.py`` at which the answer is found, 1 to 11.
        base: folder of ``certs/vectors/base`` whose files are laid first.
        case: what is changed, and the answer; the same form as a vector's.
        data: the arguments that show the records.

    """

    name: str
    step: int
    base: str
    case: Case
    data: tuple[str, ...] = DATA


def name_of(folder: Folder) -> str:
    """The folder's name: ``_fail`` at its end means that it must not verify."""
    return folder.name + _SUFFIXES[folder.case.answer.exit_code]


def _changed(folder: Folder, honest: Chain) -> tuple[dict[str, bytes], dict[str, Any]]:
    """The files that differ from the honest ones, and what stands in place of files."""
    built = folder.case.build(honest.copy())
    found = built.files if isinstance(built, Chain) else built
    files, instead = dict[str, bytes](), dict[str, Any]()
    for name, part in found.items():
        if isinstance(part, bytes):
            if name != "statement.json" and honest.files.get(name) != part:
                files[name] = part
        elif set(part) <= set(_FORMS):
            instead[name] = part
        else:
            raise ValueError(f"{folder.name}: {name} is no plain file")
    for name in honest.files.keys() - found.keys() if isinstance(built, Chain) else ():
        instead[name] = {"absent": True}
    return files, instead


def laid(folder: Folder, honest: Chain, notes: dict[str, Note]) -> dict[str, bytes]:
    """Every file of a case's folder, by name."""
    files, instead = _changed(folder, honest)
    case, note = folder.case, notes[folder.case.flag]
    time = () if "--at-time" in case.args else ("--at-time", AT_TIME)
    payload = json.loads((honest.files | files)[CERTIFICATE])["payload"] if case.answer.exit_code == 0 else None
    expected = {
        "verdict": _VERDICTS[case.answer.exit_code],
        "exitCode": case.answer.exit_code,
        "code": case.answer.code,
        "path": case.answer.path,
        "payloadSha256": None if payload is None else sha256(base64.b64decode(payload)).hexdigest(),
        "base": folder.base,
        "arguments": [*folder.data, *time, *case.args],
        "instead": instead,
        "step": folder.step,
        "flag": case.flag,
        "threat": note.threat,
    }
    text = json.dumps(expected, indent=1, ensure_ascii=True) + "\n"
    return files | {"expected.json": text.encode(), "README.md": _page(folder, honest, files, instead, note).encode()}


def _sentence(case: Case) -> str:
    return case.comment[:1].upper() + case.comment[1:] + "."


def _page(folder: Folder, honest: Chain, files: dict[str, bytes], instead: dict[str, Any], note: Note) -> str:
    """One sentence, the answer, and where the files differ from the honest ones."""
    answer = folder.case.answer
    lines = [_sentence(folder.case), ""]
    if answer.exit_code:
        place = f" at `{answer.path}`" if answer.path else ""
        word = _VERDICTS[answer.exit_code] or "no verdict"
        lines += [
            f"Must give {word} (exit code {answer.exit_code}, `{answer.code}`{place}).",
            "",
            f"Guards against: {note.lax}",
        ]
    else:
        lines += ["Must be VERIFIED (exit code 0)."]
    lines += ["", f"What differs from `{folder.base}`:", ""]
    found = [f"- `{name}`: {_form(form)}" for name, form in instead.items()]
    for name, data in files.items():
        found += [f"- `{name}`: {line}" for line in differences(name, honest.files.get(name), data)]
    shown = [*(folder.data if folder.data != DATA else ()), *folder.case.args]
    found += [f"- arguments: `{' '.join(shown) or 'no records are shown'}`"] if shown or folder.data != DATA else []
    return "\n".join([*lines, *(found or ["- nothing"])]) + "\n"


def _form(form: dict[str, Any]) -> str:
    kind, value = next(iter(form.items()))
    words = {
        "absent": "not there", "fifo": "a FIFO", "folder": "a folder", "sparse": f"{value} zero bytes",
        "symlink": f"a symbolic link to `{value}`", "hardlink": f"a hard link to `{value}`",
    }  # fmt: skip
    return words[kind]


def _row(folder: Folder, note: Note) -> str:
    case, name, answer = folder.case, name_of(folder), folder.case.answer
    threat = "" if note.threat == "none" else note.threat.replace("|", "/")
    words = f"{_VERDICTS[answer.exit_code] or 'none'} | `{answer.code}` | {threat}"
    return f"| [{name}](cases/{name}) | {_sentence(case)} | {words} |"


def index(folders: list[Folder], notes: dict[str, Note], head: Path) -> str:
    """The README of all cases: the text in ``head``, then a table for each step."""
    honest = sum(1 for folder in folders if folder.case.answer.exit_code == 0)
    counts = f"{len(folders)} cases: {honest} must be VERIFIED, {len(folders) - honest} must not."
    lines = [head.read_text(encoding="utf-8").rstrip("\n"), "", "## The cases", "", counts]
    for title, chosen in (
        ("Must be VERIFIED", [folder for folder in folders if folder.case.answer.exit_code == 0]),
        *((f"Step {step}: {what}", _at(folders, step)) for step, what in _STEPS.items()),
    ):
        lines += ["", f"### {title}", "", "| case | | answer | code | threat |", "|---|---|---|---|---|"]
        lines += [_row(folder, notes[folder.case.flag]) for folder in sorted(chosen, key=name_of)]
    return "\n".join(lines) + "\n"


def _at(folders: list[Folder], step: int) -> list[Folder]:
    return [folder for folder in folders if folder.step == step and folder.case.answer.exit_code]
