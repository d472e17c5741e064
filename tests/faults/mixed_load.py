"""Everything that clients do, all at once: good requests, bad ones, hang-ups, and upstreams that fail now and then."""

import asyncio
import itertools
import json
import random
import time
from collections import Counter
from contextlib import suppress

import aiohttp

TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]
# What a tier may do that the next one makes up for, and what a named tier's failure may come out as.
FAULTS = ("500-silent", "429-silent", "reset", "broken-json", "html", "no-choices", "slow")
STREAM_FAULTS = ("500-silent", "reset", "half", "json", "comment")
FAILED = frozenset({200, 429, 500, 502, 503, 504})
WORDS = ["invoice", "contract", "answer", "why", "python", "table", "sum", "of", "all", "numbers", "wrong", "again"]
BAD = (b"{", b"\xff", b"[]", b'{"messages": []}', b'{"messages": [{"role": "user", "content": 7}]}', b"[" * 5000)


class Load:
    """One run of mixed load.

    `surprises` are answers that nobody expected, `answered` the ids of decisions that were told to a client,
    `acknowledged` those of feedback, and `counts` how often each kind of request was sent.
    """

    def __init__(self, url, seed=0):
        self.url = url
        self.rng = random.Random(seed)
        self.surprises = []
        self.answered = []
        self.acknowledged = []
        self.counts = Counter()
        self.number = itertools.count()
        self.kinds = {
            self.route: 28, self.whole: 18, self.through: 8, self.held: 8, self.message: 3, self.response: 3,
            self.feedback: 12, self.batch: 2, self.bad: 6, self.escalated: 6, self.replaced: 4, self.failed: 4,
            self.leaves: 6, self.looks: 1,
        }  # fmt: skip

    async def run(self, seconds, concurrency):
        """Send requests for so long, so many at once."""
        until_s = time.monotonic() + seconds
        timeout = aiohttp.ClientTimeout(total=30)
        async with aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=0)) as self.session:
            await asyncio.gather(*(self._client(until_s) for _ in range(concurrency)))

    async def _client(self, until_s):
        kinds, weights = list(self.kinds), list(self.kinds.values())
        while time.monotonic() < until_s:
            kind = self.rng.choices(kinds, weights)[0]
            self.counts[kind.__name__] += 1
            try:
                await kind()
            except (aiohttp.ClientError, TimeoutError, ValueError, KeyError) as error:
                self.surprises.append(f"{kind.__name__}: {error!r}")

    def body(self, behaviour="", **fields):
        """Return a chat body that no other is like, of one of many tenants and sessions."""
        prompt = " ".join(self.rng.choices(WORDS, k=self.rng.randrange(3, 120)))
        router = {"tenant": f"t{self.rng.randrange(20)}", "session_id": f"s{self.rng.randrange(5000)}"}
        if self.rng.random() < 0.3:
            router["feature"] = f"f{self.rng.randrange(300)}"
        message = {"role": "user", "content": f"{next(self.number)} {prompt} {behaviour}"}
        return {"model": "auto", "messages": [message], "router": router, **fields}

    async def post(self, path, body, expected=frozenset({200})):
        """Return status, headers and body of the answer; what is not expected is a surprise."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        async with self.session.post(self.url + path, data=data) as response:
            raw = await response.read()
            if response.status not in expected:
                self.surprises.append(f"{path}: {response.status} {raw[:200]!r}")
            elif response.status >= 400 and "error" not in json.loads(raw):
                self.surprises.append(f"{path}: {response.status} without an error: {raw[:200]!r}")
            return response.status, response.headers, raw

    async def chat(self, body, expected=frozenset({200}), path="/v1/chat/completions"):
        """Ask for an answer, and remember its decision."""
        status, headers, raw = await self.post(path, body, expected)
        if decision := headers.get("x-router-decision-id"):
            self.answered.append(decision)
        if status == 200 and body.get("stream") and b"[DONE]" not in raw and b'"error"' not in raw:
            self.surprises.append(f"a stream without an end: {raw[-200:]!r}")
        return status, headers, raw

    async def route(self):
        _, _, raw = await self.post("/v1/route", self.body())
        self.answered.append(json.loads(raw)["decision_id"])

    async def batch(self):
        _, _, raw = await self.post("/v1/route", {"requests": [self.body() for _ in range(8)]})
        self.answered += [one["decision_id"] for one in json.loads(raw)["decisions"]]

    async def whole(self):
        await self.chat(self.body())

    async def through(self):
        await self.chat(self.body(model="small", stream=True))

    async def held(self):
        await self.chat(self.body(stream=True, tools=TOOLS))

    async def message(self):
        _, headers, _ = await self.post("/v1/messages", self.body(max_tokens=50))
        self.answered.append(headers["x-router-decision-id"])

    async def response(self):
        body = self.body()
        _, headers, _ = await self.post("/v1/responses", {"input": body["messages"][0]["content"], "model": "auto"})
        self.answered.append(headers["x-router-decision-id"])

    async def feedback(self):
        if not self.answered:
            return
        decision, key = self.answered[-self.rng.randrange(1, 50) % len(self.answered)], f"k{next(self.number)}"
        said = {"decision_id": decision, "key": key, "score": round(self.rng.random(), 3)}
        _, _, raw = await self.post("/v1/feedback", said)
        if json.loads(raw)["recorded"]:
            self.acknowledged.append((decision, key))

    async def bad(self):
        path = self.rng.choice(("/v1/route", "/v1/chat/completions", "/v1/feedback", "/v1/messages", "/v1/nothing"))
        await self.post(path, self.rng.choice(BAD), frozenset({400, 404}))

    async def escalated(self):
        _, headers, _ = await self.chat(self.body("[mini=idk]", stream=self.rng.random() < 0.3, tools=TOOLS))
        if headers["x-router-tier"] != "large":
            self.surprises.append("a poor answer was given")

    async def replaced(self):
        streams = self.rng.random() < 0.5
        fault = self.rng.choice(STREAM_FAULTS if streams else FAULTS)
        await self.chat(self.body(f"[mini={fault}]", stream=streams, tools=TOOLS))

    async def failed(self):
        streams = self.rng.random() < 0.5
        fault = self.rng.choice(STREAM_FAULTS if streams else FAULTS)
        await self.chat(self.body(f"[mini={fault}]", model="small", stream=streams), FAILED)

    async def leaves(self):
        behaviour = self.rng.choice(("hang", "stall", "slow", "paced", "ok"))
        body = self.body(f"[mini={behaviour}]", stream=self.rng.random() < 0.7)
        work = self.session.post(f"{self.url}/v1/chat/completions", json=body)
        with suppress(TimeoutError):
            async with asyncio.timeout(self.rng.random() * 0.3), work as response:
                async for _ in response.content.iter_any():
                    pass

    async def looks(self):
        for path in ("/healthz", "/readyz", "/metrics", "/v1/stats", "/v1/models"):
            async with self.session.get(self.url + path) as response:
                await response.read()
                if response.status != 200:
                    self.surprises.append(f"{path}: {response.status}")
