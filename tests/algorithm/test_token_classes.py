"""Classes of tokens, by hand."""

from verl_twgrpo.algorithm.token_classes import CLASSES, token_classes


def test_tokens_fall_into_their_classes():
    tokens = ["The", " cat", " is", "\n", "<", "think", ">", " B", ",", " 12", " under", "stand", "</s>"]
    assert token_classes(tokens, "ABC", end="</s>") == [
        "first token", "word", "function word", "line break", "format tag", "format tag", "format tag",
        "option letter", "punctuation", "digit", "function word", "word piece", "end of response",
    ]  # fmt: skip
    assert token_classes(["x", " D"], "ABC")[1] == "word"


def test_spaces_and_punctuation_around_a_word_do_not_count():
    tokens = ["<think>", "A: ", " yes. ", "No,", "_", "\n\n", "can't"]
    found = token_classes(tokens, "ABCD")
    assert found == [
        "first token", "option letter", "verdict word", "verdict word", "punctuation", "line break", "word",
    ]  # fmt: skip
    assert set(found) <= set(CLASSES)


def test_a_response_of_nothing_has_no_classes():
    assert token_classes([], "AB") == []
