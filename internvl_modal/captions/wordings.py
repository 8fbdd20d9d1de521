"""How models refuse, begin without saying anything, and leave their own marks: as patterns.

Each list is by language; a wording that is missing is one line here.
"""

from __future__ import annotations

import re


def _any(*patterns: str) -> re.Pattern[str]:
    return re.compile("|".join(f"(?:{each})" for each in patterns), re.I)


_POLITE = (
    r"(?:sure|certainly|of course|absolutely|okay)[!,.:]?\s+(?:here (?:is|are|'s)[^:\n]*:\s*)?"
)
PREAMBLE = re.compile(rf"^[\s*#>_\-\"“]*(?:{_POLITE})?[\s*#>_\"“]*", re.I)
"""What may stand before the first word that counts."""

_CANNOT = (
    r"(?:can(?:no|')t|can not|am (?:unable|not able|not allowed|not permitted)|'m (?:unable"
    r"|not able|not allowed|not permitted)|won't|will not|do(?:n't| not)|must decline|regret)"
)
_TASK = (
    r"(?:help|assist|comply|provide|describe|identify|view|process|read|fulfil\w*|determine|answer"
    r"|generate|access|open|discuss|recogni[sz]e|create|analy[sz]e|display|tell you|transcribe"
    r"|feel comfortable|have (?:the|any|access)|see (?:an?y?|the|your) (?:image|picture|photo)"
    r"|continue|engage|caption|write|do (?:that|this|so)\b)"
)
REFUSALS = _any(
    rf"(?:unfortunately|regrettably|sorry|as an? [^,.]{{0,60}}),?\s+(?:but )?i\s?{_CANNOT}\b.{{0,40}}?{_TASK}",
    rf"i\s?{_CANNOT}\b.{{0,40}}?{_TASK}",
    rf"(?:i'?m |i am )?(?:so |very |really )?sorry\b.{{0,40}}?i\s?{_CANNOT}\b",
    r"sorry\b.{0,60}?(?:image|picture|photo|request|content)\b.{0,60}?(?:not|policy|can)",
    rf"(?:i apologi[sz]e|(?:my )?apologies)\b.{{0,40}}?i\s?{_CANNOT}\b",
    rf"as an? (?:ai|(?:large )?language model)\b.{{0,60}}?i\s?{_CANNOT}\b",
    r"i regret that i",
    rf"i(?:'m| am) afraid,? (?:that )?i\s?{_CANNOT}\b",
    r"i(?:'m| am) (?:just |only )?an? (?:ai|(?:large )?language model|text)\b.{0,60}?(?:can't|cannot|unable)",
    r"(?:this|the|your|that) request (?:cannot|can't|could not) be",
    r"(?:it (?:seems|looks like|appears)(?: that)? )?you (?:have not|haven't|did not|didn't)"
    r" (?:upload|provid|attach|shar|includ)\w* (?:an?|any|the) (?:image|picture|photo)",
    r"(?:it (?:seems|looks like|appears)(?: that)? )?(?:no|there is no|there's no|you (?:have not"
    r"|haven't|did not|didn't)\b.{0,20}?\b(?:an?|any|the)) (?:image|picture|photo)s?\b"
    r".{0,30}?(?:provided|attached|uploaded|shared|visible)",
    r"(?:my|our|the) (?:content )?(?:guidelines|programming|polic(?:y|ies))\b.{0,30}?"
    r"(?:do(?:es)? ?n[o']t|prevent|prohibit|forbid)",
    r"(?:很|非常|十分)?(?:抱歉|对不起|對不起|不好意思)[^。]{0,20}?(?:无法|無法|不能|没有办法|没办法)",
    r"(?:作为|作為)[^。]{0,20}?(?:模型|助手|AI)[^。]{0,12}?(?:无法|無法|不能|没有)",
    r"我(?:无法|無法|不能)(?:查看|识别|描述|回答|提供|帮|看到|处理)",
    r"(?:es )?tut mir leid\b.{0,60}?\b(?:kann|darf)\b",
    r"(?:leider|entschuldigung\W+aber) (?:kann|darf) ich\b",
    r"ich (?:kann|darf)\b.{0,40}?(?:nicht helfen|keine bilder|nicht beschreiben|nicht identifizieren)",
    r"(?:je suis )?(?:désolée?|malheureusement)\b.{0,40}?\bje ne\b",
    r"je ne (?:peux|suis) pas\b.{0,40}?(?:aider|décrire|identifier|voir|mesure)",
    r"(?:lo siento|disculp\w+|lamentablemente|perdón)\b.{0,40}?\bno (?:puedo|me es posible|estoy)",
    r"no puedo (?:ayudar|describir|identificar|ver|procesar)",
    r"(?:desculpe|sinto muito|lamento|infelizmente)\b.{0,40}?\bnão (?:posso|consigo|é possível)",
    r"(?:mi dispiace|purtroppo|spiacente)\b.{0,40}?\bnon (?:posso|riesco|sono in grado)",
    r"(?:sorry|het spijt me|helaas)\b.{0,40}?\b(?:kan ik|ik kan) (?:niet|geen)",
    r"(?:申し訳|すみません|恐れ入り|ごめん)[^。]{0,60}?(?:できません|できかね|いたしかね)",
    r"(?:извините|простите|к сожалению|прошу прощения)\b.{0,40}?\b(?:не могу|не в состоянии|не имею)",
    r"я не могу (?:описать|помочь|определить|увидеть)",
    r"(?:죄송|미안)[^.]{0,60}?(?:없습니다|못합니다|어렵습니다)",
)
"""At the start of an answer, in the model's own voice."""
ABOUT_PICTURES = _any(r"\b(?:image|picture|photo|text)", "图", "画像", r"\bbild", "imagen", "фото")
"""A transcript may begin with words like those; a refusal to make one speaks of the picture."""

_PICTURE = r"(?:image|picture|photo(?:graph)?|pic|snapshot)"
_WHICH = r"(?:provided |given |attached |uploaded |displayed |above )?"
_SHOWS = (
    r"(?:shows?|depicts?|features?|captures?|presents?|displays?|contains?|showcases?|illustrates?"
    r"|portrays?|represents?|describes?|includes?|consists? of|appears to|seems to|highlights?"
    r"|is (?:an? |of |showing|depicting|about))"
)
OPENERS = _any(
    rf"(?:the|this) {_WHICH}{_PICTURE}(?: (?:that )?(?:you|you've|i)[^.,]{{0,30}}?)?(?: here)?[*_ ]{{1,4}}{_SHOWS}\b",
    rf"in (?:the|this) {_WHICH}{_PICTURE}(?:,| (?:we|you|one|there|i|it|an?|two|three|some|several)\b)",
    rf"(?:(?:the|this) scene|{_PICTURE}) (?:shows|depicts|captures|features)\b",
    r"here(?:'s| is) (?:an?|the|your) [^:.\n]{0,60}?(?:description|caption|image|picture|photo)[^:.\n]{0,40}:",
    rf"(?:this|it|here) (?:is|appears to be) an? {_WHICH}{_PICTURE} (?:of|show|depict|that|captur)",
    rf"an? {_PICTURE} (?:of|showing|depicting|featuring|that shows)\b(?!.{{0,60}}?\b(?:hangs?|lies|stands"
    r"|leans|is (?:hanging|pinned|taped|glued|lying|standing|propped|on the))\b)",
    r"(?:here,? )?(?:we|you) (?:can )?see\b",
    r"here (?:we|you) (?:can )?see\b",
    rf"as (?:can be )?(?:seen|shown) in (?:the|this) {_PICTURE}",
    r"(?:das|dieses) (?:bild|foto) (?:zeigt|stellt|enthält|präsentiert|ist ein)",
    r"(?:auf|in) (?:dem|diesem) (?:bild|foto),? (?:ist|sind|sieht|siehst|sehen|kann|erkennt|befind)",
    r"(?:l'|cette |la |une )(?:image|photo|photographie) (?:montre|présente|représente|illustre"
    r"|affiche|dépeint|est une)",
    r"(?:dans|sur) (?:cette |la |l')(?:image|photo|photographie)(?:,| on\b)",
    r"(?:la|esta|una) (?:imagen|foto|fotografía) (?:muestra|presenta|representa|ilustra|es una|de)",
    r"en (?:la|esta) (?:imagen|foto|fotografía)(?:,| se\b)",
    r"(?:a|esta) (?:imagem|foto|fotografia) (?:mostra|apresenta|retrata|é uma)",
    r"n(?:a|esta) (?:imagem|foto|fotografia)(?:,| vemos| há)",
    r"(?:l'immagine|la foto|questa (?:immagine|foto)) (?:mostra|presenta|raffigura|ritrae)",
    r"(?:de|deze) (?:afbeelding|foto) (?:toont|laat)",
    r"на (?:этом |этой |данном |данной )?(?:изображении|картинке|фото|фотографии|снимке)\b",
    r"(?:изображение|картинка|фотография) показывает",
    r"[这這该該此本]?[张張幅]?(?:图片|圖片|图像|圖像|照片|图画|画面|图|圖)(?:中|里|裡|上|展示|显示|顯示|描绘|呈现|拍摄|是一)",
    r"(?:この|こちらの)?(?:画像|写真|絵)(?:には|では|は|に|の中)",
    r"(?:이|해당) (?:이미지|사진)(?:은|는|에는|에서)",
)
"""At the start: words that any caption could begin with."""

THOUGHTS = _any(
    r"(?:(?:okay|ok|alright|so|hmm|well|got it|right)[,.!]*\s+)?(?:so,? )?(?:first,? )?(?:the user"
    r" (?:wants|asks|asked|is asking|has (?:asked|provided|given|uploaded))|let(?: me|'s|'s see"
    r") (?:look|think|analy|describe|see|start|break|work|examine|take)|(?:i|we) (?:need|have) to"
    r" (?:analy|describe|look|figure|write|identify|think|determine|examine)"
    r"|i should (?:describe|write|look|mention))",
    r"(?:好的|嗯)?[,，。]?用户(?:想要|希望|要求|让我)",
)
"""At the start: a model that thinks aloud, without a mark around it."""
NOT_THOUGHTS = _any(r"let me (?:think|see|look)\b[^,.;:]{0,20}? (?:is|was) ")

TOKENS = re.compile(
    r"<\|[^|<>\n]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|</?(?:img|IMG_CONTEXT|image|ref|box|quad)>"
    r"|<(?:start|end)_of_(?:turn|image)>|<(?:eos|bos|pad|unk)>|\[UNUSED_TOKEN_\d{1,3}\]"
)
"""Control tokens of chat templates; the last are InternLM2's, by the names its first files have."""
BOXES_WANTED = re.compile(r"\bbox|\blocate|<ref>|\bwhere\b", re.I)
"""In a prompt: boxes are asked for."""
BOXES = re.compile(r"</?(?:ref|box|quad)>")
"""The tokens around them."""
AROUND = re.compile(r"\A(?:<\|[^|<>\n]{1,40}\|>|<think>)|<\|[^|<>\n]{1,40}\|>\Z")
"""Those that stand around an answer, whatever it is about."""
MARKS = re.compile(
    r"</?(?:think|thinking|reasoning|seed:think|answer|final_answer)>|◁/?think▷|\\boxed\{"
)
"""Marks around thoughts and answers."""
ROLES = re.compile(
    r"\A\s*(?:ASSISTANT|Assistant|assistant|AI|Bot|Model)\s*:|^[ \t]*(?:USER|ASSISTANT|Human|HUMAN):"
    r"|###\s*(?:Human|Assistant|User|System|Response|Instruction)\s*:",
    re.M,
)
"""Turns of a conversation that was not held."""
