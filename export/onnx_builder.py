"""A thin layer over onnx-ir, in which names of nodes and initializers are paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import BinaryIO

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OPSET = 21
MICROSOFT = "com.microsoft"

Attribute = int | float | str | Sequence[int] | ir.Graph | ir.DataType | ir.TensorProtocol


class GraphBuilder:
    """Collects the nodes of a graph in order; `scope` adds a prefix to their names.

    Constants and weights become initializers of the outermost graph, where subgraphs can use them.
    """

    def __init__(self, root: GraphBuilder | None = None, path: Sequence[str] = ()) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {} if root is None else root.initializers
        self._written_last: set[str] = set() if root is None else root._written_last
        self._path: list[str] = list(path)
        self._names: set[str] = set() if root is None else root._names

    def body(self) -> GraphBuilder:
        """Return a builder for a subgraph in the current scope."""
        return GraphBuilder(self, self._path)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefix all names within the block with `name`."""
        self._path.append(name)
        yield
        self._path.pop()

    def op(
        self, kind: str, *inputs: ir.Value | None, name: str = "", domain: str = "", **attributes: Attribute
    ) -> ir.Value:
        """Add a node of operator `kind` and return its only output; inputs of None are omitted."""
        return self.ops(kind, *inputs, name=name, domain=domain, outputs=1, **attributes)[0]

    def ops(
        self,
        kind: str,
        *inputs: ir.Value | None,
        outputs: int,
        name: str = "",
        domain: str = "",
        **attributes: Attribute,
    ) -> Sequence[ir.Value]:
        """Add a node of operator `kind` and return its `outputs` outputs; inputs of None are omitted."""
        path = self.unique_name(name or kind)
        names = [path] if outputs == 1 else [f"{path}.{index}" for index in range(outputs)]
        node = ir.Node(
            domain,
            kind,
            inputs,
            [_attribute(key, value) for key, value in attributes.items()],
            outputs=[ir.Value(name=output) for output in names],
            name=path,
        )
        self.nodes.append(node)
        return node.outputs

    def constant(
        self, values: Sequence[int] | Sequence[Sequence[int]] | int, dtype: type[np.generic] = np.int64
    ) -> ir.Value:
        """Return an integer constant; equal constants share an initializer."""
        array = np.asarray(values, dtype=dtype)
        name = f"constant.{array.dtype}.{'x'.join(map(str, array.shape))}.{'_'.join(map(str, array.ravel()))}"
        return self.initializers.get(name) or self._add(name, ir.tensor(array, name=name))

    def scalar(self, value: float, dtype: ir.DataType) -> ir.Value:
        """Return a floating-point scalar; equal scalars share an initializer."""
        name = f"constant.{dtype.name.lower()}.{value!r}"
        return self.initializers.get(name) or self._add(name, ir.tensor(np.asarray(value, dtype.numpy()), name=name))

    def table(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """Return an initializer with the values `array`, named `name` without the scope's prefix."""
        return self.initializers.get(name) or self._add(name, ir.tensor(array, name=name))

    def weight(
        self, name: str, shape: Sequence[int], dtype: ir.DataType, load: Callable[[], NDArray[np.generic]]
    ) -> ir.Value:
        """Return an initializer whose values are computed when the model is written, and not kept in memory.

        A second call in the same scope, by another branch of the graph, returns the same initializer. Raises ValueError
        if its shape or type differs.
        """
        return self.weight_in_parts(name, shape, dtype, lambda: iter([load()]))

    def weight_in_parts(
        self,
        name: str,
        shape: Sequence[int],
        dtype: ir.DataType,
        load_parts: Callable[[], Iterator[NDArray[np.generic]]],
        *,
        written_last: bool = False,
    ) -> ir.Value:
        """Return a weight like `weight`, of which only one part of consecutive rows is in memory at a time.

        `written_last` puts it behind all weights without it in the data file.
        """
        path = self.path(name)
        known = self.initializers.get(path)
        if known is not None:
            if known.shape != ir.Shape(shape) or known.dtype != dtype:
                raise ValueError(f"{path}: two weights of this name")
            return known

        def parts() -> Iterator[NDArray[np.generic]]:
            for part in load_parts():
                yield np.ascontiguousarray(part, dtype=dtype.numpy())

        if written_last:
            self._written_last.add(path)
        return self._add(path, _TensorOfParts(parts, dtype=dtype, shape=ir.Shape(shape), name=path))

    def ordered_initializers(self) -> list[ir.Value]:
        """Return all initializers in the order in which they are written."""
        return sorted(self.initializers.values(), key=lambda value: value.name in self._written_last)

    def _add(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tuple(tensor.shape.numpy())), const_value=tensor
        )
        self.initializers[name] = value
        return value

    def path(self, name: str) -> str:
        """Return `name` in the current scope."""
        return ".".join([*self._path, name])

    def unique_name(self, name: str) -> str:
        """Return `name` in the current scope, with a number if it is already used."""
        path = self.path(name)
        candidate, count = path, 1
        while candidate in self._names:
            count += 1
            candidate = f"{path}_{count}"
        self._names.add(candidate)
        return candidate


class _TensorOfParts(ir.LazyTensor):
    """A tensor that is written to a file part by part."""

    def __init__(
        self, parts: Callable[[], Iterator[NDArray[np.generic]]], *, dtype: ir.DataType, shape: ir.Shape, name: str
    ) -> None:
        super().__init__(
            lambda: ir.Tensor(np.concatenate(list(parts())).reshape(shape.numpy()), name=name),
            dtype=dtype,
            shape=shape,
            name=name,
        )
        self._parts = parts

    def tofile(self, file: BinaryIO) -> None:
        """Write the bytes of all parts."""
        for part in self._parts():
            file.write(part.reshape(-1).view(np.uint8).data)


def _attribute(key: str, value: Attribute) -> ir.Attr:
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(key, value)
    if isinstance(value, ir.DataType):
        return ir.AttrInt64(key, int(value))
    attribute: ir.Attr = ir.convenience.convert_attribute(key, value)
    return attribute
