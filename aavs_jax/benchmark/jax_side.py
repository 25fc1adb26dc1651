"""This program's side: what a case is in JAX.

An inference takes uint8 frames from the host to the last prediction's class and mask logits; a
training step takes a batch from the host to new parameters: loss, gradient of what the phase
trains, clipping, AdamW. Neither decodes files, hears sound (embeddings are given) or reads out
masks. The torch side does the same.
"""

import functools
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from aavs_jax.benchmark import cases, flops
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.work import Work, best
from aavs_jax.methods import make_method
from aavs_jax.methods.aavs.config import AAVSConfig
from aavs_jax.methods.aavs.network import AAVS
from aavs_jax.methods.functional import functional
from aavs_jax.methods.gradients import compiler_options, suitable, value_and_gradient
from aavs_jax.methods.method import Method
from aavs_jax.methods.objectives import set_prediction
from aavs_jax.methods.objectives.set_prediction_config import LossConfig
from aavs_jax.methods.objectives.targets import make_targets
from aavs_jax.state import sharding, tree
from aavs_jax.state.optimizer import make_optimizer
from aavs_jax.state.train_state import TrainState

# What is float32 to the last bit, and what may be rounded, see `config.matmul_precision`.
PRECISION = {"float32": "highest", "tf32": "default", "bfloat16": "default"}
SHARED = ("frames", "audio", "prior_mask")  # of a batch, what a network sees
STEPS = 10_000  # of the phase that the step is thought to be in; no schedule here falls so far


def prepare(case: Case, weights: Path | None) -> Work:
    """Makes a case ready.

    Args:
      case: what to do.
      weights: a file of parameters by path; None: they are initialised at random.
    """
    with jax.default_matmul_precision(PRECISION[case.dtype]):
        if case.what == "machine":
            return _machine(case)
        if case.what == "loss":
            return _loss(case)
        method = make_method(cases.stage_of(case), cases.num_classes(case))
        # Held on the host only until it is on the device.
        parameters = _parameters(method, weights)
        if case.what == "inference":
            return _inference(case, method, parameters)
        return _train(case, method, parameters)


def _gradient(case: Case, method: Method) -> Callable:
    """(trainable, rest, batch, key) -> ((loss, aux), gradients of what trains)."""
    return functools.partial(
        value_and_gradient,
        method,
        progress=jnp.float32(0),
        frames_per_pass=suitable(cases.stage_of(case)["train"]["frames_per_pass"]),
    )


def _unheard(method: Method) -> dict[str, jax.Array]:
    """Zeros for the audio encoder, which has no part where embeddings are given; nothing computes
    with them, so they take no memory in a compiled function."""
    shapes = method.shapes.items()
    return {p: jnp.zeros(s.shape, s.dtype) for p, s in shapes if _hears(method, p)}


def _hears(method: Method, path: str) -> bool:
    return path.startswith(method.sound_encoder.prefix)


def _parameters(method: Method, weights: Path | None) -> dict[str, np.ndarray]:
    wanted = {path for path in method.shapes if not _hears(method, path)}
    return load_file(weights) if weights else method.initial(cases.SEED, wanted)


def _inference(case: Case, method: Method, parameters: dict[str, np.ndarray]) -> Work:
    network = functional(AAVS, AAVSConfig.from_dict(method.network))

    def infer(parameters, batch):
        flat = {name: array.reshape(-1, *array.shape[2:]) for name, array in batch.items()}
        heard = network.network(parameters | _unheard(method))
        outputs = heard(flat["frames"], flat["audio"], flat.get("prior_mask"))
        return outputs["class_logits"][-1], outputs["mask_logits"][-1]

    batch = {name: array for name, array in cases.inputs(case).items() if name in SHARED}
    put = _putter(case)
    parameters = put(parameters, False)
    compiled, amount = _compiled(jax.jit(infer), parameters, put(batch, True))
    kept = {}

    def run():
        kept["outputs"] = jax.block_until_ready(compiled(parameters, put(batch, True)))

    def outputs():
        classes, masks = map(np.asarray, kept["outputs"])
        return {"class_logits": classes, "mask_logits": masks}

    def told():
        return {"flops": amount, **_about(compiled)}

    return Work(run, told, outputs, device_memory=_device_memory())


def _train(case: Case, method: Method, parameters: dict[str, np.ndarray]) -> Work:
    phase = cases.stage_of(case)["phases"][case.phase]
    trainable, frozen = tree.partition(parameters, phase["trains"], case.name)
    optimizer = make_optimizer(phase["optimizer"], STEPS, list(trainable), case.name)
    # What is frozen stays apart, or each step would copy it from its inputs to its outputs.
    state, frozen = jax.device_put((TrainState.create(trainable, {}, optimizer), frozen))
    numbers = tree.count(trainable)
    del parameters, trainable
    batch = {name: array for name, array in cases.inputs(case).items() if name in method.entries}

    def step(state, frozen, batch):
        key = jax.random.fold_in(jax.random.key(cases.SEED), state.step)
        rest = frozen | _unheard(method)
        (loss, _), gradients = gradient(state.trainable, rest, batch, key)
        return state.apply_gradients(gradients, optimizer), loss

    # As `aavs_jax.train` has it.
    gradient = _gradient(case, method)
    donated = () if jax.default_backend() == "cpu" else (0,)
    step = jax.jit(step, donate_argnums=donated, compiler_options=compiler_options())
    compiled, amount = _compiled(step, state, frozen, batch)
    kept = {"state": state}
    del state

    def run():
        kept["state"], loss = jax.block_until_ready(compiled(kept["state"], frozen, batch))
        kept.setdefault("loss", float(loss))

    def told():
        return {"flops": amount, "loss": kept["loss"], "trained": numbers, **_about(compiled)}

    return Work(run, told, device_memory=_device_memory())


def _loss(case: Case) -> Work:
    stage, classes = cases.stage_of(case), cases.num_classes(case)
    config = LossConfig(**stage["loss"], max_targets=stage["data"]["max_targets"])
    size = (stage["data"]["image_size"],) * 2
    labels = cases.inputs(case)["labels"].reshape(-1, *(stage["data"]["label_size"],) * 2)
    given = jax.device_put(cases.logits(case))

    def loss(logits, labels, key):
        targets = make_targets(labels, config.max_targets, classes, size)
        weight = jnp.ones(len(labels))
        return set_prediction.set_prediction_loss(*logits, targets, weight, config, key=key)[0]

    key = jax.random.key(cases.SEED)
    compiled = jax.jit(jax.value_and_grad(loss)).lower(given, labels, key).compile()
    kept = {}

    def run():
        value, _ = jax.block_until_ready(compiled(given, labels, key))
        kept["loss"] = float(value)

    return Work(run, lambda: {**kept, **_about(compiled)}, device_memory=_device_memory())


def _machine(case: Case) -> Work:
    """How fast a large matrix product and a large copy are."""
    on_cpu = jax.default_backend() == "cpu"
    side, length = (2048, 2**26) if on_cpu else (8192, 2**29)
    kind = jnp.bfloat16 if case.dtype == "bfloat16" else jnp.float32
    square, found = jnp.ones((side, side), kind), {}
    with jax.default_matmul_precision(PRECISION[case.dtype]):
        product = jax.jit(jnp.matmul).lower(square, square).compile()
    # In place, or else half of the time would go into getting memory from the system.
    copy = jax.jit(lambda x: x + 1, donate_argnums=0)
    held = [jax.block_until_ready(copy(jnp.ones(length, jnp.float32)))]

    def multiply() -> float:
        start = time.perf_counter()
        jax.block_until_ready(product(square, square))
        return 2.0 * side**3 / (time.perf_counter() - start)

    def move() -> float:
        start = time.perf_counter()
        held[0] = jax.block_until_ready(copy(held[0]))
        return 2 * held[0].nbytes / (time.perf_counter() - start)

    def run():
        found["flops_per_second"], found["bytes_per_second"] = best(multiply), best(move)

    return Work(run, lambda: {**found, "device": _device()})


def _putter(case: Case) -> Callable[[Any, bool], Any]:
    """A function that puts arrays where they are computed with, batches shared by the devices."""
    if not case.devices:
        return lambda arrays, shared: jax.device_put(arrays)
    mesh = sharding.make_mesh(batch_sizes=(case.clips,))

    def put(arrays, shared):
        return sharding.put_batch(arrays, mesh) if shared else sharding.put_state(arrays, mesh)

    return put


def _compiled(function: Any, *arguments: Any) -> tuple[Callable, float]:
    """A jitted function compiled for some arguments, and the FLOPs of its products."""
    traced = function.trace(*arguments)
    return traced.lower().compile(), flops.of(traced.jaxpr)


def _estimate(stage: Any, name: str) -> float:
    """What XLA says of a compiled function; 0 where it does not."""
    try:
        analysis = stage.cost_analysis()
    except (NotImplementedError, RuntimeError):
        return 0.0
    analysis = analysis[0] if isinstance(analysis, list) else analysis
    return float((analysis or {}).get(name, 0.0))


def _about(compiled: Any) -> dict[str, Any]:
    """FLOP per byte of a compiled function, both of which count a loop's body once; the device."""
    moved = _estimate(compiled, "bytes accessed")
    intensity = _estimate(compiled, "flops") / moved if moved else 0.0
    return {"intensity": intensity, "device": _device()}


def _device() -> str:
    first = jax.devices()[0]
    return first.device_kind if first.platform != "cpu" else "cpu"


def _device_memory() -> Callable[[], int] | None:
    device = jax.local_devices()[0]
    if device.platform == "cpu" or not device.memory_stats():
        return None
    return lambda: int(device.memory_stats()["peak_bytes_in_use"])
