"""Checkpoints and weights: safetensors files, written aside and renamed, so never half a file."""

import glob
import hashlib
import json
import os
import secrets
from contextlib import suppress
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
    OSError, naming the path, if any of this fails (a full disk, say). The temporary file goes away
    whatever happens, a kill excepted: `remove_leftovers` is for that.
    """
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(aside, "xb") as file:  # not mkstemp: that file only its owner may read
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not write {path}: {error.strerror}; what was there is kept"
        ) from error
    finally:
        with suppress(OSError):
            aside.unlink()


def remove_leftovers(path: Path) -> None:
    """Removes what processes that were killed while writing `path` left beside it."""
    for leftover in path.parent.glob(f".{glob.escape(path.name)}.????????"):
        leftover.unlink(missing_ok=True)


def save_tensors(path: Path, tensors: dict[str, Tensor], about: dict) -> None:
    """Writes named tensors and a JSON description as one safetensors file, atomically."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    text = json.dumps(about)
    described = {"about": text, "sha256": _digest(plain, text)}
    write_atomically(path, save(plain, metadata=described))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Reads what `save_tensors` wrote. Raises ValueError, naming the path, if it is damaged."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata["sha256"] != _digest(tensors, metadata["about"]):
            raise ValueError("its contents do not match its checksum")
        return tensors, json.loads(metadata["about"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{path} is damaged or was not written by companion ({error}); "
            "delete it to start anew, or restore it"
        ) from error


def _digest(tensors: dict[str, Tensor], about: str) -> str:
    digest = hashlib.sha256(about.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.numpy().tobytes())
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
    about = {
        "step": step,
        "steps": steps,
        "optimizer": type(optimizer).__name__,
        "numbers": numbers,
        "history": asdict(history),
    }
    save_tensors(path, tensors, about)


def resume(
    path: Path,
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    history: "History",
) -> tuple[int, "History"]:
    """Restores model and optimiser in place; returns the step reached and the history.

    Where there is no checkpoint yet, step 0 and the `history` given. Raises ValueError if the file
    is damaged, or is a checkpoint of another run.
    """
    remove_leftovers(path)
    if not path.exists():
        return 0, history
    tensors, about = load_tensors(path)
    stored = {k[len("model.") :]: v for k, v in tensors.items() if k.startswith("model.")}
    there = _identity(about.get("steps"), about.get("optimizer"), stored)
    here = _identity(steps, type(optimizer).__name__, model.state_dict())
    differs = sorted(k for k in there.keys() | here.keys() if there.get(k) != here.get(k))
    if differs:
        name = differs[0]
        raise ValueError(
            f"{path} belongs to another run: {name} is {there.get(name)} there, {here.get(name)} "
            "here; give another checkpoint, or delete it to start anew"
        )
    state: dict[int, dict[str, object]] = {}
    entries = {k: v for k, v in tensors.items() if k.startswith("optimizer.")} | about["numbers"]
    for key, value in entries.items():
        _, index, name = key.split(".", 2)
        state.setdefault(int(index), {})[name] = value
    model.load_state_dict(stored)
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )
    return about["step"], type(history)(**about["history"])


def _identity(steps: int | None, optimizer: str | None, state: dict[str, Tensor]) -> dict:
    shapes = {name: f"{x.dtype} {tuple(x.shape)}" for name, x in state.items()}
    return {"number of steps": steps, "optimiser": optimizer, **shapes}
