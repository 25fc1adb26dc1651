"""Everything that can be converted, in one place: what methods have, and parts of networks."""

import re

from aavs_jax.methods import METHODS, module_of
from aavs_jax.methods.parts.key_tables import Format, Kind, Row
from aavs_jax.methods.parts.pvt_weights import PVT_V2
from aavs_jax.methods.parts.resnet_weights import RESNETS
from aavs_jax.methods.parts.swin_weights import SWIN
from aavs_jax.methods.parts.vggish_weights import VGGISH
from aavs_jax.weights.card import Card

OF_METHODS = [kind for name in METHODS for kind in module_of(name, "weights").KINDS]
# (pattern of paths, what people call such parts of a network); the first that fits counts.
PARTS = [(p, name) for m in METHODS for p, (name, _) in module_of(m, "method").PARTS.items()]
# Networks before the parts that they have inside: a file is held against them in this order.
KINDS: dict[str, Kind] = {kind.name: kind for kind in (*OF_METHODS, SWIN, PVT_V2, RESNETS, VGGISH)}


def kind_of(card: Card) -> Kind:
    """What a card says of its weights; of a method of one's own, that nobody else has a format."""
    return KINDS.get(card.kind) or Kind(card.kind, (), lambda ours, theirs: {}, lambda sizes: {})


OURS = Format(
    name="aavs_jax",
    title="weights under the names of aavs_jax",
    kind="",
    signature=(r"(backbone/|audio_encoder/|decoder/|pixel_decoder/|audio_proj/)",),
    rows=(Row("*", "*", "same"),),
)
FORMATS: dict[str, Format] = {
    format.name: format for kind in KINDS.values() for format in kind.formats
} | {OURS.name: OURS}
AUDIO_ENCODER = "audio_encoder/"  # before the paths of what is, for kinds that hear, another file


def part_of(path: str) -> str:
    """The part of a network that a parameter is of, as people call it."""
    names = (name for pattern, name in PARTS if re.fullmatch(pattern, path))
    return next(names, path.split("/")[0])
