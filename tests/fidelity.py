"""torch-fidelity, the reference implementation of several metrics, where it can be imported.

It imports torchvision, whose compiled operators do not load beside every build of PyTorch ("operator torchvision::nms
does not exist").  Nothing that is compared here uses them, so those that the import asks for are then declared, empty.
"""

import sys

import pytest
import torch

_OPERATORS = ("nms(Tensor dets, Tensor scores, float threshold)", "qnms(Tensor dets, Tensor scores, float threshold)")
_library = torch.library.Library("torchvision", "FRAGMENT")

try:
    import torchvision  # noqa: F401
except ImportError:
    pass
except RuntimeError:
    for name in [each for each in sys.modules if each.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # what was imported halfway
    for operator in _OPERATORS:
        _library.define(f"{operator} -> Tensor")

torch_fidelity = pytest.importorskip("torch_fidelity", reason="torch-fidelity is not installed")
