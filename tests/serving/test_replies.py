"""What upstreams send is read up to its first event and no further than its end mark."""

import asyncio
import itertools

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router_ml.errors import UpstreamError
from router_ml.ladder import Tier
from router_ml_serving.failures import RefusedByUpstream
from router_ml_serving.replies import EndMark, first_event, parsed, rest

SMALL = Tier(name="small", model="mini", input_usd_per_mtok=1.0, output_usd_per_mtok=1.0)
STREAM = b'data: {"choices": [{"delta": {"content": "[DONE]"}}]}\n\ndata: [DONE]\n\n'


class Content:
    """The body of a response, piece by piece."""

    def __init__(self, *pieces):
        self.left = list(pieces)

    def at_eof(self):
        return not self.left

    async def readany(self):
        said = self.left.pop(0) if self.left else b""
        if isinstance(said, Exception):
            raise said
        if said is None:
            await asyncio.sleep(60)
        return said


class Response:
    """A response whose head has been read."""

    status, headers = 200, {}

    def __init__(self, *pieces, kind="text/event-stream"):
        self.content_type, self.content = kind, Content(*pieces)


def opening(*pieces, **fields):
    return asyncio.run(first_event(SMALL, Response(*pieces, **fields), lambda: None))  # type: ignore[arg-type]


@given(st.lists(st.integers(0, len(STREAM))))
def test_the_end_mark_is_seen_once_it_is_there_however_the_bytes_are_cut(cuts):
    places = [0, *sorted(cuts), len(STREAM)]
    mark, there = EndMark(), STREAM.index(b"data: [DONE]") + len(b"data: [DONE]")
    for start, end in itertools.pairwise(places):
        seen = mark.seen(STREAM[start:end])
        assert seen == (end >= there)


@pytest.mark.parametrize("end", [b"data:[DONE]", b"data: [DONE]\r\n\r\n"])
def test_other_spellings_of_the_end_mark_are_known(end):
    assert EndMark().seen(b"data: {}\n\n" + end)


def test_comments_are_read_past():
    assert opening(b": one\n\n", b": two\n\nda", b"ta: {}", b"\n\n", b"more") == b": one\n\n: two\n\ndata: {}\n\n"


def test_a_first_event_whose_line_is_left_open_is_taken():
    assert opening(b"data: {}") == b"data: {}"


@pytest.mark.parametrize("pieces", [(), (b": one\n\n",), (b"data: [DONE]\n\n",), (b": x\n\n", b"data: [DO", b"NE]")])
def test_a_stream_without_an_event_is_no_answer(pieces):
    with pytest.raises(UpstreamError, match="empty stream") as caught:
        opening(*pieces)
    assert caught.value.kind == "protocol"


@pytest.mark.parametrize("line_end", [b"\n\n", b""])
def test_an_error_in_place_of_the_first_event_is_an_error(line_end):
    with pytest.raises(RefusedByUpstream) as caught:
        opening(b": one\n\n", b'data: {"error": {"code": 429}}' + line_end)
    assert caught.value.status == 429


def test_something_else_than_a_stream_is_no_answer():
    with pytest.raises(UpstreamError, match="asked for a stream"):
        opening(b"{}", kind="application/json")


def test_endless_comments_are_not_waited_for():
    assert len(opening(*[b": x" * 1000 + b"\n\n"] * 100)) < 70_000


@pytest.mark.parametrize(
    ("pieces", "said"), [((), b""), ((b"\n",), b"\n"), ((None,), b""), ((aiohttp.ClientPayloadError("cut"),), b"")]
)
def test_nothing_behind_the_end_mark_is_waited_for_or_goes_wrong(pieces, said):
    assert asyncio.run(asyncio.wait_for(rest(Response(*pieces)), 5.0)) == said  # type: ignore[arg-type]


@pytest.mark.parametrize("raw", [b"", b"[]", b"{"])
def test_a_whole_answer_is_an_object(raw):
    with pytest.raises(UpstreamError) as caught:
        parsed(SMALL, raw)
    assert caught.value.kind == "protocol"
