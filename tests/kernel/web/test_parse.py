"""Bodies: lenient where the API says so, everything wrong reported at once, and never anything but those two."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from enum import Enum
from typing import Annotated, Any

import msgspec
import msgspec.inspect
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ValidationFailed
from shoal.http import coerce
from shoal.http.coerce import Mismatch
from shoal.http.parse import BodyDecoder
from shoal.http.reader import parts, reader_of
from shoal.models.requests import CreateSandbox, CreateSnapshot, MetadataPatch, RenewExpiration
from shoal.models.secret import Secret, decode_hook

KINDS: list[Any] = [CreateSandbox, RenewExpiration, CreateSnapshot, MetadataPatch]
BODIES = [BodyDecoder[Any](kind) for kind in KINDS]

WORDS = [
    name
    for kind in KINDS
    for part in parts(msgspec.inspect.type_info(kind))
    if isinstance(part, msgspec.inspect.StructType)
    for field in part.fields
    for name in (field.name, field.encode_name)
]

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=8),
    st.sampled_from(["60", "61.0", "true", "off", "2030-01-01", "/data", "linux", "1.0", "1Gi", ""]),
)
names = st.one_of(
    st.text(max_size=6),
    st.sampled_from(WORDS),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=5)),
    max_leaves=25,
)
objects = st.dictionaries(names, values, max_size=8)


def failure(body: BodyDecoder[Any], raw: bytes) -> ValidationFailed | None:
    """Why ``raw`` does not fit; None if it does. Any other exception is a bug."""
    try:
        body.parse(raw)
    except ValidationFailed as failed:
        return failed
    return None


@given(index=st.integers(0, len(KINDS) - 1), value=st.one_of(objects, values))
def test_json_becomes_the_type_or_a_list_of_problems(index: int, value: Any) -> None:
    raw = json.dumps(value, ensure_ascii=False).encode("utf-8", "replace")
    failed = failure(BODIES[index], raw)
    if failed is not None:
        assert failed.problems
        assert all(problem.loc[0] == "body" and problem.msg for problem in failed.problems)
    else:
        assert isinstance(BODIES[index].parse(raw), dict if KINDS[index] is MetadataPatch else KINDS[index])


@given(raw=st.binary(max_size=200))
def test_any_bytes_at_all(raw: bytes) -> None:
    for body in BODIES:
        failed = failure(body, raw)
        assert failed is None or failed.problems


@given(value=objects)
def test_what_fits_exactly_reads_the_same_either_way(value: Any) -> None:
    raw = json.dumps(value).encode()
    try:
        exact = msgspec.json.decode(raw, type=CreateSandbox, dec_hook=decode_hook)
    except (msgspec.DecodeError, ValueError):
        exact = None
    problems: list[Any] = []
    lenient = reader_of(CreateSandbox)(json.loads(raw), ("body",), problems)
    assert bool(problems) == (lenient is None)
    if problems:
        assert exact is None or b"_" in raw
    elif exact is not None and b"_" not in raw:
        assert exact == lenient


@given(value=objects)
def test_messages_hold_no_value_that_was_sent(value: Any) -> None:
    planted = "zq7hunter2"

    def plant(part: Any) -> Any:
        if isinstance(part, dict):
            return {key: plant(each) for key, each in part.items()}
        if isinstance(part, list):
            return [plant(each) for each in part]
        return planted

    for body in BODIES:
        failed = failure(body, json.dumps(plant(value)).encode())
        if failed is not None:
            assert planted not in msgspec.json.encode(failed.problems).decode()
            assert planted not in failed.message


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[" * 100_000, b'{"a":' * 100_000, b"\xff", b'"\\ud800"', b"1e999", b"1" * 5000]
)
def test_broken_json(raw: bytes) -> None:
    for body in BODIES:
        with pytest.raises(ValidationFailed):
            body.parse(raw)


def test_a_million_problems_are_not_all_reported() -> None:
    with pytest.raises(ValidationFailed) as failed:
        BodyDecoder(CreateSandbox).parse(json.dumps({"entrypoint": [1] * 100_000}).encode())
    assert len(failed.value.problems) == 100


def test_both_spellings() -> None:
    snake = {"snapshot_id": "s", "resource_limits": {"cpu": "1"}, "network_policy": {"default_action": "deny"}}
    parsed = BodyDecoder(CreateSandbox).parse(json.dumps(snake).encode())
    assert parsed is not None
    assert (parsed.snapshot_id, parsed.resource_limits) == ("s", {"cpu": "1"})
    assert parsed.network_policy is not None
    assert parsed.network_policy.default_action == "deny"
    escaped = BodyDecoder(CreateSandbox).parse(b'{"snapshot\\u005fid": "s"}')
    assert escaped is not None
    assert escaped.snapshot_id == "s"
    both = BodyDecoder(CreateSandbox).parse(b'{"snapshot_id": "snake", "snapshotId": "camel"}')
    assert both is not None
    assert both.snapshot_id == "camel"


def test_closed_objects_and_open_ones() -> None:
    BodyDecoder(CreateSandbox).parse(b'{"whatever": 1, "image": {"uri": "x", "more": 2}}')
    with pytest.raises(ValidationFailed) as failed:
        BodyDecoder(CreateSandbox).parse(b'{"lifecycle": {"preStart": {"command": ["x"], "bad": 1}, "worse": 2}}')
    assert [(each.type, each.loc) for each in failed.value.problems] == [
        ("extra_forbidden", ["body", "lifecycle", "preStart", "bad"]),
        ("extra_forbidden", ["body", "lifecycle", "worse"]),
    ]


def test_password_is_a_secret_either_way() -> None:
    for image in (
        '{"uri":"x","auth":{"username":"u","password":"hunter2"}}',
        '{"uri":"x","auth":{"username":"u","password":"hunter2"},"_":1}',
    ):
        parsed = BodyDecoder(CreateSandbox).parse(f'{{"secureAccess":"1","image":{image}}}'.encode())
        assert parsed is not None
        assert parsed.image is not None
        assert parsed.image.auth is not None
        assert parsed.image.auth.password == Secret("hunter2")
        assert "hunter2" not in repr(parsed)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        ("2030-01-02", datetime(2030, 1, 2, tzinfo=UTC)),
        ("2030-01-02t03:04z", datetime(2030, 1, 2, 3, 4, tzinfo=UTC)),
        ("2030-01-02 03:04:05.1234567", datetime(2030, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2030-01-02T03:04:05-0130", datetime(2030, 1, 2, 4, 34, 5, tzinfo=UTC)),
        (1_900_000_000, datetime.fromtimestamp(1_900_000_000, UTC)),
        ("1900000000", datetime.fromtimestamp(1_900_000_000, UTC)),
        (1_900_000_000_000, datetime.fromtimestamp(1_900_000_000, UTC)),
        (1_900_000_000.5, datetime.fromtimestamp(1_900_000_000.5, UTC)),
    ],
)
def test_times(sent: object, read: datetime) -> None:
    assert coerce.moment(sent) == read


@pytest.mark.parametrize(
    "sent",
    [
        "",
        "soon",
        "2030-13-01",
        "2030-W01-1",
        "20300101T000000Z",
        True,
        None,
        [],
        1e300,
        "9" * 500,
        "0001-01-01T00:00:00+01:00",
    ],
)
def test_no_times(sent: object) -> None:
    with pytest.raises(Mismatch):
        coerce.moment(sent)


@given(st.one_of(scalars, st.text(), st.floats()))
def test_scalars_are_read_or_mismatch(value: Any) -> None:
    for read in (coerce.integer, coerce.number, coerce.boolean, coerce.moment):
        try:
            found = read(value)
        except Mismatch:
            continue
        assert type(found) is {"integer": int, "number": float, "boolean": bool, "moment": datetime}[read.__name__]


@given(st.integers())
def test_integers_arrive_as_text_and_whole_floats(value: int) -> None:
    assert coerce.integer(value) == coerce.integer(f" {value} ") == coerce.integer(f"{value}.0") == value
    if abs(value) < 2**53:
        assert coerce.integer(float(value)) == value


@pytest.mark.parametrize("value", [True, None, 1.5, "1.5", "", "one", "1_000", "٣", "1" * 401, [], {}])
def test_no_integers(value: object) -> None:
    with pytest.raises(Mismatch):
        coerce.integer(value)


def test_optional_body() -> None:
    assert BodyDecoder(CreateSnapshot, optional=True).parse(b"null") is None
    with pytest.raises(ValidationFailed):
        BodyDecoder(CreateSnapshot).parse(b"null")


class Tide(Enum):
    LOW = "low"
    HIGH = "high"


class Told(msgspec.Struct):
    """Fields as plugins write them, with what the OpenAPI document says of them."""

    text: Annotated[str, msgspec.Meta(description="what was seen", examples=["a ray"], min_length=2)]
    tags: Annotated[list[Annotated[str, msgspec.Meta(title="a tag")]], msgspec.Meta(title="tags", max_length=1)] = []
    kind: Annotated[str | None, msgspec.Meta(description="which")] = None
    depth: Annotated[float, msgspec.Meta(gt=0, lt=100)] = 1.0
    step: Annotated[int, msgspec.Meta(multiple_of=5)] = 5
    tide: Tide = Tide.LOW

    def __post_init__(self) -> None:
        if self.tide is Tide.HIGH and self.depth < 2:
            raise ValueError("at high tide nothing is shallow")


def test_described_fields_numbers_and_enums() -> None:
    body: BodyDecoder[Told] = BodyDecoder(Told)
    exact = body.parse(b'{"text":"ray","tags":["a"],"kind":"k","depth":2.5,"step":10,"tide":"high"}')
    lenient = body.parse(b'{"text":"ray","tags":["a"],"kind":"k","depth":"2.5","step":"10","tide":"high"}')
    assert exact == lenient == Told(text="ray", tags=["a"], kind="k", depth=2.5, step=10, tide=Tide.HIGH)


@pytest.mark.parametrize(
    ("sent", "problem"),
    [
        ({"text": "r"}, "body.text: expected at least 2 character(s)"),
        ({"tags": ["a", "b"]}, "body.tags: expected at most 1 item(s)"),
        ({"depth": "0"}, "body.depth: expected more than 0"),
        ({"depth": 100}, "body.depth: expected less than 100"),
        ({"depth": True}, "body.depth: expected a number"),
        ({"step": 7}, "body.step: expected a multiple of 5"),
        ({"tide": "none"}, "body.tide: expected one of low, high"),
        ({"tide": ["low"]}, "body.tide: expected one of low, high"),
        ({"tide": "high"}, "body: at high tide nothing is shallow"),
    ],
)
def test_what_meta_asks_for_holds(sent: dict[str, Any], problem: str) -> None:
    failed = failure(BodyDecoder(Told), json.dumps({"text": "ray", **sent}).encode())
    assert failed is not None
    assert failed.message == problem


class Knot(msgspec.Struct):
    inner: Knot | None = None


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        (bytes, "bytes"),
        (set[str], "set"),
        (tuple[int, str], "tuple"),
        (tuple[int, ...], "tuple"),
        (timedelta, "timedelta"),
        (int | str, "int | str"),
        (list[bytes | None], "bytes"),
        (dict[int, str], "a dict with keys of int"),
        (Knot, "Knot, which holds itself"),
    ],
)
def test_a_type_that_a_body_cannot_hold_is_named_with_its_field(kind: Any, name: str) -> None:
    note = msgspec.defstruct("Note", [("text", Annotated[kind, msgspec.Meta(description="told")])], module="notes")
    with pytest.raises(TypeError) as caught:
        BodyDecoder(note)
    where = f"{__name__}.Knot.inner" if kind is Knot else "notes.Note.text"
    assert str(caught.value) == f"{where}: a body cannot hold {name}"
