"""The course's CNN on pictures whose names or folders say their class, 128 px.

    python -m yolojax.train --config configs/course_cnn.py --workdir runs/food \
        --config.data.root=/path/to/food11
    python -m yolojax.train --config configs/course_cnn.py:boss --workdir runs/boss \
        --config.data.root=/path/to/food11
    python -m yolojax.train --config configs/course_cnn.py --workdir runs/flowers \
        --config.data.root=/path/to/flowers --config.data.train.source=folder \
        --config.data.val.source=folder
    python -m yolojax.predict --weights runs/food --source /path/to/food11/test \
        --output out --submission

The recipe of the image classification exercise of Hung-yi Lee's machine learning
course: Adam at 3e-4 with an L2 decay of 1e-5, batches of 64, 8 epochs, patience 5,
gradients clipped at a norm of 10, no augmentation, seed 6666. `:boss` is what we
recommend instead: a residual network, augmentation, averaged weights, 30 epochs.

Last run, two CPU cores, 550 flowers of 5 classes: best accuracy .540, .555, .610
(seeds 6666, 1, 2); `:boss` .620, .645, .660.
Below a few hundred pictures take batches of 16: two steps an epoch teach little.
"""

from ml_collections import ConfigDict


def get_config(variant: str = "") -> ConfigDict:
    """The config; variants: `boss`, and `smoke` of a few steps."""
    c = ConfigDict()
    c.seed = 6666
    c.image_size = (128, 128)  # height, width
    c.batch_size = 64  # pictures over all devices
    c.epochs = 8
    c.max_steps = 0  # stop early after so many steps; 0: never
    c.max_hours = 0.0  # stop and finish after so many hours; 0: never
    c.devices = 0  # 0: all
    c.dtype = "float32"  # bfloat16 on GPUs and TPUs
    c.loss_scale = ConfigDict(dict(initial=32768.0, growth_steps=2000))  # of float16

    c.model = ConfigDict()
    c.model.name = "cnn11"
    c.model.num_classes = 0  # as many as the data have

    c.hyp = ""  # a YOLOv5 hyper-parameter file, which has the last word
    # weights: a run or a file; kernels: how new ones are drawn, statistics: "batches"
    # for those of the first batches in place of 0 and 1; "": as published
    c.init = ConfigDict(dict(weights="", skip=(), kernels="", statistics=""))
    # Patterns of parameter paths, or so many first layers, that stay as they are.
    c.freeze = ConfigDict(dict(match=(), layers=0, statistics=True))
    c.stages = ()  # such as (dict(epochs=10, freeze=..., lr_scale=0.1), ...)

    c.data = ConfigDict()
    c.data.root = "data/food11"  # holds train and val, or pictures to split
    # filename: <class>_<number>.jpg; folder: a folder for each class
    c.data.train = ConfigDict(dict(source="filename", root="", split="train"))
    c.data.val = ConfigDict(dict(source="filename", root="", split="val"))
    c.data.unlabelled = ConfigDict()  # pictures for pseudo-labels of classifiers
    c.data.pseudo_labels = ConfigDict(dict(threshold=0.95, every_epochs=1))
    # Of count parts of train the one at index is val; count 0: as data.val says.
    c.data.folds = ConfigDict(dict(count=0, index=0, kind="stratified", groups=""))
    c.data.max_boxes = 0  # taught boxes of a picture; 0: all
    c.data.num_threads = 0  # 0: one a core
    c.data.white = (
        0  # of 16-bit images, what becomes 255; 0: their largest value decides
    )
    c.data.decode_megabytes = 300.0  # that decoding one image may take
    c.data.cache = "encoded"  # none, encoded, disk, device
    c.data.cache_bytes = 0  # most that the cache may take; 0: what is free
    c.data.cache_dir = ""  # of the disk cache; empty: in the user's cache folder
    c.data.sampling = ConfigDict(dict(name="shuffle", fraction=1.0))
    c.data.strict = False  # True: stop when anything is wrong with the data
    c.data.allow_changes = False  # True: go on although the data changed

    c.augment = ConfigDict()
    c.augment.policy = ()
    c.augment.max_boxes = 0  # 0: enough for all that an output shows
    c.augment.pool = 0  # images of the last batches as partners; 0: of the batch
    c.augment.close_mosaic_epochs = 0
    c.augment.multi_scale = ()  # factors of image_size, such as (0.75, 1.0, 1.25)
    c.augment.boxes = ConfigDict(dict(min_side=2.0, min_share=0.1, max_aspect=100.0))
    c.augment.adversarial = ConfigDict()  # such as dict(share=0.25, epsilon=4 / 255)

    c.loss = ConfigDict()
    c.loss.name = "cross_entropy"
    c.loss.box = 0.05
    c.loss.objectness = 1.0
    c.loss.classes = 0.5
    c.loss.anchor_ratio = 4.0
    c.loss.label_smoothing = 0.0
    c.loss.focal_gamma = 0.0
    c.loss.scale_gains = True  # by levels, classes and image size, as published
    c.loss.class_weights = ()  # one a class, or "balanced"
    c.loss.parts = ConfigDict()  # such as dict(box=dict(name="siou"))
    c.loss.arguments = ConfigDict()  # of the loss itself

    c.optim = ConfigDict()
    c.optim.name = "adam"
    c.optim.learning_rate = 0.0003
    c.optim.final_ratio = 1.0
    c.optim.schedule = "constant"
    c.optim.schedule_arguments = ConfigDict()
    c.optim.momentum = 0.9
    c.optim.weight_decay = 0.00001
    c.optim.warmup_epochs = 0.0
    c.optim.warmup_min_steps = 0
    c.optim.warmup_bias_rate = 0.0
    c.optim.warmup_momentum = 0.9
    c.optim.clip_norm = 10.0
    c.optim.nominal_batch = 64
    c.optim.layer_decay = 1.0  # factor of the rate from each layer to the one before
    c.optim.groups = ()  # such as (dict(match="^head/", rate=0.1), ...)
    c.optim.transforms = ()  # such as (dict(name="clip_value", limit=1.0),)
    c.optim.lookahead = ConfigDict()  # such as dict(steps=6, share=0.5)
    c.optim.sam = ConfigDict()  # such as dict(name="sam", rho=0.05)
    c.optim.arguments = ConfigDict()

    c.ema = ConfigDict(dict(name="none", decay=0.999, ramp=100.0))
    c.swa = ConfigDict(dict(epochs=0, learning_rate=0.0))  # of the last epochs

    c.evaluate = ConfigDict()
    c.evaluate.every_epochs = 1
    c.evaluate.batch_size = 0  # 0: as in training
    c.evaluate.letterbox = "square"  # or centre_crop: the middle, as on ImageNet
    c.evaluate.score_threshold = 0.001
    c.evaluate.iou_threshold = 0.6
    c.evaluate.max_detections = 300
    c.evaluate.max_candidates = 0  # 0: the default of the non-maximum suppression
    c.evaluate.multi_label = True

    c.checkpoint = ConfigDict(
        dict(every_epochs=5, every_steps=0, keep=2, best="fitness")
    )
    # patience: evaluations without a better metric; 0: never
    c.early_stopping = ConfigDict(dict(patience=5, metric="fitness", min_change=0.0))
    c.log = ConfigDict(dict(every_steps=20, tensorboard=True, pictures=16, worst=50))
    c.message = ""  # printed when the run has finished

    if variant == "boss":
        c.epochs = 30
        c.model.name = "resnet18"
        c.init.statistics = "batches"
        c.augment.policy = (
            dict(name="random_resized_crop", smallest=0.35),
            dict(name="flip_left_right", probability=0.5),
            dict(name="hsv", hue=0.015, saturation=0.4, value=0.3),
            dict(name="cutmix", probability=0.5),
            dict(name="random_erasing", probability=0.25),
        )
        c.augment.close_mosaic_epochs = 3  # no cutmix
        c.loss.label_smoothing = 0.1
        c.optim.name = "adamw"
        c.optim.learning_rate = 0.001
        c.optim.final_ratio = 0.01
        c.optim.schedule = "cosine"
        c.optim.weight_decay = 0.05
        c.optim.warmup_epochs = 3.0
        c.ema.name = "ramp"
        c.early_stopping.patience = 10
    elif variant == "smoke":
        c.epochs = 1
        c.optim.warmup_epochs = 1.0
        c.max_steps = 2
        c.batch_size = 8
    elif variant:
        raise ValueError(f"no variant {variant!r}; choices: boss, smoke")
    return c
