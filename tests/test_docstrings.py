"""Every public name says what it needs and what it gives: the rule is in CONTRIBUTING.md, under "Docstrings"."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "prune_verify"
MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__init__.py" or path.parent.name == "api"]
SECTIONS = ("Args", "Returns", "Yields", "Raises", "Source")
# Parameters whose meaning is the same everywhere (CONTRIBUTING.md lists them).
CONVENTIONS = {
    "options": "argparse.Namespace",
    "parser": "argparse.ArgumentParser",
    "path": "str",
    "data": "bytes",
    "value": "Json",
    "arithmetic": "str",
    "progress": "Progress",
    "say": "Callable[[str], None]",
}
# Words of the vocabulary, as parameters: networks and sets, by classes of this project or as files.
VOCABULARY = {"base", "patched", "patch", "forget", "retain"}
# First words of sentences that tell what is done, not what is given back.
IMPERATIVES = {
    "Add", "Apply", "Ask", "Bound", "Check", "Decide", "Find", "Fit", "Give", "Keep", "Let", "Make", "Measure",
    "Note", "Prove", "Put", "Refuse", "Repair", "Reconstruct", "Run", "Say", "Settle", "Show", "Sign", "Step", "Take",
    "Tell", "Train", "Verify", "Write",
}  # fmt: skip
MOST_IN_PROSE = 3
PUBLISHED = ("bounds", "measure", "repair")  # rooms that implement what others have published
RULES = ("checker/rules.py", "checker/relaxation_rules.py")


def sections(doc: str) -> dict[str, str]:
    """The sections of a docstring by name; what stands before them is under the empty name."""
    found, name = {"": ""}, ""
    for line in doc.splitlines():
        head = re.match(rf"({'|'.join(SECTIONS)}):(.*)", line)
        if head:
            name = head[1]
            found[name] = head[2]
        else:
            found[name] += "\n" + line
    return found


def entries(section: str) -> set[str]:
    """The names that an Args section explains."""
    return {name for line in re.findall(r"^ +([\w, ]+):", section, re.MULTILINE) for name in line.split(", ")}


def snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def tails(name: str) -> set[str]:
    """``LoadedModel``: loaded_model, model."""
    words = snake(name).split("_")
    return {"_".join(words[place:]) for place in range(len(words))}


@dataclass(frozen=True)
class Public:
    """A public class, function or method with the docstring of its class."""

    name: str
    node: ast.FunctionDef | ast.ClassDef
    doc: str
    of_class: str
    method: bool
    strict: bool

    def parameters(self) -> list[ast.arg]:
        if isinstance(self.node, ast.ClassDef):
            if any("Protocol" in ast.unparse(base) for base in self.node.bases):
                return []  # what it asks of others is said there
            own = [item for item in self.node.body if isinstance(item, ast.FunctionDef) and item.name == "__init__"]
            if own:
                return [arg for arg in (*own[0].args.args[1:], *own[0].args.kwonlyargs) if arg.arg[0] != "_"]
            return [
                ast.arg(item.target.id, item.annotation)
                for item in self.node.body
                if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name) and item.target.id[0] != "_"
                if "ClassVar" not in ast.unparse(item.annotation)
            ]
        args = self.node.args
        rest = [arg for arg in (args.vararg, args.kwarg) if arg is not None]
        listed = [*args.posonlyargs, *args.args, *args.kwonlyargs, *rest]
        return [arg for arg in listed[1 if self.method else 0 :] if not arg.arg.startswith("_")]


def exported(tree: ast.Module) -> set[str]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            return set(ast.literal_eval(node.value))
    return set()


def public(path: Path) -> Iterator[Public]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    names, strict = exported(tree), path.parent.name == "api"
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name not in names:
            continue
        doc = ast.get_docstring(node) or ""
        yield Public(node.name, node, doc, "", method=False, strict=strict)
        if isinstance(node, ast.ClassDef) and not any("Protocol" in ast.unparse(base) for base in node.bases):
            for item in node.body:
                if isinstance(item, ast.FunctionDef) and not item.name.startswith("_"):
                    static = any(getattr(mark, "id", "") == "staticmethod" for mark in item.decorator_list)
                    own = ast.get_docstring(item) or ""
                    yield Public(f"{node.name}.{item.name}", item, own, doc, method=not static, strict=strict)


ALL = {path: list(public(path)) for path in MODULES}
CLASSES = {
    node.name: [ast.unparse(base).split(".")[-1] for base in node.bases]
    for path in MODULES
    for node in ast.parse(path.read_text(encoding="utf-8")).body
    if isinstance(node, ast.ClassDef)
}
FILES = {tail for name in CLASSES for tail in tails(name)} | {"path", "bytes"}


def arrays(path: Path) -> set[str]:
    """Names that stand for arrays in a module."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = {"NDArray", "Tensor"}
    for node in tree.body:
        if isinstance(node, ast.Assign) and "NDArray" in ast.unparse(node.value):
            found |= {target.id for target in node.targets if isinstance(target, ast.Name)}
    return found


def lacking(item: Public, path: Path) -> Iterator[str]:
    """What a docstring leaves unsaid."""
    said = sections(item.doc)
    if not item.doc:
        yield "a docstring"
        return
    parameters, prose = item.parameters(), said[""]
    explained = entries(said.get("Args", ""))
    of_class = entries(sections(item.of_class).get("Args", "")) | set(re.findall(r"``(\w+)``", item.of_class))
    mirrors = isinstance(item.node, ast.ClassDef) and re.search(r"(FORMATS|SPEC\.md) section|:(class|func):", item.doc)
    left = []
    for arg in parameters:
        annotation = "" if arg.annotation is None else ast.unparse(arg.annotation)
        named = {tail for word in re.findall(r"\b[A-Z]\w+|\bbytes\b", annotation) for tail in tails(word)}
        by_type = {arg.arg, arg.arg.removesuffix("s")} & named or (arg.arg in VOCABULARY and named & FILES)
        if arg.arg in explained | of_class or mirrors:
            continue
        if item.strict or not (CONVENTIONS.get(arg.arg) == annotation or by_type or f"``{arg.arg}``" in item.doc):
            left.append(arg.arg)
    in_prose = [name for name in left if re.search(rf"\b{name}\b", item.doc, re.IGNORECASE)]
    if item.strict or len(in_prose) > MOST_IN_PROSE:
        in_prose = []
    yield from (f"Args: {name}" for name in left if name not in in_prose)
    yield from _lacking_shapes(item, path, parameters)
    if isinstance(item.node, ast.FunctionDef):
        yield from _lacking_outcomes(item.node, said, prose)


def _lacking_shapes(item: Public, path: Path, parameters: list[ast.arg]) -> Iterator[str]:
    known = arrays(path)
    given = [
        arg
        for arg in parameters
        if arg.annotation is not None and known & {_bare(part) for part in ast.unparse(arg.annotation).split(" | ")}
    ]
    if given and not re.search(r"\[[^\]]*\]|shape", item.doc + item.of_class):
        yield f"the shape of {', '.join(arg.arg for arg in given)}"


def _bare(annotation: str) -> str:
    """``npt.NDArray[np.float32]``: NDArray; containers of arrays are themselves."""
    return re.sub(r"\[.*", "", annotation).rpartition(".")[2]


def _lacking_outcomes(node: ast.FunctionDef, said: dict[str, str], prose: str) -> Iterator[str]:
    gives = "" if node.returns is None else ast.unparse(node.returns)
    plain = gives.removesuffix(" | None")
    told = {"Returns", "Yields"} & set(said) or "; gives " in prose or prose.split(maxsplit=1)[0] not in IMPERATIVES
    if gives not in {"", "None", "Self", "NoReturn"} and plain not in CLASSES and not told:
        yield f"Returns ({gives})"
    for raised in sorted(_raised(node)):
        told = said.get("Raises", "") + prose
        if not any(re.search(rf"\b{name}\b", told) for name in _kin(raised)) and "efuse" not in prose:
            yield f"Raises: {raised}"


def _raised(node: ast.FunctionDef) -> set[str]:
    """The project's errors that a body raises by itself."""
    found = set()
    for inner in ast.walk(node):
        if isinstance(inner, ast.Raise) and inner.exc is not None:
            error = inner.exc.func if isinstance(inner.exc, ast.Call) else inner.exc
            found.add(ast.unparse(error).split(".")[-1])
    return {name for name in found if name in CLASSES and name.endswith("Error")}


def _kin(name: str) -> Iterator[str]:
    """A class and those that it is derived from."""
    yield name
    for base in CLASSES.get(name, []):
        yield from _kin(base)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_public_names_say_what_they_need_and_give(path: Path) -> None:
    found = [f"{item.name}: {what}" for item in ALL[path] for what in lacking(item, path)]
    assert not found


def test_modules_that_implement_published_methods_name_their_source() -> None:
    of_rooms = [path for room in PUBLISHED for path in (PACKAGE / room).glob("*.py") if path.name != "__init__.py"]
    of_rules = [PACKAGE / rule for rule in RULES]
    without = [
        str(path.relative_to(PACKAGE))
        for path in (*of_rooms, *of_rules)
        if "Source:" not in path.read_text(encoding="utf-8")
    ]
    assert not without


def test_first_lines_end_as_sentences() -> None:
    """What is shown in lists of names is a sentence of its own."""
    open_ended = [
        f"{path.relative_to(PACKAGE)}: {item.name}"
        for path in MODULES
        for item in ALL[path]
        if item.doc and not re.search(r"[.:;?,)\]]$", item.doc.splitlines()[0])
    ]
    assert not open_ended
