"""Base models as folders: `nano`, which ships with Thinker, a local folder, or a Hugging Face hub id.

Only safetensors weights are taken, never pickles. Knows nothing of training, and loads no torch.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from engine.errors import ModelError

_WANTED = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt", "LICENSE*"]
_VARIANT = re.compile(r"([\w.-]+/[\w.-]+):[\w.:-]+")  # as the Tinker cloud names forms of one model
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


def nano_folder() -> Path:
    """The tiny model that ships with Thinker."""
    return Path(__file__).parent / "nano"


def resolve(base_model: str, weights: bool = True) -> Path:
    """The folder of a base model, downloaded first if it is a hub id; without `weights` only its configuration and tokenizer.

    Raises ModelError.
    """
    if base_model == "nano":
        return _checked(nano_folder())
    if not weights and (variant := _VARIANT.fullmatch(base_model)):
        base_model = variant[1]
    if is_hub_id(base_model):
        return _checked(_download(base_model, weights), weights)
    folder = Path(base_model).expanduser()
    if not folder.exists():
        advice = "Check the path, or give nano or a hub id such as Qwen/Qwen3-0.6B."
        raise ModelError("there is no such model folder", advice, where=base_model)
    return _checked(folder)


def at_hand(base_model: str) -> Path | None:
    """Its folder, if it needs no download."""
    try:
        if not is_hub_id(base_model):
            return resolve(base_model)
        from huggingface_hub import snapshot_download

        return _checked(Path(snapshot_download(base_model, allow_patterns=_WANTED, local_files_only=True)))
    except (ModelError, OSError, ValueError):
        return None


def is_hub_id(base_model: str) -> bool:
    """Whether this would be looked for on the hub: there is no such folder here, and it doesn't look like a path."""
    folder = Path(base_model).expanduser()
    if base_model == "nano" or folder.exists() or folder.is_absolute():
        return False
    return not base_model.startswith((".", "~")) and _HUB_ID.fullmatch(base_model) is not None


def context_length(folder: Path) -> int:
    """The most tokens the model can look at, from its config.json; 2,048 where that doesn't say."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    for part in (config, config.get("text_config") or {}):
        for name in ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len"):
            if isinstance(part.get(name), int) and part[name] > 0:
                return part[name]
    return 2048


def _download(hub_id: str, weights: bool = True) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        wanted = _WANTED if weights else [pattern for pattern in _WANTED if "safetensors" not in pattern]
        return Path(snapshot_download(hub_id, allow_patterns=wanted, ignore_patterns=["original/*", "onnx/*"]))
    except GatedRepoError as error:
        advice = "Accept the licence on the model's page and set HF_TOKEN to a token of your account."
        raise ModelError("the model's owner asks for consent first", advice, where=hub_id) from error
    except RepositoryNotFoundError as error:
        advice = "Check the spelling; if the model is private, set HF_TOKEN."
        raise ModelError("the hub has no model of that name, nor is there such a folder", advice, where=hub_id) from error
    except HFValidationError as error:
        advice = "Check the spelling; a hub id looks like Qwen/Qwen3-0.6B."
        raise ModelError("this is neither a model folder nor a hub id", advice, where=hub_id) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        advice = "Check the network, or give a folder that holds the model. The model nano needs no network."
        said = str(error).partition("\n")[0]
        raise ModelError(f"can't download the model: {said}", advice, where=hub_id) from error


def _checked(folder: Path, weights: bool = True) -> Path:
    """The folder, if it holds what is needed to load a model."""
    if not folder.is_dir():
        raise ModelError("this is a file, not a model folder", "Give the folder that holds config.json.", where=str(folder))
    if not (folder / "config.json").is_file():
        if (folder / "adapter_config.json").is_file():
            advice = "Give the base model here, or merge the adapter into it first."
            raise ModelError("this is an adapter (LoRA), not a whole model", advice, where=str(folder))
        raise ModelError("the model folder has no config.json", "Give the folder that holds config.json.", where=str(folder))
    if not (folder / "tokenizer.json").is_file():
        advice = "Copy tokenizer.json and tokenizer_config.json from the model's page into the folder."
        raise ModelError("the model folder has no tokenizer (tokenizer.json)", advice, where=str(folder))
    if weights and not any(folder.glob("*.safetensors")):
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        what = "only pickled weights (.bin), which can run code when loaded" if pickled else "no weights"
        raise ModelError(f"the model folder has {what}", "Use a version of the model with .safetensors files.", where=str(folder))
    return folder
