"""What a GPU is wanted to do, and the report that says what it did: of the figures of benchmarks/gpu.py."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple


class Target(NamedTuple):
    """A figure that is wanted."""

    name: str
    before: float | None
    """On an H200, on the day when the target was set; None: not measured."""
    wanted: float
    at_most: bool = False

    def met(self, value: float) -> bool:
        return value <= self.wanted if self.at_most else value >= self.wanted


JUDGED = {"480×854": (2.6, 0.2), "1024²": (10.5, 0.3), "2000×3000": (138, 1), "4000×6000": (1103, 4)}
LOOPS = (
    ("ViT-H", "ViT-H, no refiner", 7.8),
    ("ViT-H with refiner", "ViT-H with GFR+LFR", 5.5),
    ("Hiera-L", "Hiera-L, no refiner", 5.4),
    ("Hiera-L with refiner", "Hiera-L with GFR+LFR", None),
)
TARGETS = {
    **{
        f"loop, {label}, {precision}": Target(f"click loop, {name}, {precision}: × the plain loop", before, 20)
        for label, name, before in LOOPS
        for precision in ("tf32", "bf16")
    },
    **{
        f"judge, {size}": Target(f"next click and IoU, {size}, all wrong: ms a mask", *figures, at_most=True)
        for size, figures in JUDGED.items()
    },
    "fps ratio, ViT-H": Target("FPS ratio of the refiner, one image and one click: ViT-H", 0.962, 0.985),
    "fps ratio, Hiera-L": Target("FPS ratio of the refiner, one image and one click: Hiera-L", 0.882, 0.96),
    "sat latency": Target("SAT latency, SAM-REF / SAM", 2.5, 1.25, at_most=True),
    "encoder, ViT-H": Target("ViT-H encoder, bf16: ms an image", 28, 12, at_most=True),
    "encoder, Hiera-L": Target("Hiera-L encoder, bf16: ms an image", 10.8, 10.8, at_most=True),
    "embed": Target("embed stage on 6-megapixel JPEGs / ViT-H encoder alone", None, 0.9),
    "train, γ 0.6": Target("training, ViT-H frozen, batch 16, bf16, γ 0.6: steps/s", 2.4, 10),
    "train, γ 0.9": Target("training, ViT-H frozen, batch 16, bf16, γ 0.9: steps/s", 0.8, 3),
    "train, unfrozen ViT-B": Target("training, unfrozen ViT-B, batch 4, bf16: steps/s", 1.9, 4),
}


def paper(measured: Mapping[str, float]) -> dict[str, float]:
    """What the paper's experiments take on this card, by the measured rates."""
    found = {}
    with contextlib.suppress(KeyError):
        steps = 320_000 / measured["train, decoder alone, γ 0.6"] + 80_000 / measured["train, γ 0.6"]
        found["the whole training, 320 000 steps of the decoder and 80 000 with the refiner: hours"] = steps / 3600
    with contextlib.suppress(KeyError):
        clicks = 345 * 20 * 5 / measured["clicks/s in bf16: loop, ViT-H with refiner"]
        found["Table 1, 345 frames × 20 clicks × 5 θ, no click shared, bf16: minutes"] = clicks / 60
    with contextlib.suppress(KeyError):
        found["embeddings of 118 287 photographs (COCO): minutes"] = 118_287 / measured["embed, images/s"] / 60
    return found


def table(found: Mapping[str, Any]) -> list[str]:
    """The report in Markdown, line by line: every target beside what was measured, and the paper's experiments."""
    measured = found["measured"]
    lines = ["| | before | wanted | measured | |", "|---|---|---|---|---|"]
    for key, target in TARGETS.items():
        sign = "≤" if target.at_most else "≥"
        value = f"{measured[key]:.3g}" if key in measured else "not measured"
        met = "yes" if key in measured and target.met(measured[key]) else "**no**"
        before = "–" if target.before is None else f"{target.before:g}"
        lines.append(f"| {target.name} | {before} | {sign} {target.wanted:g} | {value} | {met} |")
    lines += ["", "At these rates, on one card:", ""]
    lines += [f"- {name}: {value:.3g}" for name, value in found["paper"].items()]
    others = [f"{name} {value:.4g}" for name, value in measured.items() if name not in TARGETS]
    lines += ["", "Besides: " + "; ".join(others) + "."]
    lines += [f"\nFailed: {name} ({reason})." for name, reason in found["failed"].items()]
    return lines


def write_results(path: Path, claim: str, heading: str, lines: list[str]) -> None:
    """Put a claim's newest report into a file of many: the section of that name is replaced, or added at the end."""
    head = "# Results\n\nThe newest run of `benchmarks/gpu.py`; what it did not measure stands in LOG.md.\n"
    before = path.read_text() if path.exists() else head
    sections = before.split("\n## ")
    text = "\n".join([claim, "", heading, "", *lines, ""])
    names = [section.partition("\n")[0] for section in sections]
    at = names.index(claim) if claim in names else len(sections)
    sections[at : at + 1] = [text]
    path.write_text("\n## ".join(section.rstrip("\n") + "\n" for section in sections))
