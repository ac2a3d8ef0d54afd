"""A thin layer over onnx-ir: nodes and initializers whose names are paths."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

OPSET = 21
MICROSOFT = "com.microsoft"

Attribute = int | float | str | Sequence[int] | ir.Graph | ir.DataType | ir.TensorProtocol


class GraphBuilder:
    """Collects nodes in order; `scope` makes the prefix of their names.

    Constants and weights become initializers of the outermost graph, so a loop body shares them.
    """

    def __init__(self, root: GraphBuilder | None = None, path: Sequence[str] = ()) -> None:
        self.nodes: list[ir.Node] = []
        self.initializers: dict[str, ir.Value] = {} if root is None else root.initializers
        self._path: list[str] = list(path)
        self._names: set[str] = set() if root is None else root._names

    def body(self) -> GraphBuilder:
        """A builder for the nodes of a loop body in the present scope."""
        return GraphBuilder(self, self._path)

    @contextmanager
    def scope(self, name: str) -> Iterator[None]:
        """Prefixes every name inside with `name`."""
        self._path.append(name)
        yield
        self._path.pop()

    def op(
        self, kind: str, *inputs: ir.Value | None, name: str = "", domain: str = "", **attributes: Attribute
    ) -> ir.Value:
        """The only output of a new node `kind`; an input of None is left out."""
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
        """All `outputs` of a new node `kind`."""
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
        """A small integer constant; equal ones are shared."""
        array = np.asarray(values, dtype=dtype)
        name = f"constant.{array.dtype}.{'x'.join(map(str, array.shape))}.{'_'.join(map(str, array.ravel()))}"
        return self.initializers.get(name) or self._add(name, ir.tensor(array, name=name))

    def scalar(self, value: float, dtype: ir.DataType) -> ir.Value:
        """A floating-point scalar; equal ones are shared."""
        name = f"constant.{dtype.name.lower()}.{value!r}"
        return self.initializers.get(name) or self._add(name, ir.tensor(np.asarray(value, dtype.numpy()), name=name))

    def table(self, name: str, array: NDArray[np.generic]) -> ir.Value:
        """An initializer with given values, named `name` itself."""
        return self.initializers.get(name) or self._add(name, ir.tensor(array, name=name))

    def weight(
        self, name: str, shape: Sequence[int], dtype: ir.DataType, load: Callable[[], NDArray[np.generic]]
    ) -> ir.Value:
        """An initializer whose values are computed when they are written, and dropped afterwards."""
        path = self.path(name)

        def read() -> ir.TensorProtocol:
            return ir.Tensor(np.ascontiguousarray(load(), dtype=dtype.numpy()), name=path)

        return self._add(path, ir.LazyTensor(read, dtype=dtype, shape=ir.Shape(shape), name=path))

    def _add(self, name: str, tensor: ir.TensorProtocol) -> ir.Value:
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tuple(tensor.shape.numpy())), const_value=tensor
        )
        self.initializers[name] = value
        return value

    def path(self, name: str) -> str:
        """`name` below the present scope."""
        return ".".join([*self._path, name])

    def unique_name(self, name: str) -> str:
        """`name` below the present scope, numbered where it stands there already."""
        path = self.path(name)
        candidate, count = path, 1
        while candidate in self._names:
            count += 1
            candidate = f"{path}_{count}"
        self._names.add(candidate)
        return candidate


def _attribute(key: str, value: Attribute) -> ir.Attr:
    if isinstance(value, ir.Graph):
        return ir.AttrGraph(key, value)
    if isinstance(value, ir.DataType):
        return ir.AttrInt64(key, int(value))
    attribute: ir.Attr = ir.convenience.convert_attribute(key, value)
    return attribute
