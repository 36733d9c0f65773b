"""Words: of a message, and of what is sought in it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.sync.search.words import condition, index_words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Invoice No. 4711, due!", "invoice no 4711 due"),
        ("Anna Müller <anna.mueller@mail.example>", "anna müller anna mueller mail example"),
        ("STRASSE Straße ﬁle ＦＵＬＬ", "strasse strasse file full"),  # noqa: RUF001
        ("“curly” — quotes … and\xa0spaces", "curly quotes and spaces"),
        ("हिन्दी में", "हिन्दी में"),
        ("iPhone价格表", "iphone 价格 格表 表"),
        ("雨", "雨"),
        ("_under_score_ a-b", "under score a b"),
    ],
)
def test_words_are_letters_and_digits_folded(text: str, words: str) -> None:
    assert index_words(text, 1000) == words


def test_no_more_than_the_wished_bytes_are_indexed() -> None:
    assert index_words("aaa bbb ccc", 8) == "aaa bbb"
    assert len(index_words("语" * 10_000, 1000).encode()) <= 1000


@pytest.mark.parametrize(
    ("sought", "query"),
    [
        ("red Shoes", "'red' & 'shoes'"),
        ('"red shoes" size', "('red' <-> 'shoes') & 'size'"),
        ("red -blue", "'red' & !'blue'"),
        ('-"dark blue" red', "!('dark' <-> 'blue') & 'red'"),
        ("red or blue", "'red' | 'blue'"),
        ("or red or", "'red'"),
        ("invo*", "'invo':*"),
        ("anna@mail.example", "('anna' <-> 'mail' <-> 'example')"),
        ("纪要", "'纪要'"),
        ("会议纪要", "('会议' & '议纪' & '纪要')"),
        ("会", "'会':*"),
        ("it's \\ & | ! ( ) : * '", "('it' <-> 's')"),
        ('"unclosed phrase', "('unclosed' <-> 'phrase')"),
    ],
)
def test_what_is_sought_becomes_a_query(sought: str, query: str) -> None:
    assert condition(sought) == query


def test_a_query_can_look_in_one_part_of_the_message() -> None:
    assert condition("anna lee*", "B") == "'anna':B & 'lee':*B"


@pytest.mark.parametrize("sought", ["", "  ", "!?", '""', "-", "or"])
def test_no_word_is_no_query(sought: str) -> None:
    assert condition(sought) is None


def test_too_many_words_are_refused() -> None:
    with pytest.raises(ValueError):
        condition("word " * 33)


@given(st.text())
def test_any_text_is_words_without_marks_of_a_query(text: str) -> None:
    words = index_words(text, 500)
    assert not set(words) & set("'\"\\&|!():*@<>\0\n")
    assert len(words.encode()) <= 500
    try:
        condition(text)
    except ValueError:
        assert len(text) > 32
