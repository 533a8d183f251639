"""Networks that a description lists layer by layer.

A description, of whatever form, is read into a `GraphSpec`; `Graph` runs its nodes in
their order. A node's parameters are at `<part>/<name>`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from yolojax.models.dropping import check_rate, linear_rates
from yolojax.models.layers import wide_dtype
from yolojax.models.model import Model
from yolojax.ops.grid import Decoding


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """One layer of a network.

    Attributes:
        kind: an entry of the spec's `kinds`.
        inputs: the nodes that it takes, as indices; -1 is the picture.
        arguments: of the module, by keyword, besides `dtype` and `name`.
        part: of the network, which its parameters' paths start with.
        name: unique within the part.
        where: its place in the description, for messages.
    """

    kind: str
    inputs: tuple[int, ...]
    arguments: Mapping[str, Any]
    part: str
    name: str
    where: str = ""


@dataclasses.dataclass(frozen=True, eq=False)
class GraphSpec:
    """A detector as a list of layers.

    Attributes:
        nodes: each takes earlier ones only; those of the head are taken by none.
        outputs: the nodes that give raw maps, finest level first.
        kinds: from a node's kind to its module, called as
            `module(*maps, train=train)`.
        strides: pixels per cell of every level.
        features: channels of the maps that the head sees.
        anchors: (width, height) in pixels per level and anchor.
        priors: all anchors, also those of no level.
        decoding: how raw maps become boxes.
        num_classes: classes that the head tells apart.
        max_stride: the largest stride of any layer.
    """

    nodes: tuple[Node, ...]
    outputs: tuple[int, ...]
    kinds: Mapping[str, type[nn.Module]]
    strides: tuple[int, ...]
    features: tuple[int, ...]
    anchors: tuple[tuple[tuple[float, float], ...], ...]
    priors: tuple[tuple[float, float], ...]
    decoding: Decoding
    num_classes: int
    max_stride: int

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of the network in their order, the head last."""
        names = dict.fromkeys(node.part for node in self.nodes)
        return (*(name for name in names if name != "head"), "head")


class AnchorMap(nn.Module):
    """A raw map [b, gh, gw, a, 5 + c], by a 1x1 convolution with bias.

    Attributes:
        num_anchors: a.
        num_classes: c.
        dtype: of the computation; the map is float32 at least.
    """

    num_anchors: int
    num_classes: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        del train
        outputs = self.num_classes + 5
        ends = (x.shape[-1], self.num_anchors * outputs)
        zeros, dtype = nn.initializers.zeros, jnp.dtype(self.dtype)
        kernel = self.param("kernel", zeros, ends, jnp.float32).astype(dtype)
        bias = self.param("bias", zeros, ends[1:], jnp.float32).astype(dtype)
        y = x.astype(dtype) @ kernel
        y = y + bias.reshape((1,) * (y.ndim - 1) + (-1,))
        y = y.astype(wide_dtype(self.dtype))
        return y.reshape(*y.shape[:-1], self.num_anchors, outputs)


class Part(nn.Module):
    """The nodes of one part; adds their maps to those that there are."""

    spec: GraphSpec
    part: str
    dtype: str = "float32"

    @nn.compact
    def __call__(
        self, images: jax.Array, maps: Mapping[int, jax.Array], *, train: bool
    ) -> dict[int, jax.Array]:
        maps = dict(maps)
        for index, node in enumerate(self.spec.nodes):
            if node.part != self.part:
                continue
            module = self.spec.kinds[node.kind](
                **node.arguments, dtype=self.dtype, name=node.name
            )
            inputs = [images if i < 0 else maps[i] for i in node.inputs]
            maps[index] = module(*inputs, train=train)
        return maps


class Graph(nn.Module):
    """The whole network: pictures [b, h, w, 3] in [0, 1] to raw maps per level."""

    spec: GraphSpec
    dtype: str = "float32"

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool) -> tuple[jax.Array, ...]:
        maps: dict[int, jax.Array] = {}
        for name in self.spec.parts:
            part = Part(self.spec, name, self.dtype, name=name)
            maps = part(images, maps, train=train)
        return tuple(maps[index] for index in self.spec.outputs)


def with_drop_path(
    spec: GraphSpec, last: float, blocks: Callable[[Node], int], name: str
) -> Any:
    """The spec whose residual branches are left out at random in training.

    Args:
        spec: the layers.
        last: rate of the last block; see `dropping.linear_rates`.
        blocks: from a node to how many blocks with a shortcut it has.
        name: of the network, for messages.

    Raises:
        ValueError: a rate out of range, or no such block.
    """
    check_rate(last, f"drop_path of {name}")
    if not last:
        return spec
    counts = [blocks(node) for node in spec.nodes]
    if not sum(counts):
        raise ValueError(
            f"drop_path of {name} is {last}, but no block of the backbone has a "
            "shortcut, past which it could be left out"
        )
    rates, nodes = linear_rates(float(last), sum(counts)), []
    for node, count in zip(spec.nodes, counts, strict=True):
        own, rates = rates[:count], rates[count:]
        if count:
            kind: Any = spec.kinds[node.kind]
            rate = own if isinstance(kind.drop_path, tuple) else own[0]
            arguments = {**node.arguments, "drop_path": rate}
            node = dataclasses.replace(node, arguments=arguments)
        nodes.append(node)
    return dataclasses.replace(spec, nodes=tuple(nodes))


def graph_model(spec: GraphSpec, *, name: str, family: str, dtype: str) -> Model:
    """The detector of a spec.

    Args:
        spec: the layers.
        name: as in `MODELS`.
        family: `yaml` or `darknet`.
        dtype: of the computation.
    """
    return Model(
        name=name,
        family=family,
        num_classes=spec.num_classes,
        strides=spec.strides,
        anchors=np.asarray(spec.anchors, np.float32),
        priors=np.asarray(spec.priors, np.float32),
        decoding=spec.decoding,
        levels=tuple(spec.nodes[index].name for index in spec.outputs),
        max_stride=spec.max_stride,
        feature_info=tuple(zip(spec.features, spec.strides, strict=True)),
        dtype=dtype,
        spec=spec,
        module=Graph(spec, dtype),
    )
