"""ResNet's parameters under the names of torchvision, which timm and many others share."""

from collections.abc import Mapping
from typing import Any

from flax import nnx

from aavs_jax.methods.parts.key_tables import (
    ByPath,
    Format,
    Kind,
    LeftOver,
    Row,
    count,
    shapes_of,
    side,
    under,
)
from aavs_jax.methods.parts.resnet import ResNet
from aavs_jax.methods.parts.sizes import ResNetConfig, from_dict

STEM = (Row("conv1", "stem/0/conv", "conv"), Row("bn1", "stem/0/norm", "batch norm"))
BLOCK = (
    Row("conv{layer+1}", "layers/{layer}/conv", "conv"),
    Row("bn{layer+1}", "layers/{layer}/norm", "batch norm"),
    Row("downsample.0", "shortcut/conv", "conv"),
    Row("downsample.1", "shortcut/norm", "batch norm"),
)
BLOCKS = under("layer{stage+1}.{block}.", "stages/{stage}/{block}/", *BLOCK)
# ResNet-50 and its like, of a 7x7 stem ...
RESNET = (*STEM, *BLOCKS)
# ... and of a stem of three convolutions, as DeepLab's files have it.
RESNET_DEEP_STEM = (
    Row("conv1.{layer*3}", "stem/{layer}/conv", "conv"),
    Row("conv1.1", "stem/0/norm", "batch norm"),
    Row("conv1.4", "stem/1/norm", "batch norm"),
    Row("bn1", "stem/2/norm", "batch norm"),
    *BLOCKS,
)
# TPAVI's and AVSegFormer's files have stages 3 and 4 twice; the second ones nothing uses.
RESNET_DOUBLED = (
    *STEM,
    *(
        row
        for stage, name in enumerate(("layer1", "layer2", "layer3_1", "layer4_1"))
        for row in under(f"{name}.{{block}}.", f"stages/{stage}/{{block}}/", *BLOCK)
    ),
)
SECOND_STAGES = ("layer3_2.*", "layer4_2.*")
SECOND = "a second copy of a stage, which the network does not use"
# PyTorch counts the batches that running statistics are of; nothing here reads it.
BATCHES = "the number of batches that running statistics come from, which only momentum None reads"
COUNTED = LeftOver("*.num_batches_tracked", BATCHES)
CLASSIFIER = LeftOver("fc.*", "the classifier of ImageNet, which no network here uses")


def resnet_sizes(shapes: ByPath, place: str = "backbone/") -> dict[str, Any]:
    """`ResNetConfig` as plain values, as far as shapes tell: strides and dilations they do not.

    Raises:
      ValueError: parameters that would tell it are not there.
    """
    stages = [f"{place}stages/{stage}/" for stage in range(count(shapes, place + "stages/"))]
    middle = [f"{stage}0/layers/1/conv/kernel" for stage in stages]
    layers = count(shapes, f"{stages[0]}0/layers/") if stages else 0
    first = f"{place}stem/0/conv/kernel"
    return {
        "block": "bottleneck" if layers == 3 else "basic",
        "depths": [count(shapes, stage) for stage in stages],
        "planes": [side(shapes, path, 3) for path in middle],
        "stem": side(shapes, first, 3),
        "deep_stem": count(shapes, place + "stem/") == 3,
        "input_channels": side(shapes, first, 2),
    }


def _sizes(ours: ByPath, theirs: ByPath) -> dict[str, Any]:
    return {"resnet": resnet_sizes(ours)}


def _parameters(network: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    config = from_dict(ResNetConfig, network.get("resnet", {}))
    return shapes_of(nnx.eval_shape(lambda: ResNet(config)), "backbone/")


def _format(name: str, title: str, stem: str, rows: tuple[Row, ...]) -> Format:
    return Format(
        name=name,
        title=title,
        kind="resnet",
        # What is not at the beginning is another network, which has a ResNet inside.
        signature=(stem, r"layer1\.0\.conv1\.weight$", r"layer4\.0\.conv1\.weight$"),
        rows=under("", "backbone/", *rows),
        left_over=(COUNTED, CLASSIFIER),
    )


TORCHVISION = _format("torchvision", "a ResNet of torchvision or timm", r"conv1\.weight$", RESNET)
DEEP_STEM = _format(
    "deep_stem_resnet", "a ResNet with a deep stem", r"conv1\.6\.weight$", RESNET_DEEP_STEM
)
RESNETS = Kind("resnet", (TORCHVISION, DEEP_STEM), _sizes, _parameters)
