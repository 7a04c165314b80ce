"""The only place that imports auto_LiRPA, and the four adaptations that its PyPI release needs.

PyPI has one release, 0.3, made for PyTorch 1.12 and NumPy 1. Four things have gone since:

1. ``numpy.lib.arraysetops``, from which it imports ``isin``;
2. ``torch.onnx.symbolic_helper._set_opset_version``, which it calls before tracing: nothing that the
   trace of these networks goes through reads the opset, so that an empty function serves;
3. ``torch._C.Node.__getitem__``, with which it reads attributes of traced nodes;
4. keywords of ``torch.nn.Module._named_members`` that its override does not take.

Releases from GitHub (0.4 and later) need none of them and get none: 1 and 2 exist during the import
only, and only where they are missing; 3 and 4 are applied when the release looks for them.

The library prints, and its import changes the process's warning filters and root log handlers; both
are put back. Every call into it belongs inside :func:`quiet`.

Source: auto_LiRPA 0.3 (PyPI) and 0.7.1 (GitHub), read.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import logging
import sys
import warnings
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import numpy as np

from prune_verify.bounds.errors import BoundsUnavailableError

__all__ = ["auto_lirpa", "quiet"]

_NEEDED = ("torch", "auto_LiRPA", "appdirs", "tqdm", "packaging")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """What the library prints or warns of inside does not leave; filters and streams are put back."""
    with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings(record=True):
        # Recorded and dropped: a filter alone would not do, because the library sets filters of its own on import.
        warnings.simplefilter("ignore")
        yield


@contextlib.contextmanager
def _numpy_arraysetops() -> Iterator[None]:
    """Adaptation 1, while inside: a module ``numpy.lib.arraysetops`` with ``isin``."""
    name = "numpy.lib.arraysetops"
    if name in sys.modules or importlib.util.find_spec(name) is not None:
        yield
        return
    module = ModuleType(name)
    module.isin = np.isin  # type: ignore[attr-defined] # a module object takes any attribute
    sys.modules[name] = module
    try:
        yield
    finally:
        del sys.modules[name]


@contextlib.contextmanager
def _set_opset_version() -> Iterator[None]:
    """Adaptation 2, while inside: a ``_set_opset_version`` that does nothing."""
    helper, name = importlib.import_module("torch.onnx.symbolic_helper"), "_set_opset_version"
    if hasattr(helper, name):
        yield
        return
    setattr(helper, name, lambda _opset: None)
    try:
        yield
    finally:
        delattr(helper, name)


@contextlib.contextmanager
def _root_log_handlers() -> Iterator[None]:
    """The import gives the root logger a handler that writes to stdout; put back what was there."""
    root = logging.getLogger()
    before = list(root.handlers)
    try:
        yield
    finally:
        root.handlers[:] = before


def _node_item(node: object, name: str) -> object:
    """The attribute ``name`` of a traced node, through the method that its kind names (``i``, ``f``, ``is``...)."""
    kind = node.kindOf(name)  # type: ignore[attr-defined] # torch._C.Node has no stub for it
    return getattr(node, kind)(name)


def _adapt_nodes(library: ModuleType) -> None:
    """Adaptation 3, where the release's parser subscripts nodes (it is the one that sets an opset on import)."""
    node = importlib.import_module("torch")._C.Node  # noqa: SLF001 - the class of the nodes that the tracer returns
    parser = importlib.import_module(f"{library.__name__}.parse_graph")
    if hasattr(parser, "_set_opset_version") and not hasattr(node, "__getitem__"):
        node.__getitem__ = _node_item


def _adapt_named_members(library: ModuleType) -> None:
    """Adaptation 4, where the override takes fewer keywords than PyTorch passes."""
    bounded = library.BoundedModule
    original = bounded._named_members  # noqa: SLF001 - an override of PyTorch's own hook
    taken = inspect.signature(original).parameters
    if "remove_duplicate" in taken or any(p.kind is p.VAR_KEYWORD for p in taken.values()):
        return

    def named_members(self: object, *arguments: object, **keywords: object) -> object:
        known = {name: value for name, value in keywords.items() if name in taken}
        return original(self, *arguments, **known)

    bounded._named_members = named_members  # noqa: SLF001 - see above


@cache
def auto_lirpa() -> ModuleType:
    """The auto_LiRPA package, imported once and adapted where needed.

    Raises:
        BoundsUnavailableError: it, PyTorch or one of its needs is missing or cannot be imported; the text
            has the pip lines.

    """
    for name in _NEEDED:
        if importlib.util.find_spec(name) is None:
            raise BoundsUnavailableError(f"there is no module {name}")
    try:
        with quiet(), _root_log_handlers(), _numpy_arraysetops(), _set_opset_version():
            library = importlib.import_module("auto_LiRPA")
            _adapt_nodes(library)
            _adapt_named_members(library)
    except ImportError as error:
        raise BoundsUnavailableError(f"auto_LiRPA cannot be imported: {error}") from error
    logging.getLogger("auto_LiRPA").propagate = False
    return library
