"""Weights from elsewhere as a working directory, or ours as a file.

    python -m yolojax.convert --weights yolov5n.pt --output runs/yolov5n
    python -m yolojax.convert --weights yolov4.weights --output runs/yolov4
    python -m yolojax.convert --weights runs/x --to x.safetensors

Reads weights of YOLOv5 v6.0, of other networks of which the file has YOLOv5's
description, and of classifiers of torchvision and timm, from PyTorch's .pt and .pth
and from .safetensors, without PyTorch and without running what is in the file; and
Darknet's .weights by the .cfg beside, or by --cfg. --to writes a state dict under the
original's names, or, for a Darknet network, a .weights file with its .cfg and .names
beside. Converted weights keep their licence.
"""

from absl import flags

from yolojax import command

flags.DEFINE_string("weights", None, "A file; for --to also a workdir or checkpoint.")
flags.DEFINE_string("output", None, "The working directory to write.")
flags.DEFINE_string("to", None, "The .safetensors or .weights file to write.")
flags.DEFINE_string(
    "cfg", "", "The .cfg of a .weights file, or the name of a published network."
)


def main() -> int:
    """Convert as the flags say."""
    from yolojax import converting

    given = command.FLAGS
    if not given.output and not given.to:
        raise ValueError("give --output DIR or --to FILE.safetensors (or .weights)")
    if given.output:
        print(converting.convert(given.weights, given.output, cfg=given.cfg))
        print(f"written: {given.output}, which --weights takes")
    if given.to:
        print(converting.export(given.weights, given.to, cfg=given.cfg))
    return 0


if __name__ == "__main__":
    flags.mark_flags_as_required(["weights"])
    command.run(main, usage=__doc__)
