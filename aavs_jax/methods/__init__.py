"""What learns: a folder for each method, and what several of them are made of."""

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from aavs_jax.errors import UserError

if TYPE_CHECKING:
    from aavs_jax.methods.method import Method

# Name in a config, and of cards -> module, as `method.py` describes it. Beside it are config.py,
# which has TITLE, for people, and SIZES; and weights.py, which has the KINDS that can be converted.
# A method of one's own needs no line here: the config may name any module that can be imported.
METHODS = {
    "aavs": "aavs_jax.methods.aavs.method",
    "aavs_joint": "aavs_jax.methods.aavs_joint.method",
    "cavp": "aavs_jax.methods.cavp.method",
    "tpavi": "aavs_jax.methods.tpavi.method",
    "avsegformer": "aavs_jax.methods.avsegformer.method",
}


def module_of(name: str, part: str) -> ModuleType:
    """A module of a method's folder: 'config' (TITLE, SIZES), 'weights' (KINDS) or 'method'.

    Args:
      name: in METHODS.
      part: of the folder.
    """
    return importlib.import_module(f"{METHODS[name].rpartition('.')[0]}.{part}")


def find(name: str) -> ModuleType:
    """The module of a method.

    Args:
      name: in METHODS, or that of a module.

    Raises:
      UserError: there is none.
    """
    module = METHODS.get(name, name)
    try:
        found = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not module.startswith(str(error.name)):
            raise  # something that the module imports
        found = None
    except (ValueError, TypeError):  # no name of a module
        found = None
    if found is None or not hasattr(found, "make"):
        raise UserError(
            f"the method {name!r} is none of {', '.join(METHODS)}, nor a module that has a method: "
            "correct the config"
        )
    return found


def make_method(stage: Mapping[str, Any], num_classes: int, *, ignores: bool = False) -> "Method":
    """The method that a stage's config asks for.

    Args:
      stage: `method`, `task`, `model`, `loss`, `prior`, `data` as in configs/base.py; and to be
        trained `train`, the run's.
      num_classes: K of the data set, background counted; the binary task has 2.
      ignores: whether the labels it is trained on may have ignored pixels, which count for nothing.

    Raises:
      UserError: no such method, or a model or loss that cannot be.
    """
    make = find(stage["method"]).make
    try:
        return make(stage, 2 if stage["task"] == "binary" else num_classes, ignores)
    # What sizes of 0 and empty lists run into is not only the ValueErrors of the configurations.
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(f"the config's model or loss cannot be: {error}") from error
