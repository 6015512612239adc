"""A model with its weights: the checkpoint's, and on top of them those that a training wrote."""

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from samref.backbones import build
from samref.backbones.checkpoints import locate
from samref.config import ModelConfig, Module, Precision, Runtime
from samref.refiner import SamRef
from samref.stage import WEIGHTS_FILE


def build_model(
    config: ModelConfig,
    runtime: Runtime,
    *,
    weights: Path | None,
    refiner_seed: int = 0,
    encoder: bool = True,
    precision: Precision = "fp32",
) -> SamRef:
    """The model on the runtime's device, in evaluation mode.

    Args:
        config: which model.
        runtime: device, and the folder of checkpoints.
        weights: output folder of a train stage; None leaves the checkpoint's weights.
        refiner_seed: of the refiner's first weights.
        encoder: false leaves the image encoder out of memory, where embeddings are cached.
        precision: that the refiner will be called in; decides how a GPU's memory holds its weights.
    """
    first = locate(config, runtime.checkpoints)
    backbone = build(config.backbone, config.options, checkpoint=first, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(refiner_seed)
        model = SamRef(backbone, config)
    if weights is not None:
        trained = load_file(weights / WEIGHTS_FILE)
        # A baseline's decoder may come from a training that also had a refiner, and the other way round.
        unexpected = model.load_state_dict(trained, strict=False).unexpected_keys
        unknown = [name for name in unexpected if not name.startswith(("gfr.", "lfr."))]
        if unknown:
            raise ValueError(f"{weights / WEIGHTS_FILE} is of another model: {unknown[0]} is not in {config.backbone}")
    if not encoder:
        backbone.drop_encoder()
    model = model.to(runtime.resolve_device()).eval()
    if next(model.parameters()).is_cuda:
        for refiner in (model.gfr, model.lfr) if precision != "fp32" else ():
            if refiner is not None:
                refiner.fusion.use_channels_last(stems=precision == "bf16")
    return model


def parts(model: SamRef, names: tuple[Module, ...]) -> dict[str, nn.Parameter]:
    """The parameters, by their names in the model, of the encoder, decoder or refiner."""
    wanted = {
        id(parameter)
        for name in names
        for parameter in (
            model.refiner_modules() if name == "refiner" else model.backbone.modules_of(name)
        ).parameters()
    }
    return {name: parameter for name, parameter in model.named_parameters() if id(parameter) in wanted}


def save(tensors: dict[str, Tensor], folder: Path) -> None:
    """Write what a training changed (its own modules and its init's)."""
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, folder / WEIGHTS_FILE)


def inherited(weights: Path | None) -> dict[str, Tensor]:
    """The tensors that a training starts from beyond the checkpoint's."""
    return load_file(weights / WEIGHTS_FILE) if weights is not None else {}
