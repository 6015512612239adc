"""Networks of Hugging Face's transformers behind the backbone protocol: SAM, SAM-HQ, SAM2, SAM3's tracker, EdgeTAM.

All of them take the features of images, points and a previous mask in one call, and differ in what the features are:
SAM has one map, SAM-HQ the map of an early layer as well, the others two of higher resolution (transformers 5.24).
What `AutoModelForMaskGeneration` loads and is built so works, whatever its name.
"""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AutoImageProcessor, AutoModelForMaskGeneration
from transformers.utils import logging

from samref.backbones.backbone import Backbone, Multimask, best_of, takes_best_of_three
from samref.backbones.checkpoints import CheckpointError
from samref.backbones.hugging_face_files import folder_of

# The convolutions of the decoder that already the features went through.
_OF_FEATURES = ("conv_s0", "conv_s1")


class HuggingFaceBackbone(Backbone):
    """A mask-generating network of transformers; its state dict has the library's names below `model`."""

    takes_boxes = True
    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, model: Any, mean: list[float], std: list[float]) -> None:
        """Take a network, and the mean and deviation of its colours in 0..1."""
        super().__init__()
        self.model = model
        prompt = model.config.prompt_encoder_config
        self.image_size, channels = prompt.image_size, prompt.hidden_size
        side, _ = model.prompt_encoder.image_embedding_size
        self.mask_size = 4 * side
        self.feature_channels = {"embedding": (channels, side)}
        if hasattr(model.mask_decoder, "conv_s0"):
            self.feature_channels |= {"high_res_0": (channels // 8, 4 * side), "high_res_1": (channels // 4, 2 * side)}
        elif hasattr(model.mask_decoder, "compress_vit_conv1"):
            self.feature_channels["early"] = (model.config.vision_config.hidden_size, side)
        self.register_buffer("pixel_mean", torch.tensor(mean).view(-1, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(std).view(-1, 1, 1), persistent=False)
        # The library's own is without gradient, which training the encoder needs.
        self._features = inspect.unwrap(type(model).get_image_embeddings)

    def encode(self, images_B3SS: Tensor) -> dict[str, Tensor]:
        """Float32 also under autocast: `embedding`, and what the network's decoder needs besides.

        - `early` of SAM-HQ: the tokens of the first layer with global attention;
        - `high_res_0` and `high_res_1` of SAM2 and later: maps of 4 and 2 times the embedding's side.
        """
        found = self._features(self.model, (images_B3SS / 255 - self.pixel_mean) / self.pixel_std)
        if isinstance(found, Tensor):
            features = {"embedding": found}
        elif "early" in self.feature_channels:
            features = {"embedding": found[0], "early": found[1][0].permute(0, 3, 1, 2)}
        else:
            features = dict(zip(("high_res_0", "high_res_1", "embedding"), found, strict=True))
        return {name: feature.float() for name, feature in features.items()}

    def decode(
        self,
        features: dict[str, Tensor],
        points_BN2: Tensor,
        labels_BN: Tensor,
        previous: Tensor | None,
        *,
        multimask: Multimask = "never",
        boxes_B4: Tensor | None = None,
    ) -> Tensor:
        """The network's own call, of one object an image."""
        given: dict[str, Any] = {"image_embeddings": features["embedding"]}
        if "early" in features:
            given["intermediate_embeddings"] = [features["early"].permute(0, 2, 3, 1)]
        elif "high_res_0" in features:
            given["image_embeddings"] = [features[name] for name in ("high_res_0", "high_res_1", "embedding")]
        if points_BN2.shape[1]:
            given |= {"input_points": points_BN2[:, None], "input_labels": labels_BN[:, None]}
        if boxes_B4 is not None:
            given["input_boxes"] = boxes_B4[:, None]
        best_of_three = takes_best_of_three(multimask, previous)
        made = self.model(**given, input_masks=previous, multimask_output=best_of_three)
        return best_of(made.pred_masks[:, 0], made.iou_scores[:, 0])  # where there is one mask, that one

    def modules_of(self, name: Literal["encoder", "decoder"]) -> nn.ModuleList:
        """The prompt encoder belongs to neither (SAM-REF's supplement)."""
        decoder = dict(self.model.mask_decoder.named_children())
        shared = [decoder.pop(each) for each in _OF_FEATURES if each in decoder]
        return nn.ModuleList([self.model.vision_encoder, *shared] if name == "encoder" else decoder.values())

    def drop_encoder(self) -> None:
        """Drop the image encoder, which embeddings on disk stand for."""
        self.model.vision_encoder = None


def build(name: str) -> HuggingFaceBackbone:
    """A network `hf:…` with the weights of its folder.

    Raises CheckpointError: transformers cannot load it, or some of its weights are not there; in one line.
    """
    folder = folder_of(name)
    try:
        with _without_report():
            processor = AutoImageProcessor.from_pretrained(folder, trust_remote_code=False)
            model, about = AutoModelForMaskGeneration.from_pretrained(
                folder, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
            )
    except MemoryError:
        raise
    except Exception as error:  # whatever is wrong with its files, or not installed
        text = " ".join(str(error).split())
        raise CheckpointError(f"{name}: transformers cannot load {folder}: {text}") from error
    if lacking := about["missing_keys"]:
        raise CheckpointError(f"{name}: {folder} has no weights for {len(lacking)} tensors, as {min(lacking)}")
    return HuggingFaceBackbone(model, processor.image_mean, processor.image_std)


@contextmanager
def _without_report() -> Iterator[None]:
    """Load without a bar and a table of all weights, which a terminal has no use for."""
    verbosity, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bar:
            logging.enable_progress_bar()
