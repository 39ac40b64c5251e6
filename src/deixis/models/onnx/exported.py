"""An exported file in the place of a detector: the same calls, run by ONNX Runtime or OpenVINO."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from tokenizers import Tokenizer
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast

from deixis.batch_records import Prompt
from deixis.data.detect.chunking import chunk_prompts
from deixis.data.detect.grounding import sentence_prompt
from deixis.data.detect.prompts import PromptTokenizer
from deixis.errors import ModelError, PromptError
from deixis.models.folders import reads_model
from deixis.models.grounding_dino.bundle import normalise
from deixis.models.model_record import ModelRecord
from deixis.models.onnx.facts import Facts, read_facts
from deixis.models.onnx.runtimes import OPENVINO, OpenedExport, open_export
from deixis.models.text import FastPromptTokenizer
from deixis.records import Sample
from deixis.text import listed

ANY_NAMES = {"input_ids", "class_tokens"}
"""Inputs of a file whose names are an input."""


class Images(NamedTuple):
    """Images of one size without padding, as `ExportedNetwork.ground` takes them: (batch, 3, height, width)."""

    pixels: Tensor

    def select(self, images: Sequence[int]) -> Images:
        """The given images, in that order, repeats allowed."""
        return Images(self.pixels[list(images)])


class Words(NamedTuple):
    """Prompts as `ExportedNetwork.ground` takes them: token ids and mask, (batch, tokens)."""

    input_ids: Tensor
    mask: Tensor


class ExportedNetwork(nn.Module):
    """A file with the methods of `GroundingDino` that predictions need; it has no parameters.

    Attributes:
        fixed: the names built into the file; empty where names are an input.
        queries: the largest number of objects in an image.
    """

    def __init__(self, path: Path, opened: OpenedExport, facts: Facts) -> None:
        super().__init__()
        self.path, self.fixed = path, facts.names
        self.max_text_len, self.queries = facts.max_text_len, facts.queries
        self._run = opened.run
        # part of `state_dict`, so that what tells weights apart also tells files apart
        self.register_buffer("digest", torch.frombuffer(bytearray(_digest(path)), dtype=torch.uint8))

    def make_room(self, prompts: int) -> None:
        """Nothing: a file remembers no prompt."""

    def encode_image(
        self, pixel_values: Float[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Images:
        """The images as they are: `detect_batch` pads none."""
        return Images(pixel_values)

    def encode_text(
        self, input_ids: Int[Tensor, "batch tokens"], attention_mask: Bool[Tensor, "batch tokens"]
    ) -> Words:
        """The prompts as they are."""
        return Words(input_ids, attention_mask)

    def ground(self, images: Images, words: Words) -> dict[str, Tensor]:
        """`pred_logits` (batch, queries, tokens) and `pred_boxes` (batch, queries, 4) as of `GroundingDino`.

        With built-in names there is one token per name.

        Raises:
            ModelError: the file fails on an image.
        """
        asked = [tuple(ids[mask].tolist()) for ids, mask in zip(words.input_ids, words.mask, strict=True)]
        found: list[tuple[Tensor, Tensor]] = [(torch.empty(0), torch.empty(0))] * len(asked)
        for prompt in dict.fromkeys(asked):  # a file takes one prompt at a time
            places = [place for place, own in enumerate(asked) if own == prompt]
            rows = zip(*self._batch(images.pixels[places], prompt), strict=True)
            for place, row in zip(places, rows, strict=True):
                found[place] = row
        # [queries, tokens] each, of shorter prompts fewer tokens
        tokens = max(logits.shape[1] for logits, _ in found)
        padded = [F.pad(logits, (0, tokens - logits.shape[1]), value=-torch.inf) for logits, _ in found]
        return {"pred_logits": torch.stack(padded), "pred_boxes": torch.stack([boxes for _, boxes in found])}

    def _batch(self, pixels: Tensor, prompt: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Logits and boxes of images for one prompt."""
        arrays = {"pixel_values": pixels.cpu().numpy()}
        if not self.fixed:
            ids = np.array([prompt], np.int64)
            # one name without tokens: scores are not read here, they follow from the logits
            arrays |= {"input_ids": ids, "class_tokens": np.zeros((1, ids.shape[1]), np.float32)}
        try:
            logits, boxes, scores = (torch.from_numpy(output) for output in self._run(arrays))
        except Exception as error:  # the runtimes' errors have no common base
            size_hw = tuple(pixels.shape[2:])
            raise ModelError(f"{self.path}: fails on images of {size_hw} pixels ({str(error)[:200]})") from error
        # with built-in names, logits of the scores stand for those of tokens; float64 keeps 1 - score exact
        return (scores.double().logit().float() if self.fixed else logits), boxes


@dataclass(frozen=True)
class NoTokenizer:
    """In the place of a tokenizer, where names and wordings are built into the file."""

    source: str

    def __call__(self, text: str, /) -> tuple[list[int], list[tuple[int, int]]]:
        """Raises PromptError."""
        raise PromptError(f"{self.source}: names and wordings are built in; export the model with --any-names")


@dataclass(frozen=True)
class ExportedBundle:
    """An exported file with what turns a user's pixels and names into its inputs; compare `GroundingDinoBundle`."""

    model: ExportedNetwork
    tokenizer: PreTrainedTokenizerFast | None
    image_size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    source: str = ""
    record: ModelRecord = field(default_factory=ModelRecord)
    sinks: None = None  # of a file they are built in

    @cached_property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """The tokenizer for prompts; of a file with built-in names one that raises PromptError."""
        return NoTokenizer(self.source) if self.tokenizer is None else FastPromptTokenizer(self.tokenizer)

    def prompts(
        self, names: Sequence[str], max_names: int | None = None, max_tokens: int | None = None
    ) -> tuple[Prompt, ...]:
        """The prompts that together ask for all names, each of at most `max_names` names and `max_tokens` tokens.

        Raises:
            PromptError: a name is not built into the file, or names cannot be made into prompts.
        """
        fixed = self.model.fixed
        if not fixed:
            return chunk_prompts(names, self.prompt_tokenizer, max_tokens or self.model.max_text_len, max_names)
        strange = [name for name in names if name not in fixed]
        if strange or not names:
            raise PromptError(
                f"{self.source}: was exported for {listed(fixed, 5)}, got {listed(strange, 5) or 'no name'}; ask for "
                "names among those, or export the model with --any-names"
            )
        rows = np.eye(len(fixed), dtype=np.float32)[[fixed.index(name) for name in names]]
        # a prompt whose tokens are the columns of the file's scores: token i is the built-in name i
        return (Prompt("", tuple(names), ((0, 0),) * len(names), tuple(range(len(fixed))), rows),)

    def sentence(self, sample: Sample, max_tokens: int | None = None) -> Prompt | None:
        """The prompt of a sample that has a sentence, if the file can be asked for it."""
        if self.model.fixed:
            return None
        return sentence_prompt(sample, self.prompt_tokenizer, max_tokens or self.model.max_text_len)

    def normalise(
        self, pixels_u8: UInt8[Tensor, "batch 3 height width"], pixel_mask: Bool[Tensor, "batch height width"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """Pixels as in the model's training."""
        return normalise(pixels_u8, pixel_mask, self.mean, std=self.std)


@reads_model
def load_exported(path: str | Path, device: str = "cpu") -> ExportedBundle:
    """An exported file, ready to predict.

    Raises:
        ModelError: it cannot be loaded, or is not an export of deixis.
    """
    opened = open_export(path, device)
    facts = read_facts(opened.texts, path)
    if ("pixel_values" not in opened.inputs) or (not facts.names and not set(opened.inputs) >= ANY_NAMES):
        raise ModelError(f"{path}: its inputs are {', '.join(opened.inputs)}, not those of a detector; export it again")
    tokenizer = None if facts.names else _tokenizer(facts.tokenizer)
    network = ExportedNetwork(Path(path), opened, facts)
    record = _record(facts)
    return ExportedBundle(network, tokenizer, facts.image_size, facts.mean, facts.std, str(path), record)


def exported_record(path: str | Path) -> ModelRecord:
    """The record of an exported file; its names are those that are built in, if there are any.

    Raises:
        ModelError: it cannot be loaded, or is not an export of deixis.
    """
    return _record(read_facts(open_export(path, only_texts=True).texts, path))


def _record(facts: Facts) -> ModelRecord:
    if not facts.names:
        return facts.record
    return replace(facts.record, names=facts.names, wordings={})  # wordings are built in, as names are


def _tokenizer(text: str) -> PreTrainedTokenizerFast:
    special = {"unk_token": "[UNK]", "sep_token": "[SEP]", "pad_token": "[PAD]", "cls_token": "[CLS]"}
    # a tokenizer.json alone does not say which token has which role
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(text), mask_token="[MASK]", **special)


def _digest(path: Path) -> bytes:
    """Of the file, and of the weights that OpenVINO keeps beside it."""
    digest = hashlib.sha256()
    for part in (path, path.with_suffix(".bin")) if path.suffix.lower() == OPENVINO else (path,):
        if part.is_file():
            with part.open("rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.digest()
