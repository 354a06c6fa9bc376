"""Measures one model of the zoo: its audit beside torch's own count, as a row."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from resattn.graph.capture import without_fast_path
from resattn.graph.errors import CaptureError, NeedsValuesError
from resattn.graph.inputs import Inputs
from resattn.graph.walk import leaves_of
from resattn.measures.audit import MOST_BYTES, Audit, audit, refuse_large
from resattn.rules.rule import macs_of
from resattn.targets import ModelError, Target, resolved
from resattn.views.tree import FUNCTIONAL, tree

KEPT = (
    "weighted_layers", "conv_layers", "trunk_depth", "longest_path", "shortest_path", "n_paths", "params",
    "dead_params", "macs", "macs_constant", "receptive_field_px",
    "receptive_field_narrowest_px", "receptive_field_widest_px",
)  # fmt: skip


def measured(target: str) -> dict[str, Any]:
    """The audit of a target and torch's count. An error in torch's count is a message; one in the audit is raised."""
    start = time.process_time()
    torch.manual_seed(0)  # weights and noise of a model that runs on values
    with resolved(target) as found:
        model = found.make("meta")
        built = time.process_time()
        try:
            a, model, device, again_s = _audited(found, model)
        except CaptureError as error:
            if not isinstance(error, NeedsValuesError) and (alone := _error_alone(model, found.inputs)):
                raise ModelError(f"the library's model fails by itself: {alone}") from error
            raise
        done = time.process_time()
        row = {"device": device, **_of_audit(a), **_like(a), "padded_by_name": _padded_by_name(a, model),
               "tree_off": _tree_off(a)}  # fmt: skip
        row |= {"build_s": round(built - start + again_s, 3), "audit_s": round(done - built - again_s, 3)}
        row["numel"] = sum(p.numel() for p in model.parameters())
        buffers = [(module, dict(module._buffers)) for module in model.modules()]  # torch's pass moves them to meta
        try:
            try:
                row |= _counted(model, found.inputs, device)
            except RuntimeError as error:
                if "BF16" not in str(error):
                    raise
                row |= _counted(model.bfloat16(), found.inputs, device)  # an operator that torch has for bf16 alone
        except Exception as error:
            row["torch_error"] = first_line(error)
            if device == "meta" and 4 * row["numel"] <= MOST_BYTES and (row["macs"] or 0) <= MOST_MACS:
                row |= _counted_on_values(model, buffers, found.inputs, row)
        row["torch_s"] = round(time.process_time() - done, 3)
        if n := row.pop("standardised", 0):
            row["fvcore"], row["fvcore_parts"] = row["fvcore"] + n, {**row["fvcore_parts"], STANDARDISED: n}
        if "macs_torch" in row:
            row["macs_causes"] = _causes(a, row.pop("macs_by_op"))
            if any(hasattr(module, name) for module in model.modules() for name in FUSES):
                row["fused"] = _fused(model, found.inputs, device)
    return row


STANDARDISED = "standardisation of weights"
MOST_MACS = 5 * 10**10  # of a model that runs on values for torch's count alone: some seconds
FUSES = ("reparameterize", "fuse", "switch_to_deploy")  # a module with branches that become one for inference


def _fused(model: nn.Module, inputs: Inputs, device: str) -> dict[str, Any]:
    """Multiply-adds and parameters once the branches are fused, by timm's function; none where that fails."""
    try:
        from timm.utils import reparameterize_model

        single = reparameterize_model(model)
        counted = _counted(single, inputs, device)
    except Exception:
        return {}
    return {"macs": counted["macs_torch"], "params": sum(p.numel() for p in single.parameters())}


def first_line(error: BaseException) -> str:
    """The error in one line."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    return ": ".join([type(error).__name__, *lines[:1]])[:400]


def _audited(found: Target, model: nn.Module) -> tuple[Audit, nn.Module, str, float]:
    """As `audit` does for a name: on values where the forward needs them. The model is built once for all; with values
    it is built again, in the seconds that are returned."""
    try:
        return audit(model, found.inputs), model, "meta", 0.0
    except NeedsValuesError as error:
        refuse_large(model, error)
    start = time.process_time()
    model = found.make("cpu")
    again_s = time.process_time() - start
    return audit(model, found.inputs, device="cpu"), model, "cpu", again_s


def _error_alone(model: nn.Module, inputs: Inputs) -> str:
    """What the model raises on these inputs without a capture; "" where it runs, or where the meta device, on which it
    runs here, has not the values that it asks for."""
    try:
        model.to("meta").eval()(*(given := inputs.on("meta", torch.get_default_dtype()))[0], **given[1])
    except Exception as error:
        return "" if "meta tensor" in str(error).lower() else first_line(error)
    return ""


def _of_audit(a: Audit) -> dict[str, Any]:
    return {
        "input": " and ".join("x".join(map(str, shape)) for shape in (a.input_shape, *a.more_inputs)),
        "status": a.status,
        "incomplete": {name: status for name, status in a.statuses.items() if status != "complete"},
        "unknown_ops": sorted({op.partition(" in ")[0] for op in a.unknown_ops}),
        "masks": a.roles_found_by,
        "notes": list(a.notes),
        "n_ops": len(a.captured.graph.ops),
        **{name: a.quantities.get(name) for name in KEPT},
    }


def _like(a: Audit) -> dict[str, Any]:
    """The counts of the tools with which libraries make their published tables, by our rules for these tools."""
    fvcore, deepspeed = a.counted_like("fvcore"), a.counted_like("deepspeed")
    products = deepspeed.parts.get("convolutions, matrix products, attention", 0) // 2
    return {"fvcore": fvcore.value, "fvcore_parts": dict(fvcore.parts), "deepspeed": products}


def _tree_off(a: Audit) -> dict[str, int]:
    """What the module tree holds beyond the totals, or a module beyond its own work and its children; {} where each
    sum is exact."""
    root = tree(a.captured, with_fields=False)
    off: Counter[str] = Counter()
    for number in ("params", "macs"):
        off[number] += abs(getattr(root, number) - (a.quantities[number] or a.at_least.get(number, 0)))
        for _, node in root.walk():
            if node.kind != FUNCTIONAL:
                below = sum(getattr(child, number) for child in node.children if child.kind != FUNCTIONAL)
                off[number] += abs(getattr(node, number) - getattr(node, f"own_{number}") - below)
    return {number: n for number, n in off.items() if n}


def _padded_by_name(a: Audit, model: nn.Module) -> int:
    """Multiply-adds of convolutions with padding="same", which fvcore does not count."""
    named = {path for path, module in model.named_modules() if isinstance(getattr(module, "padding", None), str)}
    return sum(macs_of(op) for op in a.captured.graph.ops if op.kind == "convolution" and op.module in named)


class _Touched(TorchDispatchMode):
    """The parameters that any operator takes, and what fvcore counts for norms of parameters by their own statistics:
    5 per element, 4 without scale (fvcore/nn/jit_handles.py, norm_flop_counter).
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.params = {id(p): p.numel() for p in model.parameters()}
        self.memory = {p.untyped_storage()._cdata for p in model.parameters()}
        self.touched: set[int] = set()
        # What work on parameters alone has made, with those parameters; and those that met anything else.
        self.alone: dict[int, tuple[Tensor, set[int]]] = {}
        self.met: set[int] = set()
        self.standardised = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "batch_norm" in str(func) and args[0].untyped_storage()._cdata in self.memory:
            self.standardised += args[0].numel() * (4 if args[1] is None else 5)
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        taken = {id(t) for t in given} & self.params.keys()
        self.touched |= taken
        before = taken.union(*(self.alone[id(t)][1] for t in given if id(t) in self.alone))
        result = func(*args, **(kwargs or {}))
        if before and all(id(t) in self.params or id(t) in self.alone for t in given):
            self.alone |= {id(t): (t, before) for t in tree_leaves(result) if isinstance(t, Tensor)}
        else:
            self.met |= before
        return result

    def with_those_in(self, result: Iterable[Tensor]) -> set[int]:
        """Those, and the parameters that are returned as they are."""
        return self.touched | {id(t) for t in result} & self.params.keys()


def _counted(model: nn.Module, inputs: Inputs, device: str) -> dict[str, Any]:
    """Multiply-adds by torch's FlopCounterMode, and the sizes of the parameters that any operator takes."""
    # torch's counter refuses a learned parameter that is passed to a module.
    model = model.to(device).eval().requires_grad_(False)
    floating = (p.dtype for p in model.parameters() if p.is_floating_point())
    args, kwargs, _ = inputs.on(device, next(floating, torch.get_default_dtype()))
    counter, touched = FlopCounterMode(display=False), _Touched(model)
    with torch.no_grad(), without_fast_path(), counter, touched:
        result = model(*args, **kwargs)
    by_op = {
        str(op).removeprefix("aten."): int(n) // 2 for op, n in counter.get_flop_counts().get("Global", {}).items()
    }
    return {
        "macs_torch": int(counter.get_total_flops()) // 2,
        "macs_by_op": by_op,
        "standardised": touched.standardised,
        "params_met": sum(touched.params[i] for i in touched.met),
        "params_torch": sum(touched.params[i] for i in touched.with_those_in(leaves_of(result))),
    }


def _counted_on_values(
    model: nn.Module, buffers: Sequence[tuple[nn.Module, dict[str, Any]]], inputs: Inputs, row: dict[str, Any]
) -> dict[str, Any]:
    """The same on the CPU, with weights of 0, for a model that asks for the value of an input; nothing where that
    fails too. Attention and recurrent layers run as their separate products: torch's counter has no formula for the
    CPU's fused ones.
    """
    made: dict[int, nn.Parameter] = {}
    for module, kept in buffers:
        module._buffers.update(kept)
        for name, p in module._parameters.items():
            if p is not None and p.is_meta:
                zeros = torch.zeros(p.shape, dtype=p.dtype)
                module._parameters[name] = made.setdefault(id(p), nn.Parameter(zeros, requires_grad=False))
    try:
        with sdpa_kernel(SDPBackend.MATH), torch.backends.mkldnn.flags(enabled=False):
            counted = _counted(model, inputs, "cpu")
    except Exception:
        return {}
    del row["torch_error"]
    return counted


def _causes(a: Audit, theirs: Mapping[str, int]) -> dict[str, int]:
    """What our multiply-adds hold beyond torch's, by the operators that torch has no formula for; and what is left."""
    known = {str(packet).removeprefix("aten.") for packet in flop_registry}
    graph = a.captured.graph
    ours: Counter[str] = Counter()
    for op in (*graph.ops, *graph.constants):
        ours[op.name.removeprefix("aten.")] += macs_of(op)
    causes = {f"torch has no formula for {name}": n for name, n in ours.items() if n and name not in known}
    left = int(a.quantities["macs"] or 0) - sum(theirs.values()) - sum(causes.values())
    return {**causes, **({"": left} if left else {})}
