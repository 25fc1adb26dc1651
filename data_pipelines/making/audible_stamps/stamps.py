"""Which stamp of Tux Paint is which class of AVSBench. Facts, looked at and listened to one by one.

Left out are drawings (the black cat, the vacuum cleaner), files that hold silence (giraffe, iguana,
rhea, wombat), spoken words, and everything that AVSBench has no class for (cow, bear, frog, ...).
"""

from dataclasses import dataclass

# Folders below usr/share of the two packages.
STAMPS = "tuxpaint/stamps"
PICTURES = ("tuxpaint/templates", "tuxpaint/starters")


@dataclass(frozen=True)
class Stamp:
    """A cut-out photograph with a recording of its kind."""

    name: str  # AVSBench's class
    picture: str  # of the PNG with transparency, below STAMPS and without its ending
    # Likewise; `.ogg` or `.wav`. Mostly the picture's own; a second photograph of a kind that has
    # none of its own sounds like the first.
    recording: str
    # Whether it can be kept for the test split: then neither the picture nor, where the class has
    # several, its recording is met in training.
    held_out: bool = False


def _own(name, path, held_out=False):
    return Stamp(name, path, path, held_out)


_BIRDS, _MAMMALS, _MUSIC = "animals/birds", "animals/mammals", "hobbies/music"

TABLE = (
    _own("bassoon", f"{_MUSIC}/wind/bassoon"),
    _own("bird", f"{_BIRDS}/blackbird"),
    _own("bird", f"{_BIRDS}/crow"),
    _own("bird", f"{_BIRDS}/cuckoo"),
    _own("bird", f"{_BIRDS}/heron_greatblue_flying"),
    Stamp("bird", f"{_BIRDS}/heron_greatblue", f"{_BIRDS}/heron_greatblue_flying"),
    _own("bird", f"{_BIRDS}/lark", held_out=True),
    _own("bird", f"{_BIRDS}/owl"),
    _own("bird", f"{_BIRDS}/seagull"),
    Stamp("bird", f"{_BIRDS}/silver-gull", f"{_BIRDS}/seagull"),
    _own("bird", f"{_BIRDS}/tucan", held_out=True),
    _own("bird", f"{_BIRDS}/vulture", held_out=True),
    _own("cello", f"{_MUSIC}/string/cello"),
    _own("dog", f"{_MAMMALS}/dogs/dog"),
    Stamp("dog", f"{_MAMMALS}/dogs/dingo", f"{_MAMMALS}/dogs/dog", held_out=True),
    _own("donkey", f"{_MAMMALS}/equines/donkey"),
    Stamp(
        "donkey", f"{_MAMMALS}/equines/donkey_eating", f"{_MAMMALS}/equines/donkey", held_out=True
    ),
    _own("drum", f"{_MUSIC}/percussion/drumkit"),
    _own("drum", f"{_MUSIC}/percussion/drum_tomtom_floor", held_out=True),
    _own("duck", f"{_BIRDS}/duck"),
    _own("duck", f"{_BIRDS}/drake", held_out=True),
    _own("elephant", f"{_MAMMALS}/elephant"),
    _own("emergency-car", "vehicles/emergency/firetruck"),
    _own("goose", f"{_BIRDS}/gander"),
    _own("hen", f"{_BIRDS}/hen"),
    Stamp("hen", f"{_BIRDS}/chicken_profile", f"{_BIRDS}/hen"),
    _own("hen", f"{_BIRDS}/rooster", held_out=True),
    _own("horse", f"{_MAMMALS}/equines/horse"),
    _own("lion", f"{_MAMMALS}/cats/lion"),
    Stamp("lion", f"{_MAMMALS}/cats/lion-2", f"{_MAMMALS}/cats/lion", held_out=True),
    _own("pig", f"{_MAMMALS}/pig"),
    _own("pig", f"{_MAMMALS}/pig_golden"),
    _own("pig", f"{_MAMMALS}/pig_golden2", held_out=True),
    _own("saw", "household/tools/saw"),
    _own("sheep", f"{_MAMMALS}/bovines/sheep"),
    _own("sheep", f"{_MAMMALS}/bovines/sheep_lamb"),
    _own("sheep", f"{_MAMMALS}/bovines/ram", held_out=True),
    _own("squirrel", f"{_MAMMALS}/rodents/squirrel"),
    _own("tiger", f"{_MAMMALS}/cats/tiger"),
    Stamp("tiger", f"{_MAMMALS}/cats/tiger_sumatran", f"{_MAMMALS}/cats/tiger", held_out=True),
    _own("violin", f"{_MUSIC}/string/violin"),
)

# Photographs without any of the classes in them (the template `sheep` shows some).
BACKGROUNDS = tuple(
    """
    burnt_bark.jpg cliff.jpg corn_maze.jpg jellyfish.jpg lighthouse.jpg mossy_bark.jpg
    mossy_log.jpg mudstone.jpg ocean_splash.jpg ocean_waves.jpg redwoods_above.jpg reef-back.png
    rocks.jpg skyline-sf-dusk-back.jpeg spiders_web.jpg sun_behind_clouds.jpg
    sun_behind_leaves.jpg trees_above.jpg trees_at_dusk.jpg wool_mill_machine.jpg
    """.split()
)


def in_split(stamps: tuple[Stamp, ...], split: str, held_out: bool) -> tuple[Stamp, ...]:
    """Stamps that clips of a split are made of.

    Args:
      stamps: those that the packages hold.
      split: train, val or test.
      held_out: whether stamps are kept for the test split. It then shows, of a class that has some,
        only these; the other splits never do. A class whose stamps are all on one side is shown
        in every split.

    Returns:
      Some of `stamps`, in their order; every class is among them.
    """
    if not held_out:
        return stamps
    wanted = {(s.name, s.held_out) for s in stamps}
    return tuple(
        s
        for s in stamps
        if s.held_out == (split == "test") or (s.name, split == "test") not in wanted
    )
