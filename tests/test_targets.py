"""The resolver: every kind of target, the path while it is measured, and what is said of one that gives no model."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from resattn.conventions import TOKENS
from resattn.extras import MissingError
from resattn.graph.inputs import Inputs
from resattn.measures.audit import audit
from resattn.targets import FRAMES, LibraryError, TargetError, foreign, model_of, resolved

SHAPE = (4, 8, 8)


# -- models of others: `package.module:callable`, `path/to/file.py:callable`

MODELS = '''
from __future__ import annotations
from dataclasses import dataclass
import sys
import torch
from torch import nn
from neighbour import width

@dataclass
class Config:
    width: int = 4

def build():
    return nn.Sequential(nn.Conv2d(Config().width, width(), 3, bias=False), nn.ReLU())

def with_default(c=4): return build()
def needs(c, *, d): return build()
def wrong(): return 3
def fails(): raise KeyError("no weights\\nhere")
def leaves(): sys.exit(3)
def values():
    # A constructor that asks for values, which meta tensors lack.
    return nn.Sequential(*(nn.Conv2d(4, 4, 3) for _ in range(int(torch.linspace(0, 2, 3)[-1].item()))))

class Asks(nn.Module):
    """Its forward asks for a constant of its own."""
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3)
        self.register_buffer("times", torch.tensor(2))
    def forward(self, x):
        for _ in range(int(self.times)):
            x = self.conv(x)
        return x

made = nn.Conv2d(4, 4, 1)
number = 3
'''


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "models.py").write_text(MODELS)
    (tmp_path / "neighbour.py").write_text("def width(): return 6\n")
    (tmp_path / "broken.py").write_text("def build(:\n")
    (tmp_path / "statistics.py").write_text("from torch import nn\ndef build(): return nn.Conv2d(4, 4, 1)\n")
    yield tmp_path
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


def test_a_callable_of_a_file_is_audited(folder: Path) -> None:
    path = list(sys.path)
    found = audit(f"{folder / 'models.py'}:build", SHAPE)
    assert found.quantities["params"] == 6 * 4 * 9
    assert found.target == f"{folder / 'models.py'}:build"
    assert sys.path == path
    assert audit(f"{folder / 'models.py'}:with_default", SHAPE).quantities["params"] == 216


def test_a_callable_of_a_package_is_audited(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(folder)
    assert audit("models:build", SHAPE).quantities["params"] == 216


def test_a_model_itself_and_a_class_are_callables_too(folder: Path) -> None:
    assert audit(f"{folder / 'models.py'}:made", SHAPE).quantities["params"] == 20
    assert audit(f"{folder / 'models.py'}:Asks", SHAPE).quantities["weighted_layers"] == 2


def test_a_file_may_have_the_name_of_a_module_in_use(folder: Path) -> None:
    import statistics

    assert audit(f"{folder / 'statistics.py'}:build", SHAPE).quantities["params"] == 20
    assert sys.modules["statistics"] is statistics


def test_a_constructor_that_needs_values_gets_them(folder: Path) -> None:
    assert audit(f"{folder / 'models.py'}:values", SHAPE).quantities["weighted_layers"] == 2


def test_a_model_is_built_without_its_weights(folder: Path) -> None:
    model = model_of(f"{folder / 'models.py'}:build")
    assert all(p.is_meta for p in model.parameters())


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("models.py:nothing", r"models.py has no callable 'nothing' (it has: Config, build, with_default"),
        ("models.py:number", "models.py has no callable 'number'"),
        ("models.py:needs", "models.py:needs needs arguments (c, d); a callable without arguments is expected"),
        ("models.py:wrong", "models.py:wrong returned a int, not a torch.nn.Module"),
        ("models.py:fails", "models.py:fails raised KeyError: 'no weights"),
        ("models.py:leaves", "models.py:leaves raised SystemExit: 3"),
        ("broken.py:build", "broken.py cannot be imported: SyntaxError"),
        ("missing.py:build", "no file "),
    ],
)
def test_a_target_that_gives_no_model_says_why(folder: Path, target: str, said: str) -> None:
    with pytest.raises(TargetError) as error:
        audit(f"{folder}/{target}", SHAPE)
    assert said in str(error.value)


def test_a_package_that_does_not_exist_says_so() -> None:
    with pytest.raises(TargetError, match="no_such_package cannot be imported: ModuleNotFoundError"):
        audit("no_such_package:build", SHAPE)


# -- libraries of models


class Tiny(nn.Conv2d):
    def __init__(self, **options: Any) -> None:
        super().__init__(3, 2, 3, bias=False)
        self.options, self.pretrained_cfg = options, {"input_size": (3, 20, 24)}


def library(name: str, **attributes: Any) -> ModuleType:
    module = ModuleType(name)
    vars(module).update(attributes)
    return module


@pytest.fixture
def timm(monkeypatch: pytest.MonkeyPatch) -> None:
    made = library("timm", list_models=lambda: ["resnet50", "vit"], create_model=lambda n, **o: Tiny(name=n, **o))
    monkeypatch.setitem(sys.modules, "timm", made)


def ImageClassification(**options: Any) -> None: ...


def VideoClassification(**options: Any) -> None: ...


@pytest.fixture
def torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    def detector(*, weights: Any = "trained", weights_backbone: Any = "trained") -> nn.Module:
        return Tiny(weights=weights, backbone=weights_backbone)

    def classifier(*, weights: Any = "trained") -> nn.Module:
        return Tiny(weights=weights)

    def video(*, weights: Any = "trained") -> nn.Module:
        return nn.Conv3d(3, 2, 3)

    builders = {"detector": detector, "classifier": classifier, "video": video}
    weights = {
        "classifier": partial(ImageClassification, crop_size=24),
        "video": partial(VideoClassification, crop_size=(8, 9)),
    }
    models = SimpleNamespace(
        list_models=lambda: list(builders),
        get_model_builder=builders.__getitem__,
        get_model_weights=lambda name: [SimpleNamespace(transforms=weights[name])],
    )
    monkeypatch.setitem(sys.modules, "torchvision", library("torchvision", models=models))


@pytest.mark.usefixtures("timm")
@pytest.mark.parametrize("name", ["resnet50", "resnet50.a1_in1k"])
def test_a_model_of_timm_comes_untrained(name: str) -> None:
    assert foreign("timm", name)().options == {"name": name, "pretrained": False}


@pytest.mark.usefixtures("torchvision")
def test_a_model_of_torchvision_comes_untrained_and_so_does_its_backbone() -> None:
    assert foreign("torchvision", "classifier")().options == {"weights": None}
    assert foreign("torchvision", "detector")().options == {"weights": None, "backbone": None}


@pytest.mark.usefixtures("timm")
def test_an_unknown_model_is_answered_with_its_neighbours() -> None:
    with pytest.raises(TargetError, match=r"^timm has no model 'resnet5' \(nearest: resnet50\)$"):
        foreign("timm", "resnet5")
    with pytest.raises(TargetError, match=r"^timm has no model 'unheard' \(none is near\)$"):
        foreign("timm", "unheard")


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingError, match=r"^timm:vit needs timm: pip install 'resattn\[zoo\]'$"):
        foreign("timm", "vit")


def test_a_library_that_breaks_at_import_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # torchvision built for another torch raises RuntimeError, not ImportError.
    (tmp_path / "torchvision.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    with pytest.raises(LibraryError, match="torchvision cannot be imported: RuntimeError: operator torchvision::nms"):
        foreign("torchvision", "resnet50")


def test_another_library_is_refused() -> None:
    with pytest.raises(TargetError, match=r"^no library 'keras' \(one of: timm, torchvision, hf\)$"):
        foreign("keras", "vgg16")


# -- a library's own input


@pytest.mark.usefixtures("timm")
def test_a_model_of_timm_brings_its_input() -> None:
    assert audit("timm:vit").input_shape == (1, 3, 20, 24)
    assert audit("timm:vit", Inputs(batch=(2,))).input_shape == (2, 3, 20, 24)
    assert audit("timm:vit", (3, 9, 9)).input_shape == (1, 3, 9, 9)


@pytest.mark.usefixtures("torchvision")
def test_a_model_of_torchvision_brings_the_size_of_its_evaluation() -> None:
    assert audit("torchvision:classifier").input_shape == (1, 3, 24, 24)
    assert audit("torchvision:video").input_shape == (1, 3, FRAMES, 8, 9)


class TinyConfig:
    def __init__(self, **fields: Any) -> None:
        self.architectures: list[str] = []
        self.max_position_embeddings = 512
        vars(self).update(fields)


class Reader(nn.Module):
    main_input_name = "input_ids"

    def __init__(self, config: Any) -> None:
        super().__init__()
        self.config, self.embedding, self.fc = config, nn.Embedding(9, 4), nn.Linear(4, 2, bias=False)

    def forward(self, input_ids: Tensor | None = None, decoder_input_ids: Tensor | None = None) -> Tensor:
        assert input_ids is not None
        x = self.embedding(input_ids)
        return self.fc(x if decoder_input_ids is None else x + self.embedding(decoder_input_ids))


class Generator(nn.Module):
    def __init__(self, config: Any) -> None:
        super().__init__()


class Viewer(Reader):
    main_input_name = "pixel_values"

    def forward(self, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
        return self.fc(pixel_values.mean((1, 2, 3)).expand(4))


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    auto_config = SimpleNamespace(for_model=lambda model_type, **fields: TinyConfig(model_type=model_type, **fields))
    made = library(
        "transformers",
        BertConfig=TinyConfig,
        Viewer=Viewer,
        Generator=Generator,
        AutoConfig=auto_config,
        AutoModel=SimpleNamespace(from_config=Reader),
    )
    monkeypatch.setitem(sys.modules, "transformers", made)


@pytest.mark.usefixtures("transformers")
def test_a_configuration_of_transformers_is_read_and_nothing_is_fetched(tmp_path: Path) -> None:
    found = audit("hf:BertConfig")
    assert (found.input_shape, found.quantities["macs"]) == ((1, TOKENS), TOKENS * 4 * 2)
    path = tmp_path / "config.json"
    for text, shapes in (
        ('{"model_type": "bert", "max_position_embeddings": 16}', [(1, 16)]),
        ('{"model_type": "bert", "max_position_embeddings": -1}', [(1, TOKENS)]),
        ('{"model_type": "t5", "is_encoder_decoder": true}', [(1, TOKENS), (1, TOKENS)]),
        (
            '{"model_type": "vit", "architectures": ["Viewer"], "image_size": [8, 12], "num_channels": 5}',
            [(1, 5, 8, 12)],
        ),
    ):
        path.write_text(text)
        found = audit(f"hf:{path}")
        assert [found.input_shape, *found.more_inputs] == shapes


@pytest.mark.usefixtures("transformers")
@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("hf:BrtConfig", r"transformers has no model 'BrtConfig' \(nearest: BertConfig\)"),
        ("hf:none/config.json", "no file none/config.json"),
        ("hf:{}/empty.json", "empty.json has no model_type"),
        ("hf:{}/generator.json", "Generator has no forward: other methods call its parts"),
        ("hf:{}/broken.json", "broken.json is no configuration of transformers: Expecting"),
    ],
)
def test_what_is_no_configuration_says_so(target: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "empty.json").write_text("{}")
    (tmp_path / "broken.json").write_text("{")
    (tmp_path / "generator.json").write_text('{"model_type": "t5", "architectures": ["Generator"]}')
    with pytest.raises(TargetError, match=message):
        audit(target.format(tmp_path))


def test_a_name_of_the_census_says_its_target() -> None:
    with pytest.raises(TargetError, match=r"its target is resattn\.networks\.classic:vgg16 --input 3,224,224$"):
        audit("vgg16")


def test_what_is_missing_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingError, match=r"^hf:BertConfig needs transformers: pip install 'resattn\[zoo\]'$"):
        audit("hf:BertConfig")


# -- a model is built without the memory of its weights


class Large(nn.Module):
    """4 TB of weights, one shared by two names, one filled by the constructor; a table that the constructor and the forward read."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(2**14, 2**14, bias=False) for _ in range(32))
        self.again = nn.Linear(1, 1)
        self.again.weight = self.layers[0].weight
        self.experts = nn.Parameter(torch.zeros(2**20, 2**20))
        self.register_buffer("table", torch.arange(3))
        self.n = int(self.table.sum())
        self.to("cpu", torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.n if self.table.sum() == 3 else self.layers[0](x)


def test_parameters_take_no_memory_and_constants_keep_their_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "large", library("large", Large=Large))
    model = model_of("large:Large")
    assert model.layers[0].weight is model.again.weight
    assert all(p.is_meta and p.dtype is torch.float64 for p in model.parameters())
    assert model.table.tolist() == [0, 1, 2]
    found = audit("large:Large", (4,))
    assert (found.quantities["macs"], found.quantities["defined_params"]) == (0, 32 * 2**28 + 2**40 + 1)
    assert not any("captured on the CPU" in note for note in found.notes)


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("nofile.py:b", "no file nofile.py"),
        ("resattn.targets:nothing", "has no callable 'nothing'"),
        ("no_such_package.m:b", "no_such_package.m cannot be imported"),
    ],
)
def test_what_does_not_exist_is_named_before_an_input_is_asked_for(target: str, words: str) -> None:
    with pytest.raises(TargetError, match=words), resolved(target):
        pass
