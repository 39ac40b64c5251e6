"""The rows of the new tokens, apart from the vocabulary: they train, hundred thousands of others do not.

Rows are held as they are, not as differences, so they mean the same whatever the model they are put on began with.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


class TokenRows(nn.Module):
    """Rows that stand in for some of an embedding's and of an output layer's.

    Attributes:
        token_ids: whose rows they are.
        embedding: what goes in, [rows, hidden].
        head: what tokens are predicted with; None where the output layer is the embedding itself (tied).
    """

    token_ids: Tensor
    head: nn.Parameter | None

    def __init__(
        self,
        token_ids: Sequence[int],
        embedding: Float[Tensor, "vocabulary hidden"],
        head: Float[Tensor, "vocabulary hidden"] | None,
    ) -> None:
        super().__init__()
        self.register_buffer("token_ids", torch.tensor(list(token_ids), device=embedding.device))
        self.embedding = nn.Parameter(embedding.detach()[self.token_ids].clone())
        self.head = None if head is None else nn.Parameter(head.detach()[self.token_ids].clone())

    def embed(
        self, input_ids: Int[Tensor, "batch tokens"], embeddings: Float[Tensor, "batch tokens hidden"]
    ) -> Float[Tensor, "batch tokens hidden"]:
        """Embeddings with those of the new tokens replaced."""
        is_row = input_ids[..., None] == self.token_ids  # [batch, tokens, rows]
        # A product and not an index: the rows have a gradient, of zeros, also in a batch without any of their tokens.
        rows = is_row.to(self.embedding.dtype) @ self.embedding
        return torch.where(is_row.any(-1, keepdim=True), rows.to(embeddings.dtype), embeddings)

    def predict(
        self, hidden: Float[Tensor, "positions hidden"], logits: Float[Tensor, "positions vocabulary"]
    ) -> Float[Tensor, "positions vocabulary"]:
        """Logits with those of the new tokens replaced."""
        rows = self.embedding if self.head is None else self.head
        # [positions, rows] into columns
        return logits.index_copy(-1, self.token_ids, nn.functional.linear(hidden, rows).to(logits.dtype))
