"""Sa2VA's own code on Qwen (bytedance/Sa2VA, projects/sa2va/hf, unedited), run by itself on small random weights.

    python sa2va_qwen.py REQUEST ANSWER

The request (saved by torch) holds `kind` (a folder's name in projects/sa2va/hf), `config` (of Qwen, as a dictionary),
`tokenizer` (a folder), `sam` (`stages` and `side` of SAM 2's image encoder), `image` (uint8 [h w 3]), `text`, `answer`
that the model is made to say, `labels_from` (labels of the whole conversation), and `weights` to start from, or `seed`.

What Sa2VA's code asks for and is not installed stands in here: torchvision's `to_pil_image`, and `process_vision_info`
of qwen_vl_utils, which hands pictures on as they are. It names CUDA and bfloat16 as constants; both are led to the
CPU and to float32. SAM 2 is its own with fewer blocks and a smaller square.
"""

from __future__ import annotations

import contextlib
import importlib
import sys
import types

import torch
from PIL import Image
from transformers import AutoTokenizer
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


class Torch:
    """torch, but for the constants that a CPU has not."""

    bfloat16 = torch.float32

    def __getattr__(self, name):
        return getattr(torch, name)

    def device(self, *names):
        return torch.device("cpu")

    def autocast(self, **options):
        return contextlib.nullcontext()


class Processor:
    """transformers' picture processor and a tokenizer, joined as Qwen's own processor joins them."""

    def __init__(self, tokenizer, config, pixels):
        self.tokenizer, self.config, self.pixels = tokenizer, config, pixels
        vision = config["vision_config"]
        self.images = Qwen2VLImageProcessorPil(
            patch_size=vision["patch_size"], temporal_patch_size=2, merge_size=2,
            image_mean=[0.5, 0.4, 0.3], image_std=[0.5, 0.6, 0.7],
        )  # fmt: skip

    def apply_chat_template(self, messages, tokenize, add_generation_prompt):
        parts = [part.get("text", "<|vision_start|><|image_pad|><|vision_end|>") for part in messages[0]["content"]]
        return f"<|im_start|>user\n{''.join(parts)}<|im_end|>\n<|im_start|>assistant\n"

    def __call__(self, text, images, videos, padding, return_tensors, min_pixels, max_pixels):
        assert (min_pixels, max_pixels) == (512 * 28 * 28, 2048 * 28 * 28)
        low, high = self.pixels or (min_pixels, max_pixels)
        seen = self.images(images=images, min_pixels=low, max_pixels=high, return_tensors="pt")
        tokens = int(seen["image_grid_thw"][0].prod()) // 4
        ids = self.tokenizer(text[0].replace("<|image_pad|>", "<|image_pad|>" * tokens), return_tensors="pt")
        image = ids["input_ids"] == self.config["image_token_id"]
        return _Inputs(
            input_ids=ids["input_ids"], attention_mask=torch.ones_like(ids["input_ids"]),
            mm_token_type_ids=image.int(), **seen,
        )  # fmt: skip

    def batch_decode(self, ids, skip_special_tokens):
        return self.tokenizer.batch_decode(ids, skip_special_tokens=skip_special_tokens)


class _Inputs(dict):
    def __getattr__(self, name):
        return self[name]

    def to(self, device):
        return self


def stand_in(name, **members):
    module = types.ModuleType(name)
    module.__dict__.update(members)
    sys.modules[name] = module


def built(request):
    """Their model, with its own random weights or given ones, which are loaded strictly."""
    stand_in("torchvision")
    stand_in("torchvision.transforms")
    stand_in("torchvision.transforms.functional", to_pil_image=lambda array, mode: Image.fromarray(array, mode))
    stand_in(
        "qwen_vl_utils",
        process_vision_info=lambda messages: (
            [part["image"] for part in messages[0]["content"] if part["type"] == "image"],
            None,
        ),
    )
    package = f"projects.sa2va.hf.{request['kind']}"
    small_sam(package, request["sam"])
    modeling = importlib.import_module(f"{package}.modeling_sa2va_qwen")
    modeling.torch = Torch()
    settings = importlib.import_module(f"{package}.configuration_sa2va_chat").Sa2VAChatConfigQwen
    config = settings(template="qwen_chat", **request["config"])
    torch.manual_seed(request.get("seed", 0))
    model = modeling.Sa2VAChatModelQwen(config).eval()
    model.extra_image_processor.target_length = request["sam"]["side"]
    return weighted(model, request, "model.")


def small_sam(package, form):
    """Their SAM 2 with fewer blocks and a smaller square, on the CPU and in float32."""
    sam = importlib.import_module(f"{package}.sam2")
    sam.torch = Torch()
    sam.SAM2.preprocess_image.__defaults__ = (torch.float32,)  # a mean in bfloat16 moves masks by 0.4 %
    torch.Tensor.cuda = lambda tensor, *_, **__: tensor
    hiera, predictor = sam.Hiera, sam.SAM2VideoPredictor
    smaller = {"stages": form["stages"], "global_att_blocks": form["global_blocks"]}
    sam.Hiera = lambda **options: hiera(**{**options, **smaller})
    sam.SAM2VideoPredictor = lambda **options: predictor(**{**options, "image_size": form["side"]})


def weighted(model, request, language, joint=0.1):
    """With the request's weights, or with noise on its own: more of it on the parts that `language` names, and `joint`
    on what leads from there to SAM 2."""
    if "weights" in request:
        model.load_state_dict(request["weights"], strict=True)
    else:
        with torch.no_grad():  # what starts at zero, or at one, would hide mistakes
            for name, parameter in model.named_parameters():
                size = joint if "text_hidden_fcs" in name else 0.1 if name.startswith(language) else 0.01
                parameter.add_(torch.randn_like(parameter) * size)
    return model


def leading(said, start):
    """Options of `generate` that make a model say `said` after `start` tokens."""

    def lead(ids, scores):
        forced = torch.full_like(scores, float("-inf"))
        forced[:, said[ids.shape[1] - start]] = 0
        return forced

    return {"max_new_tokens": len(said), "logits_processor": [lead]}


def keep_masks(model, kept):
    """Puts the logits of every mask into `kept`, before they are enlarged."""
    own = model.grounding_encoder.language_embd_inference

    def masks(states, embedded):
        enlarged = own(states, embedded)
        kept.setdefault("logits", []).append(states["output_dict"]["cond_frame_outputs"][0]["pred_masks"])
        return enlarged

    model.grounding_encoder.language_embd_inference = masks


def mask_losses(kept, targets):
    """Logits of the masks, [objects side/4 side/4], and their losses as Sa2VA weighs them."""
    losses = importlib.import_module("third_parts.mmdet.models.losses")
    logits = torch.cat(kept["logits"])[:, 0]
    weigh = {
        "loss_mask": losses.CrossEntropyLoss(use_sigmoid=True, reduction="mean", loss_weight=2.0),
        "loss_dice": losses.DiceLoss(
            use_sigmoid=True, activate=True, reduction="mean", naive_dice=True, eps=1.0, loss_weight=0.5
        ),
    }
    return {"logits": logits, **{name: loss(logits, targets.float()) for name, loss in weigh.items()}}


@torch.no_grad()
def main(request):
    model = built(request)
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    processor = Processor(tokenizer, request["config"], request.get("pixels"))
    said = tokenizer(request["answer"], add_special_tokens=False)["input_ids"]
    kept = {}
    own_generate = model.model.generate

    def generate(**options):
        """Their call, in which the model is led to say the answer."""
        start = options["input_ids"].shape[1]
        kept["input_ids"], kept["pixel_values"] = options["input_ids"], options["pixel_values"]
        kept["grid"] = options["image_grid_thw"]

        found = own_generate(**{**options, **leading(said, start)})
        kept["whole"] = found.sequences
        return found

    model.model.generate = generate
    keep_masks(model, kept)
    image = Image.fromarray(request["image"].numpy())
    found = model.predict_forward(image=image, text=request["text"], tokenizer=tokenizer, processor=processor)
    labels = kept["whole"].clone()
    labels[:, : kept["input_ids"].shape[1]] = -100
    whole = model.model(
        input_ids=kept["whole"], attention_mask=torch.ones_like(kept["whole"]), labels=labels,
        pixel_values=kept["pixel_values"], image_grid_thw=kept["grid"], output_hidden_states=True,
        mm_token_type_ids=(kept["whole"] == request["config"]["image_token_id"]).int(),
    )  # fmt: skip
    return {
        "weights": model.state_dict(),
        "prediction": found["prediction"],
        "masks": torch.stack([torch.from_numpy(mask) for mask in found["prediction_masks"]]),
        "input_ids": kept["input_ids"],
        "whole": kept["whole"],
        "pixel_values": kept["pixel_values"],
        "grid": kept["grid"],
        "hidden": whole.hidden_states[-1],
        "loss_language": whole.loss,
        **mask_losses(kept, request["targets"]),
    }


if __name__ == "__main__":
    torch.save(main(torch.load(sys.argv[1], weights_only=False)), sys.argv[2])
