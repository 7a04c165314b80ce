"""Make the conformance cases of ``certs/conformance``: ``make vectors``.

The honest files are those of ``certs/vectors/base``, which ``certs/make_vectors.py`` makes first. Each case's answer is
stated by its author beside the attack; no checker is asked while they are made. Run twice it gives the same bytes.

A new case is one entry: a line in ``certs/vector_maker/chosen.py`` where a vector says it already, else a row in
``accepted.py`` or ``boundaries.py``.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from certs.make_vectors import GROUPS, VECTORS
from certs.vector_maker.accepted import accepted
from certs.vector_maker.boundaries import boundaries
from certs.vector_maker.cases import Note
from certs.vector_maker.chosen import chosen
from certs.vector_maker.folders import Folder, index, laid, name_of
from certs.vector_maker.owner import Chain

__all__ = ["CONFORMANCE", "NOTES", "folders", "honest", "main"]

CONFORMANCE = Path(__file__).resolve().parent / "conformance"
HEAD = Path(__file__).resolve().parent / "vector_maker" / "conformance_readme.md"
NOTES: dict[str, Note] = {flag: note for group in GROUPS for flag, note in group.notes.items()}


def folders() -> list[Folder]:
    """Every case.

    Raises:
        ValueError: two cases have one name.

    """
    found = [*chosen(), *accepted(), *boundaries()]
    names = [folder.name for folder in found]
    if len(set(names)) != len(names):
        raise ValueError(sorted(name for name in names if names.count(name) > 1))
    return found


def honest(base: str) -> Chain:
    """The honest files of a folder of ``certs/vectors/base``."""
    root = VECTORS / "base" / base
    return Chain({str(path.relative_to(root)): path.read_bytes() for path in sorted(root.rglob("*")) if path.is_file()})


def main() -> None:
    """Write every case and the index anew."""
    cases = CONFORMANCE / "cases"
    shutil.rmtree(cases, ignore_errors=True)
    found = folders()
    chains = {base: honest(base) for base in {folder.base for folder in found}}
    for folder in found:
        for name, data in laid(folder, chains[folder.base], NOTES).items():
            target = cases / name_of(folder) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
    (CONFORMANCE / "README.md").write_text(index(found, NOTES, HEAD), encoding="utf-8")


if __name__ == "__main__":
    main()
