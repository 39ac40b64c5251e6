"""Tokenizers: from transformers' to the one that prompts need."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, BertTokenizerFast

from deixis.data.detect.prompts import normalise_name
from deixis.errors import ModelError
from deixis.text import one_line, whole_characters

EXPECTED_IDS = {"[PAD]": 0, "[CLS]": 101, "[SEP]": 102, ".": 1012, "?": 1029}
"""Ids in the uncased BERT vocabulary, on which the detector's attention mask and the padding of batches rely."""

_LEARNED = re.compile(r"<.+>")
_PHRASE = re.compile(r"[^.?]+")


def learned_token(name: str) -> str:
    """The token of a name with an embedding of its own; see `models.grounding_dino.weights.learned_names`.

    >>> learned_token("Traffic  light")
    '<traffic light>'
    """
    return f"<{normalise_name(name).lower()}>"


def learned_names(tokenizer: Any) -> dict[str, int]:
    """The names that have a token of their own in a transformers tokenizer, and its id."""
    special = set(tokenizer.all_special_tokens)
    added = tokenizer.get_added_vocab()
    return {token[1:-1]: i for token, i in added.items() if _LEARNED.fullmatch(token) and token not in special}


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
        self._learned = learned_names(tokenizer)

    def __call__(self, text: str, /) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids, from [CLS] to [SEP], and each token's `[start, end)` in `text`.

        A special token in the text ("[SEP]") is tokenised as ordinary characters. A phrase that is exactly a name with
        a token of its own (`learned_token`) is that token.
        """
        found = list(self._learned_names(text)) if self._learned else []
        ids, offsets = self._tokenise(text)
        # from the end, so that the positions of those before stay right
        for start, end, token_id in reversed(found):
            # tokens that overlap the name; [CLS] and [SEP] have empty offsets
            inside = [i for i, (low, high) in enumerate(offsets) if low < high and low < end and high > start]
            if inside:
                ids[inside[0] : inside[-1] + 1] = [token_id]
                offsets[inside[0] : inside[-1] + 1] = [(start, end)]
        return ids, offsets

    def _learned_names(self, text: str) -> Iterator[tuple[int, int, int]]:
        """(start, end, token id) of each phrase that is a name with a token of its own."""
        for phrase in _PHRASE.finditer(text):
            token_id = self._learned.get(learned_token(phrase.group())[1:-1])
            if token_id is not None:
                left = len(phrase.group()) - len(phrase.group().lstrip())
                yield phrase.start() + left, phrase.start() + len(phrase.group().rstrip()), token_id

    def _tokenise(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
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
