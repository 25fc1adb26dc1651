"""Writes the golden files in `fixtures/`, from sources that share no code with this project.

    python tests/parity/make_fixture.py

Networks: transformers' Mask2Former with AAVS's additions (`torch_aavs.py`), tiny, weights random,
in double precision: features, predictions, losses and PyTorch's gradients. Audio and metrics: the
definitions below, loop by loop in double precision. `fixtures/README.md` says what is in them.
"""

import json
import math
import pathlib

import numpy as np
import torch
import torch_aavs
from torch.nn import functional

FOLDER = pathlib.Path(__file__).parent / "fixtures"

SIZES = {
    "feature_size": 32,
    "mask_feature_size": 32,
    "hidden_dim": 32,
    "dim_feedforward": 8,
    "encoder_feedforward_dim": 8,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
    "num_queries": 5,
    "train_num_points": 12,
    "class_weight": 2.0,
    "mask_weight": 5.0,
    "dice_weight": 5.0,
    "no_object_weight": 0.1,
    "importance_sample_ratio": 0.75,
    "oversample_ratio": 3.0,
    "swin": {
        "depths": [2, 1, 1, 1],
        "embed_dim": 4,
        "num_heads": [1, 1, 2, 2],
        "window_size": 3,
        "mlp_ratio": 2.0,
        "patch_size": 4,
        "layer_norm_eps": 1e-5,
    },
}
# No multiples of anything. At stride 32 six pixels are left: of two, one group of GroupNorm would
# make +1 and -1 whatever they are, and the gradients of what is before them mere rounding.
FRAMES, HEIGHT, WIDTH = 2, 65, 33
READOUT_FRAME = (384, 384)
WHOLE_GRADIENTS = (
    "encoder.layers.0.blocks.1.attention.output.swin_adapt_1.0.weight",
    "encoder.layers.0.blocks.1.attention.self.relative_position_bias_table",
    "decoder.encoder.layers.0.self_attn.sampling_offsets.bias",
    "decoder.encoder.layers.0.self_attn.avs_adapt.2.bias",
    "decoder.layers.1.self_attn.avs_adapt.0.weight",
    "decoder.layers.0.cross_attn.in_proj_bias",
    "transformer_module.queries_embedder.weight",
    "transformer_module.level_embed.weight",
    "transformer_module.audio_embed.weight",
    "class_predictor.weight",
    "audio_proj.2.bias",
)


def enlarged(maps: np.ndarray) -> np.ndarray:
    """Maps at the size of the frames: every value becomes a rectangle."""
    rows = np.arange(HEIGHT) * maps.shape[1] // HEIGHT
    columns = np.arange(WIDTH) * maps.shape[2] // WIDTH
    return maps[:, rows[:, None], columns]


def network(task: str, seed: int) -> dict[str, np.ndarray]:
    """A network file's arrays."""
    sizes = SIZES | {"task": task, "num_classes": 2 if task == "avs" else 3}
    reference = torch_aavs.TorchAAVS(sizes, seed=seed, audio_hidden=8)
    rng = np.random.default_rng(seed)
    # Few digits and small label maps enlarged: the files compress.
    pixels = rng.integers(-4, 5, (FRAMES, 3, HEIGHT, WIDTH)).astype(np.float32) / 2
    audio = rng.integers(0, 16, (FRAMES, 128)).astype(np.float32) / 8
    labels = rng.integers(0, sizes["num_classes"], (FRAMES, 3, 4), np.uint8)
    labels[0] %= 2  # frames differ in how many classes they have
    labels = enlarged(labels)
    prior = None
    if task == "avss":
        prior = rng.integers(0, 17, (FRAMES, 6, 8)).astype(np.float32) / 16
        prior = enlarged(prior)

    outputs = reference(pixels, audio, prior)
    losses, draws = reference.losses(outputs, labels)
    loss = sum(losses.values())
    loss.backward()

    maps = {
        "tap/mask_features": outputs.pixel_decoder_last_hidden_state,
        "class_logits": outputs.class_queries_logits,
        "mask_logits": outputs.masks_queries_logits,
        "loss": loss,
    }
    for index, x in enumerate(outputs.encoder_hidden_states):
        maps[f"tap/backbone/{index}"] = x
    for index, x in enumerate(outputs.pixel_decoder_hidden_states):
        maps[f"tap/multi_scale/{index}"] = x
    for index, prediction in enumerate(outputs.auxiliary_logits):
        maps[f"tap/layer/{index}/class_logits"] = prediction["class_queries_logits"]
        maps[f"tap/layer/{index}/mask_logits"] = prediction["masks_queries_logits"]
    for name, term in losses.items():
        maps[f"loss/{name}"] = term

    masks = functional.interpolate(maps["mask_logits"], size=READOUT_FRAME, mode="bilinear")
    classes = maps["class_logits"].softmax(-1)[..., :-1]
    scores = torch.einsum("nqk,nqhw->nkhw", classes, masks.sigmoid())
    size = (HEIGHT * 7 // 8, WIDTH * 7 // 8)
    maps["post/scores"] = functional.interpolate(scores, size=size, mode="bilinear")

    arrays = {name: x.detach().numpy().astype(np.float32) for name, x in maps.items()}
    arrays |= {
        "config_json": np.array(json.dumps(sizes)),
        "pixel_values": pixels,
        "audio": audio,
        "segmentation": labels,
    }
    if prior is not None:
        arrays["sounding_mask"] = prior
        arrays["post/semantic"] = arrays["post/scores"].argmax(1).astype(np.uint8)
    for index, draw in enumerate(draws):
        arrays[f"rand/{index:03d}"] = draw

    def used(tensors):  # transformers saves a last norm that nothing uses
        return {name: x for name, x in tensors.items() if ".swin.layernorm." not in name}

    arrays |= {f"param/{name}": x for name, x in used(reference.checkpoint()).items()}
    gradients = used(
        reference.checkpoint(lambda p: torch.zeros_like(p) if p.grad is None else p.grad)
    )
    arrays["grad_names"] = np.array(list(gradients))
    norms = [np.linalg.norm(x.astype(np.float64)) for x in gradients.values()]
    arrays["grad_norms"] = np.array(norms, np.float32)
    for name, x in gradients.items():
        if name.endswith(WHOLE_GRADIENTS):
            arrays[f"grad/{name}"] = x
    return arrays


# ---------------------------------------------------------------------------- audio and metrics


def log_mel(waveform: np.ndarray) -> np.ndarray:
    """VGGish's examples [n,96,64] by their definition, window by window and band by band."""

    def mel(hertz: float) -> float:
        return 1127 * math.log(1 + hertz / 700)

    edges = np.linspace(mel(125), mel(7500), 66)
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(400) / 400)
    rows = []
    for start in range(0, len(waveform) - 399, 160):
        spectrum = np.abs(np.fft.rfft(waveform[start : start + 400] * window, 512))
        row = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for k in range(1, 257):
                at = mel(k * 16000 / 512)
                weight = min((at - low) / (centre - low), (high - at) / (high - centre))
                energy += max(weight, 0) * spectrum[k]
            row.append(math.log(energy + 0.01))
        rows.append(row)
    examples = len(rows) // 96
    return np.array(rows[: 96 * examples]).reshape(examples, 96, 64)


def f_score(predicted: np.ndarray, target: np.ndarray) -> float:
    """F with beta^2 = 0.3 of two bool maps."""
    precision = (predicted & target).sum() / (predicted.sum() + 1e-20)
    recall = (predicted & target).sum() / (target.sum() + 1e-20)
    both = 0.3 * precision + recall
    return 1.3 * precision * recall / both if both else 0.0


def binary_clip(scores: np.ndarray, target: np.ndarray) -> tuple[float, float]:
    """J and F of a clip: scores [T,2,H,W], target [T,H,W]."""
    js, curves = [], []
    # Rounded to float32 where the comparison with the float32 thresholds takes place.
    twice = 2 * scores[:, 1].astype(np.float64) - scores[:, 0]
    fmap = (1 / (1 + np.exp(-twice))).astype(np.float32)
    for frame, wanted in enumerate(target != 0):
        predicted = scores[frame, 1] > scores[frame, 0]
        if not wanted.any():
            js.append((~predicted).sum() / (predicted.size + 1e-7))
            continue
        js.append((predicted & wanted).sum() / ((predicted | wanted).sum() + 1e-7))
        thresholds = np.linspace(0, 1 - 1e-10, 255).astype(np.float32)
        curves.append([f_score(fmap[frame] >= threshold, wanted) for threshold in thresholds])
    return float(np.mean(js)), float(np.mean(curves, 0).max()) if curves else 0.0


def semantic_set(clips: list[tuple[np.ndarray, np.ndarray]], classes: int) -> dict:
    """The figures of a set of (prediction, target), each [T,H,W]."""
    iou, f, frames = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    for prediction, target in clips:
        for ours, wanted in zip(prediction, target, strict=True):
            for k in range(classes):
                union = ((ours == k) | (wanted == k)).sum()
                if union:
                    iou[k] += ((ours == k) & (wanted == k)).sum() / union
                    f[k] += f_score(ours == k, wanted == k)
                    frames[k] += 1
    iou, f = iou / np.maximum(frames, 1), f / np.maximum(frames, 1)
    return {
        "miou_per_class": iou,
        "fscore_per_class": f,
        "frames_per_class": frames,
        "miou": iou.mean(),
        "miou_no_background": iou[1:].mean(),
        "fscore": f.mean(),
        "fscore_no_background": f[1:].mean(),
    }


def audio_and_metrics() -> dict[str, np.ndarray]:
    """The audio and metrics file's arrays."""
    rng = np.random.default_rng(7)
    arrays = {"audio/sample_rate": np.int32(16000)}

    # 1.1 s: one example and a rest that fills none. A rising tone, noise, and digital silence.
    time = np.arange(17600) / 16000
    waveform = 9000 * np.sin(2 * np.pi * (200 + 2500 * time) * time)
    waveform[4000:8000] += rng.normal(size=4000) * 1000
    waveform[11000:14000] = 0
    waveform = (waveform / 128).round().astype(np.int16) * 128
    arrays["audio/waveform_int16"] = waveform
    arrays["audio/log_mel_examples"] = log_mel(waveform / 32768)

    target = np.zeros((4, 5, 16, 16), np.uint8)
    target[0, :4, 3:11, 2:9] = 1  # a clip with one empty frame
    target[2, 1, 8:, :] = 1  # a clip with a single usable frame; clip 1 has none
    target[3] = 1
    for index, wanted in enumerate(target):
        near = np.stack([1 - wanted, wanted], 1) + rng.normal(size=(5, 2, 16, 16)) * 0.6
        scores = (near * 64).round().astype(np.float32) / 64 + np.float32([[[0]], [[1 / 128]]])
        arrays[f"binary/{index}/scores"] = scores
        arrays[f"binary/{index}/target"] = wanted
        j, f = binary_clip(scores, wanted)
        arrays[f"binary/{index}/miou"] = np.float32(j)
        arrays[f"binary/{index}/fscore"] = np.float32(f)

    # Of 7 classes, 5 is only predicted, 4 only wanted, 6 neither.
    clips = []
    for index, frames in enumerate((5, 10)):
        target = rng.integers(0, 5, (frames, 4, 4), np.uint8).repeat(4, 1).repeat(4, 2)
        target[0] = 0
        guess = rng.choice(np.array([0, 1, 2, 3, 5], np.uint8), target.shape)
        prediction = np.where((rng.random(target.shape) < 0.7) & (target != 4), target, guess)
        clips.append((prediction, target))
        arrays[f"semantic/{index}/prediction"] = prediction
        arrays[f"semantic/{index}/target"] = target
    for name, figure in semantic_set(clips, classes=7).items():
        arrays[f"semantic/{name}"] = np.float32(figure)
    return {
        name: x.astype(np.float32) if x.dtype == np.float64 else x for name, x in arrays.items()
    }


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, arrays in (
        ("torch_avs", network("avs", seed=11)),
        ("torch_avss", network("avss", seed=12)),
        ("slow_audio_and_metrics", audio_and_metrics()),
    ):
        np.savez_compressed(FOLDER / f"{name}.npz", **arrays)
        print(name, (FOLDER / f"{name}.npz").stat().st_size, "bytes")
