"""Files of a network that Hugging Face's transformers can load: in a folder, or in the hub's cache on this machine.

`hf:./weights/mine` is a folder, `hf:facebook/sam-vit-base` what was downloaded to the cache, `hf:NAME@REVISION` of it
one version. Nothing here uses the network, or needs torch.
"""

import importlib.metadata
import json
from pathlib import Path

from samref import plugins
from samref.backbones.checkpoints import CheckpointError, file_digest
from samref.modules import short_digest

_READ = (
    "config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "*.safetensors",
    "*.safetensors.index.json",
)
_INSTALL = "pip install 'transformers>=5.22' timm"


def folder_of(name: str) -> Path:
    """The folder of the files of a network, `hf:…`.

    Raises CheckpointError: it is not on this machine, or transformers is not installed; in one line.
    """
    network = name.removeprefix("hf:")
    for beside in (*plugins.folders(), Path.cwd()):
        if (folder := beside / network).joinpath("config.json").is_file():
            return folder
    repository, _, revision = network.partition("@")
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError
    except ImportError:
        raise CheckpointError(f"{name}: transformers is not installed; {_INSTALL}") from None
    try:
        return Path(snapshot_download(repository, revision=revision or None, local_files_only=True))
    except HFValidationError:
        raise CheckpointError(
            f"{name}: {repository!r} can be no network's name; write hf:OWNER/NAME, or a folder, as hf:./weights/mine"
        ) from None
    except LocalEntryNotFoundError:
        version = f" --revision {revision}" if revision else ""
        raise CheckpointError(
            f"{name}: the hub's cache on this machine has no {network}; `hf download {repository}{version}` fetches "
            "it, or give a folder that has a config.json, as hf:./weights/mine"
        ) from None


def contents(name: str) -> str:
    """A digest of all that decides what a network computes: its files' contents, and the version of transformers.

    Raises CheckpointError: as `folder_of`, or the folder has no weights.
    """
    folder = folder_of(name)
    files = {file.name: file_digest(file) for pattern in _READ for file in sorted(folder.glob(pattern))}
    if not any(each.endswith(".safetensors") for each in files):
        raise CheckpointError(f"{name}: {folder} has no weights as *.safetensors; save them with save_pretrained")
    try:
        version = importlib.metadata.version("transformers")
    except importlib.metadata.PackageNotFoundError:
        raise CheckpointError(f"{name}: transformers is not installed; {_INSTALL}") from None
    return short_digest(json.dumps({**files, "transformers": version}, sort_keys=True))
