"""PyTorch modules in, PyTorch modules out; between them ONNX files, which are what is patched, proved and deployed.

Exporting works on a copy: on the CPU, in evaluation mode (batch normalisation and dropout as when deployed). The file
is used only if, on a sample, the module and onnxruntime both answer what the checker's reading of the file answers, up
to what float32 rounds. That is measured on the sample, not proved; what is certified is the file.
"""

from __future__ import annotations

import copy
import re

import numpy as np
import numpy.typing as npt
import onnxruntime
import torch
from torch import Tensor, nn

from prune_verify.api.errors import RefusalError
from prune_verify.audit.endpoint_answers import Judge
from prune_verify.bounds.torch_network import TorchNetwork
from prune_verify.checker.errors import CheckError
from prune_verify.checker.load_onnx import LoadedModel, load_network
from prune_verify.measure.training import export_onnx

__all__ = ["exported", "module_of"]

Floats = npt.NDArray[np.float32]
_NODE = re.compile(r"node '/?([^']*)/([^/']*)'")


def exported(module: nn.Module, x: Floats, name: str) -> bytes:
    """The module as ONNX bytes that the checker loads and that answer as the module does on the sample.

    Args:
        module: a classifier, float32 [rows, *input shape] to logits [rows, labels]; it stays untouched.
        x: float32 [rows, *input shape], the sample; the first row is exported with.
        name: of the argument, for errors.

    Raises:
        RefusalError: a layer that cannot be exported or that the checker does not know, weights of another type, or
            answers that differ by more than float32 rounds.

    """
    plain = _copied(module, name)
    try:
        data = export_onnx(plain, x)
    except (RuntimeError, ValueError, TypeError) as error:  # what torch's exporter raises, and modules on a wrong shape
        raise _refused(_culprit(plain, x, name, error)) from error
    try:
        loaded = load_network(data, name)
    except CheckError as error:
        found = _NODE.search(str(error))
        where = "" if found is None else f"layer {found[1].split('/')[-1]!r} ({found[2]}): "
        raise _refused(f"{name}: {where}the checker does not load what it exports to: {error}") from error
    _require_same_answers(plain, data, loaded, x, name)
    return data


def _refused(text: str) -> RefusalError:
    return RefusalError(text, "E_MODULE")


def _copied(module: nn.Module, name: str) -> nn.Module:
    """A copy to work on; weights that are not float32 are refused, because their arithmetic is another one."""
    for which, tensor in (*module.named_parameters(), *module.named_buffers()):
        if tensor.is_floating_point() and tensor.dtype != torch.float32:
            text = f"{name}: {which}: expected float32 weights, got {tensor.dtype}"
            raise _refused(
                f"{text}; a network is certified in float32 (module.float() makes it one, with other answers)"
            )
    try:
        return copy.deepcopy(module).cpu().eval()
    except (RuntimeError, TypeError) as error:
        raise _refused(f"{name}: expected a module that can be copied (copy.deepcopy), got: {error}") from error


def _culprit(module: nn.Module, x: Floats, name: str, error: Exception) -> str:
    """Which layer cannot be run or exported: each alone, on what it gets in a pass."""
    seen: list[tuple[str, nn.Module, Tensor]] = []
    hooks = [
        leaf.register_forward_pre_hook(
            lambda leaf, values, which=which: seen.append((which, leaf, values[0])) if len(values) == 1 else None
        )
        for which, leaf in module.named_modules()
        if not any(True for _ in leaf.children())
    ]
    try:
        with torch.no_grad():
            module(torch.from_numpy(x[:1].copy()))
    except Exception as inner:  # noqa: BLE001 - a user's forward may raise anything
        where = f" at layer {seen[-1][0]!r} ({type(seen[-1][1]).__name__})" if seen else ""
        return f"{name}: expected a module that answers float32 {list(x[:1].shape)}, got{where}: {_first(inner)}"
    finally:
        for hook in hooks:
            hook.remove()
    for which, leaf, value in seen:
        try:
            export_onnx(leaf, value.numpy())
        except Exception as inner:  # noqa: BLE001 - whatever the exporter raises for this layer
            return f"{name}: layer {which!r} ({type(leaf).__name__}) cannot be exported: {_first(inner)}"
    return f"{name}: cannot be exported: {_first(error)}"


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _require_same_answers(module: nn.Module, data: bytes, loaded: LoadedModel, x: Floats, name: str) -> None:
    if x.shape[1:] != loaded.network.input_shape:
        expected, got = list(loaded.network.input_shape), list(x.shape[1:])
        raise _refused(f"{name}: example: expected rows of shape {expected}, got {got}")
    low, high = Judge(loaded.network, None).expect(x)
    with torch.no_grad():
        own = module(torch.from_numpy(x.copy())).numpy().reshape(len(x), -1)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    other = session.run([loaded.output_name], {loaded.input_name: x})[0].reshape(len(x), -1)
    for who, answers in (("the module", own), ("onnxruntime", other)):
        if answers.shape != low.shape:
            text = f"{name}: {who} answers {list(answers.shape)}, its ONNX file {list(low.shape)}"
            raise _refused(text)
        outside = np.argwhere((answers < low) | (answers > high) | np.isnan(answers))
        if len(outside):
            row, label = (int(place) for place in outside[0])
            ends = f"{low[row, label]:.9g} to {high[row, label]:.9g}"
            text = f"{name}: row {row}, logit {label}: expected {ends} of the exported file (what float32 rounds)"
            raise _refused(f"{text}, got {answers[row, label]:.9g} of {who}")


def module_of(data: bytes, name: str) -> nn.Module:
    """An ONNX network as a PyTorch module in evaluation mode, [rows, *input shape] to [rows, labels].

    Args:
        data: the file.
        name: for errors.

    Raises:
        CheckError: the checker does not load it.
        BoundsError: it has a form that no module is known for.

    """
    return TorchNetwork(load_network(data, name).network).eval()
