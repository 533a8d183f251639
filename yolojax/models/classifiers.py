"""Classifiers by name."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp

from yolojax.lookup import check_arguments, pick
from yolojax.models.classifier import Classifier
from yolojax.models.cnn import CNN, build_cnn
from yolojax.models.convnext import CONVNEXT, build_convnext
from yolojax.models.cspnets import CSPNETS, build_cspnet
from yolojax.models.darknets import DARKNETS, build_darknet_classifier
from yolojax.models.efficientnet import EFFICIENTNET, build_efficientnet
from yolojax.models.googlenet import GOOGLENET, build_googlenet
from yolojax.models.inception import INCEPTION, build_inception
from yolojax.models.layers import activate
from yolojax.models.mobilenet import MOBILENET, build_mobilenet
from yolojax.models.normalised import normalised
from yolojax.models.resnet import RESNET, build_resnet
from yolojax.models.squeezenet import SQUEEZENET, build_squeezenet
from yolojax.models.vgg import ALEXNET, VGG, build_alexnet, build_vgg
from yolojax.models.yolov5_cls import YOLOV5_CLS, build_yolov5_cls

# Name -> builder; its keyword arguments are those of `config.model`.
CLASSIFIERS: dict[str, Callable[..., Classifier]] = {
    **{name: functools.partial(build_cnn, name) for name in CNN},
    **{name: functools.partial(build_resnet, name) for name in RESNET},
    **{name: functools.partial(build_vgg, name) for name in VGG},
    **{name: functools.partial(build_alexnet, name) for name in ALEXNET},
    **{name: functools.partial(build_darknet_classifier, name) for name in DARKNETS},
    **{name: functools.partial(build_cspnet, name) for name in CSPNETS},
    **{name: functools.partial(build_googlenet, name) for name in GOOGLENET},
    **{name: functools.partial(build_inception, name) for name in INCEPTION},
    **{name: functools.partial(build_mobilenet, name) for name in MOBILENET},
    **{name: functools.partial(build_efficientnet, name) for name in EFFICIENTNET},
    **{name: functools.partial(build_convnext, name) for name in CONVNEXT},
    **{name: functools.partial(build_squeezenet, name) for name in SQUEEZENET},
    **{name: functools.partial(build_yolov5_cls, name) for name in YOLOV5_CLS},
}


def build_classifier(
    name: str, *, normalise: str | Mapping[str, Any] = "unit", **arguments: Any
) -> Classifier:
    """The classifier called `name`.

    Args:
        name: an entry of `CLASSIFIERS`.
        normalise: see `normalised`.
        **arguments: of the entry's builder; all take `num_classes`, at least 1,
            `dtype` and `activation`.

    Raises:
        ValueError: an unknown name or argument, or one that does not fit.
    """
    build = pick(CLASSIFIERS, name, "model")
    check_arguments(build, arguments, f"model {name!r}")
    if "activation" in arguments:
        check_activation(arguments["activation"], name)
    return normalised(build(**arguments), normalise)


def check_activation(activation: str, name: str) -> None:
    """Check the name of an activation.

    Raises:
        ValueError: it is no name, or an unknown one.
    """
    if not isinstance(activation, str):
        raise ValueError(f"activation of {name} must be a name, not {activation!r}")
    activate(jnp.zeros(1), activation)
