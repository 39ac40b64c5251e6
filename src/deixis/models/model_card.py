"""`README.md` of a model folder: what the model is, what it knows, and the lines that load it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from deixis.errors import ModelError
from deixis.models.builtin import BUILTIN
from deixis.models.card_texts import (
    ADAPTER_CODE,
    AUTO_CODE,
    DETECTOR_CODE,
    EDGES,
    FLAVOURS,
    HALVES_CODE,
    NEEDS,
    PARALLEL,
    SEGMENTER_ADAPTER_CODE,
    SEGMENTER_CODE,
    SINKS,
    TOKENS,
    WORD_EMBEDDINGS,
)
from deixis.models.folders import is_hub_id, read_json, read_object
from deixis.models.model_record import ModelRecord, read_record
from deixis.models.text import learned_token

CARD_FILE = "README.md"
MAX_NAMES = 100  # listed in the card; deixis.json has all
DETECTS, SEGMENTS = "zero-shot-object-detection", "mask-generation"
ON_TRAINING = "training images"
"""The part of the data that figures are of, where nothing was held out to measure on."""
SHOWN = ("AP", "AP50", "gIoU", "cIoU", "epoch")


def write_card(folder: str | Path, name: str = "") -> None:
    """Write the card from a folder's files.

    Args:
        name: the folder's final name, if it has another one while it is written.

    Raises:
        ModelError: the folder's files cannot be read, or the card cannot be written.
    """
    folder = Path(folder)
    text = model_card(folder, name or folder.name)
    try:
        (folder / CARD_FILE).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ModelError(f"{folder / CARD_FILE}: cannot be written ({error})") from error


def model_card(folder: Path, name: str) -> str:
    """The card's text: Markdown, with the hub's metadata at the top."""
    record = read_record(folder)
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        values = read_json(adapter)
        of_adapter = _segmenter_adapter if record.task == "segmenter" else _adapter
        parts = of_adapter(values, name, record)
    else:
        values = read_json(folder / "config.json")
        kind = str(values.get("model_type"))
        # two halves in deixis's own layout, or one folder in that of released Sa2VA models
        segments = kind in ("deixis_sa2va", "sa2va_chat")
        halves = kind == "deixis_sa2va"
        own = () if segments else _own_tokens(folder, record)
        parts = _segmenter(name, record, halves=halves) if segments else _detector(values, name, record, own=own)
    parts += _knowledge(record)
    return "\n\n".join(parts).rstrip() + "\n"


def _detector(values: Mapping[str, Any], name: str, record: ModelRecord, *, own: Collection[str]) -> list[str]:
    """`own`: the names that have a token of their own, which transformers reads where it is written out."""
    architecture = (values.get("architectures") or ["GroundingDinoForObjectDetection"])[0]
    names = [learned_token(each) if each in own else each for each in record.names[:5]] or ["cat"]
    only_here = [TOKENS] if own else []
    only_here += [PARALLEL] if values.get("parallel_decoder") is True else []
    only_here += [SINKS] if record.sinks.get("count") else []
    return [
        _head(name, record, library_name="transformers", pipeline_tag=DETECTS),
        f"# {name}",
        f"A {FLAVOURS.get(architecture, architecture)} detector, fine-tuned with deixis: names in, boxes out.",
        "## In deixis",
        _shell(f"deixis detect predict --model {name} --images photos/"),
        "## In transformers",
        _python(DETECTOR_CODE.format(folder=json.dumps(name), names=json.dumps(names, ensure_ascii=False))),
        *only_here,
        f"{NEEDS} {EDGES}",
    ]


def _own_tokens(folder: Path, record: ModelRecord) -> frozenset[str]:
    """The names of the record that have a token of their own in the folder's tokenizer."""
    path = folder / "tokenizer.json"
    added = read_object(path).get("added_tokens") if path.is_file() else None
    tokens = {str(token.get("content")) for token in added or () if isinstance(token, dict)}
    return frozenset(name for name in record.names if learned_token(name) in tokens)


def _adapter(values: Mapping[str, Any], name: str, record: ModelRecord) -> list[str]:
    architecture = str((values.get("auto_mapping") or {}).get("base_model_class"))
    base = str(values.get("base_model_name_or_path") or "")
    shown = 'builtin_folder("detector")' if base == BUILTIN else json.dumps(base)
    given = "from deixis.models.builtin import builtin_folder\n" if base == BUILTIN else ""
    plain = architecture.replace("ForObjectDetection", "Model")
    patch = WORD_EMBEDDINGS.format(model=plain)
    parts = [
        _head(name, record, library_name="peft", pipeline_tag=DETECTS, base_model=base),
        f"# {name}",
        f"A LoRA adapter on {base}, a {FLAVOURS.get(architecture, architecture)} detector, trained with deixis.",
        "## In deixis",
        _shell(
            f"deixis detect predict --model {name} --images photos/\ndeixis model merge --model {name} --output merged"
        ),
        "The adapter is merged into its base when it is loaded. A merged folder loads in plain transformers.",
        "## In transformers and PEFT",
        _python(ADAPTER_CODE.format(given=given, plain=plain, patch=patch, base=shown, folder=json.dumps(name))),
    ]
    if base == BUILTIN:
        parts += ["`AutoPeftModel` cannot be used: it looks for the base on the hub, and this one is part of deixis."]
    else:
        parts += ["Or, with the base looked up in `adapter_config.json`:"]
        parts += [_python(AUTO_CODE.format(plain=plain, patch=patch, folder=json.dumps(name)))]
    return [*parts, f"{NEEDS} {EDGES}"]


def _segmenter_adapter(values: Mapping[str, Any], name: str, record: ModelRecord) -> list[str]:
    base = str(values.get("base_model_name_or_path") or "")
    return [
        _head(name, record, library_name="peft", pipeline_tag=SEGMENTS, base_model=base),
        f"# {name}",
        f"A LoRA adapter for the language model of {base}, a Sa2VA-style segmenter, trained with deixis. What trained "
        "whole, such as the mask decoder and the rows of the new tokens, is in `trained_parts.safetensors`.",
        "## In deixis",
        _shell(f"deixis model merge --model {name} --output merged"),
        "## In transformers and PEFT",
        "The adapter loads onto the vision-language model: the folder `vlm` of a segmenter of deixis.",
        _python(SEGMENTER_ADAPTER_CODE.format(vlm=json.dumps(f"{base}/vlm"), folder=json.dumps(name))),
    ]


def _segmenter(name: str, record: ModelRecord, *, halves: bool) -> list[str]:
    folder = json.dumps(name)
    parts = [
        _head(name, record, library_name="deixis", pipeline_tag=SEGMENTS),
        f"# {name}",
        "A Sa2VA-style segmenter, fine-tuned with deixis: phrases in, masks out, and masks in, phrases out.",
        "## In deixis",
        _shell(f'deixis refer predict --model {name} --images photos/ --phrases "the dog on the left"'),
        _python(SEGMENTER_CODE.format(folder=folder)),
    ]
    if not halves:
        return [*parts, "The layout is that of released Sa2VA models: their code loads it too."]
    joined = "The two halves are folders of transformers; `text_hidden_fcs.safetensors` joins them."
    return [*parts, "## In transformers", joined, _python(HALVES_CODE.format(folder=folder))]


def _knowledge(record: ModelRecord) -> list[str]:
    parts = []
    if record.domain == "generated":
        parts += ["It has seen generated shapes only, and knows nothing of photographs."]
    if record.names:
        listed = ", ".join(record.names[:MAX_NAMES])
        more = (
            f" and {len(record.names) - MAX_NAMES:,} more (see `deixis.json`)" if len(record.names) > MAX_NAMES else ""
        )
        parts += ["## Names", f"Fine-tuned on: {_escaped(listed)}{more}."]
    if origin := _origin(record):
        parts += ["## Training", origin]
    rows = [
        f"| {part} | {name} | {value:.4g} | {_before(record, part, name)} |" for part, name, value in _figures(record)
    ]
    if rows:
        parts += ["## Figures", "\n".join(["| data | metric | value | before |", "|---|---|---|---|", *rows])]
        if ON_TRAINING in record.metrics:
            parts += ["Figures on training images say nothing of others."]
        elif "test" not in record.metrics:
            parts += ["The best epoch was chosen on the same data, so the figures are optimistic."]
    return parts


def _origin(record: ModelRecord) -> str:
    """What the model was made from and on."""
    facts, said = record.training, []
    if record.base:
        licence = f" (licence {_escaped(record.base_license)})" if record.base_license else ""
        said.append(f"Fine-tuned from {_escaped(record.base)}{licence}")
    if isinstance(facts.get("images"), int) and isinstance(facts.get("data"), list):
        data = ", ".join(map(str, facts["data"]))
        said.append(f"on {facts['images']:,} images of {_escaped(data)}, {facts.get('epochs')} epochs")
    return f"{' '.join(said)}." if said else ""


def _figures(record: ModelRecord) -> Iterator[tuple[str, str, float]]:
    """The figures that are shown: part of the data, name, value."""
    for part, values in record.metrics.items():
        if isinstance(values, Mapping):
            yield from ((part, n, v) for n, v in values.items() if isinstance(v, int | float) and n in SHOWN)


def _before(record: ModelRecord, part: str, name: str) -> str:
    values = record.metrics_before.get(part)
    value = values.get(name) if isinstance(values, Mapping) and name != "epoch" else None
    return f"{value:.4g}" if isinstance(value, int | float) else ""


def _head(name: str, record: ModelRecord, *, library_name: str, pipeline_tag: str, base_model: str = "") -> str:
    """The hub's metadata: what loads the model, what it does, what it was made from, its figures."""
    values: dict[str, Any] = {"library_name": library_name, "pipeline_tag": pipeline_tag}
    base = base_model or record.base
    # the hub takes its own ids here, no folders and not `builtin`
    if is_hub_id(base):
        values["base_model"] = base
    if record.base_license:
        values["license"] = record.base_license
    data = record.training.get("data")
    sources = [str(source) for source in data] if isinstance(data, list) else []
    if on_hub := [source for source in sources if is_hub_id(source)]:
        values["datasets"] = on_hub
    figures = [row for row in _figures(record) if row[1] != "epoch"]
    if figures:
        values["metrics"] = list(dict.fromkeys(metric for _, metric, _ in figures))
        values["model-index"] = [{"name": name, "results": _results(figures, pipeline_tag, ", ".join(sources))}]
    values["tags"] = ["deixis"]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _results(figures: list[tuple[str, str, float]], task: str, data: str) -> list[dict[str, Any]]:
    """A result per part of the data, as the hub reads them."""
    return [
        {
            "task": {"type": task},
            "dataset": {"type": "custom", "name": data or "own data", "split": part},
            "metrics": [{"type": metric, "value": round(value, 5)} for of, metric, value in figures if of == part],
        }
        for part in dict.fromkeys(part for part, _, _ in figures)
    ]


def _python(code: str) -> str:
    return f"```python\n{code.strip()}\n```"


def _shell(code: str) -> str:
    return f"```sh\n{code}\n```"


def _escaped(text: str) -> str:
    return "".join("\\" + letter if letter in "\\`*_[]<>|#" else letter for letter in text)
