"""Objects that hold tensors (checkpoints, optimizers' states) as JSON.

JSON's null, true, false, numbers, strings and arrays stand for None, bool, int and float, str and
list. Everything else is an object with a key that tells what it is; docs/archive.md has the table.
"""

import math
import struct
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch

from lmgc_torch.errors import CorruptArchiveError

_DTYPES = {name: value for name, value in vars(torch).items() if isinstance(value, torch.dtype)}
MOST_DEPTH = 64
"""Levels of an object, so that reading one never meets the limit of recursions."""
_SMALL_INT = 2**53


def encode(value: object) -> tuple[Any, list[tuple[str, torch.Tensor]]]:
    """Takes an object apart.

    Args:
        value: Made of dicts, lists, tuples, numbers, texts, tensors and a few types more, as
            ``torch.load`` with ``weights_only=True`` returns them.

    Returns:
        The object as JSON, in which numbers stand for tensors, and the tensors with their names:
        the keys that lead to them with points between, made different where they are not.

    Raises:
        TypeError: The object holds something else, or itself; the message says where.
    """
    encoder = _Encoder()
    return encoder.value(value, (), 0), encoder.tensors


class _Encoder:
    def __init__(self) -> None:
        self.tensors: list[tuple[str, torch.Tensor]] = []
        self._positions: dict[int, int] = {}  # by id: a tensor that is there twice is one
        self._names: set[str] = set()
        self._open: set[int] = set()  # containers that are being encoded

    def value(self, value: object, path: tuple[object, ...], depth: int) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if isinstance(value, torch.Tensor):
            return self._tensor(value, path)
        if kind in _LEAVES:
            return _LEAVES[kind](value)
        if kind not in _CONTAINERS:
            raise TypeError(
                f"{_place(path)} is of type {kind.__module__}.{kind.__qualname__}, which archives "
                "do not hold; they hold tensors, dict, list, tuple, set, numbers, str, bytes, None "
                "and torch's Size, dtype and device"
            )
        if id(value) in self._open:
            raise TypeError(f"{_place(path)} holds itself")
        if depth == MOST_DEPTH:
            raise TypeError(f"{_place(path[:3])} is nested more than {MOST_DEPTH} levels deep")
        self._open.add(id(value))
        encoded = self._container(value, path, depth + 1)
        self._open.remove(id(value))
        return encoded

    def _container(self, value: Any, path: tuple[object, ...], depth: int) -> Any:
        kind = type(value)
        if kind is list:
            return self._items(value, path, depth)
        if kind is tuple or kind is torch.Size:
            return {_CONTAINERS[kind]: self._items(value, path, depth)}
        if kind is set:
            # Their order differs from run to run.
            items = [self.key(item, path, depth) for item in value]
            return {"set": sorted(items, key=repr)}
        pairs = [
            [self.key(key, path, depth), self.value(item, (*path, key), depth)]
            for key, item in value.items()
        ]
        encoded = {_CONTAINERS[kind]: pairs}
        # A module's state_dict() keeps the versions of its modules there.
        if kind is OrderedDict and vars(value):
            encoded["attributes"] = self.value(vars(value), (*path, "__dict__"), depth)
        return encoded

    def _items(self, items: Sequence[object], path: tuple[object, ...], depth: int) -> list[Any]:
        return [self.value(item, (*path, i), depth) for i, item in enumerate(items)]

    def key(self, key: object, path: tuple[object, ...], depth: int) -> Any:
        if isinstance(key, torch.Tensor):
            raise TypeError(f"{_place(path)} has a tensor as a key, which archives do not hold")
        return self.value(key, (*path, key), depth)

    def _tensor(self, tensor: torch.Tensor, path: tuple[object, ...]) -> dict[str, Any]:
        if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            kind = type(tensor)
            raise TypeError(
                f"{_place(path)} is a tensor of type {kind.__module__}.{kind.__qualname__}; "
                "archives hold torch.Tensor and torch.nn.Parameter"
            )
        if tensor.layout != torch.strided or tensor.is_nested or tensor.is_quantized:
            layout = str(tensor.layout).removeprefix("torch.")
            what = "nested" if tensor.is_nested else "quantized" if tensor.is_quantized else layout
            raise TypeError(f"{_place(path)} is a {what} tensor; archives hold dense tensors")
        if tensor.is_meta:
            raise TypeError(f"{_place(path)} is a meta tensor: it has no data")
        if id(tensor) not in self._positions:
            self._positions[id(tensor)] = len(self.tensors)
            self.tensors.append((self._name(path), tensor))
        encoded: dict[str, Any] = {"tensor": self._positions[id(tensor)]}
        if isinstance(tensor, torch.nn.Parameter):
            encoded["parameter"] = True
        if tensor.requires_grad:
            encoded["requires_grad"] = True
        return encoded

    def _name(self, path: tuple[object, ...]) -> str:
        name = ".".join(_text(key) for key in path).encode("utf-8", "backslashreplace").decode()
        plain = name = name or "tensor"
        number = 2
        while name in self._names:
            name, number = f"{plain}~{number}", number + 1
        self._names.add(name)
        return name


def _int(value: int) -> Any:
    # Hexadecimal: Python limits the length of decimal ones.
    return value if abs(value) <= _SMALL_INT else {"int": f"{value:x}"}


def _float(value: float) -> Any:
    return value if math.isfinite(value) else {"float": struct.pack(">d", value).hex()}


def _str(value: str) -> Any:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half a surrogate pair
        return {"str": value.encode("utf-8", "surrogatepass").hex()}
    return value


_LEAVES: dict[type, Callable[[Any], Any]] = {
    int: _int,
    float: _float,
    str: _str,
    complex: lambda value: {"complex": struct.pack(">dd", value.real, value.imag).hex()},
    bytes: lambda value: {"bytes": value.hex()},
    bytearray: lambda value: {"bytearray": value.hex()},
    torch.dtype: lambda value: {"dtype": str(value).removeprefix("torch.")},
    torch.device: lambda value: {"device": str(value)},
}

_CONTAINERS: dict[type, str] = {
    list: "list",
    tuple: "tuple",
    torch.Size: "size",
    set: "set",
    dict: "dict",
    OrderedDict: "ordered_dict",
    Counter: "counter",
}


def _place(path: Iterable[object]) -> str:
    return "object" + "".join(f"[{_text(key, repr)}]" for key in path)


def _text(key: object, write: Callable[[object], str] = str) -> str:
    try:
        return write(key)
    except ValueError:  # Python writes no integer of thousands of digits
        return "integer"


# ---- back ----------------------------------------------------------------------------------------


def decode(tree: Any, tensors: Sequence[torch.Tensor]) -> Any:
    """Puts an object together again.

    Args:
        tree: What `encode` returned, or anything that JSON has.
        tensors: The tensors that the numbers stand for.

    Raises:
        CorruptArchiveError: `encode` returns no such thing.
    """
    try:
        return _Decoder(tensors).value(tree)
    except RecursionError:
        raise CorruptArchiveError("the archive's object is nested too deep") from None


class _Decoder:
    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self._tensors = tensors
        self._made: dict[int, torch.Tensor] = {}

    def value(self, tree: Any) -> Any:
        if isinstance(tree, list):
            return [self.value(item) for item in tree]
        if not isinstance(tree, dict):
            return tree
        for name, make in _MAKERS.items():
            if name in tree:
                try:
                    return make(self, tree[name], tree)
                except (TypeError, ValueError, RuntimeError, OverflowError, struct.error) as error:
                    if isinstance(error, CorruptArchiveError):
                        raise
                    raise CorruptArchiveError(f"the archive's object: a {name}: {error}") from None
        raise CorruptArchiveError(f"the archive's object: unknown {', '.join(map(repr, tree))}")

    def items(self, content: Any) -> list[Any]:
        if not isinstance(content, list):
            raise ValueError("it has no items")
        return [self.value(item) for item in content]

    def pairs(self, content: Any) -> dict[Any, Any]:
        if not isinstance(content, list):
            raise ValueError("it has no items")
        pairs = [tuple(self.items(pair)) for pair in content]
        if any(len(pair) != 2 for pair in pairs):
            raise ValueError("an item is no pair")
        result = dict(pairs)
        if len(result) != len(pairs):
            raise ValueError("two keys are the same")
        return result

    def ordered_dict(self, content: Any, tree: dict[str, Any]) -> Any:
        result: Any = OrderedDict(self.pairs(content))
        if "attributes" in tree:
            attributes = self.value(tree["attributes"])
            if type(attributes) is not dict or not all(type(key) is str for key in attributes):
                raise ValueError("its attributes have no names")
            vars(result).update(attributes)
        return result

    def tensor(self, position: Any, tree: dict[str, Any]) -> torch.Tensor:
        if type(position) is not int or not 0 <= position < len(self._tensors):
            raise ValueError(f"there is none at {position!r}")
        if position not in self._made:
            tensor = self._tensors[position]
            needs = tree.get("requires_grad") is True
            if tree.get("parameter") is True:
                tensor = torch.nn.Parameter(tensor, requires_grad=needs)
            elif needs:
                tensor = tensor.detach().requires_grad_()
            self._made[position] = tensor
        return self._made[position]


def _dtype(name: Any) -> torch.dtype:
    if not isinstance(name, str) or name not in _DTYPES:
        raise ValueError(f"{name!r} is unknown to this torch")
    return _DTYPES[name]


def _size(items: list[Any]) -> torch.Size:
    if not all(type(item) is int for item in items):
        raise ValueError("sizes are integers")
    return torch.Size(items)


_MAKERS: dict[str, Callable[[_Decoder, Any, dict[str, Any]], Any]] = {
    "tensor": lambda decoder, content, tree: decoder.tensor(content, tree),
    "dict": lambda decoder, content, _: decoder.pairs(content),
    "ordered_dict": lambda decoder, content, tree: decoder.ordered_dict(content, tree),
    "counter": lambda decoder, content, _: Counter(decoder.pairs(content)),
    "tuple": lambda decoder, content, _: tuple(decoder.items(content)),
    "size": lambda decoder, content, _: _size(decoder.items(content)),
    "set": lambda decoder, content, _: set(decoder.items(content)),
    "int": lambda _, content, __: int(content, 16),
    "float": lambda _, content, __: struct.unpack(">d", bytes.fromhex(content))[0],
    "complex": lambda _, content, __: complex(*struct.unpack(">dd", bytes.fromhex(content))),
    "str": lambda _, content, __: bytes.fromhex(content).decode("utf-8", "surrogatepass"),
    "bytes": lambda _, content, __: bytes.fromhex(content),
    "bytearray": lambda _, content, __: bytearray.fromhex(content),
    "dtype": lambda _, content, __: _dtype(content),
    "device": lambda _, content, __: torch.device(content),
}
