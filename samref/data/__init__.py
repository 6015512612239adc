"""Datasets of one-object samples: open one by name, read images and truths, fingerprint what a result depends on.

Knows nothing of models, embeddings, clicks or sweeps.
"""

from samref.data.registry import check, check_name, names, open_dataset
from samref.data.sample import DataError, Dataset, Image, MissingDataError, Pixels, Request, Sample, Split, Truth

__all__ = ["DataError", "Dataset", "Image", "MissingDataError", "Pixels", "Request", "Sample", "Split", "Truth"]
__all__ += ["check", "check_name", "names", "open_dataset"]
