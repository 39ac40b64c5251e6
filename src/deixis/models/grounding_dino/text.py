"""Encoding prompts: each phrase attends only to itself, and features of a frozen encoder are cached.

Grounding DINO's sub-sentence level text features, arXiv 2303.05499, section 3.4.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

DELIMITER_IDS = (101, 102, 1012, 1029)  # [CLS] [SEP] . ? of the uncased BERT vocabulary


def phrase_attention(
    input_ids: Int[Tensor, "batch tokens"], token_mask: Bool[Tensor, "batch tokens"]
) -> tuple[Bool[Tensor, "batch 1 tokens tokens"], Int[Tensor, "batch tokens"]]:
    """Which tokens attend to which, and each token's position, which restarts at each phrase.

    A phrase is the text between two delimiters, including the closing one. [CLS], [SEP], padding and, if the prompt
    does not end with a delimiter, its last phrase: each of these tokens attends only to itself, as in the training of
    the released weights. Nothing depends on how far a prompt is padded.

    Args:
        token_mask: true on real tokens.
    """
    beyond = input_ids.shape[1]
    place = torch.arange(beyond, device=input_ids.device)  # [L]: each token's index in its prompt
    delimiter = (input_ids[..., None] == input_ids.new_tensor(DELIMITER_IDS)).any(-1) & token_mask
    # for each token, [B, L], the index of the next delimiter (itself included) and of the one before it; from
    # [B, L, L], as ONNX has no running minimum
    later = place[None, :] >= place[:, None]
    closing = place.where(delimiter[:, None] & later, beyond).amin(-1)
    opening = place.where(delimiter[:, None] & ~later, -1).amax(-1)
    last = token_mask.sum(1, keepdim=True) - 1  # [B, 1]: the index of [SEP]
    in_phrase = (closing > 0) & (closing < last)  # not [CLS], whose closing delimiter is itself at 0, nor [SEP]
    # two tokens are in one phrase if the same delimiter closes it; [B, L, 1] == [B, 1, L] -> [B, L, L]
    together = (closing[:, :, None] == closing[:, None, :]) & in_phrase[:, None, :]
    itself = place[None, :] == place[:, None]
    positions = (place - opening - 1).where(in_phrase, 0)
    return (together | itself)[:, None], positions  # [B, 1, L, L]: one mask for all heads


def encode_tokens(
    encoder: nn.Module, input_ids: Int[Tensor, "batch tokens"], token_mask: Bool[Tensor, "batch tokens"]
) -> Float[Tensor, "batch tokens channels"]:
    """BERT's last hidden state under `phrase_attention`."""
    mask, positions = phrase_attention(input_ids, token_mask)
    # a 4-dimensional mask is used by BERT as it is; type and position ids are those of the released weights
    hidden: Tensor = encoder(
        input_ids=input_ids, attention_mask=mask, token_type_ids=torch.zeros_like(input_ids), position_ids=positions
    ).last_hidden_state
    return hidden


class PromptCache:
    """The features of the last `capacity` prompts, kept while the encoder does not change.

    Each prompt is encoded alone and unpadded, so its features depend on the prompt and the weights, not on the batch
    in which it first occurred.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self._state: Any = None
        self._features: OrderedDict[tuple[int, ...], Tensor] = OrderedDict()

    def __len__(self) -> int:
        return len(self._features)

    def make_room(self, prompts: int) -> None:
        """Raise the capacity to at least this number of prompts; a cache of capacity 0 stays disabled.

        A vocabulary with more prompts than the capacity, used in order, would never find a cached one.
        """
        if self.capacity:
            self.capacity = max(self.capacity, prompts)

    def __deepcopy__(self, memo: dict[int, Any]) -> PromptCache:
        return PromptCache(self.capacity)

    def encode(
        self, encoder: nn.Module, input_ids: Int[Tensor, "batch tokens"], token_mask: Bool[Tensor, "batch tokens"]
    ) -> Float[Tensor, "batch tokens channels"]:
        """The result of `encode_tokens` on real tokens and zeros on padded ones, without a graph."""
        state = _state_of(encoder, input_ids.device.type)
        if state != self._state:
            self._state = state
            self._features.clear()
        ids = input_ids.masked_fill(~token_mask, -1).tolist()  # one synchronisation
        prompts = [tuple(token for token in row if token >= 0) for row in ids]
        rows = [self._one(encoder, prompt, input_ids.device) for prompt in prompts]
        padded = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return nn.functional.pad(padded, (0, 0, 0, input_ids.shape[1] - padded.shape[1]))

    def _one(
        self, encoder: nn.Module, prompt: tuple[int, ...], device: torch.device
    ) -> Float[Tensor, "tokens channels"]:
        known = self._features.get(prompt)
        if known is None:
            # Not in inference mode: a tensor created there could never be used in training.
            with torch.inference_mode(False), torch.no_grad():
                ids = torch.tensor([prompt], device=device)
                known = encode_tokens(encoder, ids, torch.ones_like(ids, dtype=torch.bool))[0]
            self._features[prompt] = known
        self._features.move_to_end(prompt)
        while len(self._features) > self.capacity:
            self._features.popitem(last=False)
        return known


def _state_of(encoder: nn.Module, device_type: str) -> tuple[Any, ...]:
    """A value that changes when a weight is modified, moved or cast, or when the autocast precision changes."""
    weights = tuple((id(p), p._version, p.data_ptr(), p.dtype) for p in encoder.parameters())
    precision = torch.is_autocast_enabled(device_type) and torch.get_autocast_dtype(device_type)
    return precision, weights
