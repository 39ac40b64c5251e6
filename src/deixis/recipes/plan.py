"""What labelling or training takes, printed before it runs."""

from __future__ import annotations

import json
from dataclasses import asdict

from rich.table import Table

from deixis.console import Console, print_text
from deixis.options.plan import PlanOptions
from deixis.recipes.engine.estimate import Estimate, Job, estimate


def plan(options: PlanOptions) -> Estimate:
    """Print the estimate; see docs/scale.md for its formulas and what they were checked against.

    Raises:
        OptionError: an invalid value.
    """
    options.check()
    job = job_of(options)
    found = estimate(job)
    if options.json:
        print_text(json.dumps({"job": asdict(job), "estimate": asdict(found) | {"network": found.network}}, indent=1))
        return found
    console = Console(highlight=False, soft_wrap=True)
    model = f"{options.billions:g} B segmenter" if options.billions else "Swin-T detector"
    table = Table("", "", title=f"{options.task} {options.pictures:,} pictures, {model}", show_header=False)
    for name, value in lines(job, found):
        table.add_row(name, value)
    console.print(table)
    if not found.fits:
        console.print(advice(job), markup=False)
    return found


def job_of(options: PlanOptions) -> Job:
    """The options in bytes, operations and seconds."""
    return Job(
        pictures=options.pictures,
        parameters=options.billions * 1e9,
        trains=options.task == "train",
        lora=options.lora_share,
        epochs=options.epochs,
        objects=options.objects,
        tiles=options.tiles,
        batch=options.batch_size,
        gpus=options.gpus,
        cores=options.cores,
        gpu_bytes=options.gpu_memory_gb * 1e9,
        flop_s=options.gpu_tflops * 1e12,
        bandwidth=options.gpu_bandwidth_tb_s * 1e12,
        utilisation=options.utilisation,
        price=options.price,
        picture_bytes=options.picture_mb * 1e6,
        picture_s=options.seconds_per_picture,
    )


def lines(job: Job, found: Estimate) -> list[tuple[str, str]]:
    """(what, how much) as people read it."""
    device = "GPU" if job.gpus else "core"
    memory = (
        f"{in_units(found.gpu_bytes)}B of {in_units(job.gpu_bytes)}B" if job.gpus else f"{in_units(found.gpu_bytes)}B"
    )
    rows = [
        ("time per picture on a " + device, f"{found.seconds_per_picture:.3g} s"),
        (f"time on {job.devices} {device}{'s' if job.devices > 1 else ''}", duration(found.seconds)),
        ("cost", f"{found.cost:,.2f}, {found.cost / job.pictures * 1000:,.3g} per 1,000 pictures"),
        ("memory per GPU" if job.gpus else "memory per copy", memory),
        ("pictures read", f"{found.read:,.3g} per second, {in_units(found.network)}B/s"),
        ("CPU cores that decode", f"{found.cores}"),
        ("storage of pictures", f"{in_units(job.pictures * job.picture_bytes)}B"),
        ("storage of " + ("two checkpoints" if job.trains else "results"), f"{in_units(found.result_bytes)}B"),
        ("memory of the index" if job.trains else "memory of the list", f"{in_units(found.driver_bytes)}B"),
    ]
    if found.exchanged:
        rows.insert(5, ("network between GPUs, each", f"{in_units(found.exchanged)}B/s"))
    return rows


def advice(job: Job) -> str:
    """What helps where it does not fit."""
    if not job.trains:
        return "It does not fit: labelling needs a copy of the model on one GPU; a smaller model, or --batch-size 1"
    more = "" if job.lora < 1 else ", LoRA (--lora-share 0.01)"
    return f"It does not fit: more --gpus, a smaller --batch-size, fewer --tiles{more}"


def in_units(value: float) -> str:
    """A number of bytes with its unit, without the B.

    >>> in_units(0), in_units(999), in_units(25.6e9), in_units(3e16)
    ('0 ', '999 ', '25.6 G', '30,000 T')
    """
    for unit, size in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= size:
            return f"{value / size:.3g} {unit}" if value < 1000 * size else f"{value / size:,.0f} {unit}"
    return f"{value:.3g} "


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(0.5), duration(90), duration(90 * 3600), duration(400 * 86400)
    ('0.5 s', '1.5 minutes', '3.75 days', '400 days')
    """
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.25 * size:
            return f"{seconds / size:.3g} {unit}" if seconds < 1000 * size else f"{seconds / size:,.0f} {unit}"
    return f"{seconds:.3g} s"
