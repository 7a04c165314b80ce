"""The reference of commands, asked of the argparse parser: every verb, action and option, in its own words."""

from __future__ import annotations

import argparse
import html
import re
from collections.abc import Iterator

from prune_verify.cli import command_line

FOLDER = "reference/commands"
_LONGEST = 20  # characters of choices that stand beside the name of their option


def verbs() -> dict[str, argparse.ArgumentParser]:
    """The parser of each verb, in the order of the help."""
    return _children(command_line())


def _children(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def pages() -> dict[str, str]:
    """A page for each verb and one that lists them, by place in the site."""
    found = {f"{FOLDER}/{name}.md": _page(name, parser) for name, parser in verbs().items()}
    rows = [f"| [`{name}`]({name}.md) | {_cell(parser.description or '')} |" for name, parser in verbs().items()]
    listed = "\n".join(["| verb | what it does |", "|---|---|", *rows])
    found[f"{FOLDER}/index.md"] = (
        "# Commands\n\nWritten from the program's own help when this site was built. Every verb has `--help`, "
        "`--json` (one object on standard output, the rest on standard error) and `--quiet`; "
        "[exit codes](../exit-codes.md) are the same for all. `python -P -m prune_verify.checker` has `verify`, "
        f"`check-proof` and `check-receipt` alone, with the base install.\n\n{listed}\n"
    )
    return found


def _page(name: str, parser: argparse.ArgumentParser) -> str:
    parts = [f"# prune-verify {name}", _sentence(parser.description or "")]
    children = _children(parser)
    if children:
        parts += [part for word, child in children.items() for part in _section(f"{name} {word}", child)]
    else:
        parts += _body(parser)
    if parser.epilog:  # the examples that the help ends with
        lines = [line.strip() for line in parser.epilog.splitlines()]
        parts.append("**Examples**\n\n```text\n" + "\n".join(line for line in lines if line != "examples:") + "\n```")
    return "\n\n".join(parts) + "\n"


def _section(title: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    yield f"## {title}"
    yield _sentence(parser.description or "")
    yield from _body(parser)


def _body(parser: argparse.ArgumentParser) -> Iterator[str]:
    first, *rest = parser.format_usage().removeprefix("usage: ").rstrip().splitlines()
    usage = "\n".join([first, *(line.removeprefix(" " * len("usage: ")) for line in rest)])
    yield f"```text\n{usage}\n```"
    for group in parser._action_groups:
        actions = [action for action in group._group_actions if action.dest != "help"]
        if not actions:
            continue
        title = {"positional arguments": "Arguments", "options": "Options"}.get(group.title or "", group.title or "")
        yield f"**{title[:1].upper()}{title[1:]}**"
        yield "\n".join(["| | meaning |", "|---|---|", *(_row(action) for action in actions)])


def _row(action: argparse.Action) -> str:
    value = action.metavar or ("{" + ",".join(map(str, action.choices or ())) + "}" if _few(action) else "NAME")
    value = " ".join(value) if isinstance(value, tuple) else value
    takes = "" if action.nargs == 0 else f" {value}"
    names = [f"`{option}{takes}`" for option in action.option_strings] or [f"`{value}`"]
    told = [argparse.HelpFormatter("prune-verify")._expand_help(action)] if action.help else []
    if action.required and action.option_strings:
        told.append("required")
    if action.choices and not _few(action):
        told.append("one of " + ", ".join(map(str, action.choices)))
    if _says_its_default(action, "".join(told)):
        told.append(f"default {action.default}")
    return f"| {', '.join(names)} | {_cell('; '.join(told))} |"


def _few(action: argparse.Action) -> bool:
    """Whether the choices of an option are short enough to stand beside its name."""
    return action.choices is not None and action.metavar is None and len(",".join(map(str, action.choices))) < _LONGEST


def _says_its_default(action: argparse.Action, text: str) -> bool:
    """Whether a default is worth a word: there is one, it is no flag or empty list, and the help does not name it."""
    named = action.default is None or action.default in ("", [], False, True, argparse.SUPPRESS)
    return not named and "default" not in text and bool(action.option_strings)


def _cell(text: str) -> str:
    """Text inside a table: no bar ends the cell, nothing in it is markup, options stand as code."""
    escaped = (
        html.escape(text, quote=False)
        .replace("|", "&#124;")
        .replace("*", r"\*")
        .replace("_", r"\_")
        .replace("[", r"\[")
    )
    return re.sub(r"(?<![\w`-])(--[a-z][a-z-]*)", r"`\1`", escaped)


def _sentence(text: str) -> str:
    text = _cell(text)
    return text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")
