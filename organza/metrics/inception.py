"""Inception-v3 of 2015, whose features are those of the Fréchet inception distance in the literature.

The network is torch-fidelity's, to whose numbers scores of papers can be compared: it resizes to 299 x 299 as
TensorFlow 1 did, x maps to (x - 128) / 128, and pooling leaves padded zeros out of its means.  The weights are those
of the TensorFlow graph ``classify_image_graph_def.pb`` of 2015-12-05, converted for PyTorch.

References:
    Rethinking the Inception Architecture for Computer Vision (Szegedy et al., 2016)
    GANs Trained by a Two Time-Scale Update Rule Converge to a Local Nash Equilibrium (Heusel et al., 2017)
    High-fidelity performance metrics for generative models in PyTorch (Obukhov et al., 2020)
"""

from __future__ import annotations

import torch
from torch import nn

from organza.metrics import weights

__all__ = ["FILES", "SHA256", "network"]

# One file, under the names that torch-fidelity and pytorch-fid give it.
FILES = ("weights-inception-2015-12-05-6726825d.pth", "pt_inception-2015-12-05-6726825d.pth")
SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
URL = f"https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/{FILES[0]}"


def network() -> nn.Module:
    """Return the network, in evaluation mode and without gradients.

    It maps images, (B, 3, H, W) uint8 of any size, to the features, (B, 2048), and the logits without their bias,
    (B, 1008), as the inception score takes them.

    Raises:
        ValueError: If torch-fidelity cannot be imported, or the weights are not on this machine or not the
            published ones.
    """
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except (ImportError, RuntimeError) as error:  # RuntimeError: a torchvision that does not fit this torch
        reason = " ".join(str(error).split())
        raise ValueError(f"Inception needs torch-fidelity: pip install 'organza[inception]' ({reason})") from error
    path = weights.find(*FILES, sha256=SHA256, advice=f"it is published at {URL}")
    # torch-fidelity unpickles the file without restriction.  That is safe because `find` has just checked its hash:
    # it is the file that torch-fidelity itself would have downloaded.
    with torch.random.fork_rng(devices=()):  # the layers draw random weights before they are given these
        made: nn.Module = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
        )
    return made
