"""Suppression of boxes, which detectors need to run without torchvision's binary."""

from __future__ import annotations

import torch

from analysis.zoo.operators import SCHEMAS, _nms


def test_a_box_that_overlaps_a_better_one_is_left_out() -> None:
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30], [0, 0, 10, 5]], dtype=torch.float32)
    scores = torch.tensor([0.5, 0.9, 0.1, 0.2])
    # Intersections over unions with box 1: 90/100, 0, 50/90.
    assert _nms(boxes, scores, 0.6).tolist() == [1, 3, 2]
    assert _nms(boxes, scores, 0.5).tolist() == [1, 2]
    assert _nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_every_operator_is_declared_once() -> None:
    names = [schema.partition("(")[0] for schema in SCHEMAS]
    assert len(names) == len(set(names)) == 12
