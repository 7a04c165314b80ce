"""Texts of the repository as pages of the site, with their links turned to where the site has what they lead to."""

from __future__ import annotations

import csv
import json
import posixpath
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A text of the repository, and its place in the site.
TEXTS = {
    "README.md": "readme.md",
    "ARCHITECTURE.md": "explanation/architecture.md",
    "DECISIONS.md": "explanation/decisions.md",
    "SECURITY.md": "explanation/security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "explanation/benchmarks.md",
    "certs/SPEC.md": "reference/specification.md",
    "certs/DIVERGENCES.md": "reference/divergences.md",
    "certs/conformance/README.md": "reference/conformance.md",
    "certs/vectors/README.md": "reference/vectors.md",
    "tests/fuzz/README.md": "reference/fuzzing.md",
}
_MOST_ROWS = 40  # of a table on a page
_LINK = re.compile(r"(!?\[[^\]]*\])\(([^()\s]+)\)")


def notebooks() -> dict[str, str]:
    """Where each notebook has its page, by its path in the repository."""
    found = sorted((ROOT / "notebooks").glob("*.ipynb"))
    return {f"notebooks/{path.name}": f"notebooks/{path.stem}.md" for path in found}


def pages() -> dict[str, str]:
    """The included texts and the notebooks as Markdown, by place in the site."""
    found = {}
    for path, place in TEXTS.items():
        found[place] = with_links((ROOT / path).read_text(encoding="utf-8"), Path(path), place)
    found[TEXTS["benchmarks/README.md"]] += _tables()
    for path, place in notebooks().items():
        found[place] = with_links(_cells(ROOT / path), Path(path), place)
    return found


def _tables() -> str:
    """The tables and pictures of benchmarks/, whole, for the end of its page."""
    drawn = sorted((ROOT / "benchmarks").glob("*.svg"))
    parts = ["\n## The tables and pictures\n"]
    parts += [f"![{path.stem.replace('_', ' ')}](../files/benchmarks/{path.name})\n" for path in drawn]
    for path in sorted((ROOT / "benchmarks").glob("*.csv")):
        with path.open(newline="", encoding="utf-8") as file:
            head, *rows = list(csv.reader(file))
        lines = [head, ["---"] * len(head), *rows[:_MOST_ROWS]]
        shown = "\n".join("| " + " | ".join(cell.replace("|", "&#124;") for cell in line) + " |" for line in lines)
        rest = f"\n{len(rows) - _MOST_ROWS} rows more in the file.\n" if len(rows) > _MOST_ROWS else ""
        parts.append(f"### {path.stem.replace('_', ' ')}\n\n{shown}\n{rest}")
    return "\n".join(parts)


def _cells(path: Path) -> str:
    """The cells of a notebook: prose as it stands, code in fences, what was printed below it."""
    parts = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![output of the cell above](data:image/png;base64,{''.join(data['image/png']).strip()})")
            else:
                text = "".join(output.get("text", data.get("text/plain", ())))
                parts.append(f"```text\n{text.rstrip()}\n```")
    title, _, rest = "\n\n".join(parts).partition("\n")
    note = f"A notebook: [{path.name}]({path.name}) to open in Jupyter. The tests run it from clean."
    return f"{title}\n\n{note}\n{rest}\n"


def _target(link: str, source: Path) -> tuple[Path, str] | None:
    """The file of the repository that a relative link leads to, with its anchor; None for any other link."""
    path, hash_, anchor = link.partition("#")
    if not path or ":" in path:
        return None
    found = Path(posixpath.normpath(posixpath.join(source.parent.as_posix(), path)))
    return found, hash_ + anchor


def linked_files(source: Path) -> set[Path]:
    """The files outside docs/, and no page of the site, that a text in the repository links to."""
    found = set()
    for match in _LINK.finditer(source.read_text(encoding="utf-8")):
        target = _target(match[2], source.relative_to(ROOT))
        if target is not None and _is_plain_file(target[0]):
            found.add(ROOT / target[0])
    return found


def files_of_included() -> set[Path]:
    """The files that the included texts link to, policies, pictures, and the notebooks themselves."""
    texts = {path for text in (*TEXTS, *notebooks()) for path in linked_files(ROOT / text)}
    policies = set((ROOT / "certs" / "policies").glob("*.toml"))  # the page of policy members has them
    pictures = set((ROOT / "benchmarks").glob("*.svg"))
    return texts | policies | pictures | {ROOT / path for path in notebooks()}


def _is_plain_file(path: Path) -> bool:
    text = path.as_posix()
    return (
        text not in TEXTS
        and path.parts[0] not in {"docs", ".."}
        and (ROOT / path).is_file()
        and (text not in notebooks())
    )


def place_of_file(path: Path) -> str:
    """Where the site has a file of the repository."""
    return f"files/{path.relative_to(ROOT).as_posix()}"


def with_links(text: str, source: Path, place: str) -> str:
    """A text whose relative links lead to where the site has their targets.

    Args:
        text: Markdown.
        source: its path in the repository, which its links are relative to.
        place: its place in the site.

    """
    pages_of = {**TEXTS, **notebooks()}

    def turned(match: re.Match[str]) -> str:
        target = _target(match[2], source)
        if target is None:
            return match[0]
        path, anchor = target
        if place.startswith("notebooks/") and match[2] == source.name:  # the notebook's own file
            found = place_of_file(ROOT / path)
        elif path.as_posix() in pages_of:
            found = pages_of[path.as_posix()]
        elif path.parts[0] == "docs":
            found = path.relative_to("docs").as_posix()
        elif _is_plain_file(path):
            found = place_of_file(ROOT / path)
        elif (ROOT / path).is_dir():
            return match[1].strip("!")[1:-1]  # the site has no listings of folders
        else:
            return match[0]  # the strict build names it
        relative = posixpath.relpath(found, posixpath.dirname(place) or ".")
        return f"{match[1]}({relative}{anchor})"

    return _LINK.sub(turned, text)
