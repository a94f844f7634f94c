"""Checkpoints and weights: safetensors files, written aside and renamed, so never half a file."""

import hashlib
import json
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

if TYPE_CHECKING:
    from companion.training import History


def write_atomically(path: Path, content: bytes) -> None:
    """Writes `content` to `path`, or leaves `path` as it was.

    The bytes go to a temporary file in the same folder, reach the disk, and take the name. Raises
    OSError, naming the path, if any of this fails (a full disk, say).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise OSError(
            error.errno, f"could not write {path}: {error.strerror}; what was there is kept"
        ) from error


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Writes named tensors and a JSON description as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    described = {"about": json.dumps(about), "sha256": _digest(plain)}
    write_atomically(path, save(plain, metadata=described))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Reads what `save_tensors` wrote. Raises ValueError, naming the path, if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        about = json.loads(metadata["about"])
        if metadata["sha256"] != _digest(tensors):
            raise ValueError("its numbers do not match its checksum")
        return tensors, about
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or was not written by companion ({error}); "
            "delete it to start anew, or restore it"
        ) from error


def _digest(tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for name in sorted(tensors):
        digest.update(name.encode())
        digest.update(tensors[name].numpy().tobytes())
    return digest.hexdigest()


def save_checkpoint(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    steps: int,
    history: "History",
) -> None:
    """Writes model, optimiser, step and history."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    numbers: dict[str, float] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            key = f"optimizer.{index}.{name}"
            if isinstance(value, Tensor):
                tensors[key] = value
            else:
                numbers[key] = value
    about = {"step": step, "steps": steps, "history": asdict(history), "numbers": numbers}
    save_tensors(path, tensors, about)


def load_checkpoint(
    path: Path, model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int
) -> tuple[int, "History"]:
    """Restores model and optimiser in place; returns the step reached and the history.

    Raises ValueError if the file is damaged, or is a checkpoint of another run.
    """
    from companion.training import History

    tensors, about = load_tensors(path)
    own = {name: tensor.shape for name, tensor in model.state_dict().items()}
    stored = {k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")}
    if about["steps"] != steps or own != {name: tensor.shape for name, tensor in stored.items()}:
        raise ValueError(
            f"{path} belongs to another run ({about['steps']} steps; this one has {steps}, or the "
            "model has other shapes); give another checkpoint, or delete it to start anew"
        )
    model.load_state_dict(stored)
    state: dict[int, dict[str, object]] = {}
    entries = {k: v for k, v in tensors.items() if k.startswith("optimizer.")} | about["numbers"]
    for key, value in entries.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return about["step"], History(**about["history"])
