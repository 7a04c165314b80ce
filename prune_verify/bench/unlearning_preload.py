"""What the processes of ``bench unlearning`` have loaded before they are forked, so that each starts in no time.

PyTorch loads some of its parts when an optimiser takes its first step, or a network is first exported; here they are
loaded before any clock runs.
"""

import numpy as np
import onnxruntime
import torch
import torch._dynamo

import prune_verify.measure.unlearners
from prune_verify.measure.training import export_onnx

__all__ = ["LOADED"]

torch.set_num_threads(1)
export_onnx(torch.nn.Sequential(torch.nn.Linear(1, 1)), np.zeros((1, 1), dtype=np.float32))
LOADED = (onnxruntime, torch, prune_verify.measure.unlearners)
