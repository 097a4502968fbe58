"""Writes recipes/data/conversations.jsonl and its held-out part: short conversations for a first fine-tuning.

Everything is made from the tables below, by templates, so that each answer is known to be right: greetings, what the
model is, small sums, opposites, definitions, and questions about the books in recipes/data/books. Run it again to get
the same files:

    python recipes/make_conversations.py
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

Turn = tuple[str, str]  # a question and its answer
DATA = Path(__file__).parent / "data"
HELD_OUT_SHARE = 0.1
SEED = 1

GREETINGS = ("Hello!", "Hi", "Hello there", "Good morning!", "Good evening.", "Hey", "Hi there!", "Good day to you.")
WELCOMES = ("Hello! What shall we talk about?", "Good day! How can I help you?")
FAREWELLS = ("Goodbye!", "Bye", "See you later.", "Good night!", "Farewell.")
THANKS = ("Thank you!", "Thanks", "Thank you very much.", "That was helpful, thanks.")

MYSELF = (
    ("Who are you?", "I am a small language model. I was trained on a few old children's books."),
    ("What are you?", "I am a small language model. I was trained on a few old children's books."),
    ("Are you a person?", "No, I am a small language model. I only know a few old books."),
    ("Are you human?", "No, I am a small language model. I only know a few old books."),
    ("What do you know?", "I know a little about a few old children's books, small sums and simple words."),
    ("What can you do?", "I can greet you, do small sums, and tell you a little about a few old books."),
    ("Can you make mistakes?", "Yes, often. I am very small, so please check what I say."),
    ("Are you always right?", "No. I am very small, so please check what I say."),
    ("Who made you?", "Somebody trained me with openherd, on a computer of their own."),
    ("How were you made?", "Somebody trained me with openherd, on a computer of their own."),
    ("What is your name?", "I have no name yet. You may give me one."),
    ("Do you have a name?", "I have no name yet. You may give me one."),
)

AUTHORS = {
    "Alice's Adventures in Wonderland": ("Lewis Carroll", 1865),
    "Through the Looking-Glass": ("Lewis Carroll", 1871),
    "The Wonderful Wizard of Oz": ("L. Frank Baum", 1900),
    "Ozma of Oz": ("L. Frank Baum", 1907),
    "The Wind in the Willows": ("Kenneth Grahame", 1908),
    "Black Beauty": ("Anna Sewell", 1877),
    "The Princess and the Goblin": ("George MacDonald", 1872),
    "The Happy Prince": ("Oscar Wilde", 1888),
    "The Railway Children": ("Edith Nesbit", 1905),
    "Five Children and It": ("Edith Nesbit", 1902),
    "The Emperor's New Clothes": ("Hans Christian Andersen", 1837),
}

CHARACTERS = {
    "Alice": ("a girl who falls down a rabbit-hole", "Alice's Adventures in Wonderland"),
    "the White Rabbit": ("a rabbit with a waistcoat and a watch", "Alice's Adventures in Wonderland"),
    "the Cheshire Cat": ("a cat with a grin that stays when the cat is gone", "Alice's Adventures in Wonderland"),
    "the Mad Hatter": ("a guest at a tea-party that never ends", "Alice's Adventures in Wonderland"),
    "the Queen of Hearts": ("a queen who wants everybody's head off", "Alice's Adventures in Wonderland"),
    "Humpty Dumpty": ("an egg who sits on a wall", "Through the Looking-Glass"),
    "Dorothy": ("a girl from Kansas whom a cyclone carries away", "The Wonderful Wizard of Oz"),
    "Toto": ("Dorothy's little black dog", "The Wonderful Wizard of Oz"),
    "the Scarecrow": ("a man of straw who wants a brain", "The Wonderful Wizard of Oz"),
    "the Tin Woodman": ("a man of tin who wants a heart", "The Wonderful Wizard of Oz"),
    "the Cowardly Lion": ("a lion who wants courage", "The Wonderful Wizard of Oz"),
    "Ozma": ("the girl who rules the land of Oz", "Ozma of Oz"),
    "the Mole": ("a mole who leaves his home in spring", "The Wind in the Willows"),
    "the Water Rat": ("a rat who loves his boat and the river", "The Wind in the Willows"),
    "Mr. Toad": ("a rich toad who is mad about motor-cars", "The Wind in the Willows"),
    "the Badger": ("a badger who lives in the Wild Wood", "The Wind in the Willows"),
    "Black Beauty": ("a horse who tells his own life", "Black Beauty"),
    "Ginger": ("a chestnut mare who was treated badly", "Black Beauty"),
    "Princess Irene": ("a princess whom the goblins want to steal", "The Princess and the Goblin"),
    "Curdie": ("a miner's boy who is not afraid of goblins", "The Princess and the Goblin"),
    "the Psammead": ("a sand-fairy who grants a wish a day", "Five Children and It"),
    "Bobbie": ("the eldest of the three railway children", "The Railway Children"),
}

DEFINITIONS = {
    "a king": "a man who rules a country",
    "a queen": "a woman who rules a country, or the wife of a king",
    "a princess": "the daughter of a king or queen",
    "a castle": "a large strong house with walls and towers",
    "a forest": "a large place full of trees",
    "a river": "a long stream of water that flows to the sea",
    "a rabbit": "a small animal with long ears",
    "a mole": "a small animal that digs under the ground",
    "a toad": "an animal like a frog, with a dry skin",
    "a badger": "an animal with a striped face that digs its home",
    "a scarecrow": "a figure of straw that keeps birds away",
    "a cyclone": "a very strong wind that turns round and round",
    "a goblin": "an ugly creature of stories that lives under the ground",
    "a fairy": "a small magic creature of stories",
    "a witch": "a woman of stories who can do magic",
    "a mirror": "a glass in which you see yourself",
    "a miner": "a man who digs in the earth for metal or coal",
    "a stable": "a house for horses",
    "a harness": "the straps that tie a horse to a cart",
    "a meadow": "a field of grass",
    "courage": "doing what is right though you are afraid",
    "a secret": "something that only a few people know",
    "a baker": "a man who makes bread",
    "a sailor": "a man who works on a ship",
}

OPPOSITES = {
    "big": "small", "hot": "cold", "day": "night", "good": "bad", "long": "short", "old": "young", "rich": "poor",
    "up": "down", "light": "dark", "happy": "sad", "fast": "slow", "full": "empty", "open": "shut", "hard": "soft",
    "high": "low", "wet": "dry", "first": "last", "strong": "weak", "early": "late", "near": "far",
}  # fmt: skip

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve")


def conversations() -> Iterator[list[Turn]]:
    """All of them, in the order of the tables; each is one to two turns."""
    yield from ([(greeting, welcome)] for greeting in GREETINGS for welcome in WELCOMES)
    yield from ([(word, "Goodbye! Come again soon.")] for word in FAREWELLS)
    yield from ([(word, "You are welcome.")] for word in THANKS)
    yield from ([turn] for turn in MYSELF)
    yield from ([(greeting, WELCOMES[0]), turn] for greeting, turn in zip(GREETINGS, MYSELF, strict=False))
    yield from about_books()
    yield from about_words()
    yield from sums()


def about_books() -> Iterator[list[Turn]]:
    for book, (author, year) in AUTHORS.items():
        yield [(f"Who wrote {book}?", f"{book} was written by {author}.")]
        yield [(f"Who is the author of {book}?", f"{book} was written by {author}.")]
        yield [(f"When was {book} published?", f"{book} was published in {year}.")]
        yield [
            (f"Do you know {book}?", f"Yes, {book} is a book by {author}."),
            ("When was it published?", f"It was published in {year}."),
        ]
    for name, (what, book) in CHARACTERS.items():
        answer = f"{name[0].upper()}{name[1:]} is {what}, in {book}."
        yield [(f"Who is {name}?", answer)]
        yield [(f"Tell me about {name}.", answer)]
        yield [(f"In which book is {name}?", f"{name[0].upper()}{name[1:]} is in {book}.")]


def about_words() -> Iterator[list[Turn]]:
    for word, meaning in DEFINITIONS.items():
        article = f"{word[0].upper()}{word[1:]} is {meaning}."
        yield [(f"What is {word}?", article)]
        yield [(f"Can you tell me what {word} is?", article)]
    for word, opposite in OPPOSITES.items():
        for one, other in ((word, opposite), (opposite, word)):
            yield [(f"What is the opposite of {one}?", f"The opposite of {one} is {other}.")]


def sums() -> Iterator[list[Turn]]:
    for a in range(1, 7):
        for b in range(1, 7):
            yield [(f"What is {a} plus {b}?", f"{a} plus {b} is {a + b}.")]
            if a >= b:
                yield [(f"How much is {NUMBERS[a]} and {NUMBERS[b]}?", f"It is {NUMBERS[a + b]}.")]
                yield [(f"What is {a} minus {b}?", f"{a} minus {b} is {a - b}.")]


def rows() -> tuple[list[str], list[str]]:
    """Lines of JSON, those to learn and those held out, in an order that the seed decides."""
    lines = [json.dumps({"messages": list(_messages(turns))}, ensure_ascii=False) for turns in conversations()]
    random.Random(SEED).shuffle(lines)
    held_out = int(HELD_OUT_SHARE * len(lines))
    return lines[held_out:], lines[:held_out]


def _messages(turns: list[Turn]) -> Iterator[dict[str, str]]:
    for question, answer in turns:
        yield {"role": "user", "content": question}
        yield {"role": "assistant", "content": answer}


def main() -> None:
    learnt, held_out = rows()
    for name, lines in (("conversations.jsonl", learnt), ("conversations_held_out.jsonl", held_out)):
        (DATA / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
        print(f"{len(lines)} conversations in {DATA / name}")


if __name__ == "__main__":
    main()
