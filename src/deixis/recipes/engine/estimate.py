"""What labelling or training takes before it runs: pure functions of a plan's numbers (docs/scale.md has the formulas).

Units: bytes, floating point operations (FLOP), seconds; a multiply-add is two operations.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

# Measured here; each names its file in benchmarks/results.
DETECTOR_FORWARD_FLOP = 194.7e9  # Swin-T at 480 x 640: detector_parts_amd-epyc-2-cores_2026-11-21
DETECTOR_STEP_FLOP = 464.6e9  # the same, a training step with frozen backbones
CPU_CORE_FLOP_S = 57.7e9  # that forward pass on two cores in 1.69 s: detector_frozen_fp32_batch1_forward_intel-...
DETECTOR_STEP_BYTES = (
    1238 * 2**20
)  # its peak beyond the weights, a picture: detector_frozen_fp32_batch1_memory_intel-...
DECODED_PER_CORE_S = 88.5  # photographs to model input: data_path_800_intel-xeon-2-cores_2026-11-27
INDEX_BYTES = 241  # of a picture in an index of shards: shards_amd-epyc-2-cores_2026-11-29 (ten million records)
ITEM_BYTES = 376  # of a picture in the list of the process that starts a Ray run: plan_amd-epyc-2-cores_2026-11-29
ROW_BYTES, OBJECT_BYTES = 14, 71  # of a picture, and of a box, in rows/*.parquet: plan_amd-epyc-2-cores_2026-11-29
MASK_BYTES = 600  # of a mask as RLE with its caption: an assumption, masks differ
# Of the models' papers and configurations; not measured here.
DETECTOR_PARAMETERS = 0.172e9
SAM_PARAMETERS, SAM_TOKENS = 0.22e9, 4096  # SAM 2 Large at 1024 px, patches of 16
TILE_TOKENS, TEXT_TOKENS, ANSWER_TOKENS = 256, 128, 24
VOCABULARY = 150_000
LAYER_BYTES_PER_VALUE = 34  # of a layer's activations, in 16 bits: Korthikanti et al., arXiv 2205.05198, equation 2
HEADROOM = 1.15  # fragmentation, and what libraries hold


@dataclass(frozen=True)
class Job:
    """What is to be done, and on what.

    Attributes:
        parameters: of the language model with its vision encoder; 0 for a Swin-T detector.
        trains: train instead of label.
        lora: share of the parameters that train; 1 trains all.
        gpus: 0 computes on `cores`.
        flop_s: of one GPU, as its data sheet says for 16 bits; utilisation: the share of it that is reached.
        bandwidth: of one GPU's memory, bytes a second.
        picture_s: seconds per picture on one device, where the user has measured it.
    """

    pictures: int
    parameters: float = 8e9
    trains: bool = False
    lora: float = 1.0
    epochs: int = 1
    objects: int = 5
    tiles: int = 6
    batch: int = 4
    gpus: int = 8
    cores: int = 64
    gpu_bytes: float = 80e9
    flop_s: float = 400e12
    bandwidth: float = 2e12
    utilisation: float = 0.3
    price: float = 0.0
    picture_bytes: float = 300e3
    picture_s: float | None = None

    @property
    def devices(self) -> int:
        """GPUs, or CPU cores without."""
        return self.gpus or self.cores

    @property
    def tokens(self) -> int:
        """Of a picture in the language model: its tiles and one of the whole, and the question."""
        return (self.tiles + (self.tiles > 1)) * TILE_TOKENS + TEXT_TOKENS


def shape_of(parameters: float) -> tuple[int, int]:
    """(layers, width) of a usual transformer of that size: 12 · layers · width² parameters.

    >>> shape_of(8e9), shape_of(26e9)
    ((32, 4564), (47, 6790))
    """
    layers = max(1, round(32 * (parameters / 8e9) ** (1 / 3)))
    return layers, max(1, round(math.sqrt(parameters / 12 / layers)))


def flop_per_picture(job: Job) -> float:
    """Operations for one picture, once.

    >>> flop_per_picture(Job(1, parameters=0)) == DETECTOR_FORWARD_FLOP
    True
    """
    if not job.parameters:
        return DETECTOR_STEP_FLOP if job.trains else DETECTOR_FORWARD_FLOP
    sam = 2 * SAM_PARAMETERS * SAM_TOKENS
    if job.trains:  # forward, forward again (checkpointing), gradients of activations and of what trains
        return (6 + 2 * job.lora) * job.parameters * (job.tokens + job.objects * ANSWER_TOKENS) + sam
    # the picture once; each object is described, and its caption segmented
    return 2 * job.parameters * (job.tokens + 2 * job.objects * (TEXT_TOKENS + ANSWER_TOKENS)) + sam


def seconds_per_picture(job: Job) -> float:
    """On one device; words are generated one at a time, for which the memory's bandwidth counts."""
    if job.picture_s is not None:
        return job.picture_s
    if not job.gpus:
        return flop_per_picture(job) / CPU_CORE_FLOP_S
    seconds = flop_per_picture(job) / (job.flop_s * job.utilisation)
    if job.parameters and not job.trains:
        together = min(job.batch, job.objects) or 1
        seconds += math.ceil(job.objects / together) * ANSWER_TOKENS * 2 * job.parameters / job.bandwidth
    return seconds


def bytes_per_gpu(job: Job) -> float:
    """Memory at the peak, of a training sharded over all GPUs, or of one copy of the model that labels."""
    layers, width = shape_of(job.parameters or DETECTOR_PARAMETERS)
    if not job.parameters:
        state = (16 if job.trains else 4) * DETECTOR_PARAMETERS
        return HEADROOM * (state + job.batch * DETECTOR_STEP_BYTES * (1.0 if job.trains else 0.5))
    layer = LAYER_BYTES_PER_VALUE * job.tokens * width
    if not job.trains:
        cache = 2 * 2 * layers * width / 4 * (job.tokens + ANSWER_TOKENS)  # keys and values, of a quarter of the heads
        return HEADROOM * (2 * job.parameters + 4 * SAM_PARAMETERS + cache * job.batch + layer)
    shards = max(1, job.gpus)
    state = (2 * job.parameters + 14 * job.lora * job.parameters) / shards  # 16 bits; master, two moments, gradient
    gathered = 2 * 2 * job.parameters / layers  # one layer whole, and the next one on its way
    kept = 2 * layers * job.tokens * width * job.batch  # checkpoints between layers
    logits = 3 * 4 * TEXT_TOKENS * VOCABULARY * job.batch  # with softmax and gradient, of the words alone
    return HEADROOM * (state + gathered + kept + layer * job.batch + logits + 4 * SAM_PARAMETERS)


@dataclass(frozen=True)
class Estimate:
    """What a job takes; bytes, seconds, and the price's currency.

    Attributes:
        read: pictures a second over all devices, and bytes a second of them.
        exchanged: bytes a second that each GPU exchanges with the others while it trains.
        cores: CPU cores that decode pictures as fast as they are needed.
        fits: whether the peak is within a GPU's memory; True without GPUs.
    """

    seconds_per_picture: float
    seconds: float
    cost: float
    gpu_bytes: float
    fits: bool
    read: float
    exchanged: float
    cores: int
    picture_bytes: float
    result_bytes: float
    driver_bytes: float

    @property
    def network(self) -> float:
        """Bytes of pictures read a second."""
        return self.read * self.picture_bytes


def estimate(job: Job) -> Estimate:
    """All of it.

    >>> round(estimate(Job(1_000_000, parameters=0, picture_s=0.1, gpus=10, price=2.0)).cost, 2)
    55.56
    """
    each = seconds_per_picture(job)
    seconds = math.ceil(job.pictures / job.devices) * job.epochs * each  # the last device to finish counts
    read = job.devices / each if each else 0.0
    layers_moved = 2 * 2 * job.parameters + 2 * job.lora * job.parameters  # gathered twice, gradients reduced once
    step_s = each * job.batch
    exchanged = layers_moved * (job.gpus - 1) / job.gpus / step_s if job.trains and job.gpus > 1 and step_s else 0.0
    peak = bytes_per_gpu(job)
    per_object = (OBJECT_BYTES + MASK_BYTES) if job.parameters else OBJECT_BYTES
    labels = job.pictures * (ROW_BYTES + job.objects * per_object)
    state = 2 * (2 + 14 * job.lora) * (job.parameters or DETECTOR_PARAMETERS)  # the last and the best checkpoint
    return Estimate(
        seconds_per_picture=each,
        seconds=seconds,
        cost=seconds / 3600 * job.devices * job.price,
        gpu_bytes=peak,
        fits=not job.gpus or peak <= job.gpu_bytes,
        read=read,
        exchanged=exchanged,
        cores=math.ceil(read / DECODED_PER_CORE_S),
        picture_bytes=job.picture_bytes,
        result_bytes=state if job.trains else labels,
        driver_bytes=job.pictures * (INDEX_BYTES if job.trains else ITEM_BYTES),
    )
