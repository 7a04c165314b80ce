"""The threat model: what the adversary may try and what the patch has to withstand, as a typed object and as TOML.

Source: FORMATS section 1 (``threat-model.toml``); MATHS 4.1.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

from prune_verify.checker.encoding import format_decimal, read_file
from prune_verify.checker.region import Domain
from prune_verify.checker.rules import BINARY32, REAL
from prune_verify.repair.errors import RepairInputError
from prune_verify.request_sets import default_radii

__all__ = ["GIVEN", "OWN_ERRORS", "ThreatModel", "default_threat_model", "emit_threat_model", "load_threat_model"]

_MOST_BYTES = 2**20
_AMOUNTS = ("radius", "retained_radius", "gap", "margin", "delta")
_ACCESS = ("label", "logits", "white-box")
_REDIRECTS = ("misclassify", "non-member")
GIVEN, OWN_ERRORS = "given", "own-errors"
_BITS = ("disclosure_bits", "disclosure_bits_per_record")


@dataclass(frozen=True)
class ThreatModel:
    """What a patch is made against. Lengths are in input units, exact.

    Args:
        domain: where inputs lie.
        radius: of the forget balls (l-infinity).
        retained_radius: of the retained balls.
        gap: least l1 distance of a retained ball from a box; 1/gap is the slope of the gates. None: 2/5 of the
            retained radius.
        margin: by which a forgotten label has to lose, in logits.
        margin_from: ``given``, or ``own-errors``: repair takes the median margin of the base's own errors on the
            retained set instead, where gates forget records and there are enough errors.
        delta: family learned: how far a logit may move on a retained ball.
        cover: coordinates that separate each retained record, where there are as many.
        access: what the adversary sees; recorded, it does not change the search.
        norm: of the balls; ``linf`` is what can be proved.
        redirect: what becomes of a forgotten record: ``misclassify`` (its label loses by the margin) or ``non-member``
            (its label's margin is what networks show that never saw it).
        disclosure_bits: most bits of the records that the patch may hold; None for no budget.
        disclosure_bits_per_record: the same for the gate that holds most; None for no budget.
        arithmetics: of the claims.
        membership_acceptance: levels, copied into the request and not checked here.

    """

    domain: Domain
    radius: Fraction
    retained_radius: Fraction
    margin: Fraction = Fraction(1, 10)
    margin_from: str = GIVEN
    delta: Fraction = Fraction(1, 10)
    cover: int = 2
    gap: Fraction | None = None
    access: str = "logits"
    norm: str = "linf"
    redirect: str = "misclassify"
    disclosure_bits: int | None = None
    disclosure_bits_per_record: int | None = None
    arithmetics: tuple[str, ...] = (BINARY32, REAL)
    membership_acceptance: tuple[tuple[str, str], ...] = field(default=())

    @property
    def distance(self) -> Fraction:
        """The gap, or its default."""
        return self.retained_radius * 2 / 5 if self.gap is None else self.gap

    def __post_init__(self) -> None:
        for name in _AMOUNTS:
            if getattr(self, name) is not None and getattr(self, name) <= 0:
                text = f"threat model: {name} is to be above 0, got {float(getattr(self, name)):g}"
                raise RepairInputError(text)
        if self.cover < 1:
            text = f"threat model: cover is to be 1 or more, got {self.cover}"
            raise RepairInputError(text)
        for name, among in (
            ("access", _ACCESS), ("redirect", _REDIRECTS), ("margin_from", (GIVEN, OWN_ERRORS)),
        ):  # fmt: skip
            if getattr(self, name) not in among:
                text = f"threat model: {name} is to be one of {', '.join(among)}, got {getattr(self, name)!r}"
                raise RepairInputError(text)
        if self.norm != "linf":
            text = (
                f"threat model: norm is to be linf, got {self.norm!r}: what is proved are boxes; a ball of another "
                "norm lies in the linf ball of the same radius, so that radius covers it"
            )
            raise RepairInputError(text)
        for name in _BITS:
            if getattr(self, name) is not None and getattr(self, name) < 0:
                text = f"threat model: {name} is to be 0 or more, got {getattr(self, name)}"
                raise RepairInputError(text)


def default_threat_model(domain: Domain) -> ThreatModel:
    """Radii 0.1 and 0.05 times the width of the narrowest interval of the domain; the margin is the base's to say."""
    return ThreatModel(domain, *default_radii(domain), margin_from=OWN_ERRORS)


def _amount(name: str, value: object, path: Path) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, Decimal | int):
        text = f"{path}: {name}: expected a number, got {value!r}"
        raise RepairInputError(text)
    if isinstance(value, Decimal) and not value.is_finite():
        text = f"{path}: {name}: expected a finite number, got {value}"
        raise RepairInputError(text)
    return Fraction(value)


def load_threat_model(path: Path, model: ThreatModel) -> ThreatModel:
    """Read ``threat-model.toml``; what it leaves out stays as in ``model``.

    Raises:
        RepairInputError: not TOML, an unknown member, or a value of another type; the text names it.

    """
    try:
        found = tomllib.loads(read_file(path, "threat model", _MOST_BYTES).decode(), parse_float=Decimal)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        text = f"{path}: expected TOML: {error}"
        raise RepairInputError(text) from None
    known = {item.name for item in fields(ThreatModel)} - {"arithmetics"}
    values: dict[str, object] = {}
    for name, value in found.items():
        if name not in known:
            text = f"{path}: unknown member {name!r}; known are {', '.join(sorted(known))}"
            raise RepairInputError(text)
        values[name] = _value(name, value, path)
    if "margin" in values:
        values.setdefault("margin_from", GIVEN)
    return replace(model, **values)  # type: ignore[arg-type] # each value was given its member's type


def emit_threat_model(model: ThreatModel) -> str:
    """``threat-model.toml`` of a threat model: every member that has a value, such that reading it gives it back.

    Arithmetics are not in it: they are those of the claims.
    """
    lines = []
    for item in fields(ThreatModel):
        value = getattr(model, item.name)
        if item.name in ("arithmetics", "domain", "membership_acceptance") or value is None:
            continue
        lines.append(f"{item.name} = {_toml(value)}")
    ends = ", ".join(
        f"{name} = [{', '.join(format_decimal(v) for v in end)}]"
        for name, end in (("lower", model.domain.lower), ("upper", model.domain.upper))
    )
    lines.append(f"domain = {{ {ends} }}")
    if model.membership_acceptance:
        lines.append("\n[membership_acceptance]")
        lines += [f"{_toml(name)} = {_toml(level)}" for name, level in model.membership_acceptance]
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=True)  # a JSON string without surrogates is a TOML string
    return format_decimal(value) if isinstance(value, Fraction) else str(value)


def _value(name: str, value: object, path: Path) -> object:
    if name in _AMOUNTS:
        return _amount(name, value, path)
    if name in {"cover", *_BITS}:
        if isinstance(value, bool) or not isinstance(value, int):
            text = f"{path}: {name}: expected an integer, got {value!r}"
            raise RepairInputError(text)
        return value
    if name == "domain":
        if not isinstance(value, Mapping) or set(value) != {"lower", "upper"}:
            text = f"{path}: domain: expected {{lower = .., upper = ..}}, got {value!r}"
            raise RepairInputError(text)
        ends = [value[end] if isinstance(value[end], list) else [value[end]] for end in ("lower", "upper")]
        return Domain(*(tuple(_amount("domain", item, path) for item in end) for end in ends))
    if name == "membership_acceptance":
        if not isinstance(value, Mapping):
            text = f"{path}: membership_acceptance: expected a table, got {value!r}"
            raise RepairInputError(text)
        return tuple((str(key), str(level)) for key, level in value.items())
    if not isinstance(value, str):
        text = f"{path}: {name}: expected a string, got {value!r}"
        raise RepairInputError(text)
    return value
