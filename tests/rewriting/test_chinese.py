"""Chinese prompts in English: one claim a construction."""

from __future__ import annotations

import time

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hunyuan_video.config import check_prompt
from hunyuan_video.rewriting import english, numerals, rewrite
from hunyuan_video.rewriting.chinese import cut, has_chinese, translate
from hunyuan_video.rewriting.lexicon import lexicon


@pytest.mark.parametrize(
    ("chinese", "expected"),
    [
        ("一只猫", "A cat"),
        ("一个红色的苹果", "A red apple"),
        ("三只白色的小猫", "Three white kittens"),
        ("两把剪刀", "Two scissors"),
        ("一群鸟", "A group of birds"),
        ("一杯咖啡", "A cup of coffee"),
        ("许多人", "Many people"),
        ("这座桥", "This bridge"),
        ("一只猫和一条狗", "A cat and a dog"),
        ("一只猫在草地上走", "A cat walks on grass"),
        ("一个人在读书", "A person is reading a book"),
        ("一个女孩穿着红色的裙子", "A girl wears a red dress"),
        ("穿着红色裙子的女孩", "A girl wearing a red dress"),
        ("女孩的头发", "A girl's hair"),
        ("她的猫", "Her cat"),
        ("巴黎的咖啡馆", "A cafe in Paris"),
        ("湖边的公园长椅", "A park bench by the lake"),
        ("夜晚的城市", "A city at night"),
        ("春天的花园", "A garden in spring"),
        ("被雪覆盖的小屋", "A snow-covered cabin"),
        ("一只猫在一条狗的左边", "A cat on the left of a dog"),
        ("天空中没有云", "There is no cloud in the sky"),
        ("没有人的街道", "A street without a person"),
        ("桌子上有五个苹果", "There are five apples on a table"),
        ("墙上挂着一幅画", "There is a painting hung on a wall"),
        ("他把书放在桌子上", "He puts a book on a table"),
        ("狗不吃草", "A dog does not graze"),
        ("鸟会飞", "A bird will fly"),
        ("一个人在修剪或刮胡子", "A person is trimming or shaving"),
        ("上海外滩，油画", "The Shanghai Bund, oil painting"),
        ("一艘船在海上航行，向左移镜头", "A boat is sailing at sea, pan left"),
        ("格温·斯泰西在读书", "Gwen Stacy is reading a book"),
        ("1980年代的汽车", "A car of 1980s"),
        ("3只狗", "Three dogs"),
        ("墙上写着“欢迎”的咖啡馆", "A cafe with “欢迎” written on a wall"),
        ("他戴着帽子骑车", "He rides a bicycle wearing a hat"),
    ],
)
def test_a_construction_becomes_its_english(chinese, expected):
    assert translate(chinese) == (expected, [])


def test_sentences_stay_sentences():
    assert translate("一只狗。它跑。")[0] == "A dog. It runs."


def test_what_is_not_known_stays_and_is_told():
    text, unknown = translate("一只饕餮在草地上走")
    assert text == "A 饕餮 walks on grass" and unknown == ["饕餮"]


def test_a_picture_around_a_sentence_comes_before_it():
    text, _ = translate("一幅在花园里，一只猫静静地坐着的宁静画面")
    assert text.startswith("A tranquil scene: in the garden, a cat quietly sits")


@pytest.mark.parametrize("quoted", ["“欢迎光临”", "「营业中」", '"三只猫"'])
def test_quoted_text_is_not_translated(quoted):
    assert quoted in translate(f"写着{quoted}的牌子")[0]


def test_words_in_other_letters_stay_where_they_are():
    assert translate("a dog in 北京 at night")[0] == "a dog in Beijing at night"
    assert translate("一只Corgi在草地上走")[0] == "A Corgi walks on grass"


@pytest.mark.parametrize(
    "text", ["🐈", "{}", "{0}猫{", "%s猫", "猫" * 400, "的猫" * 200, "上下中里" * 100, "一" * 400, "“" * 400, "走跑" * 200]
)
def test_nothing_breaks_it_or_takes_long(text):
    start = time.process_time()
    assert translate(text)[0]
    assert time.process_time() - start < 10  # and minutes if a clause were not cut


@pytest.mark.parametrize(("text", "is_chinese"), [("猫", True), ("a 猫", True), ("cat", False), ("猫が歩く", False), ("고양이 猫", False)])
def test_japanese_and_korean_are_no_chinese(text, is_chinese):
    assert has_chinese(text) == is_chinese


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("公共汽车站在路边", ["公共汽车", "站", "在", "路边"]),
        ("太空中", ["太空", "中"]),
        ("二十三只羊", ["二十三", "只", "羊"]),
        ("一起吃三明治", ["一起", "吃", "三明治"]),
        ("饕餮吃草", ["饕餮", "吃草"]),
    ],
)
def test_text_is_cut_into_words(text, words):
    assert cut(text) == words


@pytest.mark.parametrize(
    ("numeral", "value"), [("三", 3), ("十", 10), ("十二", 12), ("二十", 20), ("三百零五", 305), ("两万", 20_000), ("一千", 1000)]
)
def test_a_numeral_has_its_value(numeral, value):
    assert numerals.value(numeral) == value


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        (english.participle, {"run": "running", "lie": "lying", "dance": "dancing", "see": "seeing", "walk": "walking"}),
        (english.present, {"go": "goes", "fly": "flies", "watch": "watches", "play": "plays", "have": "has"}),
        (english.done, {"write": "written", "cover": "covered", "carry": "carried", "hug": "hugged"}),
        (english.plural, {"old man": "old men", "city": "cities", "box": "boxes", "cup of tea": "cups of tea"}),
        (english.article, {"apple": "an", "unicorn": "a", "hour": "an", "T-shirt": "a", "X-ray": "an", "still": "a"}),
    ],
)
def test_english_words_have_their_forms(form, expected):
    assert {word: form(word) for word in expected} == expected


def test_the_lexicon_is_whole():
    parts = {word.part for meanings in lexicon().values() for word in meanings}
    assert len(lexicon()) > 5000 and {"noun", "verb", "adjective", "measure", "name"} <= parts
    assert [chinese for chinese in lexicon() if not has_chinese(chinese) and chinese != "、"] == []
    lacking = [
        c for c, meanings in lexicon().items() for w in meanings if not w.english and w.part not in ("measure", "complement", "particle")
    ]
    assert lacking == []


@given(words=st.lists(st.sampled_from([*sorted(lexicon()), "，", "。", "“", "”", "{", "的", "🐈", "\n"]), min_size=1, max_size=30))
@settings(max_examples=50, deadline=None)
def test_any_row_of_words_becomes_a_prompt(words):
    text = "".join(words)
    assume(text.strip())
    check_prompt(rewrite(text).prompt)


def test_brackets_around_words_go_with_them_and_others_stay():
    assert translate("一只猫在{草地}上走，{x}")[0] == "A cat walks on grass, {x}"
