"""A network without an encoder of its own (RITM's line): image, clicks and previous mask go through all of it.

model: {backbone: ./early_fusion.py:build, checkpoint: none, refiner: none}
"""

import torch
from torch import nn

from samref.backbones.dense import EarlyFusionBackbone
from samref.click_disks import click_disks


class Convolutions(EarlyFusionBackbone):
    image_size = 128
    mask_size = 32

    def __init__(self, width):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(width, 2 * width, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv2d(2 * width, 1, 5, padding=2),
        )

    def segment(self, images_B3SS, points_BN2, labels_BN, previous_B1SS):
        disks_B2SS = click_disks(points_BN2, labels_BN, self.image_size, radius=5)
        return self.layers(torch.cat([images_B3SS / 127.5 - 1, previous_B1SS, disks_B2SS], dim=1))


def build(width=16):
    return Convolutions(width)
