"""Random and damaged messages and notebooks never make the trusted side raise anything new."""

import json

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autograder.checking.compare import Tolerance, compare_inputs, compare_values
from autograder.checking.failure import CheckFailedError
from autograder.child import protocol
from autograder.intake import parse_submission
from autograder.rebuild import rebuild
from autograder.student_process import readable_outputs, understand_reply
from tests.autograder.attack_course import tampered

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]
MANY = settings(max_examples=20_000, deadline=None, suppress_health_check=list(HealthCheck))

scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text()
tensors = st.sampled_from(protocol.TENSOR_DTYPES).flatmap(
    lambda dtype: st.lists(st.integers(0, 1), max_size=4).map(
        lambda data: torch.tensor(data).to(dtype)
    )
)
values = st.recursive(
    scalars | tensors | st.sampled_from(["returned", "raised", "not callable", "undefined"]),
    lambda inner: st.lists(inner, max_size=5) | st.lists(inner, max_size=5).map(tuple),
    max_leaves=20,
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(), inner, max_size=5),
    max_leaves=30,
)
output_like = st.fixed_dictionaries(
    {"output_type": st.sampled_from(["stream", "error", "display_data", "execute_result"])},
    optional={
        "name": st.text() | json_values,
        "text": st.text() | st.lists(st.text()) | json_values,
        "data": st.dictionaries(st.text(), json_values) | json_values,
        "metadata": json_values,
        "execution_count": json_values,
        "ename": json_values,
        "evalue": json_values,
        "traceback": json_values,
    },
)


def decoded(data):
    try:
        return protocol.decode(data)
    except protocol.ProtocolError:
        return None


@MANY
@given(st.binary(max_size=2_000))
def test_any_bytes_are_decoded_or_refused(data):
    value = decoded(data)
    # what was understood can be said again, and understood again
    assert decoded(protocol.encode(value)) is not None or value is None


@MANY
@given(values, st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=8))
def test_any_damaged_message_is_decoded_or_refused(value, damages):
    data = bytearray(protocol.encode(value))
    for place, byte in damages:
        data[place % len(data)] = byte
    again = decoded(data)
    assert decoded(protocol.encode(again)) is not None or again is None


@MANY
@given(values | st.lists(values, min_size=3, max_size=5).map(lambda rest: ["returned", *rest]))
def test_any_reply_is_judged_or_refused(value):
    expected = torch.ones(3, dtype=torch.float64)
    try:
        reply = understand_reply("f", protocol.decode(protocol.encode(value)), frozenset())
        compare_inputs("f", reply.inputs, [expected])
        compare_values("f", reply.value, expected, Tolerance(1e-9))
    except CheckFailedError as error:
        assert str(error)  # noqa: PT017
    else:
        assert torch.equal(reply.value, expected)


@MANY
@given(st.text() | json_values.map(json.dumps) | st.lists(output_like).map(json.dumps))
def test_any_outputs_can_be_written_or_are_refused(text):
    try:
        outputs = readable_outputs(text)
    except protocol.ProtocolError:
        return
    assert json.loads(json.dumps(outputs, ensure_ascii=False).encode()) is not None


@MANY
@given(st.binary(max_size=2_000) | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_taken_in(released_toy_notebook, data):
    rebuilt = rebuild(released_toy_notebook, parse_submission(data))
    assert [cell.metadata.get("nbgrader", {}).get("points") for cell in rebuilt.notebook.cells][
        -1
    ] == 3


@MANY
@given(st.dictionaries(st.sampled_from(["metadata", "source", "cell_type", "id"]), json_values))
def test_any_tampered_grade_cell_is_put_back(released_toy_notebook, changes):
    handed_in = json.dumps(tampered(released_toy_notebook, changes)).encode()
    rebuilt = rebuild(released_toy_notebook, parse_submission(handed_in))
    graded = [cell for cell in rebuilt.notebook.cells if cell.metadata.get("nbgrader")]
    assert [cell.metadata.nbgrader.points for cell in graded] == [3]


@pytest.fixture(scope="module")
def released_toy_notebook():
    from tests.autograder.attack_course import graded_notebook

    return graded_notebook()
