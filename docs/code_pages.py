"""Reference pages read off the code: codes of refusals, members of the policy, modules with their docstrings."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from prune_verify.audit.policy_templates import TEMPLATES, policy_text

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "prune_verify"
API = "reference/api"
# Codes that no error class carries: what they mean. A code of a check without a meaning stops the build.
MEANINGS = {
    "E_ARITHMETIC": "The policy asks for real arithmetic only; a network can tell the two apart (T27), so UNDECIDED.",
    "E_DATA_MISSING": "Records, openings or regions that a check needs were not given. UNDECIDED.",
    "E_DEVIATION": "`audit`: the endpoint gave an answer that the certified network cannot give.",
    "E_FEW_QUERIES": "`audit`: no deviation, but too few questions to bound their share as `--max-deviation` demands.",
    "E_INSECURE": "An `--insecure-` option was used; the verdict is UNDECIDED at most.",
    "E_INTERRUPTED": "Ctrl-C; nothing half-written was left.",
    "E_IO": "A file cannot be read or written; the text has its name and the system's reason.",
    "E_MODULE": "`prune_verify.api`: a PyTorch module or an array that cannot be read as a network; the text says why.",
    "E_NOT_INSTALLED": "A package is missing; `prune-verify doctor` prints the line that installs it.",
    "E_POWER": "`audit`: the base would have given the same answers, so that they show nothing.",
    "E_RECORDS": "`prune_verify.api`: records that cannot be read; the text says which and what was expected.",
    "E_UNKNOWN": "At least one claim is neither proved nor refuted. UNDECIDED.",
    "E_USAGE": "Options that need each other, or exclude each other.",
}
ROOMS = {
    "checker": "Trusted: everything that decides a certificate. Standard library, numpy, onnx, cryptography.",
    "repair": "Finds patches. Untrusted: what it says is checked.",
    "certify": "Proves claims and issues statements. Untrusted: every proof is checked again.",
    "bounds": "The one wrapper of auto_LiRPA, and bounds of its own.",
    "measure": "What is measured, never proved.",
    "audit": "Keys, trust stores, verdict files, reports, audits of endpoints.",
}


def pages() -> dict[str, str]:
    """The generated reference pages, by place in the site."""
    found = {"reference/error-codes.md": _codes_page(), "reference/policy.md": _policy_page()}
    found[f"{API}/index.md"] = _api_index()
    return {**found, **{f"{API}/{name}.md": text for name, text in _api_pages().items()}}


# --- codes ---


def _sources() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if "__pycache__" not in path.parts)


def coded_errors() -> dict[str, tuple[str, str]]:
    """For each code that an error class carries: the class, and what its docstring says."""
    found = {}
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.ClassDef):
                continue
            for part in node.body:
                target = part.targets[0] if isinstance(part, ast.Assign) else getattr(part, "target", None)
                value = getattr(part, "value", None)
                if isinstance(target, ast.Name) and target.id == "code" and isinstance(value, ast.Constant):
                    text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                    found[str(value.value)] = (node.name, text)
    return found


def used_codes() -> dict[str, set[str]]:
    """Every code that stands in the source as a string, with the rooms where it does."""
    found: dict[str, set[str]] = {}
    for path in _sources():
        for code in re.findall(r'"(E_[A-Z_]+)"', path.read_text(encoding="utf-8")):
            found.setdefault(code, set()).add(path.relative_to(PACKAGE).parts[0].removesuffix(".py"))
    return found


def _meaning(code: str, errors: dict[str, tuple[str, str]], rooms: set[str]) -> str:
    if code in errors:
        return errors[code][1]
    return MEANINGS.get(code) or f"A refusal of {', '.join(sorted(rooms))}; the text beside it says why."


def _codes_page() -> str:
    errors = coded_errors()
    used = used_codes()
    unexplained = sorted(code for code in set(used) - set(errors) - set(MEANINGS) if used[code] & {"checker", "audit"})
    if unexplained:
        message = f"codes without a meaning in docs/code_pages.py: {', '.join(unexplained)}"
        raise ValueError(message)
    rows = [f"| `{code}` | {_meaning(code, errors, used[code])} |" for code in sorted(used) if code != "E_CHECK"]
    table = "\n".join(["| code | what it means |", "|---|---|", *rows])
    named = "\n".join(["| code | exit | what it means |", "|---|---|---|", *_named_refusals()])
    return (
        "# Error codes\n\nRead off the code when this site was built. A verdict's first line has one of them "
        "(`OK` for VERIFIED), each line of the roster that is no PASS has its own, and `--json` has them as `code`. "
        "The text beside a code says where (the file, the place in it), which demand was broken, what was expected "
        f"and what was found.\n\n## Checks\n\n{table}\n\n## Refusals of the owner's tools\n\n"
        "`repair`, `certify` and others name the kind of refusal instead, in `--json` as `code`.\n\n"
        f"{named}\n"
    )


def _named_refusals() -> list[str]:
    """A row for each refusal without a code: its class, the exit code it stands for, what it means."""
    rows = []
    for path in [*PACKAGE.glob("*/errors.py"), PACKAGE / "request_sets.py"]:
        if path.parent.name == "checker":
            continue
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef) and node.name.endswith("Error"):
                text = " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())
                code = next((ast.literal_eval(part.value) for part in node.body if isinstance(part, ast.AnnAssign)
                             and part.value and getattr(part.target, "id", "") == "exit_code"), 2)  # fmt: skip
                rows.append(f"| `{node.name}` | {code} | {text} |")
    return sorted(rows)


# --- policy ---


def _policy_page() -> str:
    """Every member of the policy with its meaning, as the default text has it, and its value in each template."""
    values = {name: tomllib.loads(policy_text(name)) for name in TEMPLATES}
    parts = [
        "# Policy members\n\nWhat the auditor demands, in `policy.toml`; written from the texts that "
        "`prune-verify trust init --policy-template NAME` writes. Every member is required and unknown ones are "
        "refused, so that a misspelt demand is never no demand. The files: "
        + ", ".join(f"[{name}.toml](../files/certs/policies/{name}.toml)" for name in TEMPLATES)
        + "."
    ]
    table = ""
    for line in policy_text().splitlines():
        if heading := re.fullmatch(r"\[(\w+)\].*", line):
            table = heading[1]
            head = " | ".join(TEMPLATES)
            parts.append(f"## {table}\n\n| member | meaning | {head} |\n|---|---|{'---|' * len(TEMPLATES)}")
        elif member := re.fullmatch(r"(\w+) = (?:\[.*?\]|\S+)\s*(?:# (.*))?", line):
            shown = [_value(values[name][table][member[1]]) for name in TEMPLATES]
            meaning = member[2] or _UNSAID[member[1]]
            parts[-1] += f"\n| `{member[1]}` | {meaning} | {' | '.join(shown)} |"
    return "\n\n".join(parts) + "\n"


# Members whose name says it all in the policy's own text.
_UNSAID = {
    "lower": "least value of each input: one number for all, or a list",
    "upper": "greatest value of each input",
    "min_retained_radius": "least radius of the balls around retained records",
    "required_for_class": "claims that a request for a class must have",
    "min_forget_records": "fewer forgotten records are refused",
    "min_retain_records": "fewer retained records are refused",
    "max_age_days": "older certificates are refused",
    "max_model_bytes": "of each network's file",
    "max_evidence_bytes": "of all evidence",
    "max_records": "of each set",
}


def _value(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(f"`{item}`" for item in value) or "none"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


# --- modules ---


def _public(path: Path) -> list[str]:
    """The names in a module's ``__all__``."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return [str(name) for name in ast.literal_eval(node.value)]
    return []


def _modules(room: str) -> list[tuple[str, list[str]]]:
    """Dotted names of a room's public modules, with what they offer."""
    found = []
    for path in sorted((PACKAGE / room).glob("*.py")):
        names = _public(path)
        if names and not path.stem.startswith("_"):
            found.append((f"prune_verify.{room}.{path.stem}", names))
    return found


def api_modules() -> list[str]:
    """The modules of the programming interface, if this version has one: ``api`` and what stands under it."""
    if (PACKAGE / "api.py").is_file():
        return ["prune_verify.api"]
    return ["prune_verify.api"] if (PACKAGE / "api" / "__init__.py").is_file() else []


def _api_pages() -> dict[str, str]:
    found = {}
    for module in api_modules():
        found["programming"] = f"# Programming interface\n\n{_directive(module, 2)}\n"
    for room, text in ROOMS.items():
        parts = [f"# prune_verify.{room}\n\n{text}"]
        parts += [_directive(module, 2) for module, _ in _modules(room)]
        found[room] = "\n\n".join(parts) + "\n"
    return found


def _directive(module: str, level: int) -> str:
    return f"::: {module}\n    options:\n      heading_level: {level}\n"


def _api_index() -> str:
    rows = [f"| [`prune_verify.{room}`]({room}.md) | {text} |" for room, text in ROOMS.items()]
    first = (
        ["| [`prune_verify.api`](programming.md) | The programming interface: start here. |"] if api_modules() else []
    )
    listed = "\n".join(["| | |", "|---|---|", *first, *rows])
    return (
        "# Modules\n\nFrom the docstrings. First lines say what is established; then shapes, units, ranges, errors and "
        "the source (a paragraph of the [specification](../specification.md), a paper, an RFC). Imports go one way: "
        f"cli, then audit and measure, then certify and repair, then bounds, then checker.\n\n{listed}\n"
    )
