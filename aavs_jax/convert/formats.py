"""Everything that can be converted, in one place: a method adds its weights.py to METHODS."""

import re

from aavs_jax.methods.aavs import method as aavs_method
from aavs_jax.methods.aavs import weights as aavs
from aavs_jax.methods.avsegformer import method as avsegformer_method
from aavs_jax.methods.avsegformer import weights as avsegformer
from aavs_jax.methods.cavp import weights as cavp
from aavs_jax.methods.parts.key_tables import Format, Kind, Row
from aavs_jax.methods.parts.pvt_weights import PVT_V2
from aavs_jax.methods.parts.resnet_weights import RESNETS
from aavs_jax.methods.parts.swin_weights import SWIN
from aavs_jax.methods.parts.vggish_weights import VGGISH
from aavs_jax.methods.tpavi import method as tpavi_method
from aavs_jax.methods.tpavi import weights as tpavi
from aavs_jax.weights.card import Card

METHODS = (aavs, tpavi, avsegformer, cavp)
# What people call them.
PARTS = aavs_method.PARTS | tpavi_method.PARTS | avsegformer_method.PARTS
# Networks before the parts that they have inside: a file is held against them in this order.
KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (*(k for method in METHODS for k in method.KINDS), SWIN, PVT_V2, RESNETS, VGGISH)
}


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
    """The part of the network that a parameter is of, as people call it."""
    names = (name for p, (name, _) in PARTS.items() if re.fullmatch(p, path))
    return next(names, path.split("/")[0])
