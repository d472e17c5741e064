"""The model declines to answer ("I'm sorry, but I can't help with that"), in eight languages."""

from __future__ import annotations

from router_ml.checks.opening import opens_with, phrases
from router_ml.schema import Answer, Request

__all__ = ["check"]

# A refusal is a paragraph at most; a longer answer that begins like one goes on to help.
_MAX_CHARS = 600

_ENGLISH = (
    r"\bi(?: simply| really| unfortunately)? (?:can't|cannot|can not|won't|will not|am unable to|am not able to|"
    r"am not comfortable|am not allowed to|am not permitted to)(?: be able to)? "
    r"(?:help(?! but\b| notic| feel| think)|assist|provide|provid|answer|fulfil|comply|complete|do that|do this|share|"
    r"generate|create|creat|write|writ|discuss|engage|support|process|respond|continue with|offer|give|accommodate)",
    r"\bi'm (?:sorry,? )?(?:unable to|not able to|not comfortable|not allowed to|not permitted to) "
    r"(?:help|assist|provid|answer|fulfil|comply|complet|do that|do this|shar|generat|creat|writ|discuss|engag|"
    r"support|process|respond|offer|giv|accommodat)",
    r"\bas an? (?:ai|artificial intelligence|(?:large )?language model)\b[^.\n]{0,40}\bi (?:can't|cannot|don't|do not|"
    r"am not|am unable)",
    r"\bi(?:'ll| will| must| have to|'m going to have to| need to)(?: respectfully| politely)? (?:decline|refuse)\b",
    r"\b(?:against|violates?) (?:my|our) (?:guidelines|policy|policies|programming|principles)\b",
)
_GERMAN = (
    r"\b(?:ich (?:kann|darf|werde)|(?:kann|darf|werde) ich)\b[^.!?\n]{0,60}\bnicht\b[^.!?\n]{0,30}\b(?:helfen|"
    r"weiterhelfen|beantworten|antworten|unterstützen|behilflich|bereitstellen|erfüllen|nachkommen|erstellen|dienen)\b",
    r"\bich bin (?:leider )?nicht in der lage\b",
    r"\b(?:muss ich|ich muss)\b[^.!?\n]{0,50}\bablehnen\b",
    r"\bals (?:ki|künstliche intelligenz|sprachmodell|ki-\w+)\b[^.!?\n]{0,40}\b(?:kann|darf) ich\b[^.!?\n]{0,60}\b"
    r"(?:nicht|kein\w*)\b",
)
_FRENCH = (
    r"\bje ne (?:peux|puis|suis)(?: malheureusement)? pas (?:en mesure (?:de |d')|capable (?:de |d')|autorisée? à )?"
    r"(?:vous |te |t'|y |le |la |l')?(?:aider|répondre|fournir|accéder|donner|assister|traiter|satisfaire|générer|"
    r"créer|rédiger|écrire|effectuer|faire cela)",
    r"\bje (?:dois|suis (?:obligée?|contrainte?) de)(?: malheureusement)? (?:décliner|refuser)\b",
    r"\ben tant qu(?:'|e )(?:ia|intelligence artificielle|modèle de langage|assistante? ia)\b[^.\n]{0,40}\bje ne\b",
)
_SPANISH = (
    r"\bno (?:puedo|podré|me es posible|soy capaz de|estoy en condiciones de|estoy autorizad[oa] (?:a|para)) "
    r"(?:te |le |lo )?(?:ayudar|proporcionar|responder|asistir|cumplir|ofrecer|brindar|generar|crear|completar|"
    r"dar(?:te|le)?\b|hacer eso|escribir|compartir|atender)",
    r"\b(?:debo|tengo que) (?:rechazar|declinar)\b",
    r"\bcomo (?:una )?(?:ia|inteligencia artificial|modelo de lenguaje)\b[^.\n]{0,40}\bno (?:puedo|tengo|soy)\b",
)
_PORTUGUESE = (
    r"\bnão (?:posso|consigo|poderei|sou capaz de|me é possível|estou (?:apt[oa]|autorizad[oa]) a) (?:te |lhe |o |a )?"
    r"(?:ajud|fornecer|responder|atender|auxiliar|criar|gerar|cumprir|fazer isso|oferecer|escrever|compartilhar)",
    r"\b(?:preciso|devo|tenho (?:que|de)) (?:recusar|declinar)\b",
    r"\bcomo (?:uma? )?(?:ia|inteligência artificial|modelo de linguagem)\b[^.\n]{0,40}\bnão (?:posso|tenho|sou)\b",
)
_ITALIAN = (
    r"\bnon (?:posso|potrò|sono in grado di|mi è possibile|sono autorizzat[oa] a) (?:ti |le |vi )?"
    r"(?:aiutar|fornir|risponder|assister|soddisfar|generar|crear|completar|dar(?:e|ti|le|vi)\b|fare questo|scriver|"
    r"condivider|offrir)",
    r"\b(?:devo|sono costrett[oa] a) (?:rifiutare|declinare)\b",
    r"\bcome (?:ia|intelligenza artificiale|modello linguistico)\b[^.\n]{0,40}\bnon (?:posso|ho|sono)\b",
)
_CHINESE = (
    r"我(?:目前|暂时|暫時|现在|現在|实在|實在|确实)?(?:无法|無法|不能|不可以|没有办法|沒有辦法|没法|沒法)"
    r"(?:[为為向给給](?:您|你|这个|這個)?|在这方面|直接)?"
    r"(?:提供|回答|帮|幫|协助|協助|完成|满足|滿足|处理|處理|生成|创建|創建|讨论|討論|继续|繼續|执行|執行|回应|回應|分享)",
    r"(?:作为|作為)(?:一个|一個|一名)?(?:ai|人工智能|人工智慧|语言模型|語言模型|大型语言模型)[^。\n]{0,30}(?:无法|無法|不能)",
    r"我(?:必须|必須|不得不|只能)(?:拒绝|拒絕)",
)
_JAPANESE = (
    r"(?:手伝い|手伝う|答え|答える|応え|応える|提供|対応|回答|案内|支援|サポート|作成|生成|共有)(?:する)?(?:こと)?"
    r"(?:は|が|を)?(?:でき(?:ません|かねます|ない)|出来(?:ません|かねます|ない)|(?:いた|致)?しかねます)",
    r"応じ(?:ること(?:は|が))?(?:できません|出来ません|かねます|られません)",
    r"お断り(?:いたします|致します|します|させていただきます|しなければ)",
)
_REFUSAL = (
    phrases(
        (
            *("i can", "i won", "i will", "i'll", "i am ", "i'm ", "i simply", "i really", "i unfort"),
            *("i must", "i have to", "i need to", "as an ", "as a ", "against ", "violate"),
        ),
        _ENGLISH,
    ),
    phrases((" ich", "ich ", "als ki", "als künst", "als sprach"), _GERMAN),
    phrases(("je ",), _FRENCH),
    phrases(("no pu", "no pod", "no me ", "no soy", "no estoy", "debo", "tengo que", "como "), _SPANISH),
    phrases(("não ", "preciso", "devo", "tenho", "como "), _PORTUGUESE),
    phrases(("non ", "devo", "sono cos", "come "), _ITALIAN),
    phrases(("我", "作为", "作為"), _CHINESE),
    phrases(("でき", "出来", "かね", "応じ", "お断り"), _JAPANESE),
)


def check(request: Request, answer: Answer) -> str | None:
    """Find refusals at the beginning of short answers; one that only quotes a refusal passes."""
    if answer.tool_calls or not opens_with(answer.text, _REFUSAL, max_chars=_MAX_CHARS):
        return None
    return "the answer is a refusal"
