"""The models of the zoo: for each library their names, how to make one, and its input. A library is a row.

timm, torchvision and transformers are targets of the command line (`resattn/targets.py`); the others are added to these
while the zoo runs.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any
from unittest import mock

import torch

from analysis.zoo import gradients
from resattn.graph.graph import Shape
from resattn.graph.inputs import Blank, Inputs
from resattn.targets import LIBRARIES, Library


@dataclass(frozen=True)
class Family:
    """The models of one library. `library`: None if the command line has the targets. `names` imports it.

    `chunk`: how many models one process measures, so that the library is imported once for many. With `is_targets`, the
    names are targets of other families.
    """

    package: str
    names: Callable[[ModuleType], Sequence[str]]
    library: Library | None = None
    chunk: int = 25
    is_targets: bool = False


@contextmanager
def as_targets() -> Iterator[None]:
    """Inside the block every family is a library of targets, such as `smp:Unet/resnet34`."""
    more = {name: family.library for name, family in FAMILIES.items() if family.library}
    with mock.patch.dict(LIBRARIES, more):
        yield


def names_of(family: str) -> list[str]:
    """The names of a family's models, in the order in which they are measured. Raises: ImportError."""
    row = FAMILIES[family]
    return list(row.names(importlib.import_module(row.package)))


# -- transformers: each configuration with its default values


def _hf(transformers: ModuleType) -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

    return sorted({CONFIG_MAPPING_NAMES[kind] for kind in MODEL_MAPPING_NAMES if kind in CONFIG_MAPPING_NAMES})


# -- segmentation-models-pytorch: decoder/encoder

DECODERS = (
    "Unet", "UnetPlusPlus", "MAnet", "Linknet", "FPN", "PSPNet", "DeepLabV3", "DeepLabV3Plus", "PAN", "UPerNet",
    "Segformer",
)  # fmt: skip
ENCODERS = ("resnet18", "resnet50", "vgg16", "densenet121", "mobilenet_v2", "efficientnet-b0")
NO_PADDING_BY_DILATION = ("vgg16", "densenet121")  # these encoders cannot be dilated, which some decoders ask for


def _smp(smp: ModuleType) -> list[str]:
    dilated = ("DeepLabV3", "DeepLabV3Plus", "PAN")
    pairs = [(d, e) for e in ENCODERS for d in DECODERS if d not in dilated or e not in NO_PADDING_BY_DILATION]
    return [f"{decoder}/{encoder}" for decoder, encoder in pairs]


def _smp_model(smp: ModuleType, name: str) -> Callable[[], Any]:
    decoder, _, encoder = name.partition("/")
    return lambda: getattr(smp, decoder)(encoder, encoder_weights=None)


def _images(*shape: int) -> Callable[[Any, str, Shape], Inputs]:
    return lambda model, name, batch: Inputs((Blank((*batch, *shape)),))


# -- open_clip: image and text; a text tower of transformers, whose configuration is on the network, is left out


def _open_clip(open_clip: ModuleType) -> list[str]:
    def is_whole(name: str) -> bool:
        config = open_clip.get_model_config(name)
        return not config.get("text_cfg", {}).get("hf_model_name") and "multimodal_cfg" not in config

    return [name for name in open_clip.list_models() if is_whole(name)]


def _open_clip_model(open_clip: ModuleType, name: str) -> Callable[[], Any]:
    return lambda: open_clip.create_model(name, pretrained=None, load_weights=False, pretrained_image=False)


def _open_clip_inputs(model: Any, name: str, batch: Shape) -> Inputs:
    size = model.visual.image_size
    height, width = size if isinstance(size, Sequence) else (size, size)
    length = getattr(model, "context_length", None) or model.text.context_length
    return Inputs((Blank((*batch, 3, height, width)), Blank((*batch, length), torch.int64)))


# -- pytorchcv: classifiers of 2-D images by name


def _pytorchcv(package: ModuleType) -> list[str]:
    from pytorchcv import model_provider

    return sorted(model_provider._models)


def _pytorchcv_model(package: ModuleType, name: str) -> Callable[[], Any]:
    from pytorchcv import model_provider

    return lambda: model_provider.get_model(name, pretrained=False)


# Windows of audio features, and the identity of a person: the shapes with which the modules of these models test them.
OF_AUDIO: dict[str, tuple[tuple[int, ...] | list[int], ...]] = {
    "voca8flame": ((1, 16, 29), []),
    "nvpattexp116bazel76": ((8, 16, 29), []),
    "visemenet20": ((8, 195), (76,)),
}


def _pytorchcv_inputs(model: Any, name: str, batch: Shape) -> Inputs:
    if name in OF_AUDIO:
        return _blanks(OF_AUDIO[name], batch)
    height, width = model.in_size if hasattr(model, "in_size") else (224, 224)
    default = inspect.signature(type(model).__init__).parameters.get("in_channels")
    channels = getattr(model, "in_channels", default.default if default and default.default in (1, 3) else 3)
    n_images = max(sum(argument.startswith("image") for argument in inspect.signature(model.forward).parameters), 1)
    return Inputs(tuple(Blank((*batch, channels, height, width)) for _ in range(n_images)))


def _blanks(shapes: Sequence[tuple[int, ...] | list[int]], batch: Shape) -> Inputs:
    """Inputs of these shapes behind the batch; one of integers is a list."""
    return Inputs(tuple(Blank((*batch, *shape), torch.int64 if isinstance(shape, list) else None) for shape in shapes))


# -- diffusers and monai: classes with their arguments and inputs


@dataclass(frozen=True)
class Case:
    """A class with its arguments, and the shapes of its inputs without the batch; a shape of integers is a list."""

    name: str
    arguments: dict[str, Any]
    inputs: tuple[tuple[int, ...] | list[int], ...]


def _cases(package: str, prefix: str, cases: Sequence[Case]) -> Family:
    by_name = {case.name: case for case in cases}

    def make(module: ModuleType, name: str) -> Callable[[], Any]:
        case = by_name[name]
        return lambda: getattr(importlib.import_module(prefix), case.name.partition("/")[0])(**case.arguments)

    def inputs(model: Any, name: str, batch: Shape) -> Inputs:
        return _blanks(by_name[name].inputs, batch)

    return Family(package, lambda module: [*by_name], Library(package, make, inputs), 10)


TIME: list[int] = []  # the step of a diffusion: one integer for each image
DIFFUSERS = (
    Case("UNet2DModel", {"sample_size": 64}, ((3, 64, 64), TIME)),
    Case("UNet2DConditionModel", {"sample_size": 64, "cross_attention_dim": 768}, ((4, 64, 64), TIME, (77, 768))),
    Case("AutoencoderKL", {"block_out_channels": (64, 128), "down_block_types": ("DownEncoderBlock2D",) * 2,
                           "up_block_types": ("UpDecoderBlock2D",) * 2}, ((3, 256, 256),)),
    Case("AutoencoderTiny", {}, ((3, 256, 256),)),
    Case("VQModel", {}, ((3, 64, 64),)),
    Case("AsymmetricAutoencoderKL", {}, ((3, 64, 64),)),
    Case("UVit2DModel", {}, ([16, 16], (77, 768), (768,), (5,))),
    Case("PriorTransformer", {}, ((768,), TIME, (768,), (77, 768))),
)  # fmt: skip

PLANE, CUBE = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2}, {
    "spatial_dims": 3, "in_channels": 1, "out_channels": 2,
}  # fmt: skip
STEPS = {"channels": (16, 32, 64, 128), "strides": (2, 2, 2)}
MONAI = (
    Case("UNet/2d", {**PLANE, **STEPS}, ((1, 96, 96),)),
    Case("UNet/3d", {**CUBE, **STEPS, "num_res_units": 2}, ((1, 96, 96, 96),)),
    Case("AttentionUnet", {**CUBE, **STEPS}, ((1, 96, 96, 96),)),
    Case("BasicUNet", CUBE, ((1, 96, 96, 96),)),
    Case("BasicUNetPlusPlus", CUBE, ((1, 96, 96, 96),)),
    Case("SegResNet", CUBE, ((1, 96, 96, 96),)),
    Case("SegResNetDS", CUBE, ((1, 96, 96, 96),)),
    Case("VNet", CUBE, ((1, 96, 96, 96),)),
    Case("HighResNet", CUBE, ((1, 96, 96, 96),)),
    Case("DynUNet", {**CUBE, "kernel_size": (3, 3, 3), "strides": (1, 2, 2), "upsample_kernel_size": (2, 2)},
         ((1, 96, 96, 96),)),
    Case("UNETR", {"in_channels": 1, "out_channels": 2, "img_size": (96, 96, 96)}, ((1, 96, 96, 96),)),
    Case("SwinUNETR", {"in_channels": 1, "out_channels": 2}, ((1, 96, 96, 96),)),
    Case("ViT", {"in_channels": 1, "img_size": (96, 96, 96), "patch_size": (16, 16, 16), "classification": True},
         ((1, 96, 96, 96),)),
    Case("DenseNet121", CUBE, ((1, 96, 96, 96),)),
    Case("DenseNet169", PLANE, ((1, 224, 224),)),
    Case("SEResNet50", {"spatial_dims": 2, "in_channels": 3, "num_classes": 2}, ((3, 224, 224),)),
    Case("SENet154", {"spatial_dims": 2, "in_channels": 3, "num_classes": 2}, ((3, 224, 224),)),
    Case("EfficientNetBN", {"model_name": "efficientnet-b0", "pretrained": False}, ((3, 224, 224),)),
    Case("FlexibleUNet", {"in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b0"}, ((3, 224, 224),)),
    Case("MILModel", {"num_classes": 2, "pretrained": False}, ((4, 3, 224, 224),)),
)  # fmt: skip


GRADIENTS = "gradients"  # receptive fields: another measurement, of models of the other families
FAMILIES: dict[str, Family] = {
    "torchvision": Family("torchvision", lambda torchvision: torchvision.models.list_models(), chunk=30),
    GRADIENTS: Family("timm", gradients.names, chunk=30, is_targets=True),
    "timm": Family("timm", lambda timm: timm.list_models(), chunk=150),
    "hf": Family("transformers", _hf, chunk=40),
    "smp": Family("segmentation_models_pytorch", _smp,
                  Library("segmentation_models_pytorch", _smp_model, _images(3, 256, 256))),
    "open_clip": Family("open_clip", _open_clip, Library("open_clip", _open_clip_model, _open_clip_inputs)),
    "diffusers": _cases("diffusers", "diffusers", DIFFUSERS),
    "monai": _cases("monai", "monai.networks.nets", MONAI),
    "pytorchcv": Family("pytorchcv", _pytorchcv, Library("pytorchcv", _pytorchcv_model, _pytorchcv_inputs), 150),
}  # fmt: skip
