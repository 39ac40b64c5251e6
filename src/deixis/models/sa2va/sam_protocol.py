"""What deixis uses of transformers' SAM 2, for type checkers; at run time any module passes.

`isinstance` with a protocol cannot see the parts of a module from Python 3.12 on: they are no attributes of its class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, Self

from torch import Tensor, nn

if TYPE_CHECKING:

    class Sam(Protocol):
        """SAM 2 for images: `Sam2Model` or `Sam2VideoModel`."""

        config: Any
        hidden_dim: int
        vision_encoder: Any
        prompt_encoder: Any
        mask_decoder: Any
        no_memory_embedding: Tensor

        def get_image_wide_positional_embeddings(self) -> Tensor: ...
        def eval(self) -> Self: ...
        def to(self, device: Any) -> Self: ...
        def save_pretrained(self, folder: Any, /) -> None: ...

    class SamWithMemory(Sam, Protocol):
        """SAM 2 for videos: `Sam2VideoModel`."""

        mem_dim: int
        memory_attention: nn.Module
        memory_encoder: nn.Module
        memory_temporal_positional_encoding: Tensor
        temporal_positional_encoding_projection_layer: nn.Module
        occlusion_spatial_embedding_parameter: Tensor | None
        mask_downsample: nn.Module
        object_pointer_proj: nn.Module
        no_object_pointer: Tensor

else:
    Sam = SamWithMemory = nn.Module
