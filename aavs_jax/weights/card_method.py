"""The method that a card describes."""

from aavs_jax.errors import UserError
from aavs_jax.methods import METHODS, make_method, module_of
from aavs_jax.methods.method import Method
from aavs_jax.methods.parts.sizes import NOT_KEYS
from aavs_jax.weights.card import Card

SIDE = 384  # pixels of frames, and of masks, of a method that does not say


def side_of(card: Card) -> int:
    """Pixels of the frames that a network was trained on: the card's, or its published files'.

    Raises:
      UserError: sizes that cannot be.
    """
    if card.image_size or card.kind not in METHODS:
        return card.image_size or SIDE
    try:
        return module_of(card.kind, "config").SIZES.from_dict(card.network).published_side
    except (ValueError, TypeError, IndexError, ArithmeticError) as error:
        raise UserError(f"the sizes of {card.describe()} cannot be: {error}") from error


def method_of(card: Card, method: str | None = None) -> Method:
    """The method that a card describes; its loss is that of the defaults.

    Args:
      card: of a whole network.
      method: its name, as in a config; None: as the card says, where this program has it. A card
        may come from a stranger, so no module is imported because a card names it.

    Raises:
      UserError: the card is of a part of a network, or of a method that is not known; sizes that
        cannot be.
    """
    name = method or card.kind
    if card.kind != name or (method is None and name not in METHODS):
        raise UserError(
            f"a card of {card.describe()} is not one of a whole network that is known here: "
            f"{', '.join(METHODS)}; or name the module of its method"
        )
    network = card.network
    side = side_of(card)
    stage = {
        "method": name,
        "task": network.get("task", "binary"),
        "model": {key: value for key, value in network.items() if key not in NOT_KEYS},
        "loss": {},
        "prior": {"train": "true" if network.get("prior") else "none"},
        "data": {
            "image_size": side,
            "label_size": card.label_size or side,
            "max_targets": 2,
            "drop_empty_clips": False,
        },
    }
    return make_method(stage, network.get("num_classes", 2))
