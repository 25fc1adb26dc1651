"""bfloat16, as a config policy, keeps figures.

A float32 has 24 bits of mantissa, a bfloat16 8: each product is off by up to 0.4 %, and where two
classes were about as likely a pixel changes sides.
"""

import jax
import numpy as np
import pytest

from aavs_jax.method import make_method
from aavs_jax.metrics import PROTOCOL
from aavs_jax.scoring import score
from aavs_jax.sharding import make_mesh, put_batch, put_state
from aavs_jax.starting import best_parameters
from data_pipelines.loader import eval_loader, open_source

FIGURE = {"localise": "J", "understand": "mIoU"}
PRIOR = {"localise": "none", "understand": "true"}


@pytest.fixture(scope="module")
def trained(tiny_run, tiny_flags, command):
    """The folder of a run that trains long enough for figures to mean something."""
    folder = tiny_run[0].with_name("trained")  # beside the tiny run, for its data
    flags = tiny_flags(epochs=160.0, **{"phases.all.validate_every_epochs": 80.0})
    flags += ["--config.log_every=60", "--config.checkpoint_every=1000"]
    command("--config=configs/avss.py", *flags, f"--workdir={folder}")
    return folder


@pytest.mark.parametrize("stage", FIGURE)
def test_bfloat16_keeps_figures(stage, trained, tiny_stage):
    """On the clips trained on, float32 -> bfloat16, measured on a CPU:

    localise    J    0.6617 -> 0.6585, 99.97 % of pixels alike, loss 1.7421 -> 1.7425
    understand  mIoU 0.7155 -> 0.7153, 99.98 % of pixels alike, loss 3.7717 -> 3.7722
    """
    (data,) = (trained.parent / "data").iterdir()
    source = open_source(data, "train")
    config = tiny_stage(stage)
    mesh = make_mesh()
    parameters = put_state(best_parameters(trained / stage / "all"), mesh)
    found = {}
    for dtype in ("float32", "bfloat16"):
        method = make_method(config | {"model": config["model"] | {"dtype": dtype}}, 9)
        loader = eval_loader(
            source,
            task=config["task"],
            image_size=32,
            label_size=32,
            frames_per_batch=40,
            prior=PRIOR[stage],
        )
        masks = []
        figures = score(
            method,
            parameters,
            loader,
            mesh,
            description=dtype,
            observers=[
                lambda batch, predicted, masks=masks: masks.append(predicted[batch["valid"]])
            ],
        )
        batch = {name: array for name, array in next(iter(loader)).items() if name != "ids"}
        loss, _ = jax.jit(method.loss)(parameters, put_batch(batch, mesh), jax.random.key(0))
        found[dtype] = figures[PROTOCOL][FIGURE[stage]], np.concatenate(masks), float(loss)
    (figure, masks, loss), (figure_16, masks_16, loss_16) = found.values()
    agreement = (masks == masks_16).mean()
    print(f"{stage}: {FIGURE[stage]} {figure:.4f} -> {figure_16:.4f}, loss {loss:.4f} -> ", end="")
    print(f"{loss_16:.4f}, {agreement:.2%} of pixels alike")
    # Something has been learnt that could be lost, and the policy does something.
    assert figure > 0.3
    assert loss_16 != loss
    assert agreement > 0.995
    assert abs(figure_16 - figure) < 0.01
    assert abs(loss_16 - loss) < 0.002 * loss
