"""Messages between the trusted side and the student's process.

A message is a header of fixed layout and one value. A value is a tag and its bytes: nothing is
ever pickled, and a decoder checks every size against what is left before it reads.
"""

from __future__ import annotations

import math
import socket
import struct
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

MAGIC = b"GTLR"
HEADER = struct.Struct("!4sQ")
MAX_MESSAGE_BYTES = 256 * 2**20
MAX_DEPTH = 8
MAX_DIMENSIONS = 16
MAX_VALUES = 100_000
MAX_CELL_OUTPUTS = 2_000

TENSOR_DTYPES = (
    torch.float16,
    torch.bfloat16,
    torch.float32,
    torch.float64,
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.int16,
    torch.int32,
    torch.int64,
)
TENSOR_CODES = {dtype: code for code, dtype in enumerate(TENSOR_DTYPES)}
ARRAY_DTYPES = ("float16", "float32", "float64", "bool", "uint8", "int8", "int16", "int32", "int64")
DEVICES = ("cpu", "cuda")


class ProtocolError(ValueError):
    """A message does not have the agreed form."""


class Unsupported:
    """Stands for a value that cannot be sent; only the name of its type travels."""

    def __init__(self, type_name: str) -> None:
        self.type_name = type_name


def encode(value: Any) -> bytes:
    """Return the bytes of one value."""
    parts: list[bytes] = []
    _write(value, parts, 0)
    return b"".join(parts)


def decode(data: bytes | bytearray) -> Any:
    """Return the value that `data` holds; raise `ProtocolError` unless it is exactly one value."""
    reader = _Reader(data)
    value = reader.value(0)
    if reader.position != len(data):
        raise ProtocolError(f"{len(data) - reader.position} bytes follow the value")
    return value


def _write(value: Any, parts: list[bytes], depth: int) -> None:
    if depth > MAX_DEPTH:
        value = Unsupported("deeply nested value")
    if value is None:
        parts.append(b"n")
    elif isinstance(value, torch.Tensor) and _sendable(value):
        _write_tensor(value, parts)
    elif isinstance(value, list | tuple):
        parts.append((b"l" if isinstance(value, list) else b"u") + struct.pack("!I", len(value)))
        for item in value:
            _write(item, parts, depth + 1)
    elif isinstance(value, bool):
        parts.append(b"b" + bytes([value]))
    elif isinstance(value, int) and -(2**63) <= value < 2**63:
        parts.append(b"i" + struct.pack("!q", value))
    elif isinstance(value, float):
        parts.append(b"f" + struct.pack("!d", value))
    elif isinstance(value, str):
        _write_text(b"s", value, parts)
    elif isinstance(value, bytes):
        parts.append(b"y" + struct.pack("!Q", len(value)) + value)
    elif isinstance(value, np.ndarray) and value.dtype.name in ARRAY_DTYPES:
        _write_array(value, parts)
    else:
        name = value.type_name if isinstance(value, Unsupported) else type(value).__name__
        _write_text(b"x", name, parts)


def _sendable(tensor: torch.Tensor) -> bool:
    return (
        tensor.layout == torch.strided
        and tensor.dtype in TENSOR_CODES
        and tensor.device.type in DEVICES
        and tensor.dim() <= MAX_DIMENSIONS
    )


def _write_text(tag: bytes, text: str, parts: list[bytes]) -> None:
    data = text.encode("utf-8", "replace")
    parts.append(tag + struct.pack("!I", len(data)) + data)


def _write_tensor(tensor: torch.Tensor, parts: list[bytes]) -> None:
    device = DEVICES.index(tensor.device.type)
    header = bytes([TENSOR_CODES[tensor.dtype], device, tensor.dim()])
    parts.append(b"t" + header + struct.pack(f"!{tensor.dim()}Q", *tensor.shape))
    if tensor.dtype == torch.bfloat16:
        # NumPy has no bfloat16
        tensor = tensor.detach().resolve_neg().view(torch.int16)
    parts.append(tensor.numpy(force=True).tobytes())


def _write_array(array: np.ndarray[Any, Any], parts: list[bytes]) -> None:
    header = bytes([ARRAY_DTYPES.index(array.dtype.name), array.ndim])
    parts.append(b"a" + header + struct.pack(f"!{array.ndim}Q", *array.shape))
    parts.append(np.ascontiguousarray(array).astype(array.dtype.newbyteorder("=")).tobytes())


class _Reader:
    """Reads values from bytes that nobody vouches for."""

    def __init__(self, data: bytes | bytearray) -> None:
        self.data = memoryview(data)
        self.position = 0
        self.values = 0

    def take(self, size: int) -> memoryview:
        if size > len(self.data) - self.position:
            left = len(self.data) - self.position
            raise ProtocolError(f"expected {size} more bytes, found {left}")
        start = self.position
        self.position += size
        return self.data[start : self.position]

    def unpack(self, layout: str) -> tuple[Any, ...]:
        return struct.unpack(layout, self.take(struct.calcsize(layout)))

    def value(self, depth: int) -> Any:
        if depth > MAX_DEPTH + 1:
            raise ProtocolError(f"values are nested deeper than {MAX_DEPTH}")
        self.values += 1
        if self.values > MAX_VALUES:
            raise ProtocolError(f"a message holds more than {MAX_VALUES} values")
        tag = bytes(self.take(1))
        if tag == b"n":
            return None
        if tag == b"b":
            return bytes(self.take(1)) != b"\0"
        if tag == b"i":
            return self.unpack("!q")[0]
        if tag == b"f":
            return self.unpack("!d")[0]
        if tag == b"s":
            return self.text()
        if tag == b"y":
            return bytes(self.take(self.unpack("!Q")[0]))
        if tag == b"t":
            return self.tensor()
        if tag == b"a":
            return self.array()
        if tag in (b"l", b"u"):
            return self.sequence(tag, depth)
        if tag == b"x":
            return Unsupported(self.text()[:100])
        raise ProtocolError(f"unknown tag {tag!r}")

    def text(self) -> str:
        (size,) = self.unpack("!I")
        try:
            return str(self.take(size), "utf-8")
        except UnicodeDecodeError as error:
            raise ProtocolError("text is not UTF-8") from error

    def sequence(self, tag: bytes, depth: int) -> list[Any] | tuple[Any, ...]:
        (count,) = self.unpack("!I")
        if count > len(self.data) - self.position:
            raise ProtocolError(f"a list claims {count} items, more than the bytes that are left")
        items = [self.value(depth + 1) for _ in range(count)]
        return items if tag == b"l" else tuple(items)

    def shape(self, dimensions: int) -> tuple[int, ...]:
        if dimensions > MAX_DIMENSIONS:
            raise ProtocolError(f"{dimensions} dimensions are more than {MAX_DIMENSIONS}")
        shape = self.unpack(f"!{dimensions}Q")
        if math.prod(size or 1 for size in shape) > MAX_MESSAGE_BYTES:
            raise ProtocolError(f"the shape {shape} is larger than any message")
        return shape

    def tensor(self) -> torch.Tensor:
        code, device, dimensions = self.take(3)
        if code >= len(TENSOR_DTYPES) or device >= len(DEVICES):
            raise ProtocolError(f"unknown dtype {code} or device {device}")
        if DEVICES[device] == "cuda" and not torch.cuda.is_available():
            raise ProtocolError("a tensor claims to be on a device that this machine lacks")
        dtype = TENSOR_DTYPES[code]
        shape = self.shape(dimensions)
        data = self.take(math.prod(shape) * dtype.itemsize)
        if not data:
            return torch.empty(shape, dtype=dtype, device=DEVICES[device])
        if dtype == torch.bool:
            _require_bools(data)
        tensor = torch.frombuffer(bytearray(data), dtype=dtype).reshape(shape)
        return tensor if device == 0 else tensor.to(DEVICES[device])

    def array(self) -> np.ndarray[Any, Any]:
        code, dimensions = self.take(2)
        if code >= len(ARRAY_DTYPES):
            raise ProtocolError(f"unknown dtype {code}")
        dtype = np.dtype(ARRAY_DTYPES[code])
        shape = self.shape(dimensions)
        data = self.take(math.prod(shape) * dtype.itemsize)
        if dtype == np.bool_:
            _require_bools(data)
        return np.frombuffer(bytearray(data), dtype=dtype).reshape(shape)


def _require_bools(data: memoryview) -> None:
    if data and np.frombuffer(data, np.uint8).max() > 1:
        raise ProtocolError("a byte that stands for a bool is neither 0 nor 1")


def send(connection: socket.socket, value: Any, descriptors: Sequence[int] = ()) -> None:
    """Send one value, with open file descriptors if there are any."""
    send_bytes(connection, encode(value), descriptors)


def send_bytes(connection: socket.socket, data: bytes, descriptors: Sequence[int] = ()) -> None:
    """Send one value that is encoded already."""
    message = HEADER.pack(MAGIC, len(data)) + data
    if descriptors:
        sent = socket.send_fds(connection, [message], list(descriptors))
        message = message[sent:]
    # sending nothing would still fail if the other side has read all and closed the connection
    if message:
        connection.sendall(message)


def receive(
    connection: socket.socket, *, deadline: float | None = None, limit: int = MAX_MESSAGE_BYTES
) -> Any:
    """Receive one value before `deadline` (on `time.monotonic`'s clock).

    Raises `EOFError` at the end, `TimeoutError` when it is late, and `ProtocolError` for anything
    malformed.
    """
    return decode(receive_bytes(connection, deadline=deadline, limit=limit))


def receive_bytes(
    connection: socket.socket, *, deadline: float | None = None, limit: int = MAX_MESSAGE_BYTES
) -> bytearray:
    """Receive the bytes of one value, undecoded; raise as `receive` does."""
    header = _receive_exactly(connection, HEADER.size, deadline)
    return _receive_exactly(connection, _body_size(header, limit), deadline)


def receive_with_descriptors(connection: socket.socket, count: int) -> tuple[Any, list[int]]:
    """Receive one value that may come with up to `count` open file descriptors."""
    header, descriptors, _, _ = socket.recv_fds(connection, HEADER.size, count)
    if not header:
        raise EOFError("the other side has closed the connection")
    header += _receive_exactly(connection, HEADER.size - len(header))
    body = _receive_exactly(connection, _body_size(header, MAX_MESSAGE_BYTES))
    return decode(body), descriptors


def _body_size(header: bytes | bytearray, limit: int) -> int:
    magic, size = HEADER.unpack(header)
    if magic != MAGIC:
        raise ProtocolError(f"a message begins with {magic!r}, expected {MAGIC!r}")
    if size > limit:
        raise ProtocolError(f"a message of {size} bytes is larger than the {limit} allowed")
    return int(size)


def _receive_exactly(
    connection: socket.socket, size: int, deadline: float | None = None
) -> bytearray:
    buffer = bytearray()
    while len(buffer) < size:
        if deadline is not None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("the other side did not answer in time")
            connection.settimeout(left)
        chunk = connection.recv(min(size - len(buffer), 2**20))
        if not chunk:
            raise EOFError("the other side has closed the connection")
        buffer += chunk
    return buffer
