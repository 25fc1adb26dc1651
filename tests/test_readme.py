"""The README's commands, typed in their order in one checkout, do what they should.

Reduced: networks, data and weights of next to nothing, so that what is tried is whether each
command fits what the ones before it left. Some minutes on two cores. And whatever the README and
the pages of docs/ name is there: modules, files, headings, keys, parameters.
"""

import fnmatch
import functools
import importlib.util
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from aavs_jax.methods import make_method
from aavs_jax.run.resuming import flatten
from configs import avsegformer, avsegformer_stepping_stones, avss, avss_joint, cavp
from data_pipelines.making import audible_shapes

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, *sorted((ROOT / "docs").glob("*.md")))
LONGEST = 150  # lines of the README; what does not fit belongs into docs/
# Not for a test: they install, or run tests.
ELSEWHERE = ("pip ", "apt-get ", "python -m pytest")


def commands() -> list[str]:
    """Of all indented blocks, in order; && makes two of one."""
    found = []
    for block in re.findall(r"(?:^    .*\n)+", README.read_text(), re.MULTILINE):
        text = re.sub(r"\\\n\s*", " ", block)
        for line in text.splitlines():
            parts = re.sub(r"  +#.*", "", line).split("&&")
            found += [part.strip() for part in parts if part.strip()]
    return [text for text in found if re.match(r"(python|pip|apt-get) ", text)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_names_what_is_there(page):
    """A module of the project, a config, an extra: whatever a command names."""
    extras = re.findall(r"^(\w+) =", (ROOT / "setup.cfg").read_text(), re.MULTILINE)
    text = page.read_text()
    for module in re.findall(r"python -m (aavs_jax[\w.]*|data_pipelines[\w.]*)", text):
        assert importlib.util.find_spec(module), module
    for config in re.findall(r"\bconfigs/\w+\.py", text):
        assert (ROOT / config).is_file(), config
    for extra in re.findall(r"(?:\.|aavs_jax)\[(\w+)\]\"", text):
        assert extra in extras, extra


def test_the_first_command_needs_nothing():
    found = commands()
    assert found[0].startswith("pip install -e .") and "configs/avss.py" in found[1]
    assert ":" not in found[1]
    assert len(README.read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if link.startswith("http"):
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            # As GitHub makes anchors of headings.
            assert anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


@functools.cache
def keys_of_configs() -> set[str]:
    modules = (avss, avsegformer, avsegformer_stepping_stones, cavp)
    configs = [m.get_config(folder).to_dict() for m in modules for folder in ("/data/avsbench", "")]
    configs.append(avss_joint.get_config(",shared").to_dict())
    return {key for config in configs for key in flatten(config)}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_keys_are_those_of_the_configs(page):
    known = keys_of_configs()
    for key in re.findall(r"--config\.([\w.]+\w)", page.read_text()):
        # STAGE stands for the name of any.
        assert key.replace("stages.STAGE", "stages.localise") in known, key


def test_the_method_names_keys_and_parameters_that_are_there():
    text = (ROOT / "docs" / "method.md").read_text()
    known = keys_of_configs()
    keys = re.findall(r"`(config\.[\w.]+|(?:model|loss|data|prior|phases)\.[\w.]+)(?:=\w+)?`", text)
    assert len(keys) > 10
    for key in keys:
        whole = key.removeprefix("config.")
        assert whole in known or f"stages.localise.{whole}" in known, key
    stage = avss.get_config().to_dict()["stages"]["understand"]  # with all parts that there are
    parameters = make_method(stage, num_classes=3).shapes
    parts = r"audio_encoder|audio_proj|backbone|pixel_decoder|decoder"
    named = re.findall(rf"`((?:{parts})/[\w/*]*)`", text)
    assert len(named) > 10
    for path in named:
        pattern = path + "*" if path.endswith("/") else path
        assert fnmatch.filter(parameters, pattern), path
    # No part of the network is passed over.
    assert {path.split("/")[0] for path in parameters} == {path.split("/")[0] for path in named}


# ---- all of them


@pytest.fixture(scope="module")
def checkout(tmp_path_factory, write_noise):
    """A folder with the project's files, and what the commands take from elsewhere."""
    import torch
    import transformers

    folder = tmp_path_factory.mktemp("checkout")
    for name in ("aavs_jax", "configs", "data_pipelines"):
        (folder / name).symlink_to(ROOT / name)
    audible_shapes.make(folder / "elsewhere" / "avsbench", clips=12, size=48, progress=False)
    torch.manual_seed(0)
    swin = {
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 2,
        "image_size": 32,
    }
    decoders = {
        "feature_size": 32,
        "mask_feature_size": 32,
        "hidden_dim": 32,
        "dim_feedforward": 32,
        "encoder_feedforward_dim": 32,
        "encoder_layers": 1,
        "decoder_layers": 2,  # counts the prediction before the first layer, too
        "num_attention_heads": 2,
    }
    backbone = transformers.SwinConfig(**swin, out_features=[f"stage{i}" for i in range(1, 5)])
    config = transformers.Mask2FormerConfig(
        **decoders, num_queries=4, backbone_config=backbone, num_labels=150
    )
    network = transformers.Mask2FormerForUniversalSegmentation(config)
    network.save_pretrained(folder / "mask2former-swin-base-ade-semantic")
    spec = importlib.util.spec_from_file_location(
        "torch_aavs", ROOT / "tests" / "parity" / "torch_aavs.py"
    )
    torch_aavs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(torch_aavs)
    sizes = {**decoders, "num_classes": 2, "num_queries": 4, "task": "avs"}
    sizes["swin"] = {**swin, "layer_norm_eps": 1e-5}
    state = torch_aavs.TorchAAVS(sizes, seed=4, dtype=torch.float32).published()
    torch.save(state, folder / "S4_Swin_B.pth")
    rng, tensors, channels = np.random.default_rng(0), {}, 1
    for place, width in zip((0, 3, 6, 8, 11, 13), (2, 2, 3, 3, 2, 2), strict=True):
        tensors[f"features.{place}.weight"] = rng.normal(size=(width, channels, 3, 3))
        tensors[f"features.{place}.bias"] = rng.normal(size=width)
        channels = width
    inputs = 6 * 4 * channels
    for place, width in ((0, 16), (2, 16), (4, 128)):
        tensors[f"embeddings.{place}.weight"] = rng.normal(size=(width, inputs))
        tensors[f"embeddings.{place}.bias"] = rng.normal(size=width)
        inputs = width
    tensors = {name: torch.tensor(value, dtype=torch.float32) for name, value in tensors.items()}
    torch.save(tensors, folder / "vggish-10086976.pth")
    write_noise(folder / "clip.mp4")
    return folder


AUDIO = {  # of the VGGish above
    "model.audio.blocks": ((2,), (2,), (3, 3), (2, 2)),
    "model.audio.fully_connected": (16, 16, 128),
}


def reduced(text: str, checkout: Path, tiny_flags) -> list[str]:
    """A command of the README, as it stands there but for sizes and for where /data lies."""
    words = shlex.split(text.replace("/data/", f"{checkout}/elsewhere/"))
    words[0] = sys.executable
    if "aavs_jax.main" in words:
        (config,) = [word for word in words if word.startswith("--config=")]
        one = any(name in config for name in ("configs/s4.py", "configs/binary.py"))
        stages = ("localise",) if one else ("localise", "understand")
        recipe = ":" in config and ",small" not in config
        if recipe:
            flags = tiny_flags(stages, ("a", "b"), epochs=1.0, **AUDIO, **{"loss.num_points": 16})
        else:
            flags = tiny_flags(stages, epochs=1.0)
        # What the README itself gives comes last.
        words = [*words[:3], config, *flags, *(w for w in words[3:] if w != config)]
        words.append("--config.eval.sounds=('right',)")
    if words[2:4] == ["data_pipelines.make", "stamps"]:
        words += ["--clips", "30", "--size", "48"]
    return words


@pytest.mark.slower
def test_the_commands_in_their_order(checkout, tiny_flags, tmp_path):
    stamps = Path("/usr/share/tuxpaint/stamps").is_dir()
    done = []
    for text in commands():
        if text.startswith(ELSEWHERE) or ("stamps" in text and not stamps):
            continue
        result = subprocess.run(
            reduced(text, checkout, tiny_flags),
            cwd=checkout,
            env={**os.environ, "PYTHONPATH": str(checkout), "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert result.returncode == 0, f"{text}\n{result.stdout}"
        done.append(text)
    assert len(done) >= 8
    runs = {path.parent.name for path in (checkout / "runs").glob("*/results.json")}
    assert {
        "avss",
        "avss-prepared-small",
        "avss-prepared",
        "s4-prepared-aavs_s4",
        "other",
    } <= runs
    assert (checkout / "clip_out" / "index.html").exists()
