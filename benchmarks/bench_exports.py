"""What exports cost and keep: AP, size and latency of the built-in detector by format and precision.

    python benchmarks/bench_exports.py [--images 60] [--repeats 10] [--write]

AP is that on held-out generated scenes; fp32 of PyTorch is the model before. Files are asked for any names, so each
sees the prompts that the model sees. Latency is that of `deixis model bench`: one image of 128 x 160 pixels at a time,
by turns, beside transformers' own forward pass.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
from pathlib import Path

import onnx
from harness import table, write_result

from deixis.data.detect.prompts import build_prompt
from deixis.data.formats import read_dataset
from deixis.inference.detect.detector import load_detector
from deixis.models.checkpoints import load_any_detector
from deixis.models.onnx.export import Precision, whole_graph, write_export
from deixis.models.onnx.facts import facts_of
from deixis.options.model_bench import ModelBenchOptions
from deixis.recipes.model.bench import bench_model
from deixis.recipes.model.export import size_of

EXPORTS: dict[str, tuple[str, Precision]] = {
    "ONNX fp32": ("fp32.onnx", "fp32"),
    "ONNX fp16": ("fp16.onnx", "fp16"),
    "ONNX int8": ("int8.onnx", "int8"),
    "OpenVINO fp32": ("fp32.xml", "fp32"),
    "OpenVINO fp16": ("fp16.xml", "fp16"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--size", type=int, nargs=2, default=(128, 160), help="height and width of the timed image")
    parser.add_argument("--only", nargs="+", choices=EXPORTS, default=list(EXPORTS), help="which exports")
    parser.add_argument("--model", default="builtin")
    parser.add_argument("--graph", type=Path, help="its ONNX file in fp32 for any names, which is then not made anew")
    parser.add_argument("--write", action="store_true", help="record the result in benchmarks/results")
    arguments = parser.parse_args()
    scenes = read_dataset(f"scenes:split=unseen_pairs,count={arguments.images},seed=3")
    bundle = load_any_detector(arguments.model)
    with tempfile.TemporaryDirectory() as folder:
        files = {title: Path(folder) / name for title, (name, _) in EXPORTS.items() if title in arguments.only}
        prompt = build_prompt(("cat",), bundle.prompt_tokenizer, bundle.model.max_text_len)
        given = arguments.graph and onnx.load(arguments.graph)
        graph = given or whole_graph(bundle, prompt, (), any_names=True)
        for title, path in files.items():
            precision = EXPORTS[title][1]
            facts = facts_of(bundle, (), prompt, precision=precision)
            write_export(copy.deepcopy(graph), path, facts, precision=precision)
        megabytes = {"deixis": sum(p.numel() for p in bundle.model.parameters()) * 4 / 1e6}
        megabytes |= {title: size_of(path) / 1e6 for title, path in files.items()}
        found = {}
        for title, path in {"deixis": arguments.model, **files}.items():
            metrics, _ = load_detector(path, "cpu").evaluate(scenes)
            found[title] = metrics
            print(f"{title}: AP {metrics.AP:.4f}", flush=True)
        seconds = bench_model(
            ModelBenchOptions(
                model=arguments.model,
                names=scenes.vocabulary.names[:5],
                size=tuple(arguments.size),
                formats=("deixis", "deixis-bf16", "transformers"),
                files=tuple(files.values()),
                repeats=arguments.repeats,
                device="cpu",
            )
        )
    times = {"deixis": "deixis", "deixis bf16": "deixis-bf16", "transformers": "transformers"}
    times |= {title: str(path) for title, path in files.items()}
    rows = []
    for title, key in times.items():
        if key not in seconds:  # it was left out, with a warning
            continue
        metrics, size = found.get(title), megabytes.get(title, megabytes["deixis"])
        scores = ("", "") if metrics is None else (f"{metrics.AP:.4f}", f"{metrics.AP50:.4f}")
        median, fastest = 1e3 * statistics.median(seconds[key]), 1e3 * min(seconds[key])
        rows.append((title, *scores, f"{size:.1f}", f"{median:.1f}", f"{fastest:.1f}"))
    body = table(("format", "AP", "AP50", "MB", "median ms", "fastest ms"), rows)
    print(body)
    if arguments.write:
        height, width = arguments.size
        notes = (
            f"AP: {arguments.images} scenes of colour-shape pairs that training left out. Latency: one image of "
            f"{height} x {width}, {arguments.repeats} rounds by turns; the files encode the names once, transformers "
            "with each image. MB of the files include the text encoder and the tokenizer."
        )
        print(write_result("exports", "Exports of the built-in detector", f"{notes}\n\n{body}"))


if __name__ == "__main__":
    main()
