"""The detector as one ONNX graph: a fixed prompt, images of any size."""
