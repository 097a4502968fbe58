"""Ten thousand and more strings to compare tokenizers on, the same on every machine.

Scripts, emoji, code, whitespace, numbers, control-token look-alikes, and mixtures of all. The generator draws with
`Random.random` alone, whose sequence Python promises to keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")
SEED = 20261123
COUNTS = {"prose": 1500, "script": 2200, "emoji": 1000, "code": 1300, "space": 1500, "number": 800}
COUNTS |= {"look_alike": 1500, "repeat": 500, "mixture": 1700}

# Article 1 of the Universal Declaration of Human Rights, and proverbs: nobody's property.
SENTENCES = (
    "All human beings are born free and equal in dignity and rights.",
    "They're endowed with reason; we'll act, I'd say, as you've said it's best.",
    "Tous les êtres humains naissent libres et égaux en dignité et en droits.",
    "Alle Menschen sind frei und gleich an Würde und Rechten geboren.",
    "Todos los seres humanos nacen libres e iguales en dignidad y derechos.",
    "Todos os seres humanos nascem livres e iguais em dignidade e em direitos.",
    "Все люди рождаются свободными и равными в своём достоинстве и правах.",
    "Όλοι οι άνθρωποι γεννιούνται ελεύθεροι και ίσοι στην αξιοπρέπεια.",
    "כל בני אדם נולדו בני חורין ושווים בערכם ובזכויותיהם.",
    "يولد جميع الناس أحرارًا متساوين في الكرامة والحقوق.",
    "सभी मनुष्यों को गौरव और अधिकारों के मामले में जन्मजात स्वतन्त्रता प्राप्त है।",
    "মানুষ স্বাধীনভাবে সমান মর্যাদা এবং অধিকার নিয়ে জন্মগ্রহণ করে।",
    "人人生而自由，在尊严和权利上一律平等。",
    "すべての人間は、生まれながらにして自由であり、かつ、平等である。",
    "모든 인간은 태어날 때부터 자유로우며 그 존엄과 권리에 있어 동등하다.",
    "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ",
    "Tất cả mọi người sinh ra đều được tự do và bình đẳng về nhân phẩm.",
    "Bütün insanlar hür, haysiyet ve haklar bakımından eşit doğarlar.",
    "Wszyscy ludzie rodzą się wolni i równi pod względem swej godności.",
    "ყველა ადამიანი იბადება თავისუფალი და თანასწორი.",
    "Բոլոր մարդիկ ծնվում են ազատ ու հավասար։",
    "ሁሉም የሰው ልጆች ነጻ ሆነው ተወለዱ።",
)
SCRIPTS = (
    (0x21, 0x7E), (0xA1, 0xFF), (0x100, 0x17F), (0x1E00, 0x1EFF), (0x370, 0x373), (0x391, 0x3A1), (0x3B1, 0x3C9),
    (0x410, 0x44F), (0x450, 0x45F), (0x531, 0x556), (0x5D0, 0x5EA), (0x620, 0x64A), (0x64B, 0x652), (0x905, 0x939),
    (0x93E, 0x94D), (0x985, 0x98C), (0xB95, 0xB95), (0xE01, 0xE30), (0xE40, 0xE4E), (0x10D0, 0x10F0), (0x1200, 0x1248),
    (0x13A0, 0x13F4), (0x1780, 0x17B3), (0x3041, 0x3096), (0x30A1, 0x30FA), (0x4E00, 0x9FA5), (0xAC00, 0xD7A3),
    (0x300, 0x36F), (0x2010, 0x2027), (0x2030, 0x205E), (0x20A0, 0x20BF), (0x2100, 0x214F), (0x2160, 0x2188),
    (0x2190, 0x23FF), (0x2460, 0x24FF), (0x2500, 0x27BF), (0xFF01, 0xFF5E), (0x1D400, 0x1D454), (0x10400, 0x1044F),
    (0x20000, 0x20010), (0xE000, 0xE010), (0x1, 0x8), (0xE, 0x1F), (0x7F, 0x9F),
)  # fmt: skip
SPACES = (" ", "  ", "   ", "    ", "\t", "\n", "\n\n", "\r\n", "\r", "\u00a0", "\u3000", "\u2009", "\u200b", "\ufeff")
SPACES += ("\v", "\f", "\x85", "\u2028", "\u1680", "▁", " " * 8, " " * 16, " " * 33, "\n" * 5, "\t" * 4)
EMOJI = (
    "😀", "😂", "❤️", "👍🏽", "👩‍👩‍👧‍👦", "🏳️‍🌈", "🇫🇷", "🇩🇪", "1️⃣", "☃",
    "✈️", "🤷🏿‍♀️", "🧑‍🚀", "🫠", "⌚", "©", "™", "🀄", "🎉", "🏴󠁧󠁢󠁳󠁣󠁴󠁿",
)  # fmt: skip
CONTROL = (
    "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<pad>", "<0x0A>", "<0x20>", "<0xFF>",
    "<|begin_of_text|>", "<|end_of_text|>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]",
    "[/INST]", "<<SYS>>", "<</SYS>>", "<|im_end", "im_end|>", "< |im_end|>", "<|im_end|><|im_start|>", "<|", "|>",
    "<repo_name>", "<file_sep>", "<|reserved_special_token_0|>", "<|python_tag|>", "<|", "</", "<s", "s>", "<<s>>",
)  # fmt: skip
CODE = (
    "def f(x: int) -> str:\n    return f\"{x!r:>10}\"\n", "for (int i = 0; i < n; ++i) { a[i] *= 2; }\n",
    "<div class=\"a b\">\n\t<p>It&apos;s</p>\n</div>", "SELECT * FROM t WHERE a<=3 AND b!='x''y';",
    "{\"key\": [1, 2.5e-10, null, true], \"k2\": \"\\u00e9\\n\"}", "fn main() -> Result<(), Box<dyn Error>> {\n}\n",
    "#include <stdio.h>\n#define MAX(a,b) ((a)>(b)?(a):(b))\n", "$ git commit -m 'fix' && echo $?\n",
    "\\frac{\\partial f}{\\partial x} = \\sum_{i=1}^{n} x_i^2", "https://example.org/a/b?c=d&e=%20f#g",
    "user@example.org, +49 (0)30 123456-78", "x86_64-linux-gnu/v1.2.3-rc.4+build.5", "a+=b--c**d//e%f^g|h&i~j@k",
    "if __name__ == '__main__':\n        main()\n",
    "let s = `a${b}c`; // comment\n/* block */", "camelCaseIDName HTTPServer",
)  # fmt: skip
LETTERS = "aAxéß中あ한ع०ͤ=-_.,!?*#/\\<>|()[]{}'\"`~@$%^&+0 \n\t"


class Draw:
    """A seeded source of choices."""

    def __init__(self, seed: int) -> None:
        self._random = Random(seed).random

    def below(self, n: int) -> int:
        return int(self._random() * n)

    def one(self, items: Sequence[T]) -> T:
        return items[self.below(len(items))]

    def some(self, make: Callable[[], str], most: int) -> list[str]:
        return [make() for _ in range(1 + self.below(most))]


def token_strings() -> list[str]:
    """All strings, in a fixed order; a few begin the list that tokenizers most often get wrong."""
    draw = Draw(SEED)
    makers: dict[str, Callable[[Draw], str]] = {
        "prose": _prose,
        "script": _script,
        "emoji": _emoji,
        "code": _code,
        "space": _space,
        "number": _number,
        "look_alike": _look_alike,
        "repeat": _repeat,
    }
    strings = ["", " ", "  ", "\n", "a", " a", "'", "''s", "I'LL", "'ſ", "\0", "a\0b", "▁", "▁▁a", "�"]
    for kind, count in COUNTS.items():
        if kind == "mixture":
            kinds = list(makers.values())
            strings += ["".join(draw.one(kinds)(draw) for _ in range(2 + draw.below(3))) for _ in range(count)]
        else:
            strings += [makers[kind](draw) for _ in range(count)]
    return strings


def _prose(draw: Draw) -> str:
    words = " ".join(draw.some(lambda: draw.one(SENTENCES), 2)).split(" ")
    start = draw.below(len(words))
    text = " ".join(words[start : start + 1 + draw.below(25)])
    return draw.one((text, text.upper(), text.lower(), " " + text, text + "\n", text.title()))


def _script(draw: Draw) -> str:
    def run() -> str:
        low, high = draw.one(SCRIPTS)
        return "".join(draw.some(lambda: chr(low + draw.below(high - low + 1)), 8))

    return draw.one(("", " ")).join(draw.some(run, 5))


def _emoji(draw: Draw) -> str:
    return draw.one(("", " ", "a")).join(draw.some(lambda: draw.one(EMOJI), 6))


def _code(draw: Draw) -> str:
    text = "".join(draw.some(lambda: draw.one(CODE), 3))
    start = draw.below(len(text) // 2)
    return text[start : start + 1 + draw.below(len(text))]


def _space(draw: Draw) -> str:
    words = ("word", "x", ".", "中", "7", "'s", "-")
    return "".join(draw.some(lambda: draw.one(SPACES) + draw.one((*words, "", "", "")), 9))


def _number(draw: Draw) -> str:
    def digits() -> str:
        return "".join(draw.some(lambda: draw.one("0123456789"), 12)) + draw.one(("", "", "٣", "Ⅷ", "½", "²", "九"))

    return draw.one((" ", ".", ",", "-", "e+", "", "/", " x")).join(draw.some(digits, 5))


def _look_alike(draw: Draw) -> str:
    filler = ("", "", " ", "\n", "user", "x ", "é", "▁", "  ")
    return "".join(draw.some(lambda: draw.one(filler) + draw.one(CONTROL) + draw.one(filler), 6))


def _repeat(draw: Draw) -> str:
    return "".join(draw.some(lambda: draw.one(LETTERS) * (1 + draw.below(40)), 4))
