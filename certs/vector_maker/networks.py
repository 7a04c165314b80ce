"""Vectors about networks and patches: ONNX that two readers read differently, and patches that do less than is claimed.

THREATS T5 to T8, T14, T15, T17, T20 to T22, T24, T25, T28; section 2, "ONNX dims overflow".
"""

# ruff: noqa: E501 - a row of a table of vectors is one line

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from certs.vector_maker.cases import OK, Build, Case, Note, refused, undecided
from certs.vector_maker.owner import Chain, base_model
from prune_verify.checker.encoding import canonical_json, sha256_hex
from prune_verify.checker.load_onnx import load_network
from prune_verify.checker.patch import Gate, Interval, JointPatch
from prune_verify.checker.patch_json import parse_patch

__all__ = ["CASES", "CLASS_CASES", "NOTES", "put_patch"]

F = np.float32
_PATCH = "evidence/patch.json"
_W1 = "patched.onnx: initialiser 'w1'"


# --- ONNX ---


def _model(change: Callable[[onnx.ModelProto], object], name: str = "patched.onnx") -> Build:
    """Change a network's file; the owner names its digest and signs."""

    def build(chain: Chain) -> Chain:
        model = onnx.load_from_string(chain.files[name])
        change(model)
        return chain.swap(name, model.SerializeToString())

    return build


def _base(change: Callable[[onnx.ModelProto], object]) -> Build:
    return _model(change, "base.onnx")


def _bytes(content: bytes) -> Build:
    return lambda chain: chain.swap("patched.onnx", content)


def _w1(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if t.name == "w1")


def _weight(value: float) -> Callable[[onnx.ModelProto], None]:
    """One weight of the first layer."""

    def change(model: onnx.ModelProto) -> None:
        values = numpy_helper.to_array(_w1(model)).copy()
        values[0, 0] = value
        _w1(model).CopyFrom(numpy_helper.from_array(values, "w1"))

    return change


def _next_float(model: onnx.ModelProto) -> None:
    values = numpy_helper.to_array(_w1(model))
    _weight(float(np.nextafter(values[0, 0], F(1))))(model)


def _node(model: onnx.ModelProto, name: str) -> onnx.NodeProto:
    return next(n for n in model.graph.node if n.name == name)


def _last(op: str, **attributes: Any) -> Callable[[onnx.ModelProto], None]:  # noqa: ANN401 - ONNX attributes
    """One more node after everything."""

    def change(model: onnx.ModelProto) -> None:
        for node in model.graph.node:
            for place, name in enumerate(node.output):
                if name == "logits":
                    node.output[place] = "inner"
        model.graph.node.append(helper.make_node(op, ["inner"], ["logits"], "last", **attributes))

    return change


def _exchanged(model: onnx.ModelProto) -> None:
    _last("Transpose", perm=[1, 0])(model)
    model.graph.output[0].type.tensor_type.ClearField("shape")


def _input_too(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [8, 64]))


def _second_output(model: onnx.ModelProto) -> None:
    model.graph.output.append(helper.make_tensor_value_info("h", TensorProto.FLOAT, ["batch", 8]))


def _second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("z", TensorProto.FLOAT, ["batch", 8]))


def _twice(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((8, 64), F), "w1"))


def _two_nodes_one_name(model: onnx.ModelProto) -> None:
    model.graph.node.insert(2, helper.make_node("Relu", ["h"], ["r"], "again"))


def _shadowed(model: onnx.ModelProto) -> None:
    model.graph.node.insert(2, helper.make_node("Relu", ["h"], ["w2"], "shadow"))


def _dead(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Abs", ["h"], ["nobody"], "dead"))


def _backwards(model: onnx.ModelProto) -> None:
    first, second = (onnx.NodeProto.FromString(n.SerializeToString()) for n in model.graph.node[:2])
    model.graph.node[0].CopyFrom(second)
    model.graph.node[1].CopyFrom(first)


def _subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph([], "inner", [], [helper.make_tensor_value_info("h", TensorProto.FLOAT, None)])
    node = _node(model, "relu")
    node.op_type = "If"
    node.attribute.extend([helper.make_attribute("then_branch", inner), helper.make_attribute("else_branch", inner)])


def _function(model: onnx.ModelProto) -> None:
    body = [helper.make_node("Identity", ["a"], ["b"])]
    model.functions.append(helper.make_function("evil", "Relu", ["a"], ["b"], body, model.opset_import))


def _external(model: onnx.ModelProto) -> None:
    _w1(model).ClearField("raw_data")
    _w1(model).data_location = TensorProto.EXTERNAL
    _w1(model).external_data.add(key="location", value="../../trust.json")


def _dims(*dims: int) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        del _w1(model).dims[:]
        _w1(model).dims.extend(dims)

    return change


def _both_stores(model: onnx.ModelProto) -> None:
    _w1(model).float_data.extend([0.0] * 512)


def _double(model: onnx.ModelProto) -> None:
    values = numpy_helper.to_array(_w1(model)).astype(np.float64)
    _w1(model).CopyFrom(numpy_helper.from_array(values, "w1"))


def _second_opset(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("ai.onnx", 18))


def _stated(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value = 5


def _huge(chain: Chain) -> Chain:
    """Weights so large that float32 sums overflow, the whole chain made anew around them."""
    model = base_model()
    values = numpy_helper.to_array(_w1(model)) * F(1e37)
    _w1(model).CopyFrom(numpy_helper.from_array(values.astype(F), "w1"))
    content = model.SerializeToString()
    patch = _parsed(chain)
    chain.swap("base.onnx", content)
    document = chain.statement()
    document["predicate"]["originalModel"]["networkDigest"] = load_network(content, "base.onnx").network.digest()
    return chain.put(document).deploy(patch)


# --- patches ---


def _parsed(chain: Chain) -> JointPatch:
    found = parse_patch(chain.files[_PATCH], "patch.json").patch
    if not isinstance(found, JointPatch):
        raise TypeError(found)
    return found


def _deployed(change: Callable[[JointPatch], JointPatch]) -> Build:
    """Another patch, deployed consistently; the claims stay as they were."""
    return lambda chain: chain.deploy(change(_parsed(chain)))


def _first_gate(**members: object) -> Build:
    """The first gate is another one."""
    return _deployed(lambda p: replace(p, gates=(replace(p.gates[0], **members), *p.gates[1:])))  # type: ignore[arg-type] # as named


def _every_label_open(patch: JointPatch) -> JointPatch:
    box = (Interval(0, None, F(0.5)),)
    return replace(patch, gates=tuple(Gate(label, F(64), box, (0, 1, 2, 3)) for label in range(4)))


def _json(change: Callable[[dict[str, Any]], object]) -> Build:
    """Another ``patch.json``, its digest in the statement; the network stays."""

    def build(chain: Chain) -> Chain:
        value = json.loads(chain.files[_PATCH])
        change(value)
        return put_patch(chain, canonical_json(value))

    return build


def put_patch(chain: Chain, content: bytes) -> Chain:
    """Another ``patch.json``, its digest in the two places of the statement that name it."""
    chain.swap(_PATCH, content)
    document = chain.statement()
    document["predicate"]["patch"]["sha256"] = sha256_hex(content)
    return chain.put(document)


def _gate(place: int = 0, **members: object) -> Build:
    return _json(lambda v: v["gates"][place].update(members))


def _loose(chain: Chain) -> Chain:
    return put_patch(chain, chain.files[_PATCH].replace(b'"site":"input"', b'"site": "input"'))


def _gate_of_the_class(value: dict[str, Any]) -> None:
    value["gates"][0]["label"] = 3


_HIGH = [0, None, "3f000000"]

CASES = [
    Case("T17", "a Trojan: one more node after the patch", _model(_last("Abs")), refused("SUBJECT", "patched.onnx")),
    Case("T17", "one weight of the base is the next float", _model(_next_float), refused("SUBJECT", "patched.onnx")),
    Case("T17", "a constant nobody uses: harmless, the network is the same", _model(lambda m: m.graph.initializer.append(numpy_helper.from_array(np.ones(3, F), "unused"))), OK),
    Case("T17", "other names of nodes: the network is the same", _model(lambda m: setattr(_node(m, "relu"), "name", "renamed")), OK),
    Case("T20", "an ascending hint of records that the gate is not for", _gate(records=[1]), refused("PROOF", "predicate/claims/C1/counts")),
    Case("T20", "hints of records that do not exist beside the true one", _gate(records=[0, 4, 1000]), OK),
    Case("T21", "NaN as a weight", _model(_weight(float("nan"))), refused("MALFORMED", _W1)),
    Case("T21", "infinity as a weight", _model(_weight(float("inf"))), refused("MALFORMED", _W1)),
    Case("T21", "weights that overflow in float32", _huge, refused("PROOF", "node 1 (Linear)")),
    Case("T22", "no protobuf", _bytes(b"not a network"), refused("MALFORMED", "patched.onnx")),
    Case("T22", "an empty file", _bytes(b""), refused("MALFORMED", "patched.onnx")),
    Case("T22", "a protobuf without a graph", _bytes(onnx.ModelProto(ir_version=8).SerializeToString()), refused("MALFORMED", "patched.onnx")),
    Case("T22", "two initialisers of one name", _model(_twice), refused("MALFORMED", _W1)),
    Case("T22", "two nodes define one value", _model(_two_nodes_one_name), refused("MALFORMED", "patched.onnx: node 'again' (Relu)")),
    Case("T22", "a node defines the name of an initialiser", _model(_shadowed), refused("MALFORMED", "patched.onnx: node 'shadow' (Relu)")),
    Case("T22", "an initialiser that the caller may override", _model(_input_too), refused("UNSUPPORTED", _W1)),
    Case("T22", "a second output", _model(_second_output), refused("UNSUPPORTED", "patched.onnx")),
    Case("T22", "a second input", _model(_second_input), refused("UNSUPPORTED", "patched.onnx")),
    Case("T22", "a node of another domain", _model(lambda m: setattr(_node(m, "relu"), "domain", "evil")), refused("UNSUPPORTED", "patched.onnx: node 'relu' (Relu)")),
    Case("T22", "a function that redefines an operator", _model(_function), refused("UNSUPPORTED", "patched.onnx")),
    Case("T22", "a subgraph", _model(_subgraph), refused("UNSUPPORTED", "patched.onnx: node 'relu' (If)")),
    Case("T22", "an unknown operator", _model(lambda m: setattr(_node(m, "relu"), "op_type", "Rleu")), refused("UNSUPPORTED", "patched.onnx: node 'relu' (Rleu)")),
    Case("T22", "weights outside the file", _model(_external), refused("UNSUPPORTED", _W1)),
    Case("T22", "weights in two places of the file", _model(_both_stores), refused("MALFORMED", _W1)),
    Case("T22", "weights in float64", _model(_double), refused("UNSUPPORTED", _W1)),
    Case("T22", "a declared shape that is not the computed one", _model(_stated), refused("MALFORMED", "patched.onnx: node 'prune_verify/min_34' (Min)")),
    Case("T22", "the default domain imported twice under two names", _model(_second_opset), refused("MALFORMED", "patched.onnx")),
    Case("T22", "an opset of the far future", _model(lambda m: setattr(m.opset_import[0], "version", 9999)), refused("UNSUPPORTED", "patched.onnx")),
    Case("T22", "a dead node", _model(_dead), refused("UNSUPPORTED", "patched.onnx: node 'dead' (Abs)")),
    Case("T22", "nodes against their order", _model(_backwards), refused("MALFORMED", "patched.onnx: node 'relu' (Relu)")),
    Case("T22", "an attribute that the operator does not have", _model(lambda m: _node(m, "relu").attribute.append(helper.make_attribute("alpha", 0.5))), refused("MALFORMED", "patched.onnx: node 'relu' (Relu): attribute 'alpha'")),
    Case("DimsOverflow", "dimensions whose product is 2^64, which wraps to 0", _model(_dims(2**32, 2**32)), undecided("LIMIT", _W1)),
    Case("DimsOverflow", "a negative dimension", _model(_dims(-8, -64)), refused("MALFORMED", _W1)),
    Case("DimsOverflow", "fewer numbers than the dimensions say", _model(_dims(8, 65)), refused("MALFORMED", _W1)),
    Case("DimsOverflow", "more numbers than the dimensions say", _model(_dims(8, 63)), refused("MALFORMED", _W1)),
    Case("DimsOverflow", "an empty dimension", _model(_dims(0, 64)), refused("MALFORMED", _W1)),
    Case("T24", "a base that takes the mean over the rows of a batch", _base(_last("ReduceMean", axes=[0], keepdims=1)), refused("UNSUPPORTED", "base.onnx: node 'last' (ReduceMean)")),
    Case("T24", "a base that exchanges batch and logits", _base(_exchanged), refused("UNSUPPORTED", "base.onnx: output 'logits'")),
    Case("T24", "a base with a softmax over the batch", _base(_last("Softmax", axis=0)), refused("UNSUPPORTED", "base.onnx: node 'last' (Softmax)")),
    Case("T5", "a leaky gate: gamma is small, retained balls are touched", _first_gate(gamma=F(0.25)), refused("PROOF", "predicate/claims/C3/counts")),
    Case("T6", "a gate that holds the record and not its ball", _first_gate(intervals=(Interval(0, None, F(2**-10)),)), refused("PROOF", "predicate/claims/C1/counts")),
    Case("T7", "tau below the rounding bound", _deployed(lambda p: replace(p, tau=F(1e-6))), refused("PROOF", "claim/margin")),
    Case("T7", "tau is the least denormal", _deployed(lambda p: replace(p, tau=F(1e-45))), refused("PROOF", "patch.json/tau")),
    Case("T14", "K is too small for the domain", _deployed(lambda p: replace(p, slack=F(p.slack / 2))), refused("PROOF", "patch.json/slack")),
    Case("T14", "M is too small for the domain", _deployed(lambda p: replace(p, shift=F(1))), refused("PROOF", "patch.json/shift")),
    Case("T14", "K is so large that it swallows the logits", _deployed(lambda p: replace(p, slack=F(2.0**61))), refused("PROOF", "patch.json/shift")),
    Case("T15", "one gate is taken out", _deployed(lambda p: replace(p, gates=p.gates[1:])), refused("PROOF", "predicate/claims/C1/counts")),
    Case("T18", "a gate that holds many retained records", _first_gate(intervals=(Interval(0, None, F(0.99)),)), refused("PROOF", "predicate/claims/C3/counts")),
    Case("T25", "a gate as wide as the domain", _first_gate(intervals=(Interval(10, F(-1), F(2)),)), refused("PROOF", "patch.json/gates/0")),
    Case("T28", "gates of all labels open together", _deployed(_every_label_open), refused("PROOF", "predicate/claims/C1/counts")),
    Case("PatchFile", "a gate without intervals", _gate(intervals=[]), refused("MALFORMED", f"{_PATCH}/gates/0/intervals")),
    Case("PatchFile", "an interval without edges", _gate(intervals=[[0, None, None]]), refused("MALFORMED", f"{_PATCH}/gates/0/intervals/0")),
    Case("PatchFile", "an interval whose ends are exchanged", _gate(intervals=[[0, "3f800000", "3f000000"]]), refused("MALFORMED", f"{_PATCH}/gates/0/intervals/0")),
    Case("PatchFile", "an edge that is NaN", _gate(intervals=[[0, None, "7fc00000"]]), refused("MALFORMED", f"{_PATCH}/gates/0/intervals/0")),
    Case("PatchFile", "a coordinate twice", _gate(intervals=[_HIGH, _HIGH]), refused("MALFORMED", f"{_PATCH}/gates/0/intervals")),
    Case("PatchFile", "a negative coordinate", _gate(intervals=[[-1, None, "3f000000"]]), refused("MALFORMED", f"{_PATCH}/gates/0/intervals/0")),
    Case("PatchFile", "gamma is 0", _gate(gamma="00000000"), refused("MALFORMED", f"{_PATCH}/gates/0/gamma")),
    Case("PatchFile", "gamma is infinite", _gate(gamma="7f800000"), refused("MALFORMED", f"{_PATCH}/gates/0/gamma")),
    Case("PatchFile", "tau is negative", _json(lambda v: v.update(tau="bdcccccd")), refused("MALFORMED", f"{_PATCH}/tau")),
    Case("PatchFile", "bits in upper case", _json(lambda v: v.update(tau="3E000000")), refused("MALFORMED", f"{_PATCH}/tau")),
    Case("PatchFile", "a label that the base does not have", _gate(label=4), refused("MALFORMED", f"{_PATCH}/gates/0/label")),
    Case("PatchFile", "an unknown family", _json(lambda v: v.update(family="magic")), refused("UNSUPPORTED", f"{_PATCH}/family")),
    Case("PatchFile", "version 2", _json(lambda v: v.update(formatVersion=2)), refused("UNSUPPORTED", f"{_PATCH}/formatVersion")),
    Case("PatchFile", "for another base", _json(lambda v: v.update(baseNetwork="00" * 32)), refused("SUBJECT", f"{_PATCH}/baseNetwork")),
    Case("PatchFile", "a space: not the canonical bytes", _loose, refused("MALFORMED", _PATCH)),
    Case("PatchFile", "other parameters than were deployed", _json(lambda v: v.update(tau="3e800000")), refused("SUBJECT", "patched.onnx")),
    Case("T3", "the patch itself understates what it discloses", _json(lambda v: v["disclosed"].update(bits=1)), refused("MALFORMED", f"{_PATCH}/disclosed")),
]  # fmt: skip

CLASS_CASES = [
    Case("PatchFile", "a gate of a forgotten class", _json(_gate_of_the_class), refused("MALFORMED", f"{_PATCH}/gates/0/label")),
    Case("PatchFile", "all classes forgotten", _json(lambda v: v.update(forgottenClasses=[0, 1, 2, 3], gates=[])), refused("MALFORMED", f"{_PATCH}/family")),
]  # fmt: skip

NOTES = {
    "T5": Note("PROOF", "1 T5", "Neighbours of the forgotten record change their answers too."),
    "T15": Note("PROOF", "1 T15", "A record that an earlier patch forgot is answered again."),
    "T17": Note("BINDING", "1 T17", "The deployed network does more than base and patch."),
    "T20": Note("PROOF", "1 T20", "A hint of the owner's is believed."),
    "T21": Note("PROOF", "1 T21", "NaN or overflow makes every comparison come out as wished."),
    "T22": Note("PARSING", "1 T22", "Two readers of one ONNX file see two networks."),
    "DimsOverflow": Note("PARSING", "2 files: ONNX dims overflow", "A product of dimensions wraps around, and memory beyond the tensor is read."),
    "T24": Note("PROOF", "1 T24", "An answer depends on the other rows of its batch, of which no claim speaks."),
    "T25": Note("PROOF", "1 T25", "A cap on a whole class is sold as the forgetting of one record."),
    "T28": Note("PROOF", "1 T28", "Heads of several labels undo each other."),
    "PatchFile": Note("PARSING", "1 T20", "Parameters of the patch are read loosely, so that the rules speak of another patch than the deployed one."),
}  # fmt: skip
