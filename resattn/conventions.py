"""What a model of transformers is called with: by the names of its forward's arguments and by its configuration."""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from math import prod
from typing import Any

import torch
from torch import Tensor

from resattn.graph.capture import replay
from resattn.graph.errors import NO_VALUES, NeedsValuesError
from resattn.graph.graph import Shape
from resattn.graph.inputs import Blank, Inputs
from resattn.graph.walk import Index
from resattn.rules.rule import find
from resattn.rules.table import RULES

TOKENS = 64
SAMPLES = 16_000  # of sound: one second
PATCHES = 12  # along each side of an image that is given as patches
MOST_TRIED, MOST_TRIED_S = 48, 20  # calls that are tried for one on which the forward runs, and CPU seconds for it
SIDES = (224, 256, 336, 384, 512, 640, 1024, 1536)  # of images, where the configuration says nothing

Made = Blank | Tensor
Chosen = Mapping[str, Made | None]  # None: an argument that is still to be made


class UnknownArgumentError(ValueError):
    """An argument of the forward has no rule; the message is its name."""


def inputs_of(model: Any, batch: Shape) -> Inputs:
    """Images as the configuration gives them, 64 tokens, a second of sound, and what goes with them.

    Where the forward takes more than one kind of input, or the configuration leaves a shape open, calls are tried on
    "meta" until one runs. Raises: UnknownArgumentError.
    """
    rules = _Rules(model, batch)
    calls = islice(rules.calls(), MOST_TRIED)
    first = next(calls)
    if not rules.is_open:
        return first
    index, needing, start = Index(model), None, time.process_time()
    for call in (first, *calls):
        if time.process_time() - start > MOST_TRIED_S:
            break
        try:
            replay(index.current, call, functools.partial(find, RULES))
        except Exception as error:  # the wrong call, or one that runs until a value is asked for
            if isinstance(error, NeedsValuesError) or any(s in str(error) for s in NO_VALUES):
                needing = needing or call
        else:
            return call
    return needing or first


class _Rules:
    """The arguments that a forward may be called with, and for each the shapes that it may have."""

    def __init__(self, model: Any, batch: Shape) -> None:
        self.config, self.batch = model.config, batch
        self.taken = inspect.signature(model.forward).parameters
        main = model.main_input_name
        self.main = {main} if isinstance(main, str) else {*main}
        self.needed = {n for n, p in self.taken.items() if p.default is p.empty and p.kind not in UNNAMED}
        self.is_open = False

    # -- which arguments

    def calls(self) -> Iterator[Inputs]:
        """The likeliest first. Raises: UnknownArgumentError."""
        least = self.main & self.taken.keys() | self.needed
        wanted = set(least)
        if hasattr(self.config, "projection_dim"):  # a text and an image, side by side
            wanted |= {"input_ids", "pixel_values"} & self.taken.keys()
        if getattr(self.config, "is_encoder_decoder", False):
            wanted |= {"decoder_input_ids"} & self.taken.keys()
        known = [n for n in self.taken if n not in wanted and self.makers(n) is not None]
        with_others = wanted | {n for n in known if n in KINDS}
        alone = [self.needed | {n} for n in self.taken if n in KINDS]
        marked = [with_others | {n} for n in self.taken if OF_IMAGES.fullmatch(n)]
        every = wanted | {n for n in known if n != "inputs_embeds"}
        kept = [wanted, with_others, least or wanted, *alone, *marked, *(wanted | {n} for n in known), every]
        sets = list(dict.fromkeys(map(frozenset, kept)))
        if unknown := sorted(n for n in wanted if self.makers(n) is None):
            raise UnknownArgumentError(unknown[0])
        self.is_open = any(n != "inputs_embeds" for n in known) or bool(self.needed - self.main)
        made = [list(islice(self._made([n for n in self.taken if n in names]), MOST_TRIED)) for names in sets]
        most = max(map(len, made))
        for k in range(most):
            for calls in made:
                if k < len(calls):
                    yield Inputs((), calls[k])

    def _made(self, names: Sequence[str]) -> Iterator[dict[str, Made]]:
        # What depends on the others comes last.
        order = sorted(names, key=lambda n: n.endswith("mask"))

        def further(chosen: dict[str, Made], left: Sequence[str]) -> Iterator[dict[str, Made]]:
            if not left:
                yield {n: chosen[n] for n in names}
                return
            maker = self.makers(left[0])
            assert maker is not None
            for made in maker({**chosen, **dict.fromkeys(left[1:], None)}):
                yield from further({**chosen, left[0]: made}, left[1:])

        return further({}, order)

    def makers(self, name: str) -> Callable[[Chosen], list[Made]] | None:
        """What gives the alternatives for an argument, by its name or the end of its name."""
        ends: dict[str, Maker] = {"input_ids": _Rules.tokens, **dict.fromkeys(GRIDS, _Rules.grid)}
        if OF_IMAGES.fullmatch(name):
            ends["mask"] = _Rules.mask
        if name in self.needed:
            ends |= {"embeds": _embeddings, "states": _embeddings, "mask": _Rules.mask}
            ends |= dict.fromkeys(("pixel_values", "masks"), _Rules.like_images)
        found = MAKERS.get(name) or next((maker for end, maker in ends.items() if name.endswith(end)), None)
        return functools.partial(found, self) if found is not None else None

    # -- what the configuration says

    @functools.cached_property
    def configs(self) -> list[Any]:
        """The configuration and those inside of it, the outermost first."""
        found: list[Any] = []
        level = [self.config]
        while level and len(found) < 64:
            found += level
            level = [v for config in level for v in vars(config).values() if hasattr(v, "model_type")]
        return found

    def values(self, *names: str) -> list[Any]:
        """Those of these fields that a configuration or one inside of it has, the outermost first, without repeats."""
        found = [v for config in self.configs for n in names if (v := getattr(config, n, None)) is not None]
        return list(dict.fromkeys(tuple(v) if isinstance(v, list) else v for v in found if not isinstance(v, dict)))

    def numbers(self, *names: str) -> list[int]:
        return [int(v) for v in self.values(*names) if isinstance(v, int | float) and not isinstance(v, bool) and v > 0]

    def first(self, default: int, *names: str) -> int:
        return next(iter(self.numbers(*names)), default)

    @property
    def length(self) -> int:
        text = getattr(self.config, "text_config", None) or self.config
        most = getattr(text, "max_position_embeddings", None) or TOKENS
        return min(TOKENS, most) if most > 0 else TOKENS

    # -- shapes

    def tokens(self, chosen: Chosen) -> list[Made]:
        # Codes of sound come in several books.
        books = [n for k in self.numbers("num_codebooks", "num_channels") if "pixel_values" not in self.taken
                 for n in (k, k + 1)]  # fmt: skip
        self.is_open |= bool(books)
        return [self.indices(self.length), *(self.indices(self.length, k) for k in dict.fromkeys(books))]

    def images(self, chosen: Chosen) -> list[Made]:
        if any(n.endswith(GRIDS) for n in chosen):
            return self.patches(chosen)
        if "pixel_position_ids" in chosen:
            side = self.first(14, "patch_size")
            return [self.blank(PATCHES**2, self.first(3, "num_channels", "in_channels") * side**2)]
        vision = getattr(self.config, "vision_config", None) or self.config
        frames = getattr(vision, "num_frames", None)
        channels = getattr(vision, "num_channels", None) or self.first(3, "num_channels", "in_channels", "in_chans")
        size = getattr(vision, "image_size", None)
        sizes = dict.fromkeys((tuple(size) if isinstance(size, Sequence) else size or SIDES[0],
                               *self.values("image_size", "max_img_size"),
                               *([min(size)] if isinstance(size, Sequence) else []), *SIDES))  # fmt: skip
        found: list[Made] = []
        for each in sizes:
            height, width = each if isinstance(each, tuple) else (each, each)
            found.append(self.blank(*([frames] if frames else []), channels, height, width))
        self.is_open = True
        lengths = dict.fromkeys((*self.numbers("frames_per_clip"), 1, 2, 16))
        rows: list[Made] = [Blank((*self.batch, n, *each.shape[-3:])) for each in found for n in lengths]
        return [found[0], *rows[: len(lengths)], *found[1:], *rows[len(lengths) :]]

    def patches(self, chosen: Chosen) -> list[Made]:
        side = self.first(14, "patch_size")
        channels = self.first(3, "in_channels", "num_channels", "in_chans")
        frames = self.first(1, "temporal_patch_size")
        n = PATCHES**2 * prod(self.batch)
        flat = channels * side**2
        shapes = dict.fromkeys(((flat * frames,), (channels, side, side), (flat,), (2 * flat,)))
        return [*(Blank((n, *shape)) for shape in shapes), *(self.blank(PATCHES**2, *shape) for shape in shapes)]

    def like_images(self, chosen: Chosen) -> list[Made]:
        first = chosen.get("pixel_values") or self.images(chosen)[0]
        return [Blank(first.shape)] if first is not None else []

    def states(self, chosen: Chosen) -> list[Made]:
        """Patches of an image; or sound and what a codec makes of it."""
        self.is_open = True
        coded = [self.blank(n, TOKENS) for n in self.numbers("hidden_size")]
        return [*self.patches(chosen), self.blank(1, SAMPLES), *coded]

    def grid(self, chosen: Chosen) -> list[Made]:
        rows = prod(self.batch)
        return [torch.tensor([sides] * rows) for sides in ((1, PATCHES, PATCHES), (PATCHES, PATCHES))]

    def sound(self, chosen: Chosen) -> list[Made]:
        if bins := getattr(self.config, "num_mel_bins", None):
            return [self.blank(getattr(self.config, "max_length", 1024), bins)]
        self.is_open = True
        shapes: list[Shape] = [(SAMPLES,), (1, SAMPLES)]
        if bins := self.first(0, "num_mel_bins"):
            shapes.append((self.first(1024, "max_length", "spectrogram_length"), bins))
        shapes += [(1, 24_000), (19_200,), (1, 19_200)]  # whole frames of codecs at 24 kHz
        return [self.blank(*shape) for shape in shapes]

    def spectrum(self, chosen: Chosen) -> list[Made]:
        own = int(getattr(self.config, "num_mel_bins", 0) or getattr(self.config, "input_feat_per_channel", 80))
        positions = int(getattr(self.config, "max_source_positions", None) or 1500)
        fields = [n for config in self.configs for n in vars(config) if FEATURES.search(n)]
        stacked = (own * n for n in (*self.numbers("num_stacked_frames"), 2, 4))  # several frames as one
        bins = dict.fromkeys((own, *self.numbers(*fields), 128, *stacked))
        # Whisper reads two frames a position, channels first; the others take frames first.
        if self.config.model_type == "whisper":
            return [self.blank(own, 2 * positions)]
        self.is_open = True
        shapes: list[Shape] = [(TOKENS, own)]
        for n in bins:
            shapes += [(TOKENS, n), (n, 2 * positions), (2 * positions, n), (n, TOKENS), (n, 8 * TOKENS)]
            shapes += [(1, 1024, n), (4, 1024, n)]
        return [self.blank(*shape) for shape in dict.fromkeys(shapes)]

    def mask(self, chosen: Chosen) -> list[Made]:
        """Of what it is named after, nothing is left out; or of the tokens."""
        sized = [made.shape for n, made in chosen.items() if made is not None and not n.endswith("mask")]
        own = [shape[len(self.batch) :] for shape in sized]
        lengths = sorted({n for shape in own for n in shape[:2]}, key=lambda n: (n != self.length, -n))
        # Which of several images a token sees.
        pairs = [(self.length, shape[0]) for shape in own if len(shape) == 4]
        shapes = [*pairs, *((n,) for n in lengths)]
        return [torch.ones((*self.batch, *shape), dtype=torch.bool) for shape in shapes] or [self.indices(self.length)]

    def series(self, chosen: Chosen) -> list[Made]:
        steps = self.first(TOKENS, "context_length") + max([0, *(v for vs in self.values("lags_sequence") for v in vs)])
        channels = self.first(1, "num_input_channels", "input_size")
        return [self.blank(steps, channels), self.blank(steps)]

    def indices(self, *shape: int) -> Blank:
        return Blank((*self.batch, *shape), torch.int64)

    def blank(self, *shape: int) -> Blank:
        return Blank((*self.batch, *shape))


# Fields that may say how many numbers a frame of sound has.
FEATURES = re.compile(r"(mel|feat|input)\w*_(bins|dim|size)|(n|num)_mels|input_(dim|size)")
UNNAMED = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
GRIDS = ("grid_thw", "grid_hws", "spatial_shapes")  # height and width of images that are given as patches
OF_IMAGES = re.compile(r"image_\w*mask")  # which tokens are those of images, or see them
# Kinds of input of which a forward may take several.
KINDS = ("input_ids", "pixel_values", "pixel_values_videos", "input_features", "input_values", "decoder_input_ids")


Maker = Callable[[_Rules, Chosen], list[Made]]


def _embeddings(rules: _Rules, chosen: Chosen) -> list[Made]:
    n = rules.first(TOKENS, "num_query_tokens", "num_latents")
    return [
        rules.blank(k, width)
        for width in rules.numbers("hidden_size", "d_model", "d_latents")
        for k in dict.fromkeys((rules.length, n))
    ]


def _of(*shape: int | str, integers: bool = False) -> Maker:
    """A shape of numbers, and of fields of the configuration; "tokens" is the length of a text."""

    def made(rules: _Rules, chosen: Chosen) -> list[Made]:
        sizes = [rules.length if n == "tokens" else n if isinstance(n, int) else rules.first(1, n) for n in shape]
        return [Blank((*rules.batch, *sizes), torch.int64 if integers else None)]

    return made


# By the name of an argument.
MAKERS: dict[str, Maker] = {
    "pixel_values": _Rules.images,
    "pixel_values_videos": _Rules.images,
    "hidden_states": _Rules.states,
    "input_values": _Rules.sound,
    "input_features": _Rules.spectrum,
    "audio_mel": _Rules.spectrum,
    "input_features_mask": _Rules.mask,
    "audio_mel_mask": _Rules.mask,
    "is_longer": _of(1, integers=True),
    "bbox": lambda rules, chosen: [rules.indices(rules.length, 4), rules.blank(rules.length, 4)],
    "merge_sizes": lambda rules, chosen: [torch.ones(prod(rules.batch), dtype=torch.int64)],
    "visual_feats": _of(36, "visual_feat_dim"),
    "visual_pos": _of(36, "visual_pos_dim"),
    "query_embeds": _embeddings,
    "inputs_embeds": _embeddings,
    "noise_embeds": _embeddings,
    "inputs": _embeddings,
    "latents": _embeddings,
    "pixel_position_ids": _of(PATCHES**2, 2, integers=True),
    "task_inputs": _of("task_seq_len", integers=True),
    "past_values": _Rules.series,
    "states": _of("tokens", "state_dim"),
    "actions": _of("tokens", "act_dim"),
    "rewards": _of("tokens", 1),
    "returns_to_go": _of("tokens", 1),
    "timesteps": _of("tokens", integers=True),
    "state": _of("max_state_dim"),
}
