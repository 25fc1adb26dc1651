"""What can be asked of a clip."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Task:
    """A question that a network answers for every pixel.

    Attributes:
      name: as in the config.
      question: for people.
      score: of the protocol stepping_stones, by which checkpoints are chosen.
      classes: names by class id, where they are not the data's.
    """

    name: str
    question: str
    score: str
    classes: tuple[str, ...] = ()


TASKS = {
    "binary": Task("binary", "where it sounds", "J", ("background", "sounding")),
    "semantic": Task("semantic", "what it is", "mIoU"),
}
