import socket
import struct
import time

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autograder.child import protocol


def round_trip(value):
    return protocol.decode(protocol.encode(value))


scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=4), max_leaves=20)


@given(values)
def test_plain_values_come_back_as_they_were(value):
    assert repr(round_trip(value)) == repr(value)


@pytest.mark.parametrize("dtype", protocol.TENSOR_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 4), (2, 3, 4)])
def test_tensors_come_back_bit_for_bit(dtype, shape):
    tensor = torch.randint(0, 2, shape).to(dtype)
    back = round_trip(tensor)
    assert back.dtype == dtype
    assert back.shape == shape
    assert torch.equal(back, tensor)


def test_nan_payloads_and_negative_zero_survive():
    bits = torch.tensor([0x7FC00001, -0x80000000, 0x7F800000], dtype=torch.int32)
    back = round_trip(bits.view(torch.float32))
    assert torch.equal(back.view(torch.int32), bits)


NUMBERS = torch.arange(1.0, 7.0).reshape(2, 3)


VIEWS = {
    "transposed": NUMBERS.T,
    "transposed bfloat16": NUMBERS.bfloat16().T,
    "steps": NUMBERS[:, ::2],
    "steps of bfloat16": NUMBERS.bfloat16()[:, ::2],
    "expanded": NUMBERS[:1].expand(4, 3),
    "negated": torch.complex(NUMBERS, NUMBERS).conj().imag,
    "parameter": torch.nn.Parameter(NUMBERS),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
def test_a_view_keeps_its_entries(view):
    back = round_trip(view)
    assert back.dtype == view.dtype
    assert torch.equal(back, view.detach())


@pytest.mark.parametrize("name", protocol.ARRAY_DTYPES)
def test_arrays_come_back(name):
    array = np.array([[0, 1], [1, 0]]).astype(name)
    back = round_trip(array)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_other_objects_travel_as_the_name_of_their_type():
    class Forged:
        def __eq__(self, other):
            return True

    back = round_trip([Forged(), torch.zeros(2).to_sparse(), 2**70])
    assert [entry.type_name for entry in back] == ["Forged", "Tensor", "int"]


def test_a_deeply_nested_value_is_cut_off():
    value = 1.0
    for _ in range(100):
        value = [value]
    back = round_trip(value)
    for _ in range(protocol.MAX_DEPTH + 1):
        assert isinstance(back, list)
        (back,) = back
    assert isinstance(back, protocol.Unsupported)


MALFORMED = {
    "nothing": b"",
    "unknown tag": b"q",
    "bytes left over": b"nn",
    "short number": b"i\0\0",
    "text longer than the message": b"s" + struct.pack("!I", 99) + b"short",
    "text that is not UTF-8": b"s" + struct.pack("!I", 1) + b"\xff",
    "list longer than the message": b"l" + struct.pack("!I", 2**32 - 1),
    "nested beyond the depth": b"l\0\0\0\1" * 100 + b"n",
    "unknown dtype": b"t" + bytes([99, 0, 0]),
    "unknown device": b"t" + bytes([2, 9, 0]),
    "too many dimensions": b"t" + bytes([2, 0, 255]),
    "tensor larger than the message": b"t" + bytes([2, 0, 1]) + struct.pack("!Q", 2**62),
    "sizes whose product is 0 but huge": b"t" + bytes([2, 0, 2]) + struct.pack("!QQ", 2**62, 0),
    "bool that is neither": b"t" + bytes([4, 0, 1]) + struct.pack("!Q", 1) + b"\2",
    "array with an unknown dtype": b"a" + bytes([99, 0]),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_malformed_bytes_are_refused(data):
    with pytest.raises(protocol.ProtocolError):
        protocol.decode(data)


def decodes_or_refuses(data):
    """Any other exception than `ProtocolError` reaches the test and fails it."""
    try:
        protocol.decode(data)
    except protocol.ProtocolError:
        return False
    return True


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data):
    assert decodes_or_refuses(data) in (True, False)


@given(values, st.data())
def test_damaged_messages_decode_or_are_refused(value, data):
    message = bytearray(protocol.encode([value, torch.ones(2)]))
    position = data.draw(st.integers(0, len(message) - 1))
    message[position] = data.draw(st.integers(0, 255))
    assert decodes_or_refuses(bytes(message)) in (True, False)


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_a_message_with_a_wrong_beginning_is_refused(pair):
    ours, theirs = pair
    theirs.sendall(protocol.HEADER.pack(b"EVIL", 1) + b"n")
    with pytest.raises(protocol.ProtocolError, match="begins with"):
        protocol.receive(ours)


def test_a_message_over_the_limit_is_refused_before_it_is_read(pair):
    ours, theirs = pair
    theirs.sendall(protocol.HEADER.pack(protocol.MAGIC, 2**40))
    with pytest.raises(protocol.ProtocolError, match="larger than"):
        protocol.receive(ours)


def test_bytes_that_drip_in_do_not_extend_the_deadline(pair):
    ours, theirs = pair
    theirs.sendall(protocol.MAGIC)
    with pytest.raises(TimeoutError):
        protocol.receive(ours, deadline=time.monotonic() + 0.05)


def test_the_end_of_the_connection_is_an_end(pair):
    ours, theirs = pair
    theirs.close()
    with pytest.raises(EOFError):
        protocol.receive(ours)


def test_a_message_that_was_read_is_sent_though_the_other_side_has_closed(monkeypatch):
    ours, theirs = socket.socketpair()
    send_fds = socket.send_fds

    def send_and_have_it_closed(*given):
        sent = send_fds(*given)
        theirs.close()
        return sent

    monkeypatch.setattr(socket, "send_fds", send_and_have_it_closed)
    with ours:
        protocol.send(ours, ["become snapshot"], [0])
