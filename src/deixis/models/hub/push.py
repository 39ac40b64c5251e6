"""Sending a model's folder to the Hugging Face hub: its own files, and nothing else that lies there."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

from deixis.errors import ModelError
from deixis.models.model_card import CARD_FILE
from deixis.models.model_record import RECORD_FILE
from deixis.text import one_line

FILES = (
    "config.json",
    "generation_config.json",
    "adapter_config.json",
    "preprocessor_config.json",
    "processor_config.json",
    "video_preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "*.safetensors",
    "*.safetensors.index.json",
    RECORD_FILE,
    CARD_FILE,
)
"""Names of a model's files, in its folder and in the folders of its parts."""
PARTS = ("vlm", "sam", "adapter", "edits")


def files_to_send(folder: Path) -> list[Path]:
    """A model's files, relative to its folder, sorted. Links are left out, as they may lead anywhere.

    Raises:
        ModelError: it is no folder of a model.
    """
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ModelError(f"{folder}: is no folder of a model; name one with config.json or adapter_config.json")
    places = [folder, *(folder / part for part in PARTS if (folder / part).is_dir())]
    found = [path for place in places if not place.is_symlink() for path in place.iterdir() if _is_own(path)]
    return sorted(path.relative_to(folder) for path in found)


def push_model(
    folder: Path, repository: str, files: Sequence[Path], *, private: bool = False, endpoint: str | None = None
) -> str:
    """Make the repository if need be, and send the files as one commit. The hub's library finds the user's token.

    Args:
        repository: "owner/name".
        endpoint: of the hub's API; HF_ENDPOINT, or the hub itself, if not given.

    Returns:
        The address of the model.

    Raises:
        ModelError: there is no network or no permission, or the hub refuses.
    """
    api = HfApi(endpoint=endpoint)
    try:
        address = api.create_repo(repository, private=private, exist_ok=True)
        message = f"Model written by deixis, {len(files)} files"
        names = [path.as_posix() for path in files]
        api.upload_folder(repo_id=repository, folder_path=folder, allow_patterns=names, commit_message=message)
    except OfflineModeIsEnabled as error:
        raise ModelError("model push needs a network, and HF_HUB_OFFLINE is set; unset it") from error
    except LocalTokenNotFoundError as error:
        raise ModelError("model push: you are not logged in; run hf auth login, or set HF_TOKEN") from error
    except HfHubHTTPError as error:
        raise ModelError(f"{repository}: {_refusal(error)}") from error
    except (OSError, ValueError, RuntimeError) as error:  # no network; also what the client makes of bad names
        raise ModelError(f"{repository}: cannot be reached ({_without_token(error)}); is there a network?") from error
    except Exception as error:  # errors of the HTTP client, which differ between its versions
        raise ModelError(f"{repository}: cannot be sent ({_without_token(error)})") from error
    return str(address)


def _is_own(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and any(fnmatch(path.name, name) for name in FILES)


def _refusal(error: HfHubHTTPError) -> str:
    status = getattr(error.response, "status_code", None)
    if status in (401, 403):
        return f"the hub refuses ({status}): log in with hf auth login as somebody who may write there"
    return f"the hub answers {_without_token(error)}"


def _without_token(error: BaseException) -> str:
    text, token = one_line(error, 300), get_token()
    return text.replace(token, "***") if token else text
