"""Sa2VA's own code on InternVL (bytedance/Sa2VA, projects/sa2va/hf/models, unedited), on small random weights.

    python sa2va_internvl.py REQUEST ANSWER

Request and answer are those of `sa2va_qwen.py`; `config` is a whole config.json. Its code fixes tiles of 448 pixels and
patches of 14. Here stand in: torchvision's transforms, einops and timm, of which nothing is used.
"""

from __future__ import annotations

import enum
import importlib
import sys

import numpy as np
import torch
from PIL import Image
from sa2va_qwen import Torch, keep_masks, leading, mask_losses, small_sam, stand_in, weighted
from transformers import AutoTokenizer


class Transforms:
    """torchvision's transforms that its code composes: functions of a picture."""

    @staticmethod
    def Compose(steps):  # noqa: N802, torchvision's name
        def composed(picture):
            for step in steps:
                picture = step(picture)
            return picture

        return composed

    @staticmethod
    def Lambda(function):  # noqa: N802
        return function

    @staticmethod
    def Resize(size_hw, interpolation):  # noqa: N802
        assert interpolation is Interpolation.BICUBIC
        return lambda picture: picture.resize(size_hw[::-1], Image.Resampling.BICUBIC)

    @staticmethod
    def ToTensor():  # noqa: N802
        return lambda picture: torch.from_numpy(np.array(picture)).permute(2, 0, 1).float() / 255

    @staticmethod
    def Normalize(mean, std):  # noqa: N802
        center, spread = torch.tensor(mean)[:, None, None], torch.tensor(std)[:, None, None]
        return lambda pixels: (pixels - center) / spread


Interpolation = enum.Enum("InterpolationMode", ["BICUBIC"])


def built(request):
    """Their model, with its own random weights or given ones, which are loaded strictly."""
    stand_in("torchvision")
    members = ("Compose", "Lambda", "Resize", "ToTensor", "Normalize")
    stand_in("torchvision.transforms", **{name: getattr(Transforms, name) for name in members})
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]
    stand_in(
        "torchvision.transforms.functional",
        InterpolationMode=Interpolation,
        resize=None,
        to_pil_image=lambda array, mode: Image.fromarray(array, mode),
    )
    stand_in("einops", rearrange=None)
    stand_in("timm")
    stand_in("timm.models")
    stand_in("timm.models.layers", DropPath=torch.nn.Identity)
    package = f"projects.sa2va.hf.{request['kind']}"
    small_sam(package, request["sam"])
    modeling = importlib.import_module(f"{package}.modeling_sa2va_chat")
    modeling.torch = Torch()
    kind = modeling.Sa2VAChatModel
    kind.preparing_for_generation.__defaults__ = (2048, torch.float32)
    torch.manual_seed(request.get("seed", 0))
    model = kind(modeling.Sa2VAChatConfig(**request["config"])).eval()
    model._count = 0  # counted, but never started
    return weighted(model, request, ("language_model.", "vision_model.", "mlp1."), joint=0.5)


@torch.no_grad()
def main(request):
    model = built(request)
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    model.preparing_for_generation(tokenizer)
    model.extra_image_processor.target_length = request["sam"]["side"]
    said = tokenizer(request["answer"], add_special_tokens=False)["input_ids"]
    kept = {}
    own_generate = model.generate

    def generate(**options):
        """Their call, in which the model is led to say the answer."""
        kept["input_ids"], kept["pixel_values"] = options["input_ids"], options["pixel_values"]
        found = own_generate(**{**options, **leading(said, 0)})
        kept["whole"] = torch.cat([options["input_ids"], found.sequences], dim=1)
        return found

    model.generate = generate
    keep_masks(model, kept)
    image = Image.fromarray(request["image"].numpy())
    found = model.predict_forward(image=image, text=request["text"], tokenizer=tokenizer)
    labels = kept["whole"].clone()
    labels[:, : kept["input_ids"].shape[1]] = -100
    whole = model._llm_forward(
        pixel_values=kept["pixel_values"], input_ids=kept["whole"], attention_mask=torch.ones_like(kept["whole"]),
        image_flags=torch.ones(len(kept["pixel_values"]), dtype=torch.long), labels=labels,
        output_hidden_states=True, return_dict=True,
    )  # fmt: skip
    return {
        "weights": model.state_dict(),
        "prediction": found["prediction"],
        "masks": torch.stack([torch.from_numpy(mask) for mask in found["prediction_masks"]]),
        "input_ids": kept["input_ids"],
        "whole": kept["whole"],
        "pixel_values": kept["pixel_values"],
        "hidden": whole.hidden_states[-1],
        "loss_language": whole.loss,
        **mask_losses(kept, request["targets"]),
    }


if __name__ == "__main__":
    torch.save(main(torch.load(sys.argv[1], weights_only=False)), sys.argv[2])
