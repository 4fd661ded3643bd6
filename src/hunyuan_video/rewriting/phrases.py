"""Parts of an English sentence in the making: what is known of them, and how they are said."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from hunyuan_video.rewriting import english

_PLACES = ("nature", "city", "indoor", "space")
_ROOMS = (
    "room", "kitchen", "bathroom", "bedroom", "office", "restaurant", "cafe", "bar", "library", "classroom", "gym", "studio", "hall",
    "garage", "stage", "museum", "theater",
)  # fmt: skip

_POINTS = ("night", "noon", "midnight", "dusk", "dawn", "sunset", "sunrise")
_SEASONS = ("spring", "summer", "autumn", "winter")
MANY = ("these", "those", "all", "many", "countless", "some", "several", "various", "most", "two", "both", "a few")  # and hundreds of


def join(*words: str) -> str:
    return " ".join(word for word in words if word)


@dataclass(frozen=True)
class Noun:
    head: str
    kind: Literal["one", "mass", "many", "name"] = "one"
    topic: str = ""
    before: str = ""
    after: str = ""
    article: str | None = None
    """None: as its kind has it"""
    is_many: bool = False

    @classmethod
    def of(cls, word: str, topic: str = "") -> Noun:
        """As the lexicon writes it."""
        if word[0] in "~=":
            return cls(word[1:], "mass" if word[0] == "~" else "many", topic)
        if word.startswith("the "):
            return cls(word[4:], "name", topic, article="the")
        return cls(word, "name" if word[0].isupper() and word[1:2] != "-" else "one", topic)

    @property
    def agrees_with_many(self) -> bool:
        return self.is_many or self.kind == "many"

    @property
    def is_person(self) -> bool:
        return self.topic in ("person", "animal", "pronoun")

    def words(self) -> str:
        """Without an article and what follows."""
        return join(self.before, english.plural(self.head) if self.is_many and self.kind == "one" else self.head)

    def said(self, *, as_place: bool = False) -> str:
        words, article = self.words(), self.article
        if article is None:
            if self.kind != "one" or self.is_many:
                article = ""
            elif as_place and self.topic in _PLACES and (self.topic != "indoor" or self.head.split()[-1] in _ROOMS):
                article = "the"
            else:
                article = english.article(words)
        return join(article, words, self.after)

    def owning(self, owned: Noun) -> Noun:
        if self.topic == "pronoun":
            return replace(owned, article=POSSESSIVES.get(self.head, "its"))
        if self.is_person and not self.after:
            ending = "'" if self.agrees_with_many and self.words().endswith("s") else "'s"
            return replace(owned, article=f"{self.said()}{ending}")
        if self.topic == "time":
            return replace(owned, after=join(owned.after, Place("in", self).said()))
        preposition = "in" if self.kind == "name" and owned.topic in ("city", "indoor") else "of"
        return replace(owned, after=join(owned.after, preposition, self.said(as_place=True)))


POSSESSIVES = {"I": "my", "you": "your", "he": "his", "she": "her", "it": "its", "we": "our", "they": "their", "itself": "its own"}


@dataclass(frozen=True)
class Quantity:
    number: int | None
    word: str = ""
    """of a determiner"""
    measure: str = ""

    def of(self, noun: Noun) -> Noun:
        if self.measure:
            takes_many = self.measure.endswith("+")
            is_plain = noun.kind == "one" and not takes_many and self.measure != "kind of"
            if is_plain or noun.head == "couple":
                return replace(self, measure="").of(noun)
            inside = replace(noun, is_many=takes_many and noun.kind == "one", article="")
            whole = Noun(join(self.measure.rstrip("+"), inside.words()), topic=noun.topic, after=noun.after)
            return replace(self, measure="").of(whole)
        if self.word:
            return replace(noun, article=self.word, is_many=self.word in MANY or self.word.endswith("s of"))
        assert self.number is not None
        if self.number == 1:
            return replace(noun, article=english.article(noun.words())) if noun.kind == "name" and noun.article is None else noun
        return replace(noun, before=join(english.numeral(self.number), noun.before), is_many=True)


@dataclass(frozen=True)
class Place:
    preposition: str
    noun: Noun

    def said(self) -> str:
        if self.preposition in ("in", "during") and self.noun.words() in _POINTS:
            return f"at {self.noun.words()}"
        if self.noun.topic == "time" and self.noun.words() not in _SEASONS:
            return f"{self.preposition} {replace(self.noun, article='the').said()}"
        if self.noun.topic == "time":
            return f"{self.preposition} {self.noun.words()}"
        return f"{self.preposition} {self.noun.said(as_place=True)}"


@dataclass(frozen=True)
class Verb:
    base: str
    object: str = ""
    tail: str = ""
    adverb: str = ""
    modal: str = ""
    denied: str = ""
    is_going: bool = False
    is_passive: bool = False
    accompanies: bool = False
    """as 着 says it: wearing a hat, he walks"""
    then: Verb | None = None
    conjunction: str = "and"
    """before what comes then"""

    def _stem(self) -> str:
        return self.base if self.object or self.tail else self.base.removesuffix(" to")

    def bare(self) -> str:
        then = f"{self.conjunction} {self.then.bare()}" if self.then else ""
        return join(self.adverb, self._stem(), self.object, self.tail, then)

    def going(self) -> str:
        """As a participle: walking in the park."""
        stem = self._stem()
        if self.is_passive:
            form = english.first(english.done, stem)
        elif stem.startswith("be ") and not self.denied:
            form = stem.removeprefix("be ")
        else:
            form = english.first(english.participle, stem)
        then = f"{self.conjunction} {self.then.going()}" if self.then else ""
        return join(self.denied, self.adverb, form, self.object, self.tail, then)

    def finite(self, *, many: bool) -> str:
        stem, be = self._stem(), "are" if many else "is"
        first = stem.split(" ")[0]
        if self.is_passive or self.is_going:
            change = english.done if self.is_passive else english.participle
            words = [be, self.denied, self.adverb, english.first(change, stem)]
            words[0] = join(self.modal, "be") if self.modal else be
        elif self.modal:
            words = [self.modal, self.denied, self.adverb, stem]
        elif first == "be":
            words = [be, self.denied, self.adverb, stem.removeprefix("be").strip()]
        elif self.denied == "not":
            words = ["do not" if many else "does not", self.adverb, stem]
        else:
            words = [self.denied, self.adverb, stem if many else english.first(english.present, stem)]
        if self.then is None:
            return join(*words, self.object, self.tail)
        then = self.then.going() if self.is_going and not self.is_passive else self.then.finite(many=many)
        return join(*words, self.object, self.tail, self.conjunction, then)
