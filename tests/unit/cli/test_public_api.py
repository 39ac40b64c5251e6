"""What `import deixis` gives, and what it costs."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import version

import pytest

import deixis


def _run(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_all_is_the_public_api() -> None:
    assert deixis.__all__ == sorted(deixis.__all__)
    assert dir(deixis) == deixis.__all__
    for name in set(deixis.__all__) - {"__version__"}:
        thing = getattr(deixis, name)
        assert thing.__module__.startswith("deixis.")
        assert thing.__doc__, f"{name} needs a docstring"


def test_public_names_are_those_documented() -> None:
    errors = {"DataError", "DeixisError", "ModelError", "OptionError", "PromptError", "TrainingError"}
    records = {"Detections", "Instances", "OpenedDataset", "Sample", "Segmentations", "Stream", "Vocabulary"}
    models = {"Annotator", "Captioner", "Detector", "Segmenter"}
    loaders = {f"load_{name.lower()}" for name in models}
    calls = {"evaluate", "read_dataset", "train"}
    assert set(deixis.__all__) == errors | records | models | loaders | calls | {"__version__"}


def test_version_is_the_packages() -> None:
    assert deixis.__version__ == version("deixis")


def test_unknown_names_are_attribute_errors() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Detektor'"):
        _ = deixis.Detektor  # type: ignore[attr-defined]


def test_import_is_free_of_torch_and_of_models() -> None:
    heavy = "{'torch', 'transformers', 'matplotlib', 'cv2', 'numba', 'accelerate', 'faster_coco_eval'}"
    assert _run(f"import sys, deixis; print(sorted({heavy} & set(sys.modules)))") == "[]"
    assert _run(f"import sys, deixis; deixis.Vocabulary; print(sorted({heavy} & set(sys.modules)))") == "[]"


def test_reporting_needs_no_torch() -> None:
    code = "import sys, deixis.reporting.detect_report, deixis.reporting.refer_report; print('torch' in sys.modules)"
    assert _run(code) == "False"
