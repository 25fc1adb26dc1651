"""The plain tables of scores, for the terminal."""

import re

from aavs_jax.report.score_tables import format_table
from aavs_jax.scoring import metrics as aavs_metrics


def row(stage, sound, metric, value, prior="none", split="test", clips=12, frames=60):
    return dict(
        stage=stage, split=split, sound=sound, prior=prior, protocol="stepping_stones",
        metric=metric, value=value, clips=clips, frames=frames,
    )  # fmt: skip


ROWS = [
    row("localise", "right", "J", 0.8125),
    row("localise", "right", "F", 0.9),
    row("localise", "other", "J", 0.25),
    row("localise", "silence", "J", 0.125),
    row("understand", "right", "mIoU", 0.75, "predicted"),
    row("understand", "right", "IoU/bell", 0.4375, "predicted"),
    row("understand", "right", "mIoU", 0.875, "true"),
]


def test_plain_table():
    assert format_table(ROWS).splitlines() == [
        "stage localise, split test, protocol stepping_stones: 12 clips, 60 frames",
        "sound    prior      J      F",
        "right    none   0.812  0.900",
        "other    none   0.250      -",
        "silence  none   0.125      -",
        "",
        "stage understand, split test, protocol stepping_stones: 12 clips, 60 frames",
        "sound  prior       mIoU",
        "right  predicted  0.750",
        "right  true       0.875",
    ]
    assert format_table([]) == "no scores yet"
    fewer = [row("a", "right", "J", 0.5), row("a", "other", "J", 0.25, clips=7)]
    assert format_table(fewer).splitlines() == [
        "stage a, split test, protocol stepping_stones: 60 frames",
        "sound  prior      J  clips",
        "right  none   0.500     12",
        "other  none   0.250      7",
    ]


def test_the_plain_tables_of_all_protocols_are_no_wider_than_a_terminal():
    rows = [
        row(stage, sound, metric, 0.5, prior, clips=12345, frames=123450) | {"protocol": name}
        for name, protocol in aavs_metrics.PROTOCOLS.items()
        for stage, task in (("localise", "binary"), ("understand", "semantic"))
        for metric in protocol.scores.get(task, ())
        for sound in ("right", "silence")
        for prior in ("predicted", "true")
    ]
    text = format_table(rows)
    assert max(map(len, text.splitlines())) <= 100
    for block in text.split("\n\n"):
        stage, name = re.match(
            r"stage (\w+), split test, protocol (\w+): 12345 clips", block
        ).groups()
        task = "binary" if stage == "localise" else "semantic"
        heads = [line.split()[2:] for line in block.splitlines() if line.startswith("sound ")]
        assert [name for line in heads for name in line] == [
            *aavs_metrics.PROTOCOLS[name].scores[task]
        ]
        assert block.count("0.500") == 4 * sum(map(len, heads))
        # One line of them all, where they fit.
        assert len(heads) == (2 if (task, name) == ("semantic", "cavp") else 1)
