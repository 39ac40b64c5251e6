"""What SAM 2 remembers of an object: as much after two thousand frames as after fifty.

transformers' own session keeps every frame and every output of a video. A `MemoryBank` keeps what can still be asked
for: the prompted frames, the last `num_maskmem - 1` memories, the last `max_object_pointers_in_encoder - 1` pointers.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor

from deixis.errors import ModelError
from deixis.models.sa2va.sam_protocol import Sam, SamWithMemory


class Seen(NamedTuple):
    """What SAM 2 made of each object in one frame, and what it will remember of it.

    Attributes:
        logits: one mask per object, a quarter of the image's side.
        ious: the IoU that the model expects, in [0, 1]; 1 for a mask that was given.
        object_scores: logits of whether the object is there.
        spatial: the memory of the frame, cell by cell.
        pointers: the object in one vector.
    """

    logits: Float[Tensor, "objects side side"]
    ious: Float[Tensor, " objects"]
    object_scores: Float[Tensor, " objects"]
    spatial: Float[Tensor, "objects cells memory_channels"]
    pointers: Float[Tensor, "objects sam_channels"]


class MemoryBank:
    """What is remembered of one object: a size that no number of frames exceeds.

    Args:
        sam: gives how many frames and pointers its memory attends to.
        max_prompts: prompted frames to keep; beyond it the oldest but the first is forgotten.
        dtype: in which memories are kept; SAM 2 keeps them in bfloat16 while it tracks.
    """

    def __init__(self, sam: Sam, max_prompts: int = 8, dtype: torch.dtype = torch.bfloat16) -> None:
        require_memory(sam)
        self.max_prompts = max_prompts
        self.dtype = dtype
        self.frames_kept = int(sam.config.num_maskmem) - 1  # the last of its places in time is for prompted frames
        self.pointers_kept = int(sam.config.max_object_pointers_in_encoder) - 1
        self.prompted: dict[int, tuple[Tensor, Tensor]] = {}
        self.meanings: dict[int, Tensor] = {}
        self.spatial: dict[int, Tensor] = {}
        self.pointers: dict[int, Tensor] = {}

    def __len__(self) -> int:
        """Tensors kept."""
        return 2 * len(self.prompted) + len(self.meanings) + len(self.spatial) + len(self.pointers)

    def bytes(self) -> int:
        """Memory of all tensors kept."""
        pairs = [tensor for pair in self.prompted.values() for tensor in pair]
        return sum(t.numel() * t.element_size() for t in [*pairs, *self._single()])

    def _single(self) -> list[Tensor]:
        return [*self.meanings.values(), *self.spatial.values(), *self.pointers.values()]

    def prompt(self, frame: int, seen: Seen, row: int, meaning: Float[Tensor, " sam_channels"] | None = None) -> None:
        """Keep an object's row of a prompted frame, which may lie ahead of what has been tracked.

        Args:
            meaning: the embedding of the object's phrase there, for a memory that was trained with it.
        """
        if len(self.prompted) >= self.max_prompts and frame not in self.prompted:
            oldest = sorted(self.prompted)[: 1 + (self.max_prompts > 1)]  # the first prompt stays: it is the surest
            del self.prompted[oldest[-1]]
            self.meanings.pop(oldest[-1], None)  # not every prompt has one
        if meaning is not None:
            self.meanings[frame] = meaning.clone()
        self.prompted[frame] = self._kept(seen.spatial[row]), seen.pointers[row].clone()

    def add(self, frame: int, seen: Seen, row: int) -> None:
        """Keep an object's row of a tracked frame, and forget the frames that it pushes out."""
        self.spatial[frame] = self._kept(seen.spatial[row])
        self.pointers[frame] = seen.pointers[row].clone()
        for kept, frames in ((self.spatial, self.frames_kept), (self.pointers, self.pointers_kept)):
            for old in [other for other in kept if other <= frame - frames]:
                del kept[old]

    def meaning(self) -> Float[Tensor, " sam_channels"] | None:
        """What the object's phrase means, the mean of what is kept; None where nothing is."""
        return torch.stack(list(self.meanings.values())).mean(0) if self.meanings else None

    def recalled(self, frame: int) -> tuple[list[tuple[int, Tensor]], list[tuple[int, Tensor]]]:
        """(frames ago, memory) and (frames ago, pointer) of what the given frame attends to.

        Prompted frames count as 0 frames ago for their memories, wherever they lie; their pointers only from the past.
        """
        spatial = [(0, memory) for memory, _ in self.prompted.values()]
        spatial += [(frame - then, memory) for then, memory in self.spatial.items() if then >= frame - self.frames_kept]
        pointers = [(frame - then, pointer) for then, (_, pointer) in self.prompted.items() if then <= frame]
        pointers += [(frame - then, p) for then, p in self.pointers.items() if then >= frame - self.pointers_kept]
        return spatial, pointers

    def _kept(self, memory: Tensor) -> Tensor:
        return memory.to(self.dtype, copy=True)  # a row of a larger tensor would keep the whole of it alive


def require_memory(sam: Sam) -> SamWithMemory:
    """The same SAM 2, known to have a memory.

    Raises:
        ModelError: it was built for images alone.
    """
    if not hasattr(sam, "memory_attention"):
        raise ModelError(
            "this SAM 2 has no memory (Sam2Model); name one that has, as in --sam-model facebook/sam2-hiera-large"
        )
    return cast(SamWithMemory, sam)


def keeps_phrases(sam: Sam) -> bool:
    """Whether the memory was trained with what phrases mean beside it, in every frame."""
    return bool(getattr(sam.config, "keeps_phrases", False))
