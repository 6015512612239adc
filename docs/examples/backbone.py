"""A backbone: a small convolutional encoder, and a decoder that looks for what resembles the clicks.

model: {backbone: ./backbone.py:build, options: {width: 32}, checkpoint: none, refiner: none}
"""

import torch
import torch.nn.functional as F
from torch import nn

from samref.backbones.backbone import Backbone


class Resembling(Backbone):
    image_size = 256
    mask_size = 64

    def __init__(self, width):
        super().__init__()
        self.feature_channels = {"embedding": (width, self.mask_size)}
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2, padding=1)
        )
        self.decoder = nn.Sequential(nn.Conv2d(width + 3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, 1, 1))

    def encode(self, images_B3SS):
        return {"embedding": self.encoder(images_B3SS / 127.5 - 1)}

    def decode(self, features, points_BN2, labels_BN, previous, *, multimask="never"):
        embedding = features["embedding"]
        grid = points_BN2[:, None] / self.image_size * 2 - 1
        clicked_BCN = F.grid_sample(embedding, grid.to(embedding.dtype), align_corners=False)[:, :, 0]
        alike_BNMM = torch.einsum("bchw,bcn->bnhw", F.normalize(embedding, dim=1), F.normalize(clicked_BCN, dim=1))
        alike = [self._most(alike_BNMM, labels_BN == label) for label in (1, 0)]
        before = torch.zeros_like(alike[0]) if previous is None else previous.sigmoid()
        return self.decoder(torch.cat([embedding, *alike, before], dim=1))

    def _most(self, alike_BNMM, counts_BN):
        """The greatest likeness to a click that counts, B×1×M×M; -1 where there is none."""
        return torch.where(counts_BN[..., None, None], alike_BNMM, -1.0).amax(1, keepdim=True)

    def modules_of(self, name):
        return nn.ModuleList([self.encoder if name == "encoder" else self.decoder])

    def drop_encoder(self):
        self.encoder = None


def build(width=32):
    return Resembling(width)
