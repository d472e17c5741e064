"""Answer block: its words: hedges, second thoughts and refusals, the language, names and what is copied."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from math import log1p, nan

import numpy as np
from numpy.typing import NDArray

from router_ml.features.answer_view import AnswerView
from router_ml.features.scan import N_TEXT_BUCKETS, CharClass, TextScan, scan

__all__ = ["COLUMNS", "compute"]

# Phrases of one or two words (or one or two characters in Chinese and Japanese), found by their hash at no cost.
_CUES: Mapping[str, str] = {
    "hedge": (
        "maybe,perhaps,probably,possibly,likely,might,could,approximately,roughly,seems,appears,unclear,uncertain,"
        "presumably,assume,assuming,guess,estimate,suggests,depends,vielleicht,wahrscheinlich,möglicherweise,"
        "vermutlich,scheint,könnte,eventuell,ungefähr,peut-être,probablement,environ,semble,pourrait,quizás,tal vez,"
        "probablemente,posiblemente,parece,podría,talvez,provavelmente,possivelmente,poderia,forse,probabilmente,"
        "sembra,potrebbe,可能,也许,大概,或许,似乎,おそらく,多分,たぶん,かも"
    ),
    "unsure": (
        "don't know,not sure,unsure,cannot determine,not enough,insufficient,not provided,not specified,unknown,"
        "no information,impossible to,weiß nicht,nicht sicher,keine angaben,sais pas,pas sûr,no sé,no estoy,não sei,"
        "non so,不知,不确,不清,无法,不明,わかりません"
    ),
    "second_thoughts": (
        "wait,actually,however,mistake,correction,correct this,recheck,re evaluate,reconsider,incorrect,wrong,error,"
        "typo,oops,apologize,sorry,instead,allerdings,jedoch,fehler,moment,cependant,toutefois,erreur,sin embargo,"
        "error,equivoqué,porém,entretanto,tuttavia,errore,但是,不过,抱歉,错误,しかし,ただし"
    ),
    "no_fit": (
        "none of,closest,nearest,not listed,not among,best fit,best answer,most likely,most appropriate,most accurate,"
        "doesn't match,not match,no option,options given,given options,options are,round,rounding,slight,discrepancy"
    ),
    "conclusion": (
        "therefore,thus,hence,finally,conclusion,so the,in total,altogether,daher,somit,also,insgesamt,donc,ainsi,"
        "finalement,por lo,entonces,portanto,logo,quindi,dunque,因此,所以,总之,したがって"
    ),
    "sure": (
        "clearly,definitely,certainly,obviously,exactly,must be,of course,indeed,precisely,eindeutig,sicherlich,"
        "certainement,évidemment,claramente,certamente,当然,显然,一定"
    ),
    "negation": (
        "not,no,never,cannot,n't,none,neither,nor,nicht,kein,keine,ne,pas,aucun,nunca,ningún,não,nenhum,non,nessun,不,没"
    ),
    "steps": (
        "first,second,third,next,then,step,finally,zuerst,dann,schritt,d'abord,ensuite,étape,primero,luego,paso,"
        "首先,然后"
    ),
}
# The commonest little words tell the languages of Latin script apart.
_LANGUAGES: Mapping[str, str] = {
    "en": "the,of,and,is,to,in,that,it,for,are,with,was",
    "de": "der,die,das,und,ist,nicht,ein,eine,zu,den,mit,für",
    "fr": "le,la,les,et,est,des,une,du,que,pour,dans,qui",
    "es": "el,los,las,y,es,una,del,que,por,con,para,se",
    "pt": "o,os,as,e,é,uma,do,da,não,por,com,para",
    "it": "il,lo,gli,e,è,una,del,della,che,per,con,non",
}
_NAME = re.compile(r"(?<=[a-z,;)] )[A-ZÀ-ÖØ-Þ][a-zß-öø-ÿ]{2,30}")
_MAX_NAMES = 100

COLUMNS: tuple[str, ...] = (
    *(f"{name}_cues" for name in _CUES),
    *(f"{name}_per_word" for name in _CUES),
    "hedge_in_conclusion",
    "other_language",
    "other_script",
    "log_names",
    "new_names",
    "new_name_share",
    "answer_words_given_share",
    "answer_pairs_given_share",
    "given_words_used_share",
    "given_pairs_used_share",
    "log_answer_over_given_words",
)


def compute(view: AnswerView) -> list[float]:
    """Return one value per column; counts are log(1 + count), NaN where a share is of nothing."""
    said, asked = view.scan, view.asked.scan
    n_words = len(said.words)
    cues = np.bincount(_cue_table()[said.buckets], minlength=len(_CUES) + 1)[1:].tolist()
    values = [log1p(count) for count in cues]
    values += [count / max(n_words, 1) for count in cues]
    values.append(float(_has_hedge(view.conclusion)))
    values += [_other_language(said, asked), _other_script(said, asked), *_names(view), *_overlap(said, asked)]
    values.append(log1p(n_words) - log1p(len(asked.words)))
    return values


def _has_hedge(text: str) -> bool:
    group = _cue_table()[scan(text).buckets]
    return bool(((group == 1) | (group == 2)).any())


def _other_language(said: TextScan, asked: TextScan) -> float:
    mine, theirs = _little_words(said), _little_words(asked)
    sizes = float(np.sqrt((mine @ mine) * (theirs @ theirs)))
    return 1.0 - float(mine @ theirs) / sizes if sizes > 0 else nan


def _little_words(found: TextScan) -> NDArray[np.float64]:
    groups = _language_table()[found.buckets[: len(found.words)]]
    return _LANGUAGE_BITS @ np.bincount(groups, minlength=64)[:64].astype(np.float64)


def _other_script(said: TextScan, asked: TextScan) -> float:
    mine, theirs = _scripts(said), _scripts(asked)
    return 0.5 * float(np.abs(mine - theirs).sum())


def _scripts(found: TextScan) -> NDArray[np.float64]:
    counts = found.class_counts
    latin = counts[CharClass.LOWER] + counts[CharClass.UPPER]
    three = np.array([latin, counts[CharClass.LETTER], 2 * counts[CharClass.IDEOGRAPH]], np.float64)
    total = three.sum()
    return three / total if total else three


def _names(view: AnswerView) -> tuple[float, float, float]:
    names = set(_NAME.findall(view.text)[:_MAX_NAMES])
    context = view.asked.asked + view.asked.system
    new = sum(1 for name in names if name not in context)
    return log1p(len(names)), log1p(new), new / len(names) if names else nan


def _overlap(said: TextScan, asked: TextScan) -> tuple[float, float, float, float]:
    mine, theirs = _marks(said.buckets), _marks(asked.buckets)
    n_mine, n_theirs = len(said.words), len(asked.words)
    in_prompt, in_answer = theirs[said.buckets], mine[asked.buckets]
    return (
        _share(in_prompt[:n_mine]),
        _share(in_prompt[n_mine:]),
        _share(in_answer[:n_theirs]),
        _share(in_answer[n_theirs:]),
    )


def _marks(buckets: NDArray[np.int64]) -> NDArray[np.bool_]:
    marked = np.zeros(N_TEXT_BUCKETS, np.bool_)
    marked[buckets] = True
    return marked


def _share(hits: NDArray[np.bool_]) -> float:
    return int(np.count_nonzero(hits)) / len(hits) if len(hits) else nan


@cache
def _cue_table() -> NDArray[np.uint8]:
    table = np.zeros(N_TEXT_BUCKETS, np.uint8)
    for group, phrases in enumerate(_CUES.values(), start=1):
        for phrase in phrases.split(","):
            # The last bucket is the phrase's own: the word, or the pair of its two words.
            table[scan(phrase).buckets[-1]] = group
    return table


@cache
def _language_table() -> NDArray[np.uint8]:
    table = np.zeros(N_TEXT_BUCKETS, np.uint8)
    for bit, words in enumerate(_LANGUAGES.values()):
        for word in words.split(","):
            table[scan(word).buckets[0]] |= 1 << bit
    return table


# Row l has a 1 where a combination of languages (a bit each) holds language l.
_LANGUAGE_BITS = np.array([[combination >> bit & 1 for combination in range(64)] for bit in range(6)], np.float64)
