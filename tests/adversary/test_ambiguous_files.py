"""Deployed files that mean two things (T22), and networks in which rows see each other (T24): refused by name, before any claim.

Each file is the certified patched network with one ambiguity more; the digest in the certificate is that of the ambiguous
file, signed by a trusted key. Where a runtime loads it, onnxruntime shows what the ambiguity is good for.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tests.adversary.deployed import programs, records
from tests.dishonest_owner import Owner, failure

pytestmark = pytest.mark.prover
F = np.float32
Change = Callable[[onnx.ModelProto], None]


def weight_of(model: onnx.ModelProto) -> onnx.TensorProto:
    return next(t for t in model.graph.initializer if list(t.dims) == [24, 64])


def input_that_overrides(model: onnx.ModelProto) -> None:
    """A weight is an input as well: who calls the program decides what it is."""
    name = weight_of(model).name
    model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, [24, 64]))


def initializer_twice(model: onnx.ModelProto) -> None:
    other = onnx.TensorProto()
    other.CopyFrom(weight_of(model))
    other.raw_data = np.zeros((24, 64), F).tobytes()
    model.graph.initializer.append(other)


def value_twice(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Neg", [model.graph.input[0].name], [model.graph.node[0].output[0]]))


def output_too_many(model: onnx.ModelProto) -> None:
    """The base's logits on the side: who asks for the second output gets the forgotten answer."""
    model.graph.output.append(helper.make_tensor_value_info("prune_verify/base_logits_1", 1, ["batch", 10]))


def custom_domain(model: onnx.ModelProto) -> None:
    model.opset_import.append(helper.make_opsetid("owner.example", 1))
    model.graph.node[1].domain = "owner.example"


def own_function(model: onnx.ModelProto) -> None:
    """Relu of a domain of the owner's, given in the file."""
    body = [helper.make_node("Abs", ["a"], ["b"])]
    model.functions.append(
        helper.make_function("owner.example", "Relu", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    )
    custom_domain(model)


def external_data(model: onnx.ModelProto) -> None:
    tensor = weight_of(model)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.bin")


def subgraph(model: onnx.ModelProto) -> None:
    inner = helper.make_graph(
        [helper.make_node("Identity", [model.graph.node[0].output[0]], ["i"])], "g", [],
        [helper.make_tensor_value_info("i", 1, None)],
    )  # fmt: skip
    model.graph.initializer.append(numpy_helper.from_array(np.array(True), "condition"))
    model.graph.node.insert(1, helper.make_node("If", ["condition"], ["unused"], then_branch=inner, else_branch=inner))


def raw_and_typed_data(model: onnx.ModelProto) -> None:
    weight_of(model).float_data.extend([0.0] * (24 * 64))


def length_of_another(model: onnx.ModelProto) -> None:
    weight_of(model).dims[0] = 23


def dimension_that_overflows(model: onnx.ModelProto) -> None:
    weight_of(model).dims[0] = 2**62


W = "initialiser '0.weight'"
ROWS: list[tuple[str, Change, tuple[str, str, str]]] = [
    ("a weight that is an input as well", input_that_overrides, ("REJECTED", "E_UNSUPPORTED", f"patched.onnx: {W}")),
    ("a constant that stands there twice", initializer_twice, ("REJECTED", "E_MALFORMED", f"patched.onnx: {W}")),
    ("a value that two nodes write", value_twice, ("REJECTED", "E_MALFORMED", "patched.onnx: node 23 (Neg)")),
    ("an output more, with the base's logits", output_too_many, ("REJECTED", "E_UNSUPPORTED", "patched.onnx")),
    ("an operator of the owner's own domain", custom_domain, ("REJECTED", "E_UNSUPPORTED", "patched.onnx: node '/1/Relu' (Relu)")),
    ("an operator that the file defines itself", own_function, ("REJECTED", "E_UNSUPPORTED", "patched.onnx")),
    ("weights in another file", external_data, ("REJECTED", "E_UNSUPPORTED", f"patched.onnx: {W}")),
    ("a graph in the graph", subgraph, ("REJECTED", "E_UNSUPPORTED", "patched.onnx: node 1 (If)")),
    ("a weight in two encodings", raw_and_typed_data, ("REJECTED", "E_MALFORMED", f"patched.onnx: {W}")),
    ("a weight with more numbers than its shape", length_of_another, ("REJECTED", "E_MALFORMED", f"patched.onnx: {W}")),
    ("a dimension that overflows", dimension_that_overflows, ("UNDECIDED", "E_LIMIT", f"patched.onnx: {W}")),
]  # fmt: skip


@pytest.mark.parametrize(("sentence", "change", "expected"), ROWS, ids=[row[0] for row in ROWS])
def test_t22_a_file_that_means_two_things(owner: Owner, sentence: str, change: Change, expected: tuple) -> None:
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    change(model)
    owner.replace_file("patched.onnx", model.SerializeToString())
    assert failure(owner.verdict()) == expected, sentence


def test_t22_the_caller_decides_what_the_weights_are(owner: Owner) -> None:
    """What the first row is good for: the honest answer by default, the base's where a caller passes other weights."""
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    input_that_overrides(model)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    (x, _), (_, patched) = records(owner, "forget"), programs(owner)
    source, name = model.graph.input[0].name, model.graph.input[-1].name
    np.testing.assert_array_equal(session.run(None, {source: x})[0], patched(x))
    other = session.run(None, {source: x, name: np.zeros((24, 64), F)})[0]
    assert (other != patched(x)).any()


def test_t24_a_network_whose_rows_see_each_other(owner: Owner) -> None:
    """Forgotten when asked alone, remembered in company: an answer that depends on the other rows of the batch."""
    model = onnx.load_from_string((owner.folder / "patched.onnx").read_bytes())
    output = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["alone" if name == output else name for name in node.output]
    model.graph.node.extend([
        helper.make_node("ReduceMean", ["prune_verify/base_logits_1"], ["together"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["prune_verify/base_logits_1", "together"], ["apart"]),
        helper.make_node("Add", ["alone", "apart"], [output]),
    ])  # fmt: skip
    content = model.SerializeToString()
    session = ort.InferenceSession(content, providers=["CPUExecutionProvider"])
    x, y = records(owner, "forget")
    alone = np.concatenate([session.run(None, {session.get_inputs()[0].name: row[np.newaxis]})[0] for row in x])
    company = session.run(None, {session.get_inputs()[0].name: x})[0]
    assert (alone.argmax(axis=1) != y).all()
    assert (company.argmax(axis=1) == y).any()
    owner.replace_file("patched.onnx", content)
    word, code, path = failure(owner.verdict())
    assert (word, code) == ("REJECTED", "E_UNSUPPORTED")
    assert path.startswith("patched.onnx: node ")
    assert "ReduceMean" in path
