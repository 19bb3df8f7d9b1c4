"""When two names are the same class, in any script, and which words are in a name."""

import unicodedata

import pytest

from dsh_hf.data.spelling import spelling, words_of


@pytest.mark.parametrize(
    "names",
    [
        ("hot-air_balloon", "Hot air balloon", "HOT AIR (BALLOON)"),
        ("naïve", unicodedata.normalize("NFD", "Naïve")),
        ("बिल्ली", " बिल्ली_"),
        ("แมว-น้ำ", "แมว น้ำ"),
    ],
)
def test_case_spaces_and_punctuation_make_no_other_class(names):
    assert len(set(map(spelling, names))) == 1


@pytest.mark.parametrize(
    "names",
    [
        ("की", "का", "कि", "क"),  # Hindi: vowels are marks
        ("ไก่", "ไข่", "กา", "ก่า", "ก"),  # Thai: tones are
        ("resume", "résumé"),
        ("---", "+++", "⭐️", "❤️"),  # neither letters nor digits: the name itself counts
    ],
)
def test_other_letters_make_another_class(names):
    assert len(set(map(spelling, names))) == len(names)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("Hot-air_balloon (2)", ["hot", "air", "balloon", "2"]),
        ("पालतू_बिल्ली", ["पालतू", "बिल्ली"]),
        ("ไก่ น้ำ", ["ไก่", "น้ำ"]),
        (unicodedata.normalize("NFD", "Café au lait"), ["café", "au", "lait"]),
        ("(-)", []),
    ],
)
def test_a_name_is_taken_apart_between_its_words_alone(name, words):
    assert words_of(name) == words
