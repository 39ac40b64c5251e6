"""An interaction function for CVAT: a mask by SAM 2 of the points and the box that a person gives.

pip install 'deixis[serve]' cvat-sdk cvat-cli
cvat-cli function create-native clicks --function-module deixis.serving.labelling.cvat_clicks -p segmenter=str:builtin
cvat-cli function run-agent 7 --function-module deixis.serving.labelling.cvat_clicks -p segmenter=str:builtin
"""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

from deixis.data.inputs.arrays import rgb_of_pil
from deixis.errors import OptionError
from deixis.inference.refer.prompted_masks import PromptedMasks
from deixis.inference.refer.segmenter import Segmenter, load_segmenter
from deixis.serving.labelling.cvat import run_lengths


class InteractionFunction:
    """The mask of the object that a person points at.

    Raises:
        OptionError: cvat-sdk is not installed.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        try:
            import cvat_sdk.auto_annotation as cvat
            from cvat_sdk.models import AttributeValRequest
        except ImportError as error:
            raise OptionError(f"CVAT's functions need {error.name}; pip install cvat-sdk") from error
        self._masks, self._cvat, self._attribute = PromptedMasks(segmenter), cvat, AttributeValRequest

    @property
    def spec(self) -> Any:
        """CVAT's `InteractionFunctionSpec`: points on the object and beside it, and a box, none of them required."""
        return self._cvat.InteractionFunctionSpec(min_pos_points=0, min_neg_points=0, min_bounding_boxes=0)

    def detect(self, context: Any, pp_image: Image.Image, prompts: Any) -> list[Any]:
        """The object as one mask with its predicted IoU; nothing where there is no prompt on it, or no mask.

        Args:
            context: CVAT's `InteractionFunctionContext`.
            pp_image: the image.
            prompts: CVAT's `InteractionPrompts`, in pixels.

        Returns:
            CVAT's `InteractionResultShape`s.
        """
        pixels = rgb_of_pil(pp_image)
        inside, beside, corners = list(prompts.pos_points), list(prompts.neg_points), prompts.bounding_box
        box = None if corners is None else np.array(corners, np.float64).ravel()
        if inside:
            points = np.array([*inside, *beside], np.float64)
            found = self._masks.at_clicks(pixels, points, np.arange(len(points)) < len(inside), box)
        elif box is not None:
            (found,) = self._masks.in_boxes(pixels, box[None], ["object"])
        else:
            return []
        bitmap = np.ascontiguousarray(coco_mask.decode(found.mask_rle))
        if not bitmap.any():
            return []
        sure = self._attribute(
            spec_id=int(self._cvat.InteractionResultAttributes.CONFIDENCE), value=f"{found.predicted_iou:.4f}"
        )
        return [self._cvat.InteractionResultShape(type="mask", points=run_lengths(bitmap), attributes=[sure])]


def create(segmenter: str = "builtin", device: str | None = None) -> InteractionFunction:
    """The function that CVAT's command line loads.

    Args:
        segmenter: "builtin", a folder or a hub id.

    Raises:
        DeixisError: the model cannot be loaded.
    """
    return InteractionFunction(load_segmenter(segmenter, device))
