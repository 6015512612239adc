"""Makes the packaged weights of `tiny` from a training's output: half precision, all of the backbone.

python samref/backbones/pack_tiny.py runs/stages/train-…/weights.safetensors
"""

import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from samref import backbones
from samref.backbones.checkpoints import PACKAGED


def main(weights: Path) -> None:
    """Write the packaged file."""
    backbone = backbones.build("tiny")
    trained = {name.removeprefix("backbone."): value for name, value in load_file(weights).items()}
    unknown = backbone.load_state_dict(trained, strict=False).unexpected_keys
    if unknown:
        raise SystemExit(f"{weights} is not of a training of tiny's backbone alone: {unknown[0]}")
    state = {name: value.to(torch.float16).contiguous() for name, value in backbone.state_dict().items()}
    save_file(state, PACKAGED["tiny"])
    print(f"{PACKAGED['tiny']}: {PACKAGED['tiny'].stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
