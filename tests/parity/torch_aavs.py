"""The AAVS in PyTorch that ours is held against: that of the benchmark, with weights for tests.

Weights are random and none is left at zero or one, so that every one of them counts.
"""

import re

import numpy as np
import torch
import transformers

from aavs_jax.benchmark import torch_network
from aavs_jax.benchmark.torch_network import ENCODER, STAGES, UNUSED

__all__ = ["STAGES", "TorchAAVS", "give_queries_something_to_do", "randomise"]


def randomise(module: torch.nn.Module, *, few_digits: bool) -> None:
    """Draws every weight: features keep their size from layer to layer, and none is zero or one."""
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape)
            if parameter.ndim > 1:
                parameter.copy_(noise * (parameter.numel() / len(parameter)) ** -0.5)
            else:
                parameter += 0.2 * noise
            if few_digits:
                parameter.copy_(parameter.half())


def give_queries_something_to_do(
    model: transformers.Mask2FormerForUniversalSegmentation,
    pixels: np.ndarray,
    ends: list[torch.nn.Linear],
    prior: float = 0.0,
) -> None:
    """Random weights as they come make all queries alike, and their masks all or nothing.

    Nothing would then be seen of a query taken for another, nor of the masks' part in attention.
    So queries are made to start as far from each other as published ones do, attentions to add
    less to them, and mask features to vary about zero.

    Args:
      model: changed in place.
      pixels: float32 [N,3,H,W], what it will see.
      ends: the last layers of the decoder's self-attentions.
      prior: mean of what is added to the mask features.
    """
    module, level = model.model.transformer_module, model.eval().model.pixel_level_module
    with torch.no_grad():
        for embedding in (module.queries_embedder, module.queries_features):
            embedding.weight.normal_()
        for end in (*ends, *(layer.cross_attn.out_proj for layer in module.decoder.layers)):
            end.weight *= 0.3
        mask_features = level(torch.from_numpy(pixels)).decoder_last_hidden_state
        level.decoder.mask_projection.bias -= mask_features.mean((0, 2, 3)) + prior


class TorchAAVS(torch_network.TorchAAVS):
    """The reference network."""

    def __init__(self, sizes: dict, *, seed: int, audio_hidden: int = 16, dtype=torch.float64):
        """`sizes` is what a golden file's `config_json` holds.

        In double precision weights get few digits, so that files with them compress well; in
        single precision all that they can have, as in a checkpoint.
        """
        torch.manual_seed(seed)
        super().__init__(sizes, audio_hidden=audio_hidden)
        self.to(dtype)
        for module in (self.plain, *self.added.values()):
            randomise(module, few_digits=dtype == torch.float64)

    def to(self, dtype: torch.dtype) -> None:
        """Computes in this type from here on."""
        self.dtype = dtype
        for module in (self.plain, *self.added.values()):
            module.to(dtype)

    def __call__(self, pixel_values, audio, prior=None):
        """transformers' outputs, with everything in between and all predictions.

        Arrays [N,3,H,W], [N,128] and for the semantic network [N,G,G'] in [0,1].
        """
        given = (pixel_values, audio) if prior is None else (pixel_values, audio, prior)
        return self.forward(
            *(torch.from_numpy(array).to(self.dtype) for array in given),
            output_hidden_states=True,
            output_auxiliary_logits=True,
        )

    def losses(self, outputs, segmentation: np.ndarray) -> tuple[dict, list[np.ndarray]]:
        """transformers' weighted losses for label maps [N,H,W], and the random numbers drawn."""
        classes = [torch.from_numpy(np.unique(labels)).long() for labels in segmentation]
        masks = [
            (torch.from_numpy(labels)[None] == present[:, None, None]).double()
            for labels, present in zip(segmentation, classes, strict=True)
        ]
        draws, rand = [], torch.rand

        def recorded(*shape, **options):
            draws.append(rand(*shape, dtype=torch.float32))
            return draws[-1].double()

        torch.rand = recorded
        try:
            losses = self.plain.get_loss_dict(
                outputs.masks_queries_logits,
                outputs.class_queries_logits,
                masks,
                classes,
                outputs.auxiliary_logits,
            )
        finally:
            torch.rand = rand
        return losses, [draw.numpy() for draw in draws]

    def published(self) -> dict[str, torch.Tensor]:
        """What the public code's `torch.save(model.state_dict())` holds: buffers, too.

        The transformers of its time kept the table of relative positions as a buffer of every
        block, which that of today computes, and had no last norm, which today nothing uses.
        """
        tensors = {
            name: torch.from_numpy(array)
            for name, array in self.checkpoint().items()
            if UNUSED not in name
        }
        for name, buffer in self.plain.named_buffers():
            block = re.search(r"layers\.\d+\.blocks\.\d+\.attention", name)
            if block:
                place = f"{ENCODER}encoder.{block[0]}.self.relative_position_index"
            else:
                place = f"model.{name}"
            tensors[place] = buffer.clone()
        return tensors

    def load(self, tensors: dict[str, torch.Tensor]) -> None:
        """Takes over what `published` gives: every weight must be there, and nothing else."""
        rest = dict(tensors)
        for prefix, module in self.added.items():
            own = {name: rest.pop(f"{prefix}.{name}") for name in module.state_dict()}
            module.load_state_dict(own, strict=True)
        plain, report = type(self.plain).from_pretrained(
            None,
            config=self.plain.config,
            state_dict={
                name.removeprefix("model."): tensor
                for name, tensor in rest.items()
                if not name.endswith(".relative_position_index")
            },
            output_loading_info=True,
        )
        misfits = [(what, name) for what, names in report.items() for name in names]
        misfits = [(what, name) for what, name in misfits if UNUSED not in name]
        if misfits:
            raise ValueError(misfits)
        self.plain.load_state_dict(plain.state_dict(), strict=True)
