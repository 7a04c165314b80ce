"""``--help`` is the manual: every option of every verb says what it is, in which unit, and what holds without it."""

from __future__ import annotations

import argparse
import re
import shlex
from pathlib import Path

import pytest

from prune_verify.cli import command_line
from prune_verify.verb_examples import EXAMPLES, PROGRAM

# What a number counts or measures, in the words of the help texts.
UNITS = (
    r"seconds|days|hours|processes|claims|queries|requests|times|share|pixels|seed|coordinates|records|"
    r"representatives|label|keys|place|epochs|timings|networks|rows|steps|probes|confidence|bytes|fraction|rate"
)
# Decimals that are read as text, exact.
EXACT_UNITS = {
    "--radius": "input units",
    "--retained-radius": "input units",
    "--margin": "logit",
    "--delta": "logit",
    "--band": "logit",
    "--tolerance": "logit",
    "--max-deviation": "share",
}


def verbs(parser: argparse.ArgumentParser, name: str = ""):
    """Each parser that takes options of its own, with its verb and action."""
    below = [a for a in parser._actions if isinstance(a, argparse._SubParsersAction)]
    for action in below:
        for word, under in action.choices.items():
            yield from verbs(under, f"{name} {word}".lstrip())
    if not below:
        yield name, parser


VERBS = dict(verbs(command_line()))
OPTIONS = {
    f"{verb} {'/'.join(action.option_strings) or action.dest}": action
    for verb, parser in VERBS.items()
    for action in parser._actions
    if not isinstance(action, argparse._HelpAction)
}


def test_there_are_verbs_and_options() -> None:
    assert {"verify", "repair", "trust add", "receipt check", "completion"} <= set(VERBS)
    assert len(OPTIONS) > 200


@pytest.mark.parametrize("name", OPTIONS)
def test_an_option_says_what_it_is(name: str) -> None:
    assert OPTIONS[name].help, f"{name} has no help"


def is_number(action: argparse.Action) -> bool:
    return action.type in {int, float}


def test_a_number_names_its_unit() -> None:
    without = [n for n, a in OPTIONS.items() if is_number(a) and not re.search(UNITS, a.help or "")]
    assert not without


def test_a_decimal_names_its_unit() -> None:
    exact = [(n, unit) for n in OPTIONS for option, unit in EXACT_UNITS.items() if n.endswith(f" {option}")]
    assert len(exact) >= len(EXACT_UNITS)
    assert not [n for n, unit in exact if unit not in (OPTIONS[n].help or "")]


def test_what_holds_without_an_option_is_said() -> None:
    """Whatever has a default value names it; the help of numbers holds the very digits."""
    silent, wrong = [], []
    for name, action in OPTIONS.items():
        if not action.option_strings or action.nargs == 0 or action.default in (None, "", []):
            continue
        text = action.help or ""
        if "default" not in text:
            silent.append(name)
        elif f"{action.default:g}" not in text if is_number(action) else str(action.default) not in text:
            wrong.append(name)
    assert not silent
    assert not wrong


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_ends_its_help_with_examples(verb: str) -> None:
    shown = VERBS[verb].format_help()
    assert EXAMPLES[verb]
    for line in EXAMPLES[verb]:
        assert f"\n  {line}\n" in shown


@pytest.mark.parametrize(("verb", "line"), [(v, line) for v, lines in EXAMPLES.items() for line in lines])
def test_an_example_is_a_command_line_that_is_taken(verb: str, line: str) -> None:
    words = shlex.split(line.partition(" > ")[0])
    assert words[0] == "prune-verify"
    assert " ".join(words[1:]).startswith(verb)
    assert command_line().parse_args(words[1:]).verb == verb.split(maxsplit=1)[0]


def test_the_programs_help_says_who_uses_which_verb() -> None:
    shown = command_line().format_help()
    assert shown.endswith(PROGRAM + "\n")
    for line in PROGRAM.split("\n\n", maxsplit=1)[0].splitlines():
        for words in re.split(r", |; before training: | \(or |\), ", line.split(":", maxsplit=1)[1].strip()):
            assert words.split(maxsplit=1)[0] in {verb.split(maxsplit=1)[0] for verb in VERBS}, words


def test_there_are_no_examples_of_verbs_that_do_not_exist() -> None:
    assert set(EXAMPLES) == set(VERBS)


def test_what_the_help_calls_a_file_is_a_file_of_the_kind_that_others_take() -> None:
    """One name for one kind of file: a path is shown by what it holds, not by its option's name in capitals."""
    assert not [n for n, a in OPTIONS.items() if a.type is Path and a.option_strings and a.metavar is None]
