"""`deixis demo` and `deixis demo refer`: the whole job on the built-in models and generated scenes."""

from __future__ import annotations

from deixis.options.demo import DemoOptions, ReferDemoOptions
from deixis.options.detect_train import DetectTrainOptions
from deixis.options.refer_train import ReferTrainOptions
from deixis.recipes.detect.train import finetune
from deixis.recipes.refer.train import finetune_segmenter


def demo(options: DemoOptions) -> None:
    """Fine-tune the built-in detector on new names."""
    finetune(demo_training(options))


def demo_refer(options: ReferDemoOptions) -> None:
    """Fine-tune the built-in segmenter on new shapes."""
    finetune_segmenter(demo_refer_training(options))


def demo_training(options: DemoOptions) -> DetectTrainOptions:
    """The demo as what it is: a training run."""
    return DetectTrainOptions(
        data=(f"scenes:split=demo_train,count={options.images},seed=1",),
        val_data="scenes:split=demo_val,count=30,seed=4",
        test_data="scenes:split=demo_val,count=60,seed=2",
        model="builtin",
        output=options.output,
        forgetting_data="scenes:split=unseen_pairs,count=60,seed=3",
        experiment_name="demo",
        recipe="small",
        epochs=options.epochs,
        batch_size=8,
        learning_rate=4e-4,
        schedule="cosine",
        augment="flips",  # the scenes vary in size themselves
        seed=options.seed,
        overwrite=True,
    )


def demo_refer_training(options: ReferDemoOptions) -> ReferTrainOptions:
    """The demo as what it is: a training run. Few weights and unknown words: all of them train."""
    return ReferTrainOptions(
        data=(f"scenes:split=refer_demo_train,count={options.images},seed=1",),
        val_data=("scenes:split=refer_demo_val,count=20,seed=4",),
        test_data=("scenes:split=refer_demo_val,count=40,seed=2",),
        model="builtin",
        output=options.output,
        experiment_name="demo_refer",
        epochs=options.epochs,
        evaluate_every=2,
        batch_size=8,
        learning_rate=5e-4,
        lora=False,
        train=("vision", "projector", "text_hidden_fcs", "sam_encoder", "mask_decoder"),
        train_embeddings=True,
        weight_dice=2.0,
        weight_point=4.0,  # as the built-in was trained
        mask_points=0,
        max_masks=6,
        max_tiles=1,
        seed=options.seed,
        overwrite=True,
    )
