"""Everything the checker can refuse, as types with fields; the text is built from the fields.

:class:`CheckError` is abstract: any bytes handed to the checker give a result or one of its
subclasses, never another exception. Each error says where (``path``), which demand was broken
(``rule``), what was expected and what was found, so that negative tests can pin all four.

Source: STYLE "Errors"; the exit codes are FORMATS section 3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

__all__ = [
    "AssumptionNotPermittedError",
    "CheckError",
    "KeyIdError",
    "LimitError",
    "MalformedInputError",
    "PolicyError",
    "ProofError",
    "SignatureError",
    "SubjectMismatchError",
    "UnsupportedVersionError",
    "printable",
]

_LONGEST = 200


def printable(text: str) -> str:
    """The text with everything but printable ASCII escaped: no control, bidirectional or look-alike characters."""
    return "".join(c if c.isascii() and c.isprintable() else ascii(c)[1:-1] for c in text)


def _shown(value: str) -> str:
    """The value cut to a readable length, escaped."""
    return printable(value if len(value) <= _LONGEST else value[: _LONGEST - 3] + "...")


@dataclass(eq=False)
class CheckError(Exception):
    """A refusal by the checker. Abstract: raise one of the subclasses.

    Args:
        path: the place, outermost first, such as ``claims/C1/evidence/leaf 3`` or ``base.onnx: node 'fc1'``.
        rule: the demand that is broken, in a few words or as the rule's name.
        expected: what would have been accepted.
        got: what was found.

    """

    path: str
    rule: str
    expected: str = ""
    got: str = ""
    code: ClassVar[str] = "E_CHECK"

    def __post_init__(self) -> None:
        if type(self) is CheckError:
            message = "CheckError is abstract; raise a subclass"
            raise TypeError(message)
        super().__init__(self.path, self.rule, self.expected, self.got)

    def __str__(self) -> str:
        text = f"{_shown(self.path)}: {_shown(self.rule)}"
        if self.expected:
            text += f": expected {_shown(self.expected)}"
        if self.got:
            text += f", got {_shown(self.got)}"
        return text


class MalformedInputError(CheckError):
    """The bytes are not of the form that the format demands."""

    code = "E_MALFORMED"


class UnsupportedVersionError(CheckError):
    """A well-formed file of a version, type or operator that this checker does not know."""

    code = "E_UNSUPPORTED"


class SignatureError(CheckError):
    """No acceptable signature: wrong key, wrong bytes, not enough signers."""

    code = "E_SIGNATURE"


class KeyIdError(SignatureError):
    """A keyid that is not the digest of the key that verifies."""

    code = "E_KEYID"


class SubjectMismatchError(CheckError):
    """A file is not the one that the certificate speaks of."""

    code = "E_SUBJECT"


class PolicyError(CheckError):
    """The certificate proves less than the auditor's policy demands."""

    code = "E_POLICY"


class AssumptionNotPermittedError(CheckError):
    """The verdict would rest on an assumption that the policy does not list."""

    code = "E_ASSUMPTION"


class ProofError(CheckError):
    """A claim does not follow from the files and the evidence."""

    code = "E_PROOF"


class LimitError(CheckError):
    """A limit of size, depth, time or memory was reached."""

    code = "E_LIMIT"
