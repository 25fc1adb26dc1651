"""A network that says something: one trained for a few steps finds background everywhere."""

import dataclasses

import numpy as np
import pytest

import aavs_jax


@pytest.fixture(scope="session")
def marking_tiny_run(tiny_run):
    """Both stages, with queries and masks so different that not all pixels are background."""
    classes, masks = "decoder/class_predictor/kernel", "decoder/mask_embedder/2/kernel"
    rng = np.random.default_rng(5)

    def surer(network):
        parameters = dict(network.parameters)
        parameters[classes] = rng.normal(0, 3, parameters[classes].shape).astype(np.float32)
        parameters[masks] = 10 * parameters[masks]
        before = network.before and surer(network.before)
        return dataclasses.replace(network, parameters=parameters, before=before)

    return surer(aavs_jax.load(tiny_run[0]))
