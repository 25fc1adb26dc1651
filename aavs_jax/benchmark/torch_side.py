"""The other side: what a case is in plain PyTorch. See jax_side.py for what is included.

PyTorch and transformers are imported where they are called for, and only here and in
torch_network.py. Every side makes the same network from the same seed; `write_weights` hands its
weights to the other side by way of the names of a public checkpoint and `aavs_jax.convert`.
"""

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from aavs_jax.benchmark import cases
from aavs_jax.benchmark.cases import Case
from aavs_jax.benchmark.torch_network import UNUSED, TorchAAVS
from aavs_jax.benchmark.work import Work, best
from data_pipelines.preparing.jobs import cores

NAMES = {"binary": "avs", "semantic": "avss"}  # of the tasks, in the public code
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's red, green and blue


def import_torch() -> Any:
    """PyTorch, on all cores."""
    import torch

    torch.set_num_threads(cores())
    return torch


def write_weights(case: Case, path: Path) -> None:
    """The weights of a case's network as our parameters by path, in a file for jax_side.py."""
    from aavs_jax.convert import importing

    public = path.with_suffix(".public.safetensors")
    save_file(_network(import_torch(), case).checkpoint(), public)
    save_file(importing.read(importing.open_source(public)).parameters, path)
    public.unlink()


def prepare(case: Case, *, compiled: bool) -> Work:
    """Makes a case ready.

    Args:
      case: what to do.
      compiled: by torch.compile; else eager.
    """
    torch = import_torch()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.backends.cuda.matmul.allow_tf32 = case.dtype != "float32"
    torch.backends.cudnn.allow_tf32 = case.dtype != "float32"
    if case.what == "machine":
        return _machine(torch, case, device)
    network = _network(torch, case)
    for module in (network.plain, *network.added.values()):
        module.to(device).requires_grad_(False)
    make = {"inference": _inference, "train": _train, "loss": _loss}[case.what]
    forward = torch.compile(network.forward) if compiled else network.forward
    return make(torch, case, device, network, forward)


def _network(torch: Any, case: Case) -> TorchAAVS:
    stage = cases.stage_of(case)
    model, loss = stage["model"], stage["loss"]
    swin = model["backbone"]
    torch.manual_seed(cases.SEED)
    network = TorchAAVS(
        {
            "task": NAMES[case.task],
            "swin": {key: swin[key] for key in ("embed_dim", "depths", "num_heads", "window_size")},
            "num_classes": cases.num_classes(case),
            "num_queries": model["num_queries"],
            "feature_size": model["feature_size"],
            "mask_feature_size": model["feature_size"],
            "hidden_dim": model["feature_size"],
            "num_attention_heads": model["num_heads"],
            "encoder_layers": model["encoder_layers"],
            "encoder_feedforward_dim": model["encoder_ffn"],
            "decoder_layers": model["decoder_layers"] + 1,  # with the prediction before them
            "dim_feedforward": model["decoder_ffn"],
            "train_num_points": loss["num_points"],
            "oversample_ratio": loss["oversample_ratio"],
            "importance_sample_ratio": loss["importance_ratio"],
        },
        audio_hidden=model["audio_hidden"],
    )
    module = network.plain.model.transformer_module
    with torch.no_grad():
        # As they come queries are all but alike, and nothing would be seen of one taken for
        # another.
        for embedding in (module.queries_embedder, module.queries_features):
            embedding.weight.normal_()
    return network


def _inference(torch: Any, case: Case, device: Any, network: TorchAAVS, forward: Callable) -> Work:
    batch, kept = cases.inputs(case), {}

    def run():
        with torch.inference_mode(), _rounding(torch, case, device):
            kept["outputs"] = forward(*_seen(torch, batch, device))
        _finish(torch, device)

    def outputs():
        found = kept["outputs"]
        return {
            "class_logits": found.class_queries_logits.float().cpu().numpy(),
            "mask_logits": found.masks_queries_logits.float().cpu().numpy(),
        }

    return Work(run, dict, outputs, device_memory=_device_memory(torch, device))


def _train(torch: Any, case: Case, device: Any, network: TorchAAVS, forward: Callable) -> Work:
    batch, kept = cases.inputs(case), {}
    described = cases.stage_of(case)["phases"][case.phase]["optimizer"]
    trained = _trained(network, case.phase)
    for parameter in trained:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(
        trained,
        lr=described["learning_rate"],
        betas=described["betas"],
        eps=described["eps"],
        weight_decay=described["weight_decay"],
    )

    def run():
        optimizer.zero_grad(set_to_none=True)
        with _rounding(torch, case, device):
            outputs = forward(*_seen(torch, batch, device), output_auxiliary_logits=True)
        loss = _loss_of(
            torch,
            network,
            (outputs.class_queries_logits, outputs.masks_queries_logits),
            outputs.auxiliary_logits,
            _targets(torch, case, batch, device),
        )
        loss.backward()
        if described["clip_norm"]:
            torch.nn.utils.clip_grad_norm_(trained, described["clip_norm"])
        optimizer.step()
        kept.setdefault("loss", float(loss.detach()))
        _finish(torch, device)

    numbers = sum(parameter.numel() for parameter in trained)
    told = {"trained": numbers}
    return Work(run, lambda: {**told, **kept}, device_memory=_device_memory(torch, device))


def _loss(torch: Any, case: Case, device: Any, network: TorchAAVS, forward: Callable) -> Work:
    batch, kept = cases.inputs(case), {}
    network.plain.model = network.decoder = None  # only the loss is asked, and memory measured
    network.added.clear()
    given = [torch.from_numpy(array).to(device).requires_grad_() for array in cases.logits(case)]

    def run():
        for tensor in given:
            tensor.grad = None
        *before, last = zip(*given, strict=True)
        auxiliary = [dict(zip(_LOGITS, pair, strict=True)) for pair in before]
        targets = _targets(torch, case, batch, device)
        loss = _loss_of(torch, network, last, auxiliary, targets)
        loss.backward()
        kept["loss"] = float(loss.detach())
        _finish(torch, device)

    return Work(run, lambda: kept, device_memory=_device_memory(torch, device))


_LOGITS = ("class_queries_logits", "masks_queries_logits")


def _loss_of(torch: Any, network: TorchAAVS, last, auxiliary, targets) -> Any:
    """transformers' loss of all predictions."""
    classes, masks = last
    wanted, shapes = targets
    losses = network.plain.get_loss_dict(
        masks.float(),
        classes.float(),
        shapes,
        wanted,
        [{name: tensor.float() for name, tensor in logits.items()} for logits in auxiliary],
    )
    return sum(losses.values())


def _seen(torch: Any, batch: Mapping[str, np.ndarray], device: Any) -> tuple:
    """What a network sees of a batch: frames are normalised here, as on the other side."""
    given = []
    for name in ("frames", "audio", "prior_mask"):
        if name in batch:
            array = batch[name]
            array = array.reshape(-1, *array.shape[2:])
            given.append(torch.from_numpy(array).to(device))
    mean, std = (torch.tensor(values, device=device) for values in (MEAN, STD))
    given[0] = ((given[0].float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()
    return tuple(given)


def _targets(torch: Any, case: Case, batch: Mapping[str, np.ndarray], device: Any) -> tuple:
    """Of each frame its classes and a mask of each at the size of the frame, by nearest."""
    size, side = cases.stage_of(case)["data"]["image_size"], batch["labels"].shape[-1]
    nearest = torch.from_numpy((2 * np.arange(size) + 1) * side // (2 * size)).to(device)
    labels = torch.from_numpy(batch["labels"].reshape(-1, side, side)).to(device)
    labels = labels[:, nearest][:, :, nearest]
    classes = [frame.unique() for frame in labels]
    masks = [
        (frame[None] == present[:, None, None]).float()
        for frame, present in zip(labels, classes, strict=True)
    ]
    return [present.long() for present in classes], masks


def _trained(network: TorchAAVS, phase: str) -> list:
    """What a phase trains, as configs/aavs.py says it of our parameters."""
    queries = ("queries_embedder",) if network.semantic else ("queries_embedder", "queries_feature")
    modules = [
        module for name, module in network.added.items() if phase != "a" or "swin_adapt" not in name
    ]
    trained = [parameter for module in modules for parameter in module.parameters()]
    for name, parameter in network.plain.named_parameters():
        chosen = any(part in name for part in (*queries, "class_predictor"))
        # What nothing uses is in no network of ours.
        if chosen or (phase == "all" and not _unused(name)):
            trained.append(parameter)
    return trained


def _unused(name: str) -> bool:
    return name.endswith(("encoder.layernorm.weight", "encoder.layernorm.bias")) or UNUSED in name


def _rounding(torch: Any, case: Case, device: Any) -> contextlib.AbstractContextManager:
    if case.dtype != "bfloat16":
        return contextlib.nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)


def _finish(torch: Any, device: Any) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _device_memory(torch: Any, device: Any) -> Callable[[], int] | None:
    return torch.cuda.max_memory_allocated if device.type == "cuda" else None


def _machine(torch: Any, case: Case, device: Any) -> Work:
    side = 2048 if device.type == "cpu" else 8192
    kind = torch.bfloat16 if case.dtype == "bfloat16" else torch.float32
    square, found = torch.ones((side, side), dtype=kind, device=device), {}

    def speed() -> float:
        start = time.perf_counter()
        torch.matmul(square, square)
        _finish(torch, device)
        return 2.0 * side**3 / (time.perf_counter() - start)

    def run():
        speed()
        found["flops_per_second"] = best(speed)

    return Work(run, lambda: found)
