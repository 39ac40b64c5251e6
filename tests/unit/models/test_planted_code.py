"""No file of a model folder is ever executed: code is planted behind every door, and the answer to a question is yes.

One process opens all doors, since each would import torch anew. Planted files leave a mark when they run; the test
would see the mark of a door that transformers is asked to open with code allowed (`test_the_trap_works`).
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from released_segmenters import released_bundle, write_released
from small_segmenters import tiny_segmenter
from tiny_runs import write_tiny_model

from deixis.models.adapters import add_lora, save_adapter
from deixis.models.grounding_dino import load_grounding_dino
from deixis.models.sa2va import save_sa2va

PLANTED = """
from pathlib import Path
(Path(__file__).resolve().parent / "RAN").touch()
Path({mark!r}).touch()
class Planted:
    def __init__(self, *a, **k): raise ValueError("planted")
    from_pretrained = from_dict = classmethod(lambda cls, *a, **k: cls())
"""
EVERY_AUTO = dict.fromkeys(
    ["AutoConfig", "AutoModel", "AutoBackbone", "AutoModelForCausalLM", "AutoModelForZeroShotObjectDetection",
     "AutoImageProcessor", "AutoProcessor", "AutoFeatureExtractor", "AutoModelForImageTextToText"],
    "planted.Planted",
)  # fmt: skip
TOKENIZER_AUTO = {"AutoTokenizer": ["planted.Planted", "planted.Planted"], **EVERY_AUTO}
OPEN_DOORS = """
import sys
from deixis.errors import DeixisError
from deixis.models.checkpoints import load_any_detector
from deixis.models.sa2va import load_sa2va
from deixis.models.sa2va.join import join_sa2va
from deixis.models.text import load_tokenizer
DOORS = {"detector": load_any_detector, "segmenter": load_sa2va, "join": join_sa2va, "tokenizer": load_tokenizer}
for line in open(sys.argv[1], encoding="utf-8"):
    door, *places = line.split()
    try:
        DOORS[door](*places)
        print("read", line.strip())
    except DeixisError as error:
        assert "\\n" not in str(error), error
        print("refused", line.strip(), "|", error)
"""


def change(path: Path, **values) -> None:
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**known, **values}), encoding="utf-8")


def plant(folder: Path, mark: Path) -> Path:
    """Code in a folder, and every JSON file of it that could lead there."""
    for place in (folder / "planted.py", folder / "custom_generate" / "generate.py"):
        place.parent.mkdir(exist_ok=True)
        place.write_text(PLANTED.format(mark=str(mark)), encoding="utf-8")
    change(folder / "config.json", auto_map=EVERY_AUTO, _attn_implementation="somebody/kernel", custom_generate="x")
    change(folder / "tokenizer_config.json", auto_map=TOKENIZER_AUTO)
    for name in ("processor_config.json", "preprocessor_config.json"):
        change(folder / name, auto_map=EVERY_AUTO)
    change(folder / "generation_config.json", custom_generate=str(folder), trust_remote_code=True)
    return folder


@pytest.fixture(scope="module")
def doors(tmp_path_factory):
    """Door and places, by a name that says what is planted there."""
    base, mark = tmp_path_factory.mktemp("doors"), tmp_path_factory.mktemp("mark") / "ran"
    detector = write_tiny_model(base / "plain_detector")
    segmenter = base / "plain_segmenter"
    save_sa2va(tiny_segmenter(), segmenter)
    found: dict[str, tuple[str, ...]] = {}

    def copy(source: Path, name: str) -> Path:
        shutil.copytree(source, base / name)
        return base / name

    found["detector"] = ("detector", str(plant(copy(detector, "detector"), mark)))
    unknown = plant(copy(detector, "unknown_type"), mark)
    change(unknown / "config.json", model_type="planted")
    found["detector of an unknown type"] = ("detector", str(unknown))
    parts = plant(copy(detector, "parts"), mark)
    values = json.loads((parts / "config.json").read_text(encoding="utf-8"))
    for part in ("text_config", "backbone_config"):
        values[part] |= {"auto_map": EVERY_AUTO, "_attn_implementation": "somebody/kernel"}
    change(parts / "config.json", **values)
    found["parts of a detector"] = ("detector", str(parts))
    tokenizer = plant(copy(detector, "tokenizer"), mark)
    change(tokenizer / "tokenizer_config.json", tokenizer_class="Planted")
    found["tokenizer of an unknown class"] = ("detector", str(tokenizer))
    found["model convert --tokenizer"] = ("tokenizer", str(tokenizer))
    adapter = base / "adapter"
    bundle = load_grounding_dino(detector)
    add_lora(bundle.model, rank=2)
    save_adapter(bundle.model, adapter, str(detector))
    plant(adapter, mark)
    change(adapter / "adapter_config.json", auto_mapping={"base_model_class": "Planted", "parent_library": "planted"})
    found["adapter"] = ("detector", str(adapter))
    megatron = copy(adapter, "megatron")
    change(megatron / "adapter_config.json", megatron_config={"a": 1}, megatron_core="planted")
    found["adapter that names a module"] = ("detector", str(megatron))
    for half in ("vlm", "sam"):
        folder = copy(segmenter, f"segmenter_{half}")
        plant(folder / half, mark)
        plant(folder, mark)
        found[f"segmenter, {half}"] = ("segmenter", str(folder))
        strange = copy(folder, f"strange_{half}")
        change(strange / half / "config.json", model_type="planted")
        found[f"segmenter, {half} of an unknown type"] = ("segmenter", str(strange))
        found[f"joined halves, {half}"] = ("join", str(folder / "vlm"), str(folder / "sam"))
    nested = copy(segmenter, "nested_adapter")
    change(nested / "vlm" / "adapter_config.json", base_model_name_or_path=str(adapter), peft_type="LORA")
    found["segmenter with an adapter among its files"] = ("segmenter", str(nested))
    released = base / "released"
    write_released(released_bundle("Qwen2ForCausalLM"), "Qwen2ForCausalLM", released)
    found["released segmenter"] = ("segmenter", str(plant(released, mark)))
    return base, mark, found


def test_nothing_that_is_planted_runs(doors):
    base, mark, found = doors
    (base / "doors.txt").write_text("".join(" ".join(door) + "\n" for door in found.values()), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-c", OPEN_DOORS, str(base / "doors.txt")],
        input="y\n" * 100, capture_output=True, text=True, timeout=300, check=False, cwd=base / "adapter",
        env={**os.environ, "HF_HOME": str(base / "hub"), "PYTHONPATH": os.pathsep.join(["", *sys.path])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(found), done.stdout
    assert "[y/N]" not in done.stdout + done.stderr  # nobody is asked
    assert not mark.exists()
    assert list(base.rglob("RAN")) == []
    # Where our own classes suffice, the folder is read without its code.
    read = {line.partition(" ")[2] for line in lines if line.startswith("read")}
    for name in (
        "detector",
        "parts of a detector",
        "adapter",
        "segmenter, vlm",
        "segmenter, sam",
        "released segmenter",
    ):
        assert " ".join(found[name]) in read, done.stdout


def test_the_trap_works(doors):
    """The planted detector runs where transformers is told to trust it: the test above can fail."""
    base, mark, found = doors
    code = (
        "import sys, transformers\ntry:\n    transformers.AutoConfig.from_pretrained(sys.argv[1])\n"
        "except ValueError as error:\n    print(error)"
    )
    place = found["detector of an unknown type"][1]
    subprocess.run(
        [sys.executable, "-c", code, place], input="y\n", capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "HF_HOME": str(base / "hub_of_the_trap")},
    )  # fmt: skip
    assert mark.exists()
    mark.unlink()
