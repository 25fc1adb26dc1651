"""What sizes a network in somebody's file has, and what such a network's parameters are."""

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from aavs_jax.convert.formats import AUDIO_ENCODER, KINDS
from aavs_jax.convert.naming import inverse_plan
from aavs_jax.convert.recognising import normal_names
from aavs_jax.errors import UserError, shown
from aavs_jax.methods.parts.key_tables import TENSORS, ByPath, Format
from aavs_jax.weights import card_faults

# Fields of a config.json that say nothing about the weights.
FREE = ("architectures", "image_size", "drop_path_rate", "label2id", "out_features")


def network_of(
    format: Format, shapes: ByPath, config: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """The sizes, nested plain values (`Card.network`).

    Shapes tell all of them; a config.json is held against them, as it also says what no shape does.

    Args:
      format: from `recognise`, with a kind.
      shapes: of the file's tensors, by the names in the file.
      config: what config.json says, None if there is none.

    Raises:
      UserError: the file lacks what tells a size; a size that no network here has; a config.json
        that contradicts the file or asks for what the network here does not compute.
    """
    names = normal_names(format, shapes)
    normal = {names[name]: tuple(shape) for name, shape in shapes.items()}
    kind = KINDS[format.kind]
    try:
        network = kind.sizes(_ours(format, normal), normal)
    except ValueError as error:
        raise UserError(f"{format.title}: {error}") from error
    # Beside a file of another kind lies, if any, the config of the network that it began as.
    if config is not None and kind.config:
        _check_config(config, kind.config(network, ()), "")
    return network


def wanted(kind: str, network: Mapping[str, Any], paths: Iterable[str] = ()) -> ByPath:
    """Path -> shape of each parameter that a file of this kind holds.

    Args:
      kind: of KINDS.
      network: as from `network_of`; what it does not say has its default.
      paths: of weights under our own names, among which an audio encoder may be as well.

    Raises:
      UserError: there can be no such network.
    """
    heard = KINDS[kind].hears and any(path.startswith(AUDIO_ENCODER) for path in paths)
    try:
        # Other methods say themselves what cannot be.
        if kind in card_faults.KINDS and (fault := card_faults.fault_of(kind, network)):
            raise ValueError(fault)
        shapes = KINDS[kind].parameters(network)
        return shapes | KINDS["vggish"].parameters(network) if heard else shapes
    # What sizes of 0 run into is not only the ValueErrors of the configurations.
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(
            f"a network of these sizes cannot be ({error}): take weights of another"
        ) from error


def classes_of(config: Mapping[str, Any] | None) -> tuple[str, ...]:
    """Class names by id from a config.json, () if it has none, or only 'LABEL_0' and so on."""
    labels = (config or {}).get("id2label")
    count = len(labels) if isinstance(labels, Mapping) else 0
    names = tuple(labels.get(str(index)) for index in range(count))
    if not all(isinstance(name, str) for name in names):
        return ()
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _ours(format: Format, normal: ByPath) -> ByPath:
    """What the file's names and shapes tell of our parameters; no numbers are read."""
    shapes: dict[str, tuple[int, ...]] = {}
    for step in inverse_plan(format, normal):
        to_ours, _ = TENSORS[step.how]
        try:
            parts = np.split(np.broadcast_to(np.float32(0), normal[step.theirs]), len(step.ours))
            pairs = zip(step.ours, parts, strict=True)
            shapes |= {path: to_ours(part).shape for path, part in pairs}
        except (ValueError, IndexError, ArithmeticError):
            continue  # of a shape that cannot be: the engine says so, or what asks for it does
    return shapes


def _check_config(config: Mapping[str, Any], expected: Mapping[str, Any], place: str) -> None:
    """Holds what a config.json says against what it would be for the weights.

    A field that is not there has its default: transformers leaves such out, and a wrong one shows
    in the shapes.
    """
    for field, value in expected.items():
        given = config.get(field)
        if given is None or field in FREE:
            continue
        if field == "id2label":  # names are theirs to choose
            given, value = len(given) if isinstance(given, Mapping) else given, len(value)
        if isinstance(value, Mapping) and isinstance(given, Mapping):
            _check_config(given, value, f"{place}{field}.")
        elif given != value:
            here = "other sizes" if isinstance(value, Mapping) else repr(value)
            raise UserError(
                f"config.json's {place}{field} is {shown(given)}, but the weights, and what is "
                f"built here of them, have {here}: take the config.json that belongs to them, or "
                "other weights"
            )
