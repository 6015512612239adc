"""SAM-REF's refiner (arXiv 2408.11535): the boxes of the paper's figure, on a backbone that stays as it is."""

from samref.refiner.model import Interaction, SamRef

__all__ = ["Interaction", "SamRef"]
