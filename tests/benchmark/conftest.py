"""Sides in the tests' own process, on a network of 0.1 M parameters."""

import contextlib

import pytest

from aavs_jax.benchmark import cases, worker
from configs import avss


@pytest.fixture
def tiny(tiny_stage, monkeypatch):
    """Both sizes are tiny, with the small one's and the paper's phases."""

    def config(size: str, task: str) -> dict:
        stages = avss.get_config("" if size == "small" else "/x").to_dict()
        for name, stage in stages["stages"].items():
            sizes = tiny_stage(name, **{"model.audio.fully_connected": (128,)})
            for key in ("model", "loss", "data"):
                stage[key] = sizes[key]
        return stages

    monkeypatch.setattr(cases, "_config", config)


@pytest.fixture
def here(monkeypatch):
    """No processes: a round is one run, and faults are what a process would tell of them."""

    @contextlib.contextmanager
    def opened(side, case, weights):
        try:
            local = worker.Local(side, case, weights)
        except Exception as error:
            raise worker.Failure(f"{type(error).__name__}: {error}") from error
        yield local

    monkeypatch.setattr(worker, "opened", opened)
    monkeypatch.setattr(worker, "LEAST", 0.0)
