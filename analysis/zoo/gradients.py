"""Receptive fields of public models against the support of gradients (`resattn/instruments/gradient.py`).

The map is the output of one module: the last one to finish whose output has positions along both image axes. A model
without a linear twin, for instance one with attention, has a row that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from resattn.graph.walk import modules_of
from resattn.instruments.gradient import gradient_supports
from resattn.measures.audit import audit
from resattn.targets import resolved

# Classifiers, decoders, and networks whose channels are last (ConvNeXt, MetaFormer), of several authors.
MODELS = {
    "torchvision": (
        "alexnet", "vgg11", "vgg16", "vgg19_bn", "resnet18", "resnet34", "resnet50", "resnet101", "resnext50_32x4d",
        "wide_resnet50_2", "googlenet", "inception_v3", "squeezenet1_0", "squeezenet1_1", "shufflenet_v2_x1_0",
        "mobilenet_v2", "densenet121", "mnasnet1_0", "convnext_tiny", "convnext_base", "efficientnet_b0",
        "fcn_resnet50", "deeplabv3_resnet50", "lraspp_mobilenet_v3_large",
    ),
    "timm": (
        "resnet26d", "res2net50_14w_8s", "dla34", "dla60", "hrnet_w18_small", "convnext_atto", "convnext_femto_ols",
        "convnextv2_atto", "inception_v4", "inception_resnet_v2", "inception_next_atto", "xception41", "regnetx_002",
        "ese_vovnet19b_dw", "darknet21", "darknet53", "cspresnet50", "cspdarknet53", "repvgg_a0", "mobileone_s0",
        "nf_resnet50", "resnetv2_50", "poolformer_s12", "convformer_s18", "convmixer_768_32", "fbnetc_100",
        "mobilenetv1_100", "tf_efficientnet_lite0", "efficientnet_lite0", "selecsls42", "dpn68", "gernet_s",
        "starnet_s1", "mobilenetv4_conv_small", "seresnet18", "skresnet18", "densenetblur121d", "resnetblur50",
        "repghostnet_050", "van_b0", "mixnet_s",
    ),
    "smp": (
        "Unet/resnet18", "UnetPlusPlus/resnet18", "Linknet/resnet18", "FPN/resnet18", "Unet/vgg16",
        "Unet/densenet121", "Linknet/mobilenet_v2", "DeepLabV3Plus/resnet18", "PAN/resnet18",
    ),
    "pytorchcv": (
        "resnet10", "preresnet18", "vgg13", "bagnet9", "bagnet17", "bagnet33", "drnc26", "drnd22", "wrn50_2",
        "mobilenet_w1", "fdmobilenet_w1", "igcv3_w1", "peleenet", "diracnet18v2", "pyramidnet101_a360",
        "airnet50_1x64d_r2", "shufflenet_g3_w1", "hrnet_w18_small_v1", "sparsenet121", "xception",
        "ibnresnet50", "vovnet39",
    ),
    "hf": ("ResNetConfig", "ConvNextConfig"),
}  # fmt: skip

N_MIDDLE = {"smp": 32}  # rows of the map that are tried: every position against the strides of a decoder
FEW = 6
MOST_ROWS = 12_000


def names(timm: ModuleType) -> list[str]:
    """Every model as a target."""
    return [f"{library}:{name}" for library, found in MODELS.items() for name in found]


def measured_field(target: str) -> dict[str, Any]:
    """The side in pixels of the receptive field of a target's last map, by the audit and by the gradient's support.

    The input of the twin is large enough that the largest field in the middle is not clipped; if both sides are all of
    it, the field is the whole input. Raises: WitnessError and the errors of an audit.
    """
    with resolved(target) as found:
        model = found.make("meta").to("meta").eval()
        if hasattr(model, "requires_divisible_input_shape"):
            model.requires_divisible_input_shape = False  # type: ignore[assignment]  # the twin is one pixel wide
        path = last_map(model, *found.inputs.on("meta", torch.float32)[:2])
        a = audit(found.make("meta"), found.inputs, at=[path])
        field = a.fields[0]
        sides, side = field["receptive_field_px"], a.input_shape[-2]
        union = a.captured.fields_at(a.captured.inside(path)[-1].index).union
        is_whole = union is not None and union.is_whole
        n_middle = N_MIDDLE.get(target.partition(":")[0], FEW)
        rows = 64 * ((2 * sides[0] if sides and not is_whole else 3 * side) // 64 + 1 + n_middle)
        row: dict[str, Any] = {
            "module": path, "input": "x".join(map(str, a.input_shape)), "field": sides[0] if sides else None,
            "is_whole": is_whole, "field_notes": list(field["notes"]),
        }  # fmt: skip
        if rows > MOST_ROWS:
            raise ValueError(f"a twin of {rows} rows is too large")
        supports = gradient_supports(model, (a.input_shape[1], rows), path, n_middle=n_middle)
    whole = all(s.low == 0 and s.high == rows - 1 for s in supports)
    inside = [s for s in supports if s.low > 0 and s.high < rows - 1]
    largest = max((s.side_px for s in inside), default=None)
    return row | {"rows": rows, "gradient_is_whole": whole, "gradient": largest, "n_positions": len(inside)}


def last_map(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    """The last module to finish with a map (batch, channels, height, width) of more than one position."""
    found: list[str] = []

    def after(path: str) -> Callable[..., None]:
        def note(module: nn.Module, inputs: Any, output: Any) -> None:
            is_map = isinstance(output, Tensor) and output.dim() == 4 and min(output.shape[2:]) > 1
            is_new = not any(output is given for given in inputs)
            if is_map and is_new and path and not isinstance(module, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d):
                found.append(path)

        return note

    hooks = [module.register_forward_hook(after(path)) for path, module in modules_of(model)]
    try:
        with torch.no_grad():
            model(*args, **kwargs)
    finally:
        for hook in hooks:
            hook.remove()
    if not found:
        raise ValueError("no module gives a map")
    return found[-1]
