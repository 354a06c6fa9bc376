"""Suppression of boxes, which detectors need to run without torchvision's binary."""

from __future__ import annotations

import torch

from analysis.zoo.operators import SCHEMAS, _nms, _roi_align


def test_a_box_that_overlaps_a_better_one_is_left_out() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 5]], dtype=torch.float32)
    scores = torch.tensor([0.5, 0.9, 0.1, 0.2])
    # Intersections over unions with box 1: 90/100, 0, 50/90.
    assert _nms(boxes, scores, 0.6).tolist() == [1, 3, 2]
    assert _nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert _nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_a_ramp_has_its_value_at_the_centre_of_each_bin() -> None:
    ramp = torch.arange(32.0)[:, None] + 100 * torch.arange(64.0)
    rois = torch.tensor([[1.0, 8, 4, 40, 20], [0, 16, 16, 20, 24]])
    pooled = _roi_align(torch.stack([ramp, 2 * ramp])[:, None], rois, 0.5, 2, 4, 2, True)[:, 0]
    # Bins of 4 x 4 and 2 x 0.5 pixels, from (1.5, 3.5) and (7.5, 7.5) on; the second image is twice the first.
    rows, columns = torch.tensor([3.5, 7.5]), torch.tensor([5.5, 9.5, 13.5, 17.5])
    assert torch.allclose(pooled[0], 2 * (rows[:, None] + 100 * columns))
    rows, columns = torch.tensor([8.5, 10.5]), torch.tensor([7.75, 8.25, 8.75, 9.25])
    assert torch.allclose(pooled[1], rows[:, None] + 100 * columns)


def test_every_operator_is_declared_once() -> None:
    names = [schema.partition("(")[0] for schema in SCHEMAS]
    assert len(names) == len(set(names)) == 12
