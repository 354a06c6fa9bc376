"""What other counters print: run with the tools on the path, it writes `tests/instruments/printed_by_tools.csv`; and how
far `counted_like` is from it, `compared.csv`.

    PYTHONPATH=.:FOLDER python -m tests.instruments.printed_by_tools > tests/instruments/printed_by_tools.csv
    PYTHONPATH=.:FOLDER python -m tests.instruments.printed_by_tools --compared > tests/instruments/compared.csv

FOLDER: made by `pip install --no-deps --target FOLDER thop==0.1.1.post2209072238 ptflops==0.7.5 deepspeed==0.19.8
timm==1.0.31` and what these import. The tests compare `counted_like` with this table, so they need none of the tools.
"""

from __future__ import annotations

import contextlib
import copy
import csv
import importlib.util
import inspect
import io
import logging
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from resattn.instruments.counters import TOOLS as RULES
from resattn.instruments.counters import counted_like
from resattn.measures.captured import Captured
from resattn.networks import catalog
from resattn.networks.classic import ZOO
from resattn.networks.network import build
from tests.authors import UNet, ViT
from tests.nets import NETS

Made = tuple[Callable[[], nn.Module], tuple[tuple[int, ...], ...]]

# Nets of which a number of another tool says nothing: random or by value, or with inputs that are no floats.
NOT_COUNTED = ("DataDependent", "Counting", "ConstantItem", "Autocast")


# Of timm, by architecture: one or two of each family.
TIMM = (
    "resnet18", "resnet26d", "resnext26ts", "seresnet50", "regnetx_002", "regnety_002", "efficientnet_b0",
    "mobilenetv2_100", "mobilenetv3_large_100", "mnasnet_100", "ghostnet_100", "tinynet_a", "rexnet_100", "lcnet_050",
    "densenet121", "dla34", "dpn68", "hrnet_w18_small", "inception_v3", "vgg11", "convnext_atto", "convnextv2_atto",
    "repvgg_a0", "vit_tiny_patch16_224", "deit_tiny_patch16_224", "mixer_s32_224", "resmlp_12_224",
    "swin_tiny_patch4_window7_224", "pit_ti_224", "levit_128s", "poolformer_s12", "mobilevit_xxs", "edgenext_xx_small",
)  # fmt: skip


def models() -> dict[str, Made]:
    """Every model of the table, by name: how it is made, and the shapes of its inputs."""
    found: dict[str, Made] = {name: (z.make, ((1, *z.input_shape),)) for name, z in ZOO.items()}
    for name in ("attention56", "cifar-attention92", "attentionnext56", "cifar-resnet20-basic", "cifar-resnet56"):
        spec = catalog.named(name)
        found[name] = (lambda spec=spec: build(spec, device="cpu"), ((1, *spec.input_shape),))
    for mode in ("transposed", "nearest", "bilinear"):
        found[f"UNet-{mode}"] = (lambda mode=mode: UNet(16, 2, mode=mode), ((1, 3, 64, 64),))
    found["ViT-S"] = (lambda: ViT(384, 4, 6, 16, 64, 10), ((1, 3, 64, 64),))
    found |= {name: (net.make, net.shapes) for name, net in NETS.items() if name not in NOT_COUNTED}
    if importlib.util.find_spec("timm") and importlib.util.find_spec("torchvision"):
        import timm

        for name in TIMM:
            size = timm.get_pretrained_cfg(name).input_size if timm.is_model_pretrained(name) else (3, 224, 224)
            found[f"timm:{name}"] = (lambda name=name: timm.create_model(name), ((1, *size),))
    return found


# -- one function for each tool


def fvcore(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    from fvcore.nn import FlopCountAnalysis

    logging.getLogger("fvcore").setLevel(logging.CRITICAL)
    return int(FlopCountAnalysis(model, inputs).total())


def thop(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    import thop

    return int(thop.profile(model, inputs, verbose=False)[0])


def ptflops(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    from ptflops import get_model_complexity_info

    made = dict(zip(inspect.signature(model.forward).parameters, inputs, strict=False))
    shape = tuple(inputs[0].shape[1:])
    how: dict[str, Any] = {} if len(inputs) == 1 else {"input_constructor": lambda _: made}
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        value, _ = get_model_complexity_info(model, shape, as_strings=False, print_per_layer_stat=False, **how)
    if value is None:
        raise RuntimeError("ptflops gave no number")
    return int(value)


def torchinfo(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    import torchinfo

    return int(torchinfo.summary(model, input_data=list(inputs), verbose=0).total_mult_adds)


def deepspeed(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
    from deepspeed.profiling.flops_profiler.profiler import get_model_profile

    return int(get_model_profile(model, args=list(inputs), print_profile=False, as_string=False)[0])


def flopcounter(model: nn.Module, inputs: tuple[Tensor, ...]) -> int:
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        model.to("meta")(*(x.to("meta") for x in inputs))
    return int(counter.get_total_flops())


TOOLS = (fvcore, thop, ptflops, torchinfo, deepspeed, flopcounter)


def printed(made: Made, tool: Callable[..., int]) -> int | str:
    """The number, or the error in one line."""
    make, shapes = made
    torch.manual_seed(0)
    try:
        model = copy.deepcopy(make()).eval()
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(sys.stderr):
            warnings.simplefilter("ignore")
            return tool(model, tuple(torch.rand(shape) for shape in shapes))
    except Exception as error:
        return f"{type(error).__name__}: {error}".splitlines()[0][:80]


def main() -> None:
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(("model", "tool", "printed"))
    for name, made in models().items():
        if not name.startswith(tuple(sys.argv[1:]) or ""):
            continue
        for tool in TOOLS:
            value = printed(made, tool)
            if isinstance(value, int):
                writer.writerow((name, tool.__name__, value))
            else:
                print(f"{name}, {tool.__name__}: {value}", file=sys.stderr)
        sys.stdout.flush()


def compared() -> None:
    """For each tool: how many of its printed numbers are ours, lie in the range that we give, get no number of ours
    with a reason, or differ; and the largest difference, with its model."""
    table = Path(__file__).with_name("printed_by_tools.csv")
    rows: dict[str, dict[str, Any]] = {tool: dict.fromkeys(COMPARED, 0) | {"tool": tool, "worst": ""} for tool in RULES}
    most = dict.fromkeys(RULES, 0.0)
    made, networks = models(), {}
    for line in csv.DictReader(table.open(encoding="utf-8")):
        name, tool, printed = line["model"], line["tool"], int(line["printed"])
        if name not in networks:
            make, shapes = made[name]
            networks = {name: Captured.of(make().eval(), *shapes, name=name)}
        found = counted_like(networks[name], tool)
        low, more = found.value, sum(found.doubts.values())
        what = ("refused" if low is None else "equal" if low == printed else
                "in_range" if low <= printed <= low + more else "different")  # fmt: skip
        rows[tool]["numbers"] += 1
        rows[tool][what] += 1
        if low is not None and what == "different" and abs(low / printed - 1) >= most[tool]:
            most[tool] = abs(low / printed - 1)
            rows[tool]["worst"] = f"{100 * (low / printed - 1):+.2g} % ({name})"
    writer = csv.DictWriter(sys.stdout, ["tool", *COMPARED, "worst"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows.values())


COMPARED = ("numbers", "equal", "in_range", "refused", "different")

if __name__ == "__main__":
    compared() if sys.argv[1:] == ["--compared"] else main()
