"""YOLOv3-tiny or YOLOv4-tiny with their own losses, on handwritten digits.

    python -m yolojax.train --config configs/darknet.py:v3 --workdir runs/v3
    python -m yolojax.train --config configs/darknet.py:v4 --workdir runs/v4

The gains, thresholds, learning rate, momentum and decay are those of the published
descriptions; `python -m yolojax.info --config ... --config.model.name=yolov4-csp
--config.model.num_classes=80` prints those of another network.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The config; variants `v3` (the default) and `v4`; `smoke` runs a few steps."""
    c = ConfigDict()
    c.seed = 0
    c.image_size = (128, 128)  # height, width; multiples of 32
    c.batch_size = 32  # pictures over all devices
    c.epochs = 16
    c.max_steps = 0  # stop early after so many steps; 0: never
    c.max_hours = 0.0  # stop and finish after so many hours; 0: never
    c.devices = 0  # 0: all
    c.dtype = "float32"  # bfloat16 on GPUs and TPUs
    c.loss_scale = ConfigDict(dict(initial=32768.0, growth_steps=2000))  # of float16

    c.model = ConfigDict()
    c.model.name = "yolov3-tiny"
    c.model.num_classes = 10
    # k-means of the digits' widths and heights.
    c.model.anchors = (
        ((13, 23), (17, 30), (21, 38)),
        ((22, 43), (27, 41), (30, 50)),
    )

    c.hyp = ""  # a YOLOv5 hyper-parameter file, which has the last word
    # weights: a run or a file; kernels: how new ones are drawn, statistics: "batches"
    # for those of the first batches in place of 0 and 1; "": as published
    c.init = ConfigDict(dict(weights="", skip=(), kernels="", statistics=""))
    # Patterns of parameter paths, or so many first layers, that stay as they are.
    c.freeze = ConfigDict(dict(match=(), layers=0, statistics=True))
    c.stages = ()  # such as (dict(epochs=10, freeze=..., lr_scale=0.1), ...)

    c.data = ConfigDict()
    c.data.root = ""
    c.data.train = ConfigDict(
        dict(source="digits", split="train", size=128, length=1600, seed=0)
    )
    c.data.val = ConfigDict(
        dict(source="digits", split="val", size=128, length=200, seed=0)
    )
    c.data.unlabelled = ConfigDict()  # pictures for pseudo-labels of classifiers
    c.data.pseudo_labels = ConfigDict(dict(threshold=0.95, every_epochs=1))
    # Of count parts of train the one at index is val; count 0: as data.val says.
    c.data.folds = ConfigDict(dict(count=0, index=0, kind="stratified", groups=""))
    c.data.max_boxes = 8  # taught boxes of a picture; 0: all
    c.data.num_threads = 0  # 0: one a core
    c.data.white = (
        0  # of 16-bit images, what becomes 255; 0: their largest value decides
    )
    c.data.decode_megabytes = 300.0  # that decoding one image may take
    c.data.cache = "none"  # none, encoded, disk, device
    c.data.cache_bytes = 0  # most that the cache may take; 0: what is free
    c.data.cache_dir = ""  # of the disk cache; empty: in the user's cache folder
    c.data.sampling = ConfigDict(dict(name="shuffle", fraction=1.0))
    c.data.strict = False  # True: stop when anything is wrong with the data
    c.data.allow_changes = False  # True: go on although the data changed

    c.augment = ConfigDict()
    c.augment.policy = (
        dict(name="mosaic", probability=0.5),
        dict(name="affine", scale=0.3, translate=0.1),
        dict(name="hsv", hue=0.015, saturation=0.7, value=0.4),
    )
    c.augment.max_boxes = 0  # 0: enough for all that an output shows
    c.augment.pool = 0  # images of the last batches as partners; 0: of the batch
    c.augment.close_mosaic_epochs = 3
    c.augment.multi_scale = ()  # factors of image_size, such as (0.75, 1.0, 1.25)
    c.augment.boxes = ConfigDict(dict(min_side=2.0, min_share=0.1, max_aspect=100.0))
    c.augment.adversarial = ConfigDict()  # such as dict(share=0.25, epsilon=4 / 255)

    c.loss = ConfigDict()
    c.loss.name = "yolov3"
    c.loss.box = 1.0
    c.loss.objectness = 1.0
    c.loss.classes = 1.0
    c.loss.anchor_ratio = 4.0  # of yolov5 only
    c.loss.label_smoothing = 0.0
    c.loss.focal_gamma = 0.0
    c.loss.scale_gains = False  # of yolov5 only
    c.loss.class_weights = ()  # one a class, or "balanced"
    c.loss.parts = ConfigDict()  # such as dict(box=dict(name="siou"))
    c.loss.arguments = ConfigDict(dict(ignore_threshold=0.7))  # of the loss itself

    c.optim = ConfigDict()
    c.optim.name = "sgd"
    c.optim.learning_rate = 0.001
    c.optim.final_ratio = 0.01
    c.optim.schedule = "cosine"
    c.optim.schedule_arguments = ConfigDict()
    c.optim.momentum = 0.9
    c.optim.weight_decay = 0.0005
    c.optim.warmup_epochs = 2.0
    c.optim.warmup_min_steps = 50
    c.optim.warmup_bias_rate = 0.0
    c.optim.warmup_momentum = 0.9
    c.optim.clip_norm = 0.0  # no limit
    c.optim.nominal_batch = 64
    c.optim.layer_decay = 1.0  # factor of the rate from each layer to the one before
    c.optim.groups = ()  # such as (dict(match="^head/", rate=0.1), ...)
    c.optim.transforms = ()  # such as (dict(name="clip_value", limit=1.0),)
    c.optim.lookahead = ConfigDict()  # such as dict(steps=6, share=0.5)
    c.optim.sam = ConfigDict()  # such as dict(name="sam", rho=0.05)
    c.optim.arguments = ConfigDict()

    c.ema = ConfigDict(dict(name="ramp", decay=0.99, ramp=100.0))
    c.swa = ConfigDict(dict(epochs=0, learning_rate=0.0))  # of the last epochs

    c.evaluate = ConfigDict()
    c.evaluate.every_epochs = 4
    c.evaluate.batch_size = 0  # 0: as in training
    c.evaluate.letterbox = "square"  # or rectangular: a canvas for each batch
    c.evaluate.score_threshold = 0.001
    c.evaluate.iou_threshold = 0.6
    c.evaluate.max_detections = 100
    c.evaluate.max_candidates = 0  # 0: the default of the non-maximum suppression
    c.evaluate.multi_label = True

    c.checkpoint = ConfigDict(
        dict(every_epochs=2, every_steps=0, keep=2, best="fitness")
    )
    # patience: evaluations without a better metric; 0: never
    c.early_stopping = ConfigDict(dict(patience=0, metric="fitness", min_change=0.0))
    c.log = ConfigDict(dict(every_steps=10, tensorboard=True, pictures=16, worst=50))
    c.message = ""  # printed when the run has finished

    if variant == "v4":
        c.model.name = "yolov4-tiny"
        c.loss.name = "yolov4"
        c.loss.box = 0.07
        c.loss.arguments = ConfigDict(dict(ignore_threshold=0.7, match_threshold=0.213))
        c.optim.learning_rate = 0.00261
    elif variant == "smoke":
        c.epochs = 1
        c.optim.warmup_epochs = 1.0
        c.max_steps = 3
        c.data.train.length = 96
        c.data.val.length = 32
    elif variant not in ("", "v3"):
        raise ValueError(f"no variant {variant!r}; choices: v3, v4, smoke")
    return c
