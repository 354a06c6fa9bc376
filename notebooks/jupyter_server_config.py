"""JupyterLab as `make lab` starts it: what it saves of a notebook, by itself or by hand, has no outputs.

The notebooks are tracked files. Their tables and figures lie in `results/interactive`.
"""

from typing import Any


def without_outputs(model: dict[str, Any], **_: Any) -> None:
    """Leave of a notebook what a person wrote."""
    if model.get("type") != "notebook" or not model.get("content"):
        return
    content = model["content"]
    kept = {"kernelspec": content["metadata"].get("kernelspec", {}), "language_info": {"name": "python"}}
    content["metadata"] = {name: value for name, value in kept.items() if value}
    for cell in content["cells"]:
        cell["metadata"] = {name: value for name, value in cell["metadata"].items() if name == "tags"}
        if cell["cell_type"] == "code":
            cell["outputs"], cell["execution_count"] = [], None


if "get_config" in globals():  # under Jupyter, which reads this file as its configuration
    get_config().FileContentsManager.pre_save_hook = without_outputs  # noqa: F821
