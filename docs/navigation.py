"""The order of the site: tutorials, how-to guides, reference, explanation; generated pages in their places."""

from __future__ import annotations

import code_pages
import command_pages
import included

Nav = list[object]
# Pages in docs/, in the order in which they are read.
TUTORIALS = ("owner", "auditor", "regulator", "researcher")
GUIDES = (
    "install", "practice-files", "forget-a-class", "families", "threat-model", "tables", "streams", "before-training",
    "keys-on-tokens", "foreign-networks", "pytorch-modules", "conflicts", "audit-an-endpoint", "measure",
    "measure-membership", "prove-vnnlib",
)  # fmt: skip
EXPLANATIONS = ("what-is-proved", "threat-model", "trust-base", "exact-gates", "arithmetic", "measured-and-proved")


def _listed(folder: str, *first: str) -> Nav:
    """The pages of a folder of docs/: those named first, then the others by name."""
    names = sorted(path.stem for path in (included.ROOT / "docs" / folder).glob("*.md") if path.stem != "index")
    ordered = [*(name for name in first if name in names), *(name for name in names if name not in first)]
    return [f"{folder}/{name}.md" for name in ordered]


def navigation() -> Nav:
    """What MkDocs takes as ``nav``."""
    commands: Nav = [f"{command_pages.FOLDER}/index.md"]
    commands += [{name: f"{command_pages.FOLDER}/{name}.md"} for name in command_pages.verbs()]
    api: Nav = [f"{code_pages.API}/index.md"]
    if code_pages.api_modules():
        api.append({"api": f"{code_pages.API}/programming.md"})
    api += [{room: f"{code_pages.API}/{room}.md"} for room in code_pages.ROOMS]
    notebooks: Nav = list(included.notebooks().values())
    return [
        {
            "Home": [
                "index.md",
                {"README": "readme.md"},
                {"Changelog": "changelog.md"},
                {"Contributing": "contributing.md"},
            ]
        },
        {"Tutorials": [*_listed("tutorials", *TUTORIALS), {"Notebooks": notebooks}]},
        {"How-to guides": _listed("how-to", *GUIDES)},
        {
            "Reference": [
                "reference/files.md",
                "reference/exit-codes.md",
                "reference/glossary.md",
                {"Error codes": "reference/error-codes.md"},
                {"Policy members": "reference/policy.md"},
                {"Commands": commands},
                {"Modules": api},
                {"Specification": "reference/specification.md"},
                {"Differences from standards": "reference/divergences.md"},
                {"Conformance cases": "reference/conformance.md"},
                {"Vectors": "reference/vectors.md"},
                {"Fuzzing": "reference/fuzzing.md"},
            ]
        },
        {
            "Explanation": [
                *_listed(
                    "explanation", "what-is-proved", "trust-base", "exact-gates", "arithmetic", "measured-and-proved"
                ),
                {"Security": "explanation/security.md"},
                {"Architecture": "explanation/architecture.md"},
                {"Decisions": "explanation/decisions.md"},
                {"Measured tables": "explanation/benchmarks.md"},
            ]
        },
    ]
