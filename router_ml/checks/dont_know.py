"""The model says that it does not know, in eight languages."""

# ruff: noqa: RUF001 - other languages use other characters

from __future__ import annotations

from router_ml.checks.opening import opens_with, phrases
from router_ml.schema import Answer, Request

__all__ = ["check"]

# "I don't know the exact figure, but it can be estimated as follows: ..." is longer, and an answer.
_MAX_CHARS = 280

_ENGLISH = (
    r"\bi (?:really |honestly |simply |actually |unfortunately )?(?:don't|do not) (?:really |actually )?know\b",
    r"\bi(?:'m| am) (?:really |honestly )?not (?:entirely |quite |completely )?sure\b",
    r"\bi(?: have|'ve got) no (?:idea|information|knowledge|data)\b",
    r"\bi (?:don't|do not) have (?:enough |sufficient |any |access to |the |that |this )*"
    r"(?:information|data|context|knowledge|details|answer)\b",
    r"\bi (?:can't|cannot|couldn't|could not|am unable to|was unable to|was not able to) "
    r"(?:find|determine|tell|say for|be sure|be certain)\b",
    r"\bi(?:'m| am) (?:unable|not able) to (?:find|determine|tell|say)\b",
    r"^(?:unknown|no idea|not sure|dunno)\b[.!]?$",
)
_GERMAN = (
    r"\b(?:weiß|weiss) ich (?:leider |ehrlich gesagt )?nicht\b",
    r"\bich (?:weiß|weiss) (?:es |das |darauf )?(?:leider |ehrlich gesagt )?(?:keine antwort|nicht)\b",
    r"\bkeine ahnung\b",
    r"\b(?:ich habe|habe ich|ich verfüge|mir liegen|liegen mir)\b[^.!?\n]{0,40}\b(?:keine|nicht genug|nicht genügend|"
    r"nicht ausreichend\w*|zu wenig)\b[^.!?\n]{0,20}\b(?:information\w*|angaben|daten|kenntnis\w*|idee)\b",
    r"\bich bin (?:mir )?(?:leider |da |dabei )*nicht (?:ganz )?sicher\b",
    r"\b(?:kann ich|ich kann)\b[^.!?\n]{0,30}\bnicht (?:sagen|sicher sagen|beurteilen)\b",
)
_FRENCH = (
    r"\bje (?:ne )?sais pas\b",
    r"\bje n'ai (?:malheureusement )?(?:pas|aucune?) (?:assez |suffisamment |accès à |de |d'|l'|la |cette |les )*"
    r"(?:informations?|idée|éléments|connaissances?|données|réponse)\b",
    r"\bje n'en sais rien\b",
    r"\baucune idée\b",
    r"\bje ne suis pas (?:vraiment |tout à fait )?(?:sûre?|certaine?)\b",
    r"\bje l'ignore\b",
)
_SPANISH = (
    r"\bno (?:lo )?sé\b(?! si (?:te|le))",
    r"\bno (?:tengo|dispongo de|cuento con) (?:ni idea|idea|(?:la |esa |suficientes? |más )*"
    r"(?:información|datos|conocimientos?|respuesta))\b",
    r"\bno estoy (?:del todo |completamente )?segur[oa]\b",
    r"\bdesconozco\b",
)
_PORTUGUESE = (
    r"\bnão (?:o )?sei\b",
    r"\bnão (?:tenho|disponho de) (?:certeza|ideia|(?:a |essa |informações|suficientes? |mais )*"
    r"(?:informaç(?:ão|ões)|dados|conhecimentos?|resposta))\b",
    r"\bnão faço (?:a menor |a mínima )?ideia\b",
    r"\bdesconheço\b",
)
_ITALIAN = (
    r"\bnon (?:lo )?so\b(?! se (?:ti|le))",
    r"\bnon (?:ho|dispongo di|ne ho) (?:idea|la minima idea|(?:abbastanza |sufficienti |le |la |questa |quest')*"
    r"(?:informazion[ei]|dati|conoscenz[ae]|risposta))\b",
    r"\bnon (?:ne )?sono (?:del tutto )?(?:sicur[oa]|cert[oa])\b",
)
_CHINESE = (
    r"(?:^|[，,。、\s]|我(?:也|真的|并|並|还|還|暂时|暫時|目前|确实|確實|其实|其實)?)"
    r"(?:不知道|不清楚|不太清楚|不确定|不確定|不太确定|不太確定|不了解|不晓得|不曉得|无法确定|無法確定)(?![您你])",
    r"我(?:目前|暂时|暫時)?(?:没有|沒有)(?:足够|足夠|相关|相關|这方面|這方面|任何)?的?(?:信息|資訊|资料|資料|数据|數據)",
)
_JAPANESE = (
    r"(?:わかりません|分かりません|わかりかねます|分かりかねます|存じません|存じ上げません|存じ上げておりません|"
    r"知りません)(?!でした|か)",
    r"(?:情報|データ|知識)(?:が|は)(?:不足して|足りません|ありません|ございません|持って(?:い|お)り?ません)",
    r"(?:確信|自信)が(?:ありません|持てません)",
)
_DONT_KNOW = (
    phrases(
        (
            *("know", "not sure", "i have no", "i've got no", "i don't have", "i do not have", "i can't", "i cannot"),
            *("i could", "i am ", "i'm ", "i was ", "no idea", "dunno", "unknown"),
        ),
        _ENGLISH,
    ),
    phrases((" ich", "ich ", "ahnung", "mir"), _GERMAN),
    phrases(("je ", "aucune idée"), _FRENCH),
    phrases(("no sé", "no lo sé", "no teng", "no disp", "no cuent", "no est", "desconozco"), _SPANISH),
    phrases(("não ", "desconheço"), _PORTUGUESE),
    phrases(("non ",), _ITALIAN),
    phrases(("不", "无法确定", "無法確定", "没有", "沒有"), _CHINESE),
    phrases(("わか", "分か", "存じ", "知り", "情報", "データ", "知識", "確信", "自信"), _JAPANESE),
)


def check(request: Request, answer: Answer) -> str | None:
    """Find "I don't know" at the beginning of short answers; a long answer that admits a gap passes."""
    if answer.tool_calls or not opens_with(answer.text, _DONT_KNOW, max_chars=_MAX_CHARS):
        return None
    return "the answer says that it does not know"
