"""ResNet against that of PyPI's transformers, batch norm against torch's, at odd sizes."""

import jax
import numpy as np
import pytest
import torch
import transformers

from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.batch_norm import BatchNorm
from aavs_jax.methods.parts.convolution import max_pool
from aavs_jax.methods.parts.resnet import ResNet
from aavs_jax.methods.parts.sizes import ResNetConfig

LAYER = {"bottleneck": [0, 1, 2], "basic": [0, 1]}
LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
COMPILER = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}


def reference(block: str):
    """transformers' ResNet of tiny sizes, with weights and statistics that are not all alike."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        embedding_size=6,
        hidden_sizes=[12, 16, 20, 24],
        depths=[2, 1, 2, 1],
        layer_type=block,
        out_features=["stage1", "stage2", "stage3", "stage4"],
    )
    model = transformers.ResNetBackbone(config)
    with torch.no_grad():
        for value in (*model.parameters(), *model.buffers()):
            if value.ndim == 1:
                value += 0.3 * torch.randn(value.shape).abs()
    return model


def ours(block: str) -> ResNetConfig:
    widths = (12, 16, 20, 24)
    planes = tuple(w // 4 for w in widths) if block == "bottleneck" else widths
    return ResNetConfig(block=block, depths=(2, 1, 2, 1), planes=planes, stem=6)


def given(paths, tensors) -> dict[str, np.ndarray]:
    """Their values by our paths."""
    found = {}
    for path in paths:
        *place, part, leaf = path.split("/")
        if place[0] == "stem":
            name = "embedder.embedder."
        elif "shortcut" in place:
            name = f"encoder.stages.{place[1]}.layers.{place[2]}.shortcut."
        else:
            name = f"encoder.stages.{place[1]}.layers.{place[2]}.layer.{place[4]}."
        if part == "conv":
            found[path] = tensors[name + "convolution.weight"].transpose(2, 3, 1, 0)
        else:
            found[path] = tensors[f"{name}normalization.{LEAVES[leaf]}"]
    return found


def close(x, y, tolerance):
    assert x.shape == y.shape
    np.testing.assert_allclose(x, y, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize("block", LAYER)
@pytest.mark.parametrize("training", [False, True], ids=["evaluation", "training"])
def test_every_block_and_running_statistic(block, training):
    theirs = reference(block).train(training)
    net = functional(lambda: ResNet(ours(block)))
    parameters = given(net.shapes, {k: v.numpy().copy() for k, v in theirs.state_dict().items()})
    frames = np.random.default_rng(0).normal(size=(3, 77, 50, 3)).astype(np.float32)

    def all_blocks(parameters, frames):
        network = net.network(parameters)
        found = [network.enter(frames, training)]
        for blocks in network.stages:
            for each in blocks:
                found.append(each(found[-1], training))
        return found, net.statistics(network)

    seen = []
    for module in (theirs.embedder, *(b for s in theirs.encoder.stages for b in s.layers)):
        module.register_forward_hook(lambda m, i, output: seen.append(output))
    with torch.no_grad():
        maps = theirs(torch.from_numpy(frames).permute(0, 3, 1, 2)).feature_maps
    with jax.default_matmul_precision("highest"):
        found, after = jax.jit(all_blocks, compiler_options=COMPILER)(parameters, frames)
    assert len(found) == len(seen) == 7
    for x, y in zip(found, seen, strict=True):
        close(x, y.permute(0, 2, 3, 1).numpy(), 1e-4)
    for index, y in zip((2, 3, 5, 6), maps, strict=True):
        close(found[index], y.permute(0, 2, 3, 1).numpy(), 1e-4)
    state = {k: v.numpy() for k, v in theirs.state_dict().items()}
    assert len(after) == 2 * sum(path.endswith("scale") for path in net.shapes)
    for path, value in given(after, state).items():
        np.testing.assert_allclose(after[path], value, rtol=1e-4, atol=1e-5, err_msg=path)
        assert training != np.array_equal(value, parameters[path])


def test_strides_and_dilations_are_torchs():
    """DeepLab's: three convolutions for a stem, a last stage that keeps its map."""
    config = ResNetConfig(
        depths=(1, 1, 2, 3),
        planes=(2, 2, 3, 2),
        strides=(1, 2, 1, 1),
        dilations=((1,), (1,), (1, 2), (2, 4, 8)),
        stem=3,
        deep_stem=True,
        input_channels=2,
    )
    net = functional(lambda: ResNet(config))
    values, rng = net.initial(0), np.random.default_rng(1)
    frames = rng.normal(size=(2, 45, 60, 2)).astype(np.float32)
    maps = jax.jit(lambda p, f: net.network(p)(f, False), compiler_options=COMPILER)(values, frames)

    def conv(place, x, **how):
        kernel = torch.from_numpy(values[place + "/conv/kernel"].transpose(3, 2, 0, 1).copy())
        x = torch.nn.functional.conv2d(x, kernel, **how)
        return x / np.sqrt(np.float32(1 + 1e-5))  # a batch norm that has seen nothing

    x = torch.from_numpy(frames).permute(0, 3, 1, 2)
    for layer, stride in enumerate((2, 1, 1)):
        x = conv(f"stem/{layer}", x, stride=stride, padding=1).relu()
    x = torch.nn.functional.max_pool2d(x, 3, 2, 1)
    dilations = iter((1, 1, 1, 2, 2, 4, 8))
    for stage, (depth, stride) in enumerate(zip((1, 1, 2, 3), (1, 2, 1, 1), strict=True)):
        for block in range(depth):
            place, step, d = f"stages/{stage}/{block}", 1 if block else stride, next(dilations)
            y = conv(f"{place}/layers/0", x).relu()
            y = conv(f"{place}/layers/1", y, stride=step, dilation=d, padding=d).relu()
            y = conv(f"{place}/layers/2", y)
            if f"{place}/shortcut/conv/kernel" in values:
                x = conv(f"{place}/shortcut", x, stride=step)
            x = (x + y).relu()
        close(maps[stage], x.permute(0, 2, 3, 1).numpy(), 1e-4)


def test_three_steps_of_batch_norm():
    """Outputs, gradients and running statistics, the first from none."""
    net, theirs = functional(lambda: BatchNorm(5)), torch.nn.BatchNorm1d(5)
    parameters, rng = net.initial(0), np.random.default_rng(0)
    parameters["scale"] = rng.normal(size=5).astype(np.float32)
    parameters["bias"] = rng.normal(size=5).astype(np.float32)
    with torch.no_grad():
        theirs.weight.copy_(torch.from_numpy(parameters["scale"]))
        theirs.bias.copy_(torch.from_numpy(parameters["bias"]))

    def step(x, parameters, weight):
        norm = net.network(parameters)
        y = norm(x, True)
        return (y * weight).sum(), (y, net.statistics(norm))

    gradient = jax.jit(jax.value_and_grad(step, argnums=(0, 1), has_aux=True))
    for _ in range(3):
        x, weight = rng.normal(3, 2, (2, 7, 5)).astype(np.float32)
        (_, (y, moved)), (of_x, of_parameters) = gradient(x, parameters, weight)
        t = torch.from_numpy(x).requires_grad_()
        theirs.zero_grad()
        out = theirs(t)
        (out * torch.from_numpy(weight)).sum().backward()
        np.testing.assert_allclose(y, out.detach(), atol=2e-6)
        np.testing.assert_allclose(of_x, t.grad, atol=2e-5)
        np.testing.assert_allclose(of_parameters["scale"], theirs.weight.grad, atol=1e-5)
        parameters = parameters | moved
    np.testing.assert_allclose(parameters["mean"], theirs.running_mean, rtol=1e-6)
    np.testing.assert_allclose(parameters["var"], theirs.running_var, rtol=1e-6)
    y = net.network(parameters)(x, False)
    np.testing.assert_allclose(y, theirs.eval()(torch.from_numpy(x)).detach(), atol=2e-6)


def test_batch_norm_of_one_number_says_so():
    net = functional(lambda: BatchNorm(2))
    with pytest.raises(ValueError, match="more than one number"):
        net.network(net.initial(0))(np.ones((1, 2), np.float32), True)


@pytest.mark.parametrize("size", [(7, 6), (5, 9), (1, 2)])
def test_max_pool(size):
    rng = np.random.default_rng(0)
    x = rng.integers(0, 3, (2, *size, 3)).astype(np.float32)  # of many equals
    theirs = torch.from_numpy(x).permute(0, 3, 1, 2).requires_grad_()
    pooled = torch.nn.functional.max_pool2d(theirs, 3, 2, 1)
    weight = rng.normal(size=pooled.shape).astype(np.float32)
    (pooled * torch.from_numpy(weight)).sum().backward()
    ours, pull = jax.vjp(max_pool, jax.numpy.asarray(x))
    np.testing.assert_array_equal(ours, pooled.detach().permute(0, 2, 3, 1).numpy())
    (of_x,) = pull(jax.numpy.asarray(weight.transpose(0, 2, 3, 1)))
    np.testing.assert_allclose(of_x, theirs.grad.permute(0, 2, 3, 1).numpy(), atol=1e-6)
