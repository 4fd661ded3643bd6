"""Chinese phrases as English ones: a small grammar, of which each rule says what two neighbours make together, and at what cost.

Letters: A adjective, C conjunction, D adverb, K fixed phrase, L word of place behind its noun, M measure, N noun, NP noun with its number
or article, P preposition, PP and LP phrases of place, Q quantity, R complement of a verb, S sentence, V verb, VP verb with what belongs
to it. What ends in DE is followed by 的 and stands before its noun.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from hunyuan_video.rewriting import english
from hunyuan_video.rewriting.phrases import POSSESSIVES, Noun, Place, Quantity, Verb, join

_LEFT_BEHIND = ("write", "hang", "draw", "paint", "carve", "print", "put")  # what can be seen of these later, as 着 says it

RULES: dict[tuple[str, str], list[tuple[str, float, Callable[[Any, Any], Any]]]] = {}
ALONE: dict[str, list[tuple[str, float, Callable[[Any], Any]]]] = {
    "N": [("NP", 0.0, lambda noun: noun)],
    "V": [("VP", 0.0, lambda verb: verb)],
    "LP": [("PP", 0.1, lambda place: place.said())],
    "K": [("N", 0.9, lambda words: Noun(words, topic="picture"))],
    "NUM": [("Q", 0.8, lambda number: number)],
    "DET": [("Q", 0.1, lambda word: word)],
    "Q": [("NP", 2.5, lambda quantity: quantity.of(Noun("", "mass")))],
    "HAVE": [("VP", 0.1, lambda noun: Verb("have", noun.said()))],
    "LACK": [("VP", 0.1, lambda noun: Verb("have", noun.said()))],
    "WHEN": [("PP", 0.1, lambda words: words)],
}


def _rule(result: str, parts: str, cost: float = 0.1) -> Callable[[Callable[[Any, Any], Any]], Callable[[Any, Any], Any]]:
    def enter(make: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        left, right = parts.split()
        RULES.setdefault((left, right), []).append((result, cost, make))
        return make

    return enter


# --- Nouns ---


@_rule("ADE", "A DE", 0.0)
@_rule("ADE", "NV DE", 0.0)
@_rule("PDE", "PP DE", 0.0)
@_rule("VDE", "VP DE", 0.3)
@_rule("NDE", "NP DE", 0.3)
@_rule("SDE", "S DE", 0.8)
@_rule("KDE", "K DE", 0.3)
def _before_noun(phrase: Any, _de: Any) -> Any:
    return phrase


@_rule("N", "A N", 0.2)
@_rule("N", "ADE N")
def _described(adjective: str, noun: Noun) -> Noun | None:
    return _described_with_all(adjective, noun) if not noun.after else None


@_rule("N", "A N", 0.6)  # rather than its neighbour
@_rule("N", "ADE N", 0.5)
def _described_with_all(adjective: str, noun: Noun) -> Noun:
    return replace(noun, before=join(adjective, noun.before))


@_rule("N", "KDE N", 0.2)
def _described_by_phrase(phrase: str, noun: Noun) -> Noun:
    return (
        _placed(phrase, noun)
        if phrase.split()[0] in ("at", "in", "on", "from", "with", "to", "before", "after")
        else _described_with_all(phrase, noun)
    )


@_rule("N", "N N", 0.5)
def _compound(left: Noun, right: Noun) -> Noun | None:
    if left.after or right.before or left.is_many or left.topic == "pronoun":
        return None
    return replace(right, head=join(left.before, left.head, right.head))


@_rule("N", "NDE N", 0.2)
def _owned(owner: Noun, noun: Noun) -> Noun | None:
    return owner.owning(noun) if owner.topic != "quote" else None


@_rule("N", "NP N", 0.4)
def _owned_by_one_of_us(owner: Noun, noun: Noun) -> Noun | None:
    return owner.owning(noun) if owner.topic == "pronoun" and owner.words() in POSSESSIVES else None


@_rule("N", "PDE N")
def _placed(place: str, noun: Noun) -> Noun:
    return replace(noun, after=join(noun.after, place))


@_rule("N", "VDE N", 0.2)
def _acting(verb: Verb, noun: Noun) -> Noun:
    if verb.accompanies and verb.object and verb.base in _LEFT_BEHIND:  # a wall on which something is written
        return replace(noun, after=join(noun.after, "with", verb.object, english.done(verb.base), verb.tail))
    return replace(noun, after=join(noun.after, "of" if noun.topic == "picture" else "", verb.going()))


@_rule("N", "SDE N", 0.3)
def _of_whom(sentence: str, noun: Noun) -> Noun:
    return replace(noun, after=join(noun.after, "of" if noun.topic == "picture" else "that", sentence))


@_rule("Q", "NUM M", 0.0)
@_rule("Q", "DET M", 0.0)
def _measured(quantity: Quantity, measure: str) -> Quantity:
    return replace(quantity, measure=measure)


@_rule("Q", "DET Q")
def _determined(word: Quantity, quantity: Quantity) -> Quantity:
    return replace(word, measure=quantity.measure)


@_rule("NP", "Q N", 0.0)
def _counted(quantity: Quantity, noun: Noun) -> Noun | None:
    return None if noun.topic == "pronoun" or (quantity.word and _has_owner(noun)) else quantity.of(noun)


def _has_owner(noun: Noun) -> bool:
    return noun.article not in (None, "the")


@_rule("NP", "NP PP", 0.8)
def _noun_at(noun: Noun, place: str) -> Noun:
    return replace(noun, after=join(noun.after, place))


@_rule("NV", "N V", 0.3)
def _done_by(noun: Noun, verb: Verb) -> str | None:
    if noun.is_person or noun.before or noun.after or " " in verb.base:
        return None
    return f"{noun.head}-{english.done(verb.base)}"


@_rule("Q", "Q M", 0.0)
def _one_after_another(quantity: Quantity, measure: str) -> Quantity | None:
    if quantity.measure != measure:
        return None
    return Quantity(None, f"{english.plural(measure.partition(' ')[0])} of" if measure else "many")


@_rule("NP", "NP K", 0.6)
def _noun_with(noun: Noun, phrase: str) -> Noun:
    return replace(noun, after=join(noun.after, phrase))


@_rule("CNP", "C NP")
@_rule("CVP", "C VP")
@_rule("CA", "C A")
@_rule("CS", "C S")
def _joined(conjunction: str, phrase: Any) -> tuple[str, Any]:
    return conjunction, phrase


@_rule("NP", "NP CNP")
def _and(left: Noun, right: tuple[str, Noun]) -> Noun:
    conjunction, noun = right
    return Noun(f"{left.said()} {conjunction} {noun.said()}", "many", left.topic, article="")


@_rule("A", "A CA")
def _both(left: str, right: tuple[str, str]) -> str:
    return f"{left} {right[0]} {right[1]}"


# --- Adjectives and adverbs ---


@_rule("A", "D A", 0.2)
@_rule("A", "A A", 0.4)
@_rule("D", "D D", 0.3)
@_rule("A", "NEG A")
def _beside(left: str, right: str) -> str:
    return f"{left} {right}"


@_rule("D", "A DI", 0.0)
def _adverb(adjective: str, _di: str) -> str:
    return english.adverb(adjective)


@_rule("D", "D DI", 0.0)
def _adverb_already(adverb: str, _di: str) -> str:
    return adverb


# --- Places ---


@_rule("LP", "NP L", 0.0)
@_rule("LP", "NDE L", 0.0)
def _where(noun: Noun, localizer: str) -> Place:
    return Place(localizer, noun)


@_rule("WHEN", "S L", 0.8)
def _when(sentence: str, localizer: str) -> str | None:
    return (
        {"during": "when", "after": "after", "before": "before"}[localizer] + " " + sentence
        if localizer in ("during", "after", "before")
        else None
    )


@_rule("WHEN", "VP L", 0.8)
def _while(verb: Verb, localizer: str) -> str | None:
    return (
        {"during": "while", "after": "after", "before": "before"}[localizer] + " " + verb.going()
        if localizer in ("during", "after", "before")
        else None
    )


@_rule("PP", "P LP", 0.0)
def _prepositional_place(preposition: str, place: Place) -> str:
    if preposition in ("in", "when"):
        return place.said()
    localizer = "" if place.preposition in ("on", "in", "inside", "by", "in the middle of") else place.preposition
    return f"{preposition} {join(localizer, place.noun.said(as_place=True))}"


@_rule("PP", "P WHEN")
def _prepositional_time(_preposition: str, words: str) -> str:
    return words


@_rule("PP", "P NP", 0.2)
def _prepositional(preposition: str, noun: Noun) -> str:
    return Place(preposition, noun).said() if noun.topic != "pronoun" else f"{preposition} {noun.said()}"


# --- Verbs ---


@_rule("V", "V ASP", 0.0)
def _with_aspect(verb: Verb, aspect: str) -> Verb:
    return replace(verb, accompanies=aspect == "着")


@_rule("V", "V R", 0.3)
def _completed(verb: Verb, complement: str) -> Verb:
    return verb if f" {complement}" in f" {verb.base}" else replace(verb, base=join(verb.base, complement))


@_rule("VP", "VP NP")
def _with_object(verb: Verb, noun: Noun) -> Verb | None:
    if verb.object or verb.then or verb.is_passive or verb.tail:
        return None
    return replace(verb, object="them" if noun.words() == "they" else noun.said())


@_rule("VP", "D VP")
def _with_adverb(adverb: str, verb: Verb) -> Verb:
    return replace(verb, adverb=join(adverb, verb.adverb))


@_rule("VP", "A VP", 0.7)
def _with_adjective(adjective: str, verb: Verb) -> Verb | None:
    if adjective.endswith("ing"):
        return None
    return replace(verb, adverb=join(english.adverb(adjective), verb.adverb))


@_rule("VP", "PP VP")
@_rule("VP", "K VP", 0.2)
def _from_before(phrase: str, verb: Verb) -> Verb:
    return replace(verb, tail=join(verb.tail, phrase))


@_rule("VP", "VP PP")
@_rule("VP", "VP K", 0.2)
def _with_tail(verb: Verb, phrase: str) -> Verb | None:
    if verb.then:
        return None
    base, _, preposition = verb.base.rpartition(" ")
    if verb.object or preposition not in ("at", "to", "for", "in", "on", "into", "over", "toward"):
        base = verb.base  # else no "look at toward"
    return replace(verb, base=base or verb.base, tail=join(verb.tail, phrase))


@_rule("VP", "VP DEA", 0.2)
def _in_what_way(verb: Verb, adjective: str) -> Verb:
    return replace(verb, tail=join(verb.tail, english.adverb(adjective) if " " not in adjective else adjective))


@_rule("DEA", "DEC A", 0.0)
def _way(_dec: str, adjective: str) -> str:
    return adjective


@_rule("VP", "ZAI VP", 0.0)
def _going(_zai: str, verb: Verb) -> Verb:
    return replace(verb, is_going=True)


@_rule("VP", "NEG VP")
def _denied(word: str, verb: Verb) -> Verb:
    return replace(verb, denied=word)


@_rule("VP", "MODAL VP")
def _modal(word: str, verb: Verb) -> Verb:
    return replace(verb, modal=word)


@_rule("VP", "VP VP", 0.7)
def _serial(first: Verb, second: Verb) -> Verb | None:
    if first.then:
        return None
    if first.base.endswith(" to") and not first.object:
        return replace(first, object=second.bare())
    if first.accompanies:
        return replace(second, tail=join(second.tail, first.going()))
    return replace(first, then=second)


@_rule("VP", "VP CVP")
def _and_then(first: Verb, second: tuple[str, Verb]) -> Verb | None:
    return replace(first, then=second[1], conjunction=second[0]) if first.then is None else None


@_rule("VP", "BEI VP")
def _passive(_bei: str, verb: Verb) -> Verb:
    return replace(verb, is_passive=True, base=verb.base.removeprefix("be "))


@_rule("BY", "BEI NP", 0.0)
@_rule("TAKE", "BA NP", 0.0)
def _marked(_word: str, noun: Noun) -> Noun:
    return noun


@_rule("VP", "BY VP")
def _passive_by(noun: Noun, verb: Verb) -> Verb:
    return replace(verb, is_passive=True, tail=join(f"by {noun.said()}", verb.tail))


@_rule("VP", "TAKE VP")
def _taking(noun: Noun, verb: Verb) -> Verb | None:
    return replace(verb, object=noun.said()) if not verb.object else None


@_rule("VP", "SHI NP")
def _is(_shi: str, noun: Noun) -> Verb:
    return Verb("be", noun.said())


@_rule("VP", "SHI ADE")
@_rule("VP", "SHI PDE")
def _is_so(_shi: str, words: str) -> Verb:
    return Verb("be", words)


@_rule("HAVE", "YOU NP", 0.0)
def _has(_you: str, noun: Noun) -> Noun:
    return noun


@_rule("LACK", "NEG NP", 0.4)
def _lacks(_word: str, noun: Noun) -> Noun | None:
    return replace(noun, article="no") if not _has_owner(noun) else None


# --- Sentences ---


@_rule("S", "NP VP", 0.0)
def _sentence(noun: Noun, verb: Verb) -> str:
    return f"{noun.said()} {verb.finite(many=noun.agrees_with_many)}"


@_rule("S", "NP A", 0.9)
def _state(noun: Noun, adjective: str) -> str:
    return f"{noun.said()} {'are' if noun.agrees_with_many else 'is'} {adjective}"


@_rule("S", "LP HAVE", 0.0)
@_rule("S", "LP LACK", 0.0)
def _there_is(place: Place, noun: Noun) -> str:
    return f"there {'are' if noun.agrees_with_many else 'is'} {noun.said()} {place.said()}"


@_rule("S", "LP VP", 0.2)
def _there_is_left(place: Place, verb: Verb) -> str | None:
    if not (verb.accompanies and verb.object and verb.base in _LEFT_BEHIND):
        return None
    return f"there is {join(verb.object, english.done(verb.base), verb.tail, place.said())}"


@_rule("S", "PP S", 0.6)
@_rule("S", "K S", 0.4)
@_rule("S", "D S", 0.6)
def _set_in(phrase: str, sentence: str) -> str:
    return f"{phrase} {sentence}"


@_rule("S", "S K", 0.4)
def _ending_in(sentence: str, phrase: str) -> str:
    return f"{sentence} {phrase}"


@_rule("S", "S CS", 0.3)
def _sentences(left: str, right: tuple[str, str]) -> str:
    return f"{left} {right[0]} {right[1]}"
