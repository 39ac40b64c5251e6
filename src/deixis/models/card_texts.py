"""What model cards say, and the lines of Python in them."""

NEEDS = (
    "transformers 5.23 or newer is required: up to 5.22 it places the tokens of names differently, and scores differ."
)
EDGES = (
    "transformers limits coordinates to 1e-5 from the edges of the image, the authors of these models and deixis to "
    "1e-3. At an edge, in thin images and in padded batches, logits can differ by up to 0.4 and boxes by 0.002."
)
TOKENS = (
    "These names have a token of their own each. deixis finds it by the plain name; in transformers it is written out, "
    "as above."
)
PARALLEL = (
    "deixis runs the decoder's layers in parallel and averages what they find, as it was trained; transformers runs "
    "them in sequence and finds something else."
)
SINKS = "Attention sinks (`sinks.safetensors`) work in deixis and in ONNX files; transformers detects without them."
WORD_EMBEDDINGS = (
    "# PEFT asks every model for its word embeddings, and transformers names none for this one.\n"
    "{model}.get_input_embeddings = lambda model: model.text_backbone.get_input_embeddings()\n"
)
FLAVOURS = {
    "GroundingDinoForObjectDetection": "Grounding DINO",
    "MMGroundingDinoForObjectDetection": "MM-Grounding-DINO",
}

DETECTOR_CODE = """
from PIL import Image
from transformers import AutoModelForZeroShotObjectDetection, AutoProcessor

folder = {folder}  # this folder
model = AutoModelForZeroShotObjectDetection.from_pretrained(folder)
processor = AutoProcessor.from_pretrained(folder)
image = Image.open("photo.jpg").convert("RGB")
inputs = processor(images=image, text=[{names}], return_tensors="pt")
outputs = model(**inputs)
found = processor.post_process_grounded_object_detection(outputs, inputs.input_ids, target_sizes=[image.size[::-1]])
"""
ADAPTER_CODE = """
{given}from peft import PeftModel
from transformers import AutoModelForZeroShotObjectDetection, {plain}

{patch}base = AutoModelForZeroShotObjectDetection.from_pretrained({base})
model = PeftModel.from_pretrained(base, {folder})  # this folder
"""
AUTO_CODE = """
from peft import AutoPeftModel
from transformers import {plain}

{patch}model = AutoPeftModel.from_pretrained({folder})  # this folder
"""
SEGMENTER_CODE = """
from deixis.inference.refer.segmenter import load_segmenter

segmenter = load_segmenter({folder})  # this folder
"""
SEGMENTER_ADAPTER_CODE = """
from peft import PeftModel
from transformers import AutoModelForImageTextToText

vlm = AutoModelForImageTextToText.from_pretrained({vlm})
model = PeftModel.from_pretrained(vlm, {folder})  # this folder
"""
HALVES_CODE = """
from transformers import AutoModel, AutoModelForImageTextToText

vlm = AutoModelForImageTextToText.from_pretrained({folder} + "/vlm")
sam = AutoModel.from_pretrained({folder} + "/sam")
"""
