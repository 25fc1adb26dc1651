"""AVSegFormer against measured numbers; `test_golden.py` runs these."""

import dataclasses
import json
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aavs_jax.methods.avsegformer.config import AVSegFormerConfig, AVSegFormerLoss
from aavs_jax.methods.avsegformer.network import AVSegFormer
from aavs_jax.methods.avsegformer.objective import losses
from aavs_jax.methods.avsegformer.weights import FORMAT
from aavs_jax.methods.functional import functional
from aavs_jax.methods.parts.layers import sine_positions
from tests.parity.golden import (
    ACTIVATIONS,
    COMPILER,
    GRADIENTS,
    LOSSES,
    Names,
    channels_first,
    check,
)

STATISTICS = 1e-5
COUNTED = 1e-6  # of the largest norm: smaller ones are zero but for rounding


def model_config(golden) -> AVSegFormerConfig:
    sizes = json.loads(str(golden["config_json"]))
    assert sizes["generator_heads"] == sizes["heads"] and sizes["points"] == 4
    if sizes["backbone"] == "pvt_v2":
        backbone = {
            "backbone": "pvt",
            "pvt": {
                "reductions": sizes["sr_ratios"],
                **{k: sizes[k] for k in ("embed_dims", "num_heads", "depths", "mlp_ratios")},
            },
        }
    else:
        backbone = {
            "backbone": "resnet",
            "resnet": {key: sizes[key] for key in ("stem", "planes", "depths")},
        }
    return AVSegFormerConfig.from_dict(
        {
            "task": sizes["task"],
            "num_classes": max(2, sizes["num_classes"]),
            "num_queries": sizes["query_num"],
            **backbone,
            # Never run here: the files start from embeddings.
            "audio": {"blocks": [[1]], "fully_connected": [golden["audio"].shape[-1]]},
            "feature_size": sizes["embed_dim"],
            "num_heads": sizes["heads"],
            "encoder_layers": sizes["encoder_layers"],
            "encoder_ffn": sizes["encoder_ffn"],
            "generator_layers": sizes["generator_layers"],
            "generator_ffn": sizes["generator_hidden"],
            "decoder_layers": sizes["decoder_layers"],
            "decoder_ffn": sizes["decoder_ffn"],
            "query_hidden": sizes["mlp_hidden"],
        }
    )


def frame_counts(golden) -> dict[str, np.ndarray]:
    """Name of a loss -> what each frame counts in it: float32 [N]."""
    sizes = json.loads(str(golden["config_json"]))
    if sizes["task"] == "semantic":
        return {"avss": golden["gt_flag"]}
    first = np.arange(sizes["clips"] * sizes["frames"]) % sizes["frames"] == 0
    return {"ms3": np.ones(len(first), np.float32), "s4": first.astype(np.float32)}


def run_of(golden, net):
    """A function of parameters that gives all there is to compare, but gradients."""
    frames = np.moveaxis(golden["pixel_values"], 1, -1)
    labels = golden["labels"] if "labels" in golden else golden["masks"][:, 0]
    valid = golden.get("vid_flag")
    counts = frame_counts(golden)

    def run(parameters, training):
        network = net.network(parameters)
        outputs = network(frames, golden["audio"], valid=valid, training=training, taps=True)
        terms = losses(outputs, labels.astype(np.int32), AVSegFormerLoss())
        sums = {
            name: {term: (value * c).sum() / c.sum() for term, value in terms.items()}
            for name, c in counts.items()
        }
        return outputs, sums, net.statistics(network)

    return run


def attended(net, parameters, outputs) -> list[jax.Array]:
    """The encoder's attentions of the evaluation, before their residuals."""
    network = net.network(parameters)
    levels = outputs["projected"][1:]
    shapes = tuple(level.shape[1:3] for level in levels)
    size = levels[0].shape[-1]
    positions = jnp.concatenate(
        [
            sine_positions(*shape, size, scaled=False).reshape(-1, size) + embed
            for shape, embed in zip(shapes, network.encoder.level_embed[...], strict=True)
        ]
    )
    first = jnp.concatenate([level.reshape(len(level), -1, size) for level in levels], axis=1)
    inputs = [first, *outputs["encoder"][:-1]]
    return [
        layer.attention(x, positions, shapes)
        for layer, x in zip(network.encoder.layers, inputs, strict=True)
    ]


def entered(net, parameters, golden) -> dict[str, jax.Array]:
    """Taps within the backbone: the ResNet's stem, or the PVT's first blocks; of the tap frames."""
    network = net.network(parameters)
    config = json.loads(str(golden["config_json"]))
    frames = jnp.moveaxis(golden["pixel_values"][np.array(config["tap_frames"])], 1, -1)
    if config["backbone"] != "pvt_v2":
        return {"tap/stem": jnp.moveaxis(network.backbone.enter(frames, False), -1, 1)}
    found, x = {}, frames
    for index, stage in enumerate(network.backbone.stages):
        block = stage.blocks[0](stage.patch_embedding(x))
        found[f"tap/pvt/block0/{index}"] = block.reshape(len(block), -1, block.shape[-1])
        x = stage(x, None)
    return found


class TestAVSegFormer:
    """A file's network, run in evaluation and in training, and differentiated, once each."""

    @pytest.fixture(scope="class")
    @classmethod
    def replay(cls, avsegformer_golden):
        golden = avsegformer_golden
        names = Names(FORMAT)
        given = names.to_parameters(
            {name[6:]: golden[name] for name in golden if name.startswith("param/")}
        )
        # The public files' dropout and drop-path are off.
        config = dataclasses.replace(model_config(golden), dropout=0.0)
        net = functional(lambda: AVSegFormer(config))
        parameters = {
            path: jnp.asarray(given.get(path, np.zeros(leaf.shape, np.float32)))
            for path, leaf in net.shapes.items()
        }
        run = run_of(golden, net)
        main = json.loads(str(golden["config_json"]))["main_loss"]
        fixed = {path: value for path, value in parameters.items() if path in net.mutable}
        trained = {path: value for path, value in parameters.items() if path not in net.mutable}

        def evaluate(parameters):
            outputs, terms, _ = run(parameters, False)
            inside = attended(net, parameters, outputs), entered(net, parameters, golden)
            return outputs, terms, *inside

        def objective(trained, name):
            outputs, terms, statistics = run(trained | fixed, True)
            return sum(terms[name].values()), (outputs, terms, statistics)

        def differentiate(name):
            """Of a loss, by our paths."""
            gradient = jax.jit(
                jax.grad(objective, has_aux=True),
                static_argnames="name",
                compiler_options=COMPILER,
            )
            with jax.default_matmul_precision("highest"):
                return gradient(trained, name=name)[0]

        with jax.default_matmul_precision("highest"):
            outputs, terms, attentions, inside = jax.jit(evaluate, compiler_options=COMPILER)(
                parameters
            )
            trained_run = jax.jit(
                lambda parameters: run(parameters, True), compiler_options=COMPILER
            )(parameters)
        return types.SimpleNamespace(
            golden=golden,
            taps=np.array(json.loads(str(golden["config_json"]))["tap_frames"]),
            names=names,
            net=net,
            given=given,
            main=main,
            outputs=outputs,
            terms=terms,
            attentions=attentions,
            inside=inside,
            trained=trained_run,
            differentiate=differentiate,
        )

    @pytest.fixture(scope="class")
    @classmethod
    def gradients(cls, replay):
        """Of each loss, by the file's names; of one file in every test run, of all with -m slow."""
        unused = set(replay.golden["grad_unused"])
        wanted = [str(name) for name in replay.golden["grad_names"] if name not in unused]
        losses = {replay.main} | ({"s4"} & replay.trained[1].keys())
        return {
            loss: replay.names.to_checkpoint(replay.differentiate(loss), wanted) for loss in losses
        }

    def test_every_name_has_its_place(self, replay):
        ours = {path for path in replay.net.shapes if not path.startswith("audio_encoder/")}
        assert set(replay.given) == ours
        shapes = {path: array.shape for path, array in replay.given.items()}
        assert shapes == {path: replay.net.shapes[path].shape for path in ours}

    def test_activations(self, replay):
        golden, outputs, taps = replay.golden, replay.outputs, replay.taps
        pairs = []
        for tap, name in (
            ("backbone", "backbone"),
            ("in_proj", "projected"),
            ("query_generator", "query_generator"),
            ("encoder", "encoder"),
            ("decoder", "decoder"),
        ):
            for index, x in enumerate(outputs[name]):
                x = channels_first(x) if x.ndim == 4 else x
                pairs.append((f"tap/{tap}/{index}", x[taps]))
        pairs += [(f"tap/encoder_attn/{i}", x[taps]) for i, x in enumerate(replay.attentions)]
        pairs += [("tap/decoder_input", outputs["decoder_input"][taps])]
        for name in ("lateral", "mask_feature_unmixed", "pred_feature"):
            pairs.append((f"tap/{name}", channels_first(outputs[name])[taps]))
        pairs += [
            ("tap/mixer_gate", outputs["gate"]),
            ("mask_feature", channels_first(outputs["mask_feature"])[taps]),
            ("output", channels_first(outputs["logits"])),
            *replay.inside.items(),
        ]
        for index, level in enumerate(outputs["projected"][1:]):
            positions = sine_positions(*level.shape[1:], scaled=False)[None]
            pairs.append((f"tap/position/{index}", channels_first(positions)))
        assert {name for name, _ in pairs} == {
            n for n in golden if n.startswith("tap/") or n in ("output", "mask_feature")
        }
        check([(name, ours, golden[name]) for name, ours in pairs], ACTIVATIONS)

    def test_activations_in_training(self, replay):
        outputs = replay.trained[0]
        ours = {
            "train/output": channels_first(outputs["logits"])[replay.taps],
            "train/tap/backbone/3": channels_first(outputs["backbone"][3])[replay.taps],
        }
        check([(name, x, replay.golden[name]) for name, x in ours.items()], ACTIVATIONS)

    def test_losses(self, replay):
        names = {"dice": "dice", "cross_entropy": "ce", "mix": "mix"}
        pairs = []
        for place, terms in (("", replay.terms), ("train/", replay.trained[1])):
            for loss, of_loss in terms.items():
                pairs.append((f"{place}loss/{loss}", sum(of_loss.values())))
                for term, value in of_loss.items():
                    pairs.append((f"{place}loss/{loss}/{names[term]}", value))
        assert {name for name, _ in pairs} == {
            name for name in replay.golden if name.startswith(("loss/", "train/loss/"))
        }
        check([(name, ours, replay.golden[name]) for name, ours in pairs], LOSSES)

    def test_running_statistics(self, replay):
        after = {n[12:]: a for n, a in replay.golden.items() if n.startswith("train/after/")}
        if not after:
            assert not replay.net.mutable
            return
        ours = replay.names.to_checkpoint(replay.trained[2], list(after))
        assert len(after) == len(replay.trained[2])
        check([(name, ours[name], array) for name, array in after.items()], STATISTICS)

    def test_gradients(self, replay, gradients):
        golden = {n[11:]: a for n, a in replay.golden.items() if n.startswith("train/grad/")}
        ours = gradients[replay.main]
        check([(n, ours[n], array) for n, array in golden.items()], GRADIENTS)

    def test_gradient_norms(self, replay, gradients):
        names = [str(name) for name in replay.golden["grad_names"]]
        every = [
            (f"train/grad_norms{'' if loss == replay.main else f'_{loss}'}", found)
            for loss, found in gradients.items()
        ]
        assert len(every) == sum(name.startswith("train/grad_norms") for name in replay.golden)
        for key, found in every:
            golden = dict(zip(names, replay.golden[key], strict=True))
            bound = COUNTED * max(golden.values())
            assert all(golden[name] == 0 for name in replay.golden["grad_unused"])
            ours = {n: np.linalg.norm(g.astype(np.float64)) for n, g in found.items()}
            assert not {n: norm for n, norm in ours.items() if golden[n] <= bound < norm}
            pairs = [(n, norm, golden[n]) for n, norm in ours.items() if golden[n] > bound]
            check(pairs, GRADIENTS)

    def test_a_single_token_leaves_attention_no_choice(self, replay, gradients):
        """Queries and keys of the generator's cross-attention have no gradient at all."""
        stacked = gradients[replay.main]["head.query_generator.layers.0.cross_attn.in_proj_weight"]
        queries_and_keys, values = np.split(stacked, [2 * len(stacked) // 3])
        assert not queries_and_keys.any() and values.any()
