"""`verl-twgrpo demo answer`: the right row is asked, and what comes back is scored."""

from __future__ import annotations

import pytest

from verl_twgrpo import cli
from verl_twgrpo.data.parquet import read_rows, write_parquet
from verl_twgrpo.data.prompts import template_turns
from verl_twgrpo.data.schema import Item
from verl_twgrpo.mini_clevrer.demo import answer


@pytest.fixture
def questions(tmp_path):
    options = ("one", "two", "three")
    items = [
        Item("0", "mini_clevrer", "train", "What now?", options, frozenset("A"), "/videos/0.mp4"),
        Item("1", "mini_clevrer", "train", "What then?", options, frozenset("AC"), "/videos/1.mp4"),
    ]
    return write_parquet(items, tmp_path / "questions.parquet")


def test_it_prints_question_answer_truth_and_reward(questions, monkeypatch, capsys):
    asked = []

    def model_says(model, row, max_tokens):
        asked.append((model, row["extra_info"]["id"], max_tokens))
        return "<think>hm</think><answer>C</answer>"

    monkeypatch.setattr(answer, "greedy_answer", model_says)
    assert cli.main(["demo", "answer", "merged", str(questions), "--row", "1", "--max-tokens", "64"]) == 0
    assert asked == [("merged", "1", 64)]
    out = capsys.readouterr().out
    for line in ("video   /videos/1.mp4", "What then?", "truth   A,C", "reward  soft accuracy 0.5, format 1"):
        assert line in out
    assert "<video>" not in out


def test_a_row_that_is_not_there_is_one_sentence(questions, capsys):
    assert cli.main(["demo", "answer", "merged", str(questions), "--row", "2"]) == 2
    assert "rows 0 to 1" in capsys.readouterr().err


def test_the_video_stands_where_the_prompt_has_it(questions):
    (turn,) = template_turns(read_rows(questions)[0]["prompt"])
    assert turn["content"][0] == {"type": "video"}
    assert turn["content"][1]["text"].startswith("What now?")
    (turn,) = template_turns([{"role": "user", "content": "See <video> and say"}])
    assert [piece["type"] for piece in turn["content"]] == ["text", "video", "text"]
    (turn,) = template_turns([{"role": "system", "content": "Be brief."}])
    assert turn["content"] == [{"type": "text", "text": "Be brief."}]
