"""The steps of `test_full_size.py`, each of which runs in a process of its own.

    python tests/parity/full_size_steps.py '["STEP", "FOLDER", ARGUMENT, ...]'

All run on the same processors, and print what they measured as a line of JSON.
"""

import json
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np

PROCESSORS = 2
RUNS = 3  # the median's are told
FRAME = 384  # pixels

# The backbones of facebook/mask2former-swin-{tiny,small,base,large}-ade-semantic.
SWIN = {
    "tiny": (96, [2, 2, 6, 2], [3, 6, 12, 24], 7),
    "small": (96, [2, 2, 18, 2], [3, 6, 12, 24], 7),
    "base": (128, [2, 2, 18, 2], [4, 8, 16, 32], 12),
    "large": (192, [2, 2, 18, 2], [6, 12, 24, 48], 12),
}
ADE20K = {"num_labels": 150, "num_queries": 100}
AAVS = {"avs": (30, 2), "avss": (100, 71)}  # queries and classes


def swin(size: str) -> dict:
    """Arguments of transformers' SwinConfig."""
    embed_dim, depths, heads, window = SWIN[size]
    return {
        "embed_dim": embed_dim,
        "depths": depths,
        "num_heads": heads,
        "window_size": window,
        "image_size": FRAME,
    }


def inputs() -> dict[str, np.ndarray]:
    """A frame uint8 [1,H,W,3] with large and small structure, its audio [1,128], a prior."""
    from scipy import ndimage

    rng = np.random.default_rng(5)

    def smooth(size: int, cells: int, channels: int) -> np.ndarray:
        return ndimage.zoom(
            rng.random((cells, cells, channels)), (size / cells,) * 2 + (1,), order=1
        )

    frame = 0.5 * smooth(FRAME, 4, 3) + 0.3 * smooth(FRAME, 24, 3) + 0.2 * smooth(FRAME, FRAME, 1)
    return {
        "frames": (255 * frame).astype(np.uint8)[None],
        "audio": rng.random((1, 128), np.float32),
        "prior": smooth(224, 4, 1)[None, ..., 0].astype(np.float32),
    }


def aavs_network(task: str, seed: int):
    """The wrapper of `torch_aavs.py` at AAVS's true size."""
    import torch
    import torch_aavs

    queries, classes = AAVS[task]
    sizes = {"task": task, "num_classes": classes, "num_queries": queries, "swin": swin("base")}
    sizes |= {"feature_size": 256, "num_attention_heads": 8}
    return torch_aavs.TorchAAVS(sizes, seed=seed, audio_hidden=512, dtype=torch.float32)


def make_mask2former(folder: Path, size: str) -> dict:
    """Draws a Mask2Former and saves it as users do."""
    import torch
    import torch_aavs
    import transformers

    torch.manual_seed(11)
    backbone = transformers.SwinConfig(**swin(size), out_features=torch_aavs.STAGES)
    config = transformers.Mask2FormerConfig(backbone_config=backbone, **ADE20K)
    model = transformers.Mask2FormerForUniversalSegmentation(config)
    torch_aavs.randomise(model, few_digits=False)
    layers = model.model.transformer_module.decoder.layers
    ends = [layer.self_attn.out_proj for layer in layers]
    torch_aavs.give_queries_something_to_do(model, pixels(), ends)
    for name, parameter in model.named_parameters():
        assert parameter.std() > 0, name
    model.save_pretrained(folder / "theirs")
    return {"parameters": sum(parameter.numel() for parameter in model.parameters())}


def make_aavs(folder: Path, task: str) -> dict:
    """Draws an AAVS network and saves it as the public code does."""
    import torch
    import torch_aavs

    network = aavs_network(task, seed=11)
    adapters = [
        adapter[-1]
        for name, adapter in network.added.items()
        if "transformer_module.decoder" in name
    ]
    prior = inputs()["prior"].mean() if task == "avss" else 0.0
    torch_aavs.give_queries_something_to_do(network.plain, pixels(), adapters, prior)
    tensors = network.published()
    torch.save(tensors, folder / "theirs.pth")
    weights = [
        tensor
        for name, tensor in tensors.items()
        if not name.endswith(("relative_position_index", "empty_weight"))
    ]
    return {"tensors": len(tensors), "parameters": sum(tensor.numel() for tensor in weights)}


def run_mask2former_in_torch(folder: Path) -> dict:
    """`from_pretrained` and a run: what the saved file, and nothing else, computes."""
    import torch
    import transformers

    model = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(folder / "theirs")
    frame = torch.from_numpy(pixels())

    def run():
        return model(
            frame.to(next(model.parameters()).dtype),
            output_hidden_states=True,
            output_auxiliary_logits=True,
        )

    return measure_torch(folder, model.eval(), run)


def run_aavs_in_torch(folder: Path, task: str) -> dict:
    """A network drawn otherwise takes over the saved file, strictly, and runs."""
    import torch

    network = aavs_network(task, seed=12)
    network.load(torch.load(folder / "theirs.pth", weights_only=True))
    given = inputs()
    arguments = pixels(), given["audio"], given["prior"] if task == "avss" else None

    def run():
        return network(*arguments)

    return measure_torch(folder, network, run)


def measure_torch(folder: Path, model, run) -> dict:
    """Times `run`, then runs it once more in double precision; both runs' outputs are written."""
    import torch

    torch.set_num_threads(PROCESSORS)
    with torch.inference_mode():
        outputs, seconds = timed(run)
        np.savez(folder / "theirs.npz", **torch_outputs(outputs))
        figures = {"run": seconds, "memory": peak_memory()}
    model.to(torch.float64)  # not an inference tensor: hence outside
    with torch.inference_mode():
        np.savez(folder / "truth.npz", **torch_outputs(run()))
    return figures


def torch_outputs(outputs) -> dict[str, np.ndarray]:
    """transformers' outputs under our names, channels last."""
    predictions = [
        *outputs.auxiliary_logits,
        {name: outputs[name] for name in ("class_queries_logits", "masks_queries_logits")},
    ]
    named = {"mask_features": outputs.pixel_decoder_last_hidden_state.movedim(1, -1)}
    for i, x in enumerate(outputs.encoder_hidden_states):
        named[f"backbone/{i}"] = x.movedim(1, -1)
    for i, x in enumerate(outputs.pixel_decoder_hidden_states):
        named[f"multi_scale/{i}"] = x.movedim(1, -1)
    for i, prediction in enumerate(predictions):
        named[f"class_logits/{i}"] = prediction["class_queries_logits"]
        named[f"mask_logits/{i}"] = prediction["masks_queries_logits"]
    return {name: x.numpy() for name, x in named.items()}


def run_ours(folder: Path, plain: bool) -> dict:
    """Reads the converted weights, compiles and runs our network, and writes its outputs.

    Args:
      folder: of this test.
      plain: whether it is a Mask2Former without what AAVS adds.
    """
    import jax
    from flax import nnx

    from aavs_jax.methods.aavs.config import AAVSConfig
    from aavs_jax.methods.aavs.network import abstract_model
    from aavs_jax.weights import card

    start = time.perf_counter()
    parameters, told = card.weights(folder / "ours")
    read = time.perf_counter() - start
    sizes = dict(told.network)
    if plain:
        sizes |= {"task": "semantic", "prior": False}
    model = abstract_model(AAVSConfig.from_dict(sizes))
    model.audio_encoder = None  # embeddings are given
    if plain:
        take_out_what_aavs_adds(model)
    graphdef, state = nnx.split(model)
    flat = list(nnx.to_flat_state(state))
    wanted = {"/".join(map(str, path)) for path, _ in flat}
    assert wanted == set(parameters), sorted(wanted ^ set(parameters))
    values = {path: parameters.pop("/".join(map(str, path))) for path, _ in flat}
    values = jax.device_put(nnx.traversals.unflatten_mapping(values))

    given = inputs()
    arguments = [values, given["frames"], given["audio"]]
    if model.config.prior:
        arguments.append(given["prior"])
    with jax.default_matmul_precision("highest"):
        program = jax.jit(lambda values, *inputs: nnx.merge(graphdef, values)(*inputs, taps=True))
        start = time.perf_counter()
        program = program.lower(*arguments).compile()
        compiled = time.perf_counter() - start
    outputs, seconds = timed(lambda: jax.block_until_ready(program(*arguments)))
    named = {
        f"{name}/{i}" if name != "mask_features" else name: np.asarray(x)
        for name, value in outputs.items()
        for i, x in enumerate([value] if name == "mask_features" else value)
    }
    np.savez(folder / "ours.npz", **named)
    return {"read": read, "compile": compiled, "run": seconds, "memory": peak_memory()}


def take_out_what_aavs_adds(model) -> None:
    """Leaves a plain Mask2Former: attentions end with their projection, queries hear nothing."""
    import jax.numpy as jnp
    from flax import nnx

    class Same(nnx.Module):
        def __call__(self, x):
            return x

    class Silence(nnx.Module):
        def __call__(self, embeddings):
            return jnp.zeros((len(embeddings), model.config.feature_size))

    model.audio_proj = Silence()
    for stage in model.backbone.stages:
        for block in stage.blocks:
            block.attention_adapter = block.mlp_adapter = Same()
    for layer in model.pixel_decoder.layers:
        layer.attention.adapter = Same()
    for layer in model.decoder.layers:
        layer.adapter = Same()


def convert(folder: Path, *arguments: str) -> dict:
    """`python -m aavs_jax.convert`, in `folder`."""
    from aavs_jax.convert import __main__ as command
    from aavs_jax.convert import exporting, importing  # noqa: F401, counted among the libraries

    libraries = peak_memory()
    os.chdir(folder)
    start = time.perf_counter()
    code = command.main(list(arguments))
    assert not code, code
    return {
        "seconds": time.perf_counter() - start,
        "memory": peak_memory(),
        "libraries": libraries,
    }


def check_mask2former_came_back(folder: Path) -> dict:
    """What was converted back is what was converted, and transformers takes it as its own."""
    import transformers
    from safetensors import safe_open

    theirs, back = folder / "theirs", folder / "back"
    configs = [json.loads((path / "config.json").read_text()) for path in (theirs, back)]
    assert configs[0] == configs[1]
    with (
        safe_open(theirs / "model.safetensors", "numpy") as before,
        safe_open(back / "model.safetensors", "numpy") as after,
    ):
        assert sorted(before.keys()) == sorted(after.keys())
        for name in before.keys():  # noqa: SIM118, it is no mapping
            x, y = before.get_tensor(name), after.get_tensor(name)
            assert x.dtype == y.dtype, name
            assert np.array_equal(x, y), name  # shapes, too
    _, misfits = transformers.Mask2FormerForUniversalSegmentation.from_pretrained(
        back, output_loading_info=True
    )
    assert not any(misfits.values()), misfits
    return {}


def check_aavs_came_back(folder: Path, task: str) -> dict:
    """What was converted back is what was converted, and PyTorch takes it over strictly."""
    import torch

    theirs, back = (
        torch.load(folder / name, weights_only=True) for name in ("theirs.pth", "back.pth")
    )
    assert theirs.keys() == back.keys(), theirs.keys() ^ back.keys()
    for name, tensor in theirs.items():
        assert tensor.dtype == back[name].dtype, name
        assert torch.equal(tensor, back[name]), name  # shapes, too
    network = aavs_network(task, seed=12)
    network.load(back)
    taken = network.published()
    assert all(torch.equal(tensor, taken[name]) for name, tensor in theirs.items())
    return {}


def pixels() -> np.ndarray:
    """The frame as an image processor of transformers makes it: float32 [1,3,H,W]."""
    mean, std = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])
    return np.moveaxis((inputs()["frames"] / 255 - mean) / std, -1, 1).astype(np.float32)


def timed(run):
    """What `run` returns, and the median seconds of three runs after a first one."""
    outputs, seconds = run(), []
    for _ in range(RUNS):
        start = time.perf_counter()
        outputs = run()
        seconds.append(time.perf_counter() - start)
    return outputs, statistics.median(seconds)


def peak_memory() -> int:
    """Bytes this process held at most; unlike getrusage's, not its parent's before it."""
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


if __name__ == "__main__":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:PROCESSORS])
    step, folder, *arguments = json.loads(sys.argv[1])
    print("\n" + json.dumps(globals()[step](Path(folder), *arguments)))
