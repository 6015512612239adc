"""The protocol of an evaluation: all that decides a number besides the model, as a short list that can be compared.

Numbers of click-based segmentation differ by packaging, clicker, resize and failure convention as much as by method;
two rows may stand side by side where their protocols agree. A protocol is derived from what an evaluation's id hashes,
so that results of older versions have one too.
"""

from collections.abc import Mapping
from typing import Any

from samref.config import EvaluateConfig, ModelConfig
from samref.plugins import is_hugging_face, is_plugin
from samref.stage import digest_text

MEANINGS: Mapping[str, str] = {
    "dataset": "name of the dataset",
    "contents": "fingerprint of the evaluated images and truths: the packaging",
    "objects": "how many objects were evaluated",
    "clicker": "whose rule places the next click, after whose first ones, from which masks or boxes",
    "most_clicks": "clicks allowed for an object; a failure counts as that many in NoC",
    "stop_at": "IoU at which an object was left alone; `none`: all clicks were made",
    "multimask": "at which clicks the decoder's best of three masks is taken",
    "resize": "how an image becomes the network's square input",
    "threshold": "probability above which a pixel belongs to the object",
    "ignored": "which pixels count neither for nor against a mask",
    "failures": "which objects NoF counts: those whose NoC is `most_clicks`, be the last click a success or not",
    "precision": "arithmetic of the image encoder and of the clicks",
}
"""Every key of a protocol, and what it says."""
MATTERS = tuple(key for key in MEANINGS if key not in ("stop_at", "precision"))
"""The keys that tell protocols apart: an early stop changes no number that it leaves, and precision only roundings."""

_IGNORED = {
    "grabcut": "level 128",
    "berkeley": "level 128",
    "pascal_voc": "255, the border",
    "folder": "as its name says",
}


def protocol(
    model: ModelConfig, evaluate: EvaluateConfig, *, contents: str | None, objects: int | None
) -> dict[str, str | int | float]:
    """Describe how an evaluation was made, by the keys of `MEANINGS`; what is not known is left out.

    `contents` is the fingerprint of the samples, `objects` how many were evaluated; None where that is not known.
    """
    family = evaluate.data.partition(":")[0]
    known = {
        "dataset": evaluate.data,
        "contents": contents,
        "objects": objects,
        "clicker": _clicker(evaluate),
        "most_clicks": evaluate.max_clicks,
        "stop_at": "none" if evaluate.stop_at is None else evaluate.stop_at,
        "multimask": model.multimask,
        "resize": evaluate.resize,
        "threshold": evaluate.threshold or _own_threshold(model.backbone),
        "ignored": _IGNORED.get(family, "none"),
        "failures": "NoC = most_clicks",
        "precision": f"{model.precision}, {evaluate.precision}",
    }
    return {key: value for key, value in known.items() if value is not None}


def _clicker(evaluate: EvaluateConfig) -> str:
    noise = f" {evaluate.click_noise_px:g} px" if evaluate.clicker == "jitter" else ""
    mass = " {:g} to {:g}".format(*evaluate.click_slice) if evaluate.click_slice else ""
    first = f" after {evaluate.first_clicks}" if evaluate.first_clicks else ""
    start = f" from {evaluate.start}" if evaluate.start else ""
    return f"{evaluate.clicker}{noise}{mass}{first}{start}"


def _own_threshold(backbone: str) -> float | str:
    """The threshold of a backbone, as a probability; a plug-in's is not known without importing it."""
    if is_plugin(backbone) and not is_hugging_face(backbone):
        return "its own"
    return 0.49 if backbone.startswith("segnext_") else 0.5


def short_hash(keys: Mapping[str, Any]) -> str:
    """Give a protocol a short name: equal if and only if all keys but `stop_at` and `precision` are equal."""
    return digest_text("protocol", repr([(key, keys.get(key)) for key in MATTERS]))
