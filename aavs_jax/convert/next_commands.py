"""The commands that one may want to type after a conversion, such that they work as they stand.

They name the paper's recipes, so the sizes of these stand here as they do in configs/.
"""

import dataclasses
import shlex
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from aavs_jax.convert.formats import AUDIO_ENCODER
from aavs_jax.convert.importing import Weights
from aavs_jax.errors import UserError
from aavs_jax.methods import METHODS, module_of
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.method import MAY_DIFFER, PRETRAINED
from aavs_jax.methods.method import Pretrained
from aavs_jax.methods.parts.sizes import NOT_KEYS
from aavs_jax.weights import card as cards
from aavs_jax.weights.size_keys import flat_sizes, size_flags

KINDS = ("aavs", "mask2former", "swin", "vggish")  # that the recipes of AAVS take
BACKBONE = "backbone"  # key of config.init by which the other methods start
STEM = "resnet.deep_stem"
RUN = "python -m aavs_jax.main --config="
DATA = ":/data/avsbench"  # stands for the user's folder
# (task, whether there are prior masks) -> the recipe that trains and evaluates such a network.
RECIPES = {
    ("binary", False): "configs/s4.py",
    ("semantic", True): "configs/avss.py",
    ("semantic", False): "configs/avss_end_to_end.py",
}
UNDERSTAND = "understand"
STAGES = {
    "configs/s4.py": ("localise",),
    "configs/avss.py": ("localise", UNDERSTAND),
    "configs/avss_end_to_end.py": (UNDERSTAND,),
}
QUERIES = 100  # of the stage `understand`
STARTS = ("configs/s4.py", "configs/avss.py")  # for what can become any network
ALSO = {"configs/s4.py": "  # or configs/ms3.py"}  # one network serves both
# The sizes of the recipes' network, each a key of their configs.
NETWORK = flat_sizes(dataclasses.asdict(AAVSConfig()))
MODEL = {key: value for key, value in NETWORK.items() if key not in NOT_KEYS}
# The recipe trains adapters alone; a bare backbone needs all that is around it trained, too.
TRAINS = '("(?!audio_encoder/).*",)'


def what_next(weights: Weights, out: Path) -> list[str]:
    """The commands that train with, evaluate or export what was converted, a line each.

    Args:
      weights: as converted.
      out: the folder they were written to. An audio encoder in `vggish` beside it is named where
        one is needed.
    """
    card, place = weights.card, shlex.quote(str(out))
    if card.kind not in KINDS:
        return _of_others(weights, out)
    held = [path for path in weights.parameters if path.startswith(AUDIO_ENCODER)]
    sizes = _decisive(card.network, with_sound=bool(held))
    if card.kind == "vggish":
        given = f"--config.init.mask2former=DIR --config.init.vggish={place}"
        lines = [_train(config, given, sizes, card) for config in STARTS]
        return [*lines, _where_from("mask2former")]
    # One that was drawn at random would never be trained: the recipe has it frozen.
    sound = bool(held) and not any(path in card.new for path in held)
    beside = None if sound else _audio_encoder_beside(out)
    if held and beside and any(sizes[key] != value for key, value in beside.items()):
        beside = None  # another than the network is made for
    folder = f"--config.init.vggish={shlex.quote(str(out.parent / 'vggish')) if beside else 'DIR'}"
    made = [] if sound or beside else [_where_from("vggish")]
    task, prior = card.network.get("task"), bool(card.network.get("prior"))
    recipes = [RECIPES[task, prior]] if (task, prior) in RECIPES else []
    if card.kind == "aavs" and not card.new:
        export = f"export:    python -m aavs_jax.convert {place} --to=aavs --out FILE.pth"
        # The folder `vggish` beside the weights is found without being named.
        given = f"--evaluate={place}" + (f" {folder}" if made else "")
        lines = [f"evaluate:  {RUN}{c}{DATA} {given}{ALSO.get(c, '')}" for c in recipes]
        return [*lines, *made, export]
    given = f"--config.init.mask2former={place}" + ("" if sound else f" {folder}")
    sizes |= beside or {}
    configs = recipes if card.kind == "aavs" else STARTS
    return [*(_train(config, given, sizes, card) for config in configs), *made]


def _of_others(weights: Weights, out: Path) -> list[str]:
    """Of methods that start from a whole backbone, each with a config called as it is."""
    card, lines, missing = weights.card, [], {}
    heard = any(path.startswith(AUDIO_ENCODER) for path in weights.parameters)
    stage = "localise" if card.network.get("task") == "binary" else UNDERSTAND
    sizes = _decisive(card.network, with_sound=heard)
    for name in METHODS:
        method, config = module_of(name, "method"), module_of(name, "config")
        starts = method.PRETRAINED
        flags, recipe = _recipe(config, stage, sizes, card.kind)
        model = flat_sizes(dataclasses.asdict(config.SIZES()))
        kinds = starts[BACKBONE].kinds if BACKBONE in starts else ()
        takes = card.kind in kinds or f"{card.kind}.depths" in model
        if not takes or model.get(STEM) != sizes.get(STEM, model.get(STEM)):
            continue  # or a ResNet of another shape than the recipe's
        whole = card.kind == name and not card.new
        given = "evaluate" if whole else f"config.init.{BACKBONE}"
        run = f"{RUN}configs/{name}.py{recipe} --{given}={shlex.quote(str(out))}"
        if not heard and "vpo" not in recipe:  # its sound encoder begins at random
            beside = out.parent / "vggish" if _audio_encoder_beside(out) else "DIR"
            run += f" --config.init.vggish={shlex.quote(str(beside))}"
            missing = starts if beside == "DIR" else {}
        if whole:
            side = config.SIZES.from_dict(card.network).published_side
            keys = ("image_size", "label_size")
            flags += [f"--config.stages.{stage}.data.{key}={side}" for key in keys]
            flags += ["--config.as_published=True"] * hasattr(method, "as_published")
        lines.append(" ".join([f"{'evaluate:' if whole else 'train:':10} {run}", *flags]))
    return [*lines, *([_where_from("vggish", missing)] if missing else [])]


def _recipe(
    config: ModuleType, stage: str, sizes: Mapping[str, Any], kind: str
) -> tuple[list[str], str]:
    """The flags that give one of a config's networks some sizes, as few as can be; and what follows
    the config's name.
    """
    found = []
    for recipe, network in getattr(config, "PUBLISHED", {"": config.SIZES()}).items():
        model = flat_sizes(dataclasses.asdict(network))
        built = {BACKBONE: kind} if BACKBONE in model and f"{kind}.depths" in model else {}
        data = "/data/vpo" if recipe.startswith("vpo") else "/data/avsbench"
        name = recipe or ("s4" if stage == "localise" else "")
        found.append(
            (size_flags({stage: model}, {**built, **sizes}), f":{data},{name}".rstrip(","))
        )
    return min(found, key=lambda flags_and_recipe: len(flags_and_recipe[0]))


def _train(config: str, given: str, sizes: Mapping[str, Any], card: cards.Card) -> str:
    models = dict.fromkeys(STAGES[config], MODEL)
    flags = size_flags(models, sizes)
    # The semantic recipe takes the queries' features as they are, and with them their number.
    queries = card.network.get("num_queries", QUERIES)
    if UNDERSTAND in models and queries != QUERIES:
        flags.append(f"--config.stages.{UNDERSTAND}.model.num_queries={queries}")
    if card.kind == "swin":
        keys = [f"--config.stages.{stage}.phases.a.trains={TRAINS}" for stage in models]
        flags += map(shlex.quote, keys)
    return " ".join([f"train:     {RUN}{config}{DATA} {given}", *flags]) + ALSO.get(config, "")


def _where_from(key: str, starts: Mapping[str, Pretrained] = PRETRAINED) -> str:
    return f"           DIR: of {starts[key].file}, with {starts[key].command}"


def _audio_encoder_beside(out: Path) -> dict[str, Any] | None:
    """The sizes of the audio encoder in the folder `vggish` beside; None if there is none."""
    try:
        found = cards.read(out.parent / "vggish")
    except UserError:
        return None
    if found.kind != "vggish":
        return None
    return _decisive(found.network, with_sound=True)


def _decisive(network: Mapping[str, Any], *, with_sound: bool) -> dict[str, Any]:
    """The sizes that a network has to have to take weights; without sound nobody's are those."""
    return {
        key: value
        for key, value in flat_sizes(network).items()
        if key not in MAY_DIFFER and (with_sound or not key.startswith("audio."))
    }
