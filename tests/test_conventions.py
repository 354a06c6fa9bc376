"""Which inputs a model of transformers gets: small models that take one call alone, and fail on others."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resattn.conventions import PATCHES, SAMPLES, TOKENS, UnknownArgumentError, inputs_of


def config(**fields: Any) -> SimpleNamespace:
    return SimpleNamespace(model_type="tiny", **fields)


def model(forward: Callable[..., Tensor], main: str, **fields: Any) -> nn.Module:
    made = nn.Module()
    made.forward, made.main_input_name, made.config = forward, main, config(**fields)
    return made


def of_patches(hidden_states: Tensor, grid_thw: Tensor) -> Tensor:
    height, width = grid_thw[0, 1:].tolist()
    return hidden_states.view(height, width, 3 * 2 * 4 * 4)


def of_a_pair(pixel_values: Tensor) -> Tensor:
    _, two, _, _, _ = pixel_values.shape
    return pixel_values.view(-1) if two == 2 else pixel_values.view(7)


def of_frames(input_features: Tensor, input_features_mask: Tensor) -> Tensor:
    return input_features @ torch.empty(40, 2) * input_features_mask.view(1, 3000, 1)


def of_text_and_boxes(input_ids: Tensor | None = None, bbox: Tensor | None = None) -> Tensor:
    return torch.stack([input_ids, bbox[..., 3]])  # type: ignore[index,list-item]


def of_text_alone(input_ids: Tensor | None = None, pixel_values: Tensor | None = None) -> Tensor:
    if pixel_values is not None:
        raise ValueError("64 image tokens, 0 found")
    return input_ids * 2  # type: ignore[operator]


def of_one_channel(input_values: Tensor) -> Tensor:
    batch, one, samples = input_values.shape
    return input_values.view(batch, one, samples)


def of_a_large_image(pixel_values: Tensor) -> Tensor:
    return pixel_values.view(1, 3, 96, 96)


def of_seen_images(
    input_ids: Tensor, pixel_values: Tensor | None = None, image_attention_mask: Tensor | None = None
) -> Tensor:
    _, n, _, _, _ = pixel_values.shape  # type: ignore[union-attr]
    return input_ids[..., None] * image_attention_mask.view(1, TOKENS, n)  # type: ignore[union-attr]


def of_a_prompt(pixel_values: Tensor, prompt_pixel_values: Tensor, prompt_masks: Tensor) -> Tensor:
    return torch.cat([pixel_values, prompt_masks], 2).view(1, 3, 64, 32) + torch.cat([prompt_pixel_values] * 2, 2)


def of_sound(hidden_states: Tensor) -> Tensor:
    return nn.functional.conv1d(hidden_states, torch.empty(2, 1, 7))


def of_both(input_ids: Tensor, decoder_input_ids: Tensor | None = None, position_ids: Tensor | None = None) -> Tensor:
    return input_ids + decoder_input_ids  # type: ignore[operator]


@pytest.mark.parametrize(
    ("forward", "main", "fields", "shapes"),
    [
        (of_patches, "input_ids", {"patch_size": 4, "temporal_patch_size": 2}, [(PATCHES**2, 96), (1, 3)]),
        (of_a_pair, "pixel_values", {}, [(1, 2, 3, 224, 224)]),
        (of_frames, "input_features", {"encoder": config(mel_dim=40)}, [(1, 3000, 40), (1, 3000)]),
        (of_text_and_boxes, "input_ids", {}, [(1, TOKENS), (1, TOKENS, 4)]),
        (of_text_alone, "input_ids", {"projection_dim": 8}, [(1, TOKENS)]),
        (of_one_channel, "input_values", {}, [(1, 1, SAMPLES)]),
        (of_a_large_image, "pixel_values", {"backbone": config(image_size=96)}, [(1, 3, 96, 96)]),
        (of_seen_images, "input_ids", {}, [(1, TOKENS), (1, 1, 3, 224, 224), (1, TOKENS, 1)]),
        (of_a_prompt, "pixel_values", {"image_size": [64, 32]}, [(1, 3, 32, 32)] * 3),
        (of_sound, "hidden_states", {}, [(1, 1, SAMPLES)]),
        (of_both, "input_ids", {"is_encoder_decoder": True, "max_position_embeddings": 8}, [(1, 8), (1, 8)]),
    ],
)
def test_the_call_is_one_on_which_the_forward_runs(
    forward: Callable[..., Tensor], main: str, fields: dict[str, Any], shapes: list[tuple[int, ...]]
) -> None:
    found = inputs_of(model(forward, main, **fields), (1,))
    assert [tuple(shape) for shape in found.shapes] == shapes


def test_where_no_call_runs_the_likeliest_is_taken() -> None:
    def never(input_ids: Tensor, pixel_values: Tensor | None = None) -> Tensor:
        raise RuntimeError("broken")

    assert inputs_of(model(never, "input_ids"), (1,)).shapes == ((1, TOKENS),)


def test_an_argument_without_a_rule_is_named() -> None:
    def session(inference_session: Any) -> Tensor:
        return torch.zeros(1)

    with pytest.raises(UnknownArgumentError, match="^inference_session$"):
        inputs_of(model(session, "pixel_values"), (1,))
