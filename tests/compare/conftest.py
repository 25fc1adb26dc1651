"""A comparison whose runs write their files without training anything."""

import json
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.compare import running
from aavs_jax.compare.systems import System
from aavs_jax.methods.method import Prediction
from aavs_jax.run.logging_writer import LoggingWriter
from aavs_jax.scoring import showcase
from aavs_jax.scoring.metrics import PROTOCOLS
from data_pipelines.making import audible_shapes
from data_pipelines.prepare import prepare
from data_pipelines.prepared.source import open_source

# Of what a faked run scores with each sound, plus the hundredth part of its seed.
SCORES = {"right": 0.8, "other": 0.3, "silence": 0.1}
STEP = 0.5  # seconds of a training step


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Twelve clips, prepared: six train."""
    path = tmp_path_factory.mktemp("compared")
    raw = audible_shapes.make(path / "raw", clips=12, size=32, seed=5, progress=False)
    prepare(raw, path / "prepared")
    return path / "prepared"


class Faked:
    """In place of `running.run`: what was started, and what is to fail or to be stopped."""

    def __init__(self, data: Path):
        self.data = data
        self.started: list[str] = []
        self.reasons: dict[str, str] = {}
        self.stops: set[str] = set()

    def __call__(self, program: list[str]) -> str:
        module, *arguments = program[2:]
        if module == "aavs_jax.compare.measure":
            run, file = map(Path, arguments)
            self.started.append(f"measure {run.name}")
            cost = {"parameters": 2_160_301, "flops": 2.5e8, "frames_per_second": 70.0}
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(cost))
            return ""
        config, workdir, *overrides = (word.split("=", 1)[1] for word in arguments[:2])
        folder = Path(workdir)
        self.started.append(folder.name)
        if folder.name in self.stops:
            raise KeyboardInterrupt
        if folder.name in self.reasons:
            return self.reasons[folder.name]
        self.write(folder, System("faked", config).values(*arguments[2:]))
        return ""

    def write(self, folder: Path, config: dict) -> None:
        """What a run of this config leaves."""
        folder.mkdir(parents=True)
        record = {"config": config, "devices": ["cpu"], "versions": {"jax": "1.0"}}
        (folder / "config.json").write_text(json.dumps(record))
        rows, times = [], [{"what": "data", "seconds": 1000.0}]
        for stage in config["schedule"]:
            keys = config["stages"][stage]
            rows += self._rows(stage, keys, config["seed"])
            self._log(folder, stage, keys)
            self._examples(folder / stage, keys)
            times += [{"what": f"{stage}/all", "seconds": 60.0}]
            times += [{"what": f"{stage} scores", "seconds": 30.0}]
        (folder / "times.jsonl").write_text("".join(json.dumps(line) + "\n" for line in times))
        (folder / "results.json").write_text(json.dumps(rows))

    def _rows(self, stage: str, keys: dict, seed: int) -> list[dict]:
        return [
            {
                **{"stage": stage, "split": "test", "sound": sound, "prior": prior},
                **{"protocol": name, "metric": metric},
                "value": value + seed / 100 + (0.05 if prior == "true" else 0),
            }
            for prior in keys["prior"]["evaluate"]
            for sound, value in SCORES.items()
            for name, protocol in PROTOCOLS.items()
            for metric in protocol.scores[keys["task"]]
        ]

    def _log(self, folder: Path, stage: str, keys: dict) -> None:
        metric = "J" if keys["task"] == "binary" else "mIoU"
        phase = keys["phases"]["all"]
        steps = max(1, round(phase["epochs"] * 6 / keys["data"]["batch_size"]))
        now = [1000.0]
        with LoggingWriter(folder) as writer, pytest.MonkeyPatch.context() as patch:
            patch.setattr("aavs_jax.run.logging_writer.time.time", lambda: now[0])
            for step in range(1, steps + 1):
                # Compiling, before the first step, and validation take time, too.
                now[0] += STEP
                writer.write_scalars(stage, "all", step, {"loss": 3.0 / step})
                if step == steps // 2 or step == steps:
                    now[0] += 5.0
                    writer.write_scalars(stage, "all", step, {metric: step / steps / 2}, "val")

    def _examples(self, folder: Path, keys: dict) -> None:
        source = open_source(self.data, "test")
        names = showcase.choose(source, 6)
        for sound in SCORES:
            for prior in keys["prior"]["evaluate"]:
                shown = showcase.Showcase(names)
                for clip in source.clips:
                    masks = np.ones((1, clip.seconds, 32, 32), np.uint8)
                    found = Prediction(masks, {})
                    shown({"ids": [clip.name], "labels": masks}, found)
                showcase.save(folder, sound, prior, shown)


@pytest.fixture
def faked(data, monkeypatch):
    faked = Faked(data)
    monkeypatch.setattr(running, "run", faked)
    return faked
