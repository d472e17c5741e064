"""Write the chat bodies of a workload: system prompt, retrieved documents, history, question, with realistic sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import exp

from numpy.random import Generator

from router_ml_training.simulate.company import Feature, Template
from router_ml_training.simulate.voice import Voice

__all__ = ["Anatomy", "Body", "Library", "Thread", "build_library", "write_body"]

_QUESTION_TOKENS = (50, 200)
_HISTORY_TOKENS = (1500, 3000)
_DOCUMENT_TOKENS = (450, 540)
_DOCUMENTS_PER_LANGUAGE = 60
# 5 to 14 documents of about 500 tokens, most often few: 2,000 to 8,000 tokens.
_DOCUMENTS_PER_REQUEST = (5, 6, 15)
_MOST_CONSTRAINTS = 5
_LANGUAGE_NAMES = {"en": "English", "de": "German", "fr": "French", "es": "Spanish", "zh": "Chinese"}


@dataclass(frozen=True, slots=True)
class Anatomy:
    """Estimated tokens of the parts of one request; 0 for a part that it does not have."""

    system: int
    context: int
    history: int
    question: int

    @property
    def total(self) -> int:
        """All of them, and some for the frames around the messages."""
        return self.system + self.context + self.history + self.question + 12


@dataclass(frozen=True, slots=True)
class Body:
    """One request: its messages, the question in the last of them, and the sizes of its parts."""

    messages: list[dict[str, str]]
    question: str
    anatomy: Anatomy


@dataclass(frozen=True, slots=True)
class Library:
    """The documents of the company, by language, with their estimated tokens."""

    documents: dict[str, list[tuple[str, int]]]

    def retrieve(self, voice: Voice, rng: Generator) -> tuple[str, int]:
        """Return a selection of documents as one text, and its tokens."""
        shelf = self.documents[voice.language]
        picks = rng.permutation(len(shelf))[: int(rng.triangular(*_DOCUMENTS_PER_REQUEST))]
        text = "\n\n".join(shelf[pick][0] for pick in picks)
        return text, sum(shelf[pick][1] for pick in picks)


@dataclass(slots=True)
class Thread:
    """A session as it goes on: the documents retrieved for it, and (question, answer) pairs from old to new."""

    context: tuple[str, int] | None = None
    turns: list[tuple[str, str]] = field(default_factory=list)


def build_library(voices: list[Voice], rng: Generator) -> Library:
    """Write the documents that requests quote."""
    return Library(
        {
            voice.language: [
                (text, voice.tokens(text))
                for number in range(_DOCUMENTS_PER_LANGUAGE)
                for text in [f"[{number + 1}] {voice.document(int(rng.integers(*_DOCUMENT_TOKENS)), rng)}"]
            ]
            for voice in voices
        }
    )


def write_body(
    feature: Feature,
    template: Template,
    voice: Voice,
    complexity: float,
    thread: Thread,
    library: Library,
    rng: Generator,
) -> Body:
    """Write one request, and add nothing to the thread but the documents found for it.

    Args:
        feature: What it is for.
        template: Its system prompt.
        voice: Its language.
        complexity: What of its difficulty the words can show, standardised; more brings more conditions and chains.
        thread: The session so far.
        library: Documents to quote.
        rng: Source of the choices.
    """
    question = _question(feature, voice, complexity, rng)
    system = f"{template.system}\n\nReply in {_LANGUAGE_NAMES[voice.language]} unless asked otherwise."
    messages = [{"role": "system", "content": system}]
    if feature.context != "none" and thread.context is None:
        thread.context = library.retrieve(voice, rng)
    documents, context_tokens = thread.context or ("", 0)
    if feature.context == "system":
        messages.append({"role": "system", "content": f"Articles found for this conversation:\n\n{documents}"})
    history, history_tokens = _history(feature, voice, thread, rng)
    messages += history
    content = f"{documents}\n\n{question}" if feature.context == "user" else question
    messages.append({"role": "user", "content": content})
    # System prompts are English in every language.
    anatomy = Anatomy(round(len(system) / 4.2), context_tokens, history_tokens, voice.tokens(question))
    return Body(messages, question, anatomy)


def _question(feature: Feature, voice: Voice, complexity: float, rng: Generator) -> str:
    parts = [voice.ask(feature.asks, rng)]
    if rng.random() < _logistic(3.0 * complexity - 2.2):
        parts.append(voice.hops[rng.integers(len(voice.hops))])
    n_constraints = min(max(round(1.2 + 1.3 * complexity + rng.normal(0.0, 0.35)), 0), _MOST_CONSTRAINTS)
    picks = rng.permutation(len(voice.constraints))[:n_constraints]
    parts += [voice.constraints[pick].format(n=int(rng.integers(2, 90))) for pick in picks]
    if rng.random() < _logistic(-3.0 * complexity - 1.8):
        parts.append(voice.easy[rng.integers(len(voice.easy))])
    low, high = _QUESTION_TOKENS
    while voice.tokens(voice.space.join(parts)) > high:
        parts.pop()
    size = voice.tokens(voice.space.join(parts))
    wanted = max(size + 10, int(rng.uniform(low + 10, 0.7 * high)))
    # How much people tell beyond the question says little about how hard it is.
    background = f"{voice.context}{voice.space}{voice.document(wanted - size, rng)}"
    if size < low or size + voice.tokens(background) + 2 <= high:
        parts.insert(1, background)
    return voice.space.join(parts)


def _history(feature: Feature, voice: Voice, thread: Thread, rng: Generator) -> tuple[list[dict[str, str]], int]:
    if not feature.chat or not thread.turns:
        return [], 0
    low, high = _HISTORY_TOKENS
    sizes = [voice.tokens(question) + voice.tokens(answer) for question, answer in thread.turns]
    while sum(sizes) < low:
        # The session began before this log did.
        pair = (_question(feature, voice, 0.0, rng), voice.answer(int(rng.integers(350, 600)), rng))
        thread.turns.insert(0, pair)
        sizes.insert(0, voice.tokens(pair[0]) + voice.tokens(pair[1]))
    while sum(sizes) > high:
        sizes.pop(0)
        thread.turns.pop(0)
    messages = []
    for question, answer in thread.turns:
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages, sum(sizes)


def _logistic(x: float) -> float:
    return 1 / (1 + exp(-x))
