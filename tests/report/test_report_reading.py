"""Reading a run directory: what is there is read, what is missing is said."""

from __future__ import annotations

import json

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from verl_twgrpo.report.reading import TOKEN_COLUMNS, labels, read_groups, read_run, read_runs, read_token_group


def test_groups_of_a_dump_have_the_values_by_position_and_the_length_of_every_response(full_run):
    groups = read_groups(full_run / "tw_grpo" / "step_000002.parquet")
    assert [(group.step, group.uid) for group in groups] == [(2, "u2"), (2, "v2")]
    assert groups[0].lengths_G.tolist() == [2, 4, 3]
    np.testing.assert_allclose(groups[0].weights_T, [1.0, 1.2, 1.7, 0.9], rtol=1e-6)
    np.testing.assert_allclose(groups[0].divergence_T, [0, 1, 5, 2])
    assert groups[0].lengths_G.tolist() == [2, 4, 3]
    assert groups[0].rewards_G.tolist() == [2.0, 1.5, 0.0]


def test_everything_of_a_full_run_is_read_and_nothing_is_missing(full_run):
    run = read_run(full_run, "full")
    assert [group.uid for group in run.groups] == ["u1", "v1", "u2", "v2"]
    assert run.scalars["critic/score/mean"] == {1: 1.0, 2: 1.25}
    assert list(run.validation) == [0, 2]
    assert run.missing == []


def test_steps_are_in_order_of_their_numbers_not_of_their_names(make_run):
    run = make_run("r", validation={step: [("s", "A", "A")] for step in (10, 9, 100)})
    assert list(read_run(run, "r").validation) == [9, 10, 100]


def test_a_resumed_run_counts_the_later_value_of_a_step(make_run):
    folder = make_run("r", scalars={"critic/score/mean": {1: 1.0, 2: 5.0}})
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder / "tensorboard"), filename_suffix=".resumed")
    writer.add_scalar("critic/score/mean", 2.0, 2)
    writer.add_scalar("critic/score/mean", 3.0, 3)
    writer.close()
    assert read_run(folder, "r").scalars["critic/score/mean"] == {1: 1.0, 2: 2.0, 3: 3.0}


def test_what_is_missing_is_said(make_run):
    run = read_run(make_run("r", validation={0: [("s", "A", "A")]}), "r")
    said = " ".join(run.missing)
    for part in ("no tw_grpo/step_*.parquet", "no TensorBoard event files", "no rollouts/*.jsonl"):
        assert part in said
    assert "validation" not in said
    assert "no validation/*.jsonl" in " ".join(read_run(make_run("s", rollouts={1: {"u": [1, 0]}}), "s").missing)


def test_a_folder_without_a_run_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty: nothing of a run: no tw_grpo/step_"):
        read_runs([tmp_path / "empty"])
    with pytest.raises(ValueError, match="nowhere: no such run directory"):
        read_runs([tmp_path / "nowhere"])


@pytest.mark.parametrize("column", ["weight", "divergence", "group"])
def test_a_dump_that_lacks_a_column_is_left_out_and_named(full_run, column):
    path = full_run / "tw_grpo" / "step_000001.parquet"
    pyarrow.parquet.write_table(pyarrow.parquet.read_table(path).drop_columns([column]), path)
    run = read_run(full_run, "full")
    assert run.missing == [f"{path}: column {column} is missing: not a dump of token weights"]
    assert {group.step for group in run.groups} == {2}


def test_a_file_that_is_no_parquet_is_left_out_and_named(full_run):
    (full_run / "tw_grpo" / "step_000003.parquet").write_bytes(b"PAR?")
    run = read_run(full_run, "full")
    assert "step_000003.parquet: not a parquet file that can be read (" in run.missing[0]
    assert {group.step for group in run.groups} == {1, 2}


def test_a_run_of_broken_dumps_alone_ends_with_the_first(make_run, group_rows):
    folder = make_run("broken", dumps={1: group_rows(1, "u")})
    (folder / "tw_grpo" / "step_000001.parquet").write_bytes(b"PAR?")
    with pytest.raises(ValueError, match="step_000001.parquet: not a parquet file"):
        read_run(folder, "r")


def test_a_token_group_has_all_its_responses_and_the_prompt_from_verls_rollouts(full_run):
    run = read_run(full_run, "full")
    group = read_token_group(run, run.groups[3])
    assert (group.run, group.step, group.id, group.ground_truth) == ("full", 2, "q_v2", "A,C")
    assert group.prompt == "prompt of v2"
    assert [response.tokens for response in group.responses][0] == ["t00", "t01"]
    assert group.responses[1].weight == pytest.approx([1.0, 1.2, 1.7, 0.9])
    (full_run / "rollouts" / "2.jsonl").unlink()
    assert read_token_group(run, run.groups[3]).prompt is None


def test_rollouts_give_the_rewards_where_nothing_else_does_without_padding_rows_and_broken_lines(make_run):
    folder = make_run("r", rollouts={3: {"u": [1.0, 0.0], "padding": [0.0]}})
    with open(folder / "rollouts" / "3.jsonl", "a", encoding="utf-8") as file:
        file.write('{"uid": "v_0_0", "input": "x", "sco')
    run = read_run(folder, "r")
    assert run.rollout_rewards == {3: {"u": [1.0, 0.0]}}
    assert "3.jsonl: 1 lines are not rows of verl's rollout dump" in " ".join(run.missing)


def test_runs_are_named_by_what_tells_them_apart(tmp_path):
    assert labels([tmp_path / "demo" / "run"]) == ["demo/run"]
    assert labels([tmp_path / "tw_grpo"]) == ["tw_grpo"]
    assert labels([tmp_path / "a" / "run", tmp_path / "b" / "run"]) == ["a/run", "b/run"]
    assert labels([tmp_path / "a" / "x", tmp_path / "a" / "y"]) == ["x", "y"]
    with pytest.raises(ValueError, match="the same run is given twice"):
        labels([tmp_path / "a", tmp_path / "b" / ".." / "a"])


def test_a_dump_that_the_trainer_writes_is_read(tmp_path, schema):
    """From producer to consumer: the trainer's own writer, on the tensors that it gets from verl."""
    import torch

    from verl_twgrpo.algorithm.weightings import Group
    from verl_twgrpo.training.dump import write_step

    class Column(list):
        tolist = unbind = lambda self: list(self)

    def jagged(*rows):
        return torch.nested.as_nested_tensor([torch.tensor(row) for row in rows], layout=torch.jagged)

    class Tokenizer:
        def decode(self, ids, skip_special_tokens=False):
            return "".join(f"<{token}>" for token in ids)

    scores = [{"reward_extra_info": {"accuracy": 1.0, "soft_accuracy": 1.0, "format": 0.0}}, {}]
    data = {
        "responses": jagged([5, 6], [7, 8, 9]),
        "entropy": jagged([0.1, 0.2], [0.3, 0.4, 0.5]),
        "old_log_probs": jagged([-1.0, -2.0], [-3.0, -4.0, -5.0]),
        "advantages": jagged([1.0, 1.0], [-1.0, -1.0, -1.0]),
        "rm_scores": torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.5]]),
        "reward_model": Column([{"ground_truth": "A"}] * 2),
        "extra_fields": Column(scores),
        "extra_info": Column([{"id": "q7"}] * 2),
    }
    divergence = [torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0, 2.0])]
    masks = [torch.ones(length, dtype=torch.bool) for length in (2, 3)]
    group = Group("u", [0, 1], masks, {"divergence": divergence}, step=7)
    group.weights = [torch.tensor([1.0, 1.5]), torch.tensor([1.0, 1.5, 1.7])]
    path = tmp_path / "tw_grpo" / "step_000007.parquet"
    write_step(path, 7, data, [group], Tokenizer())
    run = read_run(tmp_path, "r")
    read = read_token_group(run, run.groups[0])
    assert (read.step, read.id, read.ground_truth) == (7, "q7", "A")
    assert [response.reward for response in read.responses] == [1.0, 0.5]
    assert [response.accuracy for response in read.responses] == [1.0, None]
    last = read.responses[1]
    assert (last.tokens, last.text) == (["<7>", "<8>", "<9>"], "<7><8><9>")
    assert last.weight == pytest.approx([1.0, 1.5, 1.7])
    assert last.log_prob == [-3.0, -4.0, -5.0]
    assert set(TOKEN_COLUMNS) <= set(schema.names)
    assert json.dumps(read.responses[0].tokens)


def test_weights_that_are_not_numbers_are_told_and_do_not_vanish_in_a_mean(make_run, group_rows):
    spoilt = group_rows(1, "u")
    spoilt[1]["weight"][2] = float("nan")
    run = read_run(make_run("spoilt", dumps={1: [*spoilt, *group_rows(1, "v")]}), "spoilt")
    assert np.isnan(run.groups[0].weights_T).tolist() == [False, False, True, False]
    assert any("step_000001.parquet: of 1 groups some weights are not a number" in reason for reason in run.missing)
