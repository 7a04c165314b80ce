"""Linear forms over named real constants, with exact rational factors, that numpy can add up and multiply.

An array of such forms goes through the linear operators of :mod:`prune_verify.checker.network` as an array of fractions
does, so that what a convolution or a pool means is said in one place.

Source: SMT-LIB 2.6, theory Reals.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from prune_verify.checker.errors import UnsupportedVersionError

__all__ = ["ZERO", "Form", "form_text", "number_text"]

Number = Fraction | int
_ONE = Fraction(1)


@dataclass(frozen=True, eq=False, slots=True)
class Form:
    """A sum of factor * name, plus a number.

    Args:
        terms: factors that are not 0, by the name of a constant.
        number: what is added.

    """

    terms: dict[str, Fraction]
    number: Fraction

    def __add__(self, other: Form | Number) -> Form:
        if not isinstance(other, Form):
            return Form(self.terms, self.number + other)
        terms = dict(self.terms)
        for name, factor in other.terms.items():
            terms[name] = terms.get(name, Fraction(0)) + factor
        return Form({name: factor for name, factor in terms.items() if factor}, self.number + other.number)

    __radd__ = __add__

    def __neg__(self) -> Form:
        return self * -1

    def __sub__(self, other: Form | Number) -> Form:
        return self + -other

    def __rsub__(self, other: Number) -> Form:
        return -self + other

    def __mul__(self, other: Form | Number) -> Form:
        if isinstance(other, Form):
            if other.terms and self.terms:
                raise UnsupportedVersionError("network", "SMT query: operator", "Mul by a constant", "Mul of values")
            return other * self.number if other.terms else self * other.number
        if not other:
            return ZERO
        return Form({name: factor * other for name, factor in self.terms.items()}, self.number * other)

    __rmul__ = __mul__

    def __truediv__(self, other: Number) -> Form:
        return self * (_ONE / other)


ZERO = Form({}, Fraction(0))


def number_text(value: Fraction) -> str:
    """A rational value as an SMT-LIB term."""
    top = str(value.numerator) if value >= 0 else f"(- {-value.numerator})"
    return top if value.denominator == 1 else f"(/ {top} {value.denominator})"


def form_text(form: Form) -> str:
    """A form as an SMT-LIB term."""
    parts = [name if factor == 1 else f"(* {number_text(factor)} {name})" for name, factor in form.terms.items()]
    if form.number or not parts:
        parts.append(number_text(form.number))
    return parts[0] if len(parts) == 1 else f"(+ {' '.join(parts)})"
