"""A client that hangs up takes the work for it along; nothing else does."""

import asyncio

import pytest

from router_ml_serving.disconnect import ClientGone, unless_gone

GONE = {"type": "http.disconnect"}


class Client:
    """An ASGI channel: what its client sends, and whether anybody listened."""

    def __init__(self, *sent):
        self.waiting = list(sent)
        self.asked = 0

    async def __call__(self):
        self.asked += 1
        if not self.waiting:
            await asyncio.Event().wait()
        return self.waiting.pop(0)


class Work:
    """Takes its time, and notes how it ended."""

    def __init__(self, seconds, *, fault=None):
        self.seconds, self.fault = seconds, fault
        self.ended = None

    async def __call__(self):
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.ended = "cancelled"
            raise
        self.ended = "whole"
        if self.fault is not None:
            raise self.fault
        return "the answer"


async def left_over():
    await asyncio.sleep(0)  # what was cancelled ends now
    return asyncio.all_tasks() - {asyncio.current_task()}


@pytest.mark.parametrize("seconds", [0.0, 0.1])
def test_the_result_of_the_work_is_returned_and_nobody_goes_on_watching(seconds):
    async def run():
        return await unless_gone(Client(), Work(seconds)()), await left_over()

    assert asyncio.run(run()) == ("the answer", set())


def test_what_the_work_raises_is_raised():
    async def run():
        with pytest.raises(KeyError):
            await unless_gone(Client(), Work(0.1, fault=KeyError())())
        return await left_over()

    assert asyncio.run(run()) == set()


def test_work_that_is_done_at_once_starts_no_watcher():
    client = Client(GONE)

    async def run():
        answer = await unless_gone(client, Work(0.0)())
        await asyncio.sleep(0.05)
        return answer

    assert asyncio.run(run()) == "the answer"
    assert client.asked == 0


def test_a_client_that_hangs_up_cancels_the_work():
    client, work = Client({"type": "http.request"}, GONE), Work(60.0)

    async def run():
        with pytest.raises(ClientGone):
            await unless_gone(client, work())
        # The cancellation was ours: it is spent, and whoever called goes on.
        assert asyncio.current_task().cancelling() == 0
        await asyncio.sleep(0)
        return await left_over()

    assert asyncio.run(run()) == set()
    assert (client.asked, work.ended) == (2, "cancelled")


@pytest.mark.parametrize("after_s", [0.0, 0.1])
def test_a_cancellation_from_outside_passes_through(after_s):
    work = Work(60.0)

    async def run():
        task = asyncio.create_task(unless_gone(Client(), work()))
        await asyncio.sleep(after_s)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        return await left_over()

    assert asyncio.run(run()) == set()
    assert work.ended == "cancelled"
