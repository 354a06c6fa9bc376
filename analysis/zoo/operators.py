"""The compiled operators of torchvision, for a build of torch that its binary does not match (such as a CPU build).

torchvision registers shapes for its operators when it is imported, which fails if they do not exist. Here they are
declared first, with torchvision's schemas (csrc/ops) and plain implementations of those that a detector needs.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec

import torch
import torch.nn.functional as F
from torch import Tensor

_SIZE = "int batch_size, int channels, int height, int width"
_ROI = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
_BACK = "Tensor grad, Tensor rois, {}float spatial_scale, int pooled_height, int pooled_width"
_DEFORM = (
    "Tensor offset, Tensor mask, Tensor bias, int stride_h, int stride_w, int pad_h, int pad_w, int dil_h, int dil_w, "
    "int groups, int offset_groups, bool use_mask"
)
SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    f"roi_align({_ROI}, int sampling_ratio, bool aligned) -> Tensor",
    f"_roi_align_backward({_BACK.format('')}, {_SIZE}, int sampling_ratio, bool aligned) -> Tensor",
    f"roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_roi_pool_backward({_BACK.format('Tensor argmax, ')}, {_SIZE}) -> Tensor",
    f"ps_roi_align({_ROI}, int sampling_ratio) -> (Tensor, Tensor)",
    f"_ps_roi_align_backward({_BACK.format('Tensor channel_mapping, ')}, int sampling_ratio, {_SIZE}) -> Tensor",
    f"ps_roi_pool({_ROI}) -> (Tensor, Tensor)",
    f"_ps_roi_pool_backward({_BACK.format('Tensor channel_mapping, ')}, {_SIZE}) -> Tensor",
    f"deform_conv2d(Tensor input, Tensor weight, {_DEFORM}) -> Tensor",
    f"_deform_conv2d_backward(Tensor grad, Tensor input, Tensor weight, {_DEFORM}) "
    "-> (Tensor, Tensor, Tensor, Tensor, Tensor)",
)


def declare() -> torch.library.Library | None:
    """Afterwards torchvision can be imported and its detectors run, while the result is kept.

    None if its own operators load, or it is not installed. A process calls this once, before anything imports
    torchvision; timm, transformers and others do.
    """
    if find_spec("torchvision") is None:
        return None
    try:
        import torchvision

        if torchvision.extension._has_ops():
            return None
    except Exception:  # whatever a binary for another torch raises
        _forget("torchvision")
    library = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        library.define(schema)
    library.impl("nms", _nms, "CPU")
    import torchvision

    library.impl("roi_align", _roi_align, "CPU")
    for module in (torchvision.extension, sys.modules["torchvision.ops.roi_align"]):
        vars(module)["_has_ops"] = lambda: True
    return library


def _forget(package: str) -> None:
    """What a failed import left behind: the next one starts anew."""
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        del sys.modules[name]


def _nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """Indices of the boxes (x1, y1, x2, y2) that are kept, best first: none overlaps a better one by more than that."""
    order, kept = scores.argsort(descending=True), []
    while len(order):
        first, rest = order[0], order[1:]
        kept.append(first)
        low, high = boxes[rest, :2].maximum(boxes[first, :2]), boxes[rest, 2:].minimum(boxes[first, 2:])
        shared = _area((high - low).clamp(min=0))
        union = _area(boxes[rest, 2:] - boxes[rest, :2]) + _area(boxes[first, 2:] - boxes[first, :2]) - shared
        order = rest[shared <= iou_threshold * union]
    return torch.stack(kept) if kept else order


def _roi_align(
    maps: Tensor, rois: Tensor, spatial_scale: float, pooled_height: int, pooled_width: int, sampling_ratio: int,
    aligned: bool,
) -> Tensor:  # fmt: skip
    """For each region (image, x1, y1, x2, y2) the map on a grid of bins, each the mean of samples between pixels."""
    if sampling_ratio <= 0:  # as many samples as pixels, in each region another number
        from torchvision.ops.roi_align import _roi_align as of_torchvision

        return of_torchvision(maps, rois, spatial_scale, pooled_height, pooled_width, sampling_ratio, aligned)
    corners = rois[:, 1:] * spatial_scale - 0.5 * aligned
    sides = corners[:, 2:] - corners[:, :2]
    sides = sides if aligned else sides.clamp(min=1)
    at = []
    for k, (bins, n) in enumerate(((pooled_width, maps.shape[-1]), (pooled_height, maps.shape[-2]))):
        steps = (torch.arange(bins * sampling_ratio) + 0.5) / (bins * sampling_ratio)
        at.append(2 * (corners[:, k, None] + sides[:, k, None] * steps) / max(n - 1, 1) - 1)
    n_rows, n_columns = at[1].shape[1], at[0].shape[1]
    grid = torch.stack(torch.broadcast_tensors(at[0][:, None, :], at[1][:, :, None]), -1)
    pooled = maps.new_zeros(len(rois), maps.shape[1], pooled_height, pooled_width)
    for image in rois[:, 0].unique().long().tolist():
        own = rois[:, 0] == image
        rows = grid[own].view(1, -1, n_columns, 2)
        sampled = F.grid_sample(maps[image : image + 1], rows, padding_mode="border", align_corners=True)[0]
        means = F.avg_pool2d(sampled.unflatten(1, (-1, n_rows)).transpose(0, 1), sampling_ratio)
        pooled[own] = means
    return pooled


def _area(sides: Tensor) -> Tensor:
    return sides[..., 0] * sides[..., 1]
