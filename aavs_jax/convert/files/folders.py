"""Weights given as a file or as a folder, whole or in shards."""

import json
import os
from pathlib import Path
from typing import Any

from aavs_jax.convert.files.reading import Raw, read_file, refusing, sniff
from aavs_jax.convert.files.tensors import StateDict, check_names, quoted
from aavs_jax.convert.files.unwrapping import strip
from aavs_jax.errors import UserError

# As transformers looks for them, in this order.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
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
        # A folder that may not be entered shows here, not as one without weights.
        names = sorted(p.name for p in path.iterdir()) if path.is_dir() else None
        if names is None and not path.exists():
            raise UserError(f"there is nothing at {path}: check the path")
    chosen = path if names is None else _in_folder(path, names)
    if chosen.name.endswith(INDEX):
        return _shards(chosen)
    return _state_dict([(chosen, read_file(chosen))], chosen)


def _in_folder(folder: Path, names: list[str]) -> Path:
    """The file of a folder that holds the weights, or the index of its shards."""
    files = _weight_files(folder, names)
    if len(files) == 1:
        return _inside(folder, files[0])
    if files:
        raise UserError(
            f"{folder} holds several files of weights ({', '.join(files[:5])}): give the one that "
            "you mean"
        )
    raise UserError(
        f"{folder} holds no file of weights ({', '.join(names[:5]) or 'it is empty'}): give the "
        "folder with model.safetensors or pytorch_model.bin, or the file itself"
    )


def weight_files(folder: Path) -> list[str]:
    """Names of the files of a folder that may hold its weights; only one if it has a usual name.

    Raises:
      OSError: the folder cannot be read.
    """
    return _weight_files(folder, sorted(path.name for path in folder.iterdir()))


def _weight_files(folder: Path, names: list[str]) -> list[str]:
    usual = [name for name in NAMES if name in names]
    return usual[:1] or [name for name in names if sniff(folder / name)]


def _inside(folder: Path, name: str) -> Path:
    """A file of a folder. A downloaded folder must not lead to files elsewhere; the links of the
    Hugging Face cache, from snapshots/<revision> to blobs beside it, are the one exception."""
    path = folder / name
    # Path.resolve gives up where links lead in a circle, which opening then tells better.
    home, target = Path(os.path.realpath(folder)), Path(os.path.realpath(path))
    blobs = home.parent.parent / "blobs"
    if target.parent != home and not (home.parent.name == "snapshots" and target.parent == blobs):
        raise UserError(
            f"{path} is a link that leads out of its folder, to {target}: give that file itself if "
            "it is meant"
        )
    return path


def _weight_map(index: Path) -> dict[str, str]:
    """Tensor -> shard, as an index says."""
    with refusing(index):
        text = index.read_bytes() if index.stat().st_size <= MOST_INDEX else b""
    try:
        found: Any = json.loads(text)["weight_map"]
        if not found or not all(type(name) is str for name in found.values()):
            raise ValueError("its weight_map is empty")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise UserError(
            f"{index} is damaged (it maps no tensors to files): download it again"
        ) from None
    for name in found.values():
        if name in ("", ".", "..") or not name.isprintable() or set(name) & set("/\\:"):
            raise UserError(
                f"{index} names {quoted(name)} as a shard, which is no file of its folder: do not "
                "trust it, or correct it"
            )
    return found


def _shards(index: Path) -> StateDict:
    """All shards of an index, each tensor from the one that the index says."""
    weight_map = _weight_map(index)
    shards: list[tuple[Path, Raw]] = []
    names = sorted(set(weight_map.values()))
    missing = [name for name in names if not (index.parent / name).exists()]
    if missing:
        raise UserError(
            f"{index.parent} lacks {len(missing)} of the {len(names)} shards that {index.name} "
            f"names ({', '.join(missing[:5])}): download them"
        )
    for name in names:
        path = _inside(index.parent, name)
        raw = read_file(path)
        expected = {tensor for tensor, shard in weight_map.items() if shard == name}
        if differing := sorted(expected ^ set(raw.tensors)):
            raise UserError(
                f"{path} does not hold what {index.name} says (for one, {quoted(differing[0])}): "
                "download both again, of the same version"
            )
        shards.append((path, raw))
    return _state_dict(shards, index)


def _state_dict(parts: list[tuple[Path, Raw]], origin: Path) -> StateDict:
    """What the parts hold together, and without prefixes."""
    tensors, besides, metadata, forms, wrapping = {}, {}, {}, [], []
    for path, raw in parts:
        label = f"{path.name}: " if len(parts) > 1 else ""
        tensors |= raw.tensors
        besides |= {label + place: reason for place, reason in raw.besides.items()}
        metadata |= raw.metadata
        forms.append(raw.form)
        wrapping += [f"under {'/'.join(map(repr, raw.under))}"] if raw.under else []
    if not tensors:
        raise UserError(f"{origin} holds no tensors: check that it is the right file")
    with refusing(origin):
        check_names(tensors)
        names, prefixes = strip(list(tensors))
    wrapping += [f"prefix {prefix!r}" for prefix in prefixes]
    files = tuple(path for path, _ in parts)
    if origin not in files:
        files = (origin, *files)
    return StateDict(
        tensors={names[name]: value for name, value in tensors.items()},
        form=" and ".join(dict.fromkeys(forms)),
        wrapping="; ".join(dict.fromkeys(wrapping)),
        besides=besides,
        metadata=metadata,
        files=files,
        bytes=sum(path.stat().st_size for path in files),
    )
