"""Weights given as a file or as a folder, whole or in shards."""

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from aavs_jax.convert.files.reading import read_file, refusing
from aavs_jax.convert.files.tensors import StateDict
from aavs_jax.convert.files.unwrapping import strip
from aavs_jax.errors import UserError, shown
from aavs_jax.weights.foreign import weight_files

INDEX = ".index.json"  # the end of its name
MOST_INDEX = 2**23  # bytes


def read_state_dict(path: Path) -> StateDict:
    """Reads weights as lazily as their format allows, and runs nothing.

    Args:
      path: a file of PyTorch or safetensors under whatever name; the index of one in shards; or a
        folder that holds model.safetensors, pytorch_model.bin, either in shards with an index, or a
        single file of weights.

    Returns:
      Its tensors, and what else is there. Tensors are views of the mapped files, which have to stay
      as they are.

    Raises:
      UserError: there is no such file, it is none of weights, is damaged, holds several sets of
        weights, or asks to run something.
    """
    path = Path(path)
    with refusing(path):
        if not path.is_dir() and not path.exists():
            raise UserError(f"there is nothing at {path}: check the path")
        chosen = _in_folder(path) if path.is_dir() else path
    found = _shards(chosen) if chosen.name.endswith(INDEX) else read_file(chosen)
    if not found.tensors:
        raise UserError(f"{chosen} holds no tensors: check that it is the right file")
    with refusing(chosen):
        names, prefixes = strip(list(found.tensors))
    wrapping = [found.wrapping] if found.wrapping else []
    wrapping += [f"prefix {prefix!r}" for prefix in prefixes]
    return dataclasses.replace(
        found,
        tensors={names[name]: value for name, value in found.tensors.items()},
        wrapping="; ".join(wrapping),
    )


def _in_folder(folder: Path) -> Path:
    """The file of a folder that holds the weights, or the index of its shards."""
    files = weight_files(folder)
    if len(files) == 1:
        return _inside(folder, files[0])
    if files:
        raise UserError(
            f"{folder} holds several files of weights ({', '.join(files[:5])}): give the one that "
            "you mean"
        )
    names = ", ".join(sorted(os.listdir(folder))[:5]) or "it is empty"
    raise UserError(
        f"{folder} holds no file of weights ({names}): give the folder with model.safetensors or "
        "pytorch_model.bin, or the file itself"
    )


def _inside(folder: Path, name: str) -> Path:
    """A file of a folder. A downloaded folder must not lead to files elsewhere; the links of the
    Hugging Face cache, from snapshots/<revision> to blobs beside it, are the one exception."""
    path = folder / name
    # Path.resolve gives up where links lead in a circle, which opening then tells better.
    home, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    blobs = home.parent.parent / "blobs"
    if target.parent != home and not (home.parent.name == "snapshots" and target.parent == blobs):
        raise UserError(
            f"{path} leads out of its folder, to {target}: give that file itself if it is meant"
        )
    return path


def _shards(index: Path) -> StateDict:
    """All shards of an index together, each tensor from the one that the index says."""
    with refusing(index):
        text = index.read_bytes() if index.stat().st_size <= MOST_INDEX else b""
    try:
        weight_map: Any = json.loads(text)["weight_map"]
        names = sorted(set(weight_map.values()))
        if not names or not all(type(name) is str and "\0" not in name for name in names):
            raise ValueError("its weight_map is empty")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{index} is damaged (it maps no tensors to files): download it again"
        ) from None
    paths = {name: _inside(index.parent, name) for name in names}
    missing = [name for name in names if not paths[name].exists()]
    if missing:
        raise UserError(
            f"{index.parent} lacks {len(missing)} of the {len(names)} shards that {index.name} "
            f"names ({', '.join(map(shown, missing[:5]))}): download them"
        )
    shards = {name: read_file(path) for name, path in paths.items()}
    for name, shard in shards.items():
        expected = {tensor for tensor, place in weight_map.items() if place == name}
        if differing := sorted(expected ^ set(shard.tensors)):
            raise UserError(
                f"{paths[name]} does not hold what {index.name} says (for one, "
                f"{shown(differing[0])}): download both again, of the same version"
            )
    parts = shards.values()
    return StateDict(
        tensors={name: tensor for part in parts for name, tensor in part.tensors.items()},
        form=" and ".join(dict.fromkeys(part.form for part in parts)),
        wrapping="; ".join(dict.fromkeys(part.wrapping for part in parts if part.wrapping)),
        besides={
            f"{name}: {place}": what
            for name, part in shards.items()
            for place, what in part.besides.items()
        },
        metadata={key: text for part in parts for key, text in part.metadata.items()},
        files=(index, *paths.values()),
    )
