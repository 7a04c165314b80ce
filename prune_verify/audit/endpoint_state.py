"""What an audit has learnt so far, kept in one file that is replaced whole: a killed audit goes on from it.

The file holds the secret seed of an audit that is not over, so that nobody else may read it.

Source: FORMATS section 3; certs/SPEC.md section 10.5.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from prune_verify.checker.encoding import Json, Members, canonical_json, parse_json, read_file
from prune_verify.checker.errors import MalformedInputError
from prune_verify.files import replace_file

__all__ = ["RIGHT", "UNDRAWN", "Outcome", "State"]

RIGHT = "right"
UNDRAWN = "undrawn"
Outcome = str | tuple[str, str] | None  # RIGHT, UNDRAWN, (expected, got) of a deviation, or None: not asked yet
_MOST_BYTES = 2**30
_LONGEST = 400


@dataclass
class State:
    """Outcomes by the number of the query.

    Args:
        audit: digest of everything that the challenges and their answers depend on.
        seed: in hex.
        outcomes: one per query.

    """

    audit: str
    seed: str
    outcomes: list[Outcome] = field(default_factory=list)

    def write(self, path: Path | None) -> None:
        """Replace the file whole, for the owner's eyes only; without a path nothing is kept.

        Raises:
            OSError: it cannot be written.

        """
        if path is not None:
            listed: list[Json] = [list(o) if isinstance(o, tuple) else o for o in self.outcomes]
            document: Json = {"formatVersion": 1, "audit": self.audit, "seed": self.seed, "outcomes": listed}
            replace_file(path, canonical_json(document), mode=0o600)

    def deviates(self, index: int, expected: str, got: str) -> None:
        """Keep a deviation of the query ``index``: what was ``expected``, and what the endpoint gave (``got``)."""
        self.outcomes[index] = expected[:_LONGEST], got[:_LONGEST]


def read_state(path: Path | None, audit: str, seed: str | None, queries: int, fresh: str) -> State:
    """The state that an audit goes on from, or a new one.

    Args:
        path: of the file, or None.
        audit: digest of this audit.
        seed: that was asked for, in hex, or None.
        queries: how many there are.
        fresh: the seed of a new state.

    Raises:
        MalformedInputError: the file is of another audit, or of another seed.

    """
    if path is None or not path.exists():
        return State(audit, seed or fresh, [None] * queries)
    place = str(path)
    value = parse_json(read_file(path, "state", _MOST_BYTES), place, max_bytes=_MOST_BYTES)
    fields = Members(value, place, ("formatVersion", "audit", "seed", "outcomes"))
    fields.integer("formatVersion", least=1, most=1)
    found = State(fields.digest("audit"), fields.digest("seed"))
    if found.audit != audit:
        expected = "the state of an audit with the same certificate, records, endpoint and options"
        raise MalformedInputError(place, "state", expected, "that of another one; choose a new file")
    if seed is not None and seed != found.seed:
        raise MalformedInputError(f"{place}/seed", "state", f"seed {seed}", "another seed")
    outcomes = fields.items("outcomes")
    if len(outcomes) != queries:
        raise MalformedInputError(f"{place}/outcomes", "state", f"{queries} outcomes", str(len(outcomes)))
    found.outcomes = [_outcome(item, f"{place}/outcomes/{number}") for number, item in enumerate(outcomes)]
    return found


def _outcome(item: Json, path: str) -> Outcome:
    if item is None or item in (RIGHT, UNDRAWN):
        return None if item is None else str(item)
    if isinstance(item, list) and len(item) == 2 and all(isinstance(text, str) for text in item):  # noqa: PLR2004
        return str(item[0]), str(item[1])
    raise MalformedInputError(path, "outcome", f"null, {RIGHT}, {UNDRAWN} or [expected, got]", repr(item)[:80])
