"""Tokenizers: from transformers' to the one that prompts need."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizerFast

from deixis.errors import ModelError
from deixis.text import one_line, whole_characters

EXPECTED_IDS = {"[PAD]": 0, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Ids in the uncased BERT vocabulary, on which the detector's attention mask and the padding of batches rely."""


class FastPromptTokenizer:
    """A transformers tokenizer as a `deixis.data.detect.prompts.PromptTokenizer`: never truncates, never pads.

    Args:
        tokenizer: one of transformers' fast tokenizers.

    Raises:
        ModelError: it has no character offsets, or its special tokens have other ids than BERT's.
    """

    def __init__(self, tokenizer: Any) -> None:
        if not getattr(tokenizer, "is_fast", False):
            raise ModelError(f"{type(tokenizer).__name__} has no character offsets; add a tokenizer.json to the model")
        found = {token: tokenizer.convert_tokens_to_ids(token) for token in EXPECTED_IDS}
        if found != EXPECTED_IDS:
            raise ModelError(f"the tokenizer's special tokens are {found}, Grounding DINO needs {EXPECTED_IDS}")
        self._tokenizer = tokenizer
        self.unknown_id: int = tokenizer.unk_token_id

    def __call__(self, text: str, /) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, from [CLS] to [SEP], and each token's `[start, end)` in `text`.

        A special token in the text ("[SEP]") is tokenised as ordinary characters.
        """
        encoded = self._tokenizer(
            whole_characters(text),
            return_offsets_mapping=True,
            truncation=False,
            padding=False,
            verbose=False,
            split_special_tokens=True,  # a class called "[SEP]" must not end the prompt
        )
        return list(encoded["input_ids"]), [(int(start), int(end)) for start, end in encoded["offset_mapping"]]


def load_tokenizer(source: str | Path) -> Any:
    """transformers' tokenizer from a folder, a `vocab.txt`, or a hub id such as bert-base-uncased.

    Raises:
        ModelError: there is no readable tokenizer.
    """
    path = Path(source)
    vocabulary = path / "vocab.txt" if path.is_dir() else path
    try:
        if vocabulary.is_file() and not (path / "tokenizer.json").is_file():
            # BERT's number of positions; a `vocab.txt` does not say
            return BertTokenizerFast(str(vocabulary), model_max_length=512)
        return AutoTokenizer.from_pretrained(source, local_files_only=path.is_dir(), trust_remote_code=False)
    except Exception as error:  # transformers and the hub's client raise many kinds of errors
        raise ModelError(
            f"{source}: no tokenizer can be read ({one_line(error, 200)}); name a folder with "
            "tokenizer.json or vocab.txt of bert-base-uncased, or its hub id if there is a network"
        ) from error
