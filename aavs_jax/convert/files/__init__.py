"""Files of weights, read and written without torch and without running anything in them.

A PyTorch file is a pickle, that is a small program, beside raw numbers; opened the usual way it may
run whatever its author liked. `torch.load(weights_only=True)` needs torch, for a conversion alone,
calls functions off a list with arguments that the file chooses, and has been got round before
(CVE-2025-32434); `pickle.Unpickler` with a strict `find_class` bounds neither memory nor depth.

Here `pickletools.genops` names the opcodes, and a small stack machine notes what they describe:
dicts, lists, numbers, and tensors as (storage, offset, shape, strides). Globals are inert names;
one that weights don't need ends the reading. The numbers are then views of the mapped file.

* `pickles`, `known`: the stack machine, and the names that it understands
* `torch_zip`, `torch_legacy`: the two layouts of `torch.save`
* `safetensors_file`: the safetensors format
* `unwrapping`: which of the dicts in a training checkpoint are the weights
* `reading`: any file, by its content; `folders`: folders and shards of files
* `writing`: both formats; `placing`: whole, and never in the place of another file
"""

from aavs_jax.convert.files.folders import read_state_dict
from aavs_jax.convert.files.placing import write_all
from aavs_jax.convert.files.tensors import StateDict, Tensor, digest
from aavs_jax.convert.files.writing import write_safetensors, write_torch

__all__ = [
    "StateDict",
    "Tensor",
    "digest",
    "read_state_dict",
    "write_all",
    "write_safetensors",
    "write_torch",
]
