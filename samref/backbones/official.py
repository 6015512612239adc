"""The official checkpoints: where each is published, under which licence, its size and hash.

Addresses are those of the authors' READMEs and download scripts. Sizes and hashes are those that public copies and
programs which check them agree on; the letters in SAM's file names are not of the SHA-256.
"""

from dataclasses import dataclass
from pathlib import Path

from samref.download import Source

_FAMILIES = {
    "sam_": ("segment-anything", "https://dl.fbaipublicfiles.com/segment_anything"),
    "sam2_": ("sam2", "https://dl.fbaipublicfiles.com/segment_anything_2/072824"),
    "sam2.1_": ("sam2", "https://dl.fbaipublicfiles.com/segment_anything_2/092824"),
}
"""How the backbones' names begin -> the authors' repository, and the folder of their files."""

_FILES = """
sam_vit_b       sam_vit_b_01ec64.pth       375042383  ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912
sam_vit_l       sam_vit_l_0b3195.pth       1249524607 3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622
sam_vit_h       sam_vit_h_4b8939.pth       2564550879 a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e
sam2_hiera_t    sam2_hiera_tiny.pt         155906050  65b50056e05bcb13694174f51bb6da89c894b57b75ccdf0ba6352c597c5d1125
sam2_hiera_s    sam2_hiera_small.pt        184309650  95949964d4e548409021d47b22712d5f1abf2564cc0c3c765ba599a24ac7dce3
sam2_hiera_b+   sam2_hiera_base_plus.pt    323493298  d0bb7f236400a49669ffdd1be617959a8b1d1065081789d7bbff88eded3a8071
sam2_hiera_l    sam2_hiera_large.pt        897952466  7442e4e9b732a508f80e141e7c2913437a3610ee0c77381a66658c3a445df87b
sam2.1_hiera_t  sam2.1_hiera_tiny.pt       156008466  7402e0d864fa82708a20fbd15bc84245c2f26dff0eb43a4b5b93452deb34be69
sam2.1_hiera_s  sam2.1_hiera_small.pt      184416285  6d1aa6f30de5c92224f8172114de081d104bbd23dd9dc5c58996f0cad5dc4d38
sam2.1_hiera_b+ sam2.1_hiera_base_plus.pt  323606802  a2345aede8715ab1d5d31b4a509fb160c5a4af1970f199d9054ccfb746c004c5
sam2.1_hiera_l  sam2.1_hiera_large.pt      898083611  2647878d5dfa5098f2f8649825738a9345572bae2d4350a2468587ece47dd318
"""
"""Backbone, file, size in bytes, SHA-256."""


@dataclass(frozen=True, kw_only=True)
class Official:
    """A checkpoint as its authors published it."""

    file: str
    page: str
    licence: str
    source: Source | None
    """None where no address is one that a program may fetch it from."""


def _published(name: str, file: str, size: str, sha256: str) -> Official:
    repository, folder = _FAMILIES[name.partition("_")[0] + "_"]
    source = Source(address=f"{folder}/{file}", size=int(size), sha256=sha256)
    page = f"https://github.com/facebookresearch/{repository}"
    return Official(file=file, page=page, licence="Apache-2.0", source=source)


def _segnext(file: str) -> Official:
    # Google Drive asks a person to confirm; the file's links are in its README and download.py.
    return Official(file=file, page="https://github.com/uncbiag/SegNext", licence="MIT", source=None)


OFFICIAL: dict[str, Official] = {
    **{line.split()[0]: _published(*line.split()) for line in _FILES.strip().splitlines()},
    # As SegNext's own download.py names them: trained on COCO+LVIS. A file fine-tuned on HQSeg-44K is given as a path.
    "segnext_vit_b_sax1": _segnext("vitb_sa1_cocolvis_epoch_90.pth"),
    "segnext_vit_b_sax2": _segnext("vitb_sa2_cocolvis_epoch_90.pth"),
}


def is_official(backbone: str, path: Path) -> bool:
    """Whether a file has the name of a backbone's official checkpoint."""
    return backbone in OFFICIAL and OFFICIAL[backbone].file == path.name
