"""Whether a file or folder holds somebody else's weights, told by what is in it.

`aavs_jax.convert` reads such; everyone else only has to know them from folders of our own.
"""

from pathlib import Path

HEAD = 1024  # bytes that tell what a file is
# As transformers looks for them in a folder, in this order.
NAMES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


def form_of(head: bytes) -> str:
    """'zip', 'pickle', 'safetensors' or '', by the first bytes of a file."""
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    # A length, then a JSON dict. The first eight characters of a text would be a length beyond all.
    if len(head) > 8 and head[8:9] == b"{" and int.from_bytes(head[:8], "little") < 2**40:
        return "safetensors"
    # Protocols 0 and 1 have no mark; torch has never written them unless asked to.
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        return "pickle"
    return ""


def weight_files(folder: Path) -> list[str]:
    """Names of the files of a folder that may hold its weights; only one if it has a usual name.

    Raises:
      OSError: the folder cannot be read.
    """
    names = sorted(path.name for path in folder.iterdir())
    usual = [name for name in NAMES if name in names]
    return usual[:1] or [name for name in names if _may_hold_weights(folder / name)]


def _may_hold_weights(path: Path) -> bool:
    try:
        if not path.is_file():
            return False
        with open(path, "rb") as file:
            return bool(form_of(file.read(HEAD)))
    except OSError:
        return False
