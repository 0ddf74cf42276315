"""The numbers behind the figures, and what the figures show of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from verl_twgrpo.evaluation import Score
from verl_twgrpo.report import figures, series, style
from verl_twgrpo.report.reading import Group, Run, mean_by_position, read_run


def group(step, rewards=(2.0, 1.0), lengths=(2, 4), weights=(1.0, 1.2, 1.7, 1.5), divergences=(0.0, 1.0, 5.0, 9.0)):
    arrays = (np.array(values, dtype=np.float32) for values in (rewards, lengths, weights, divergences))
    rewards_G, lengths_G, weights_T, divergence_T = arrays
    lengths_G = lengths_G.astype(int)
    return Group(step, f"u{step}", rewards_G, lengths_G, weights_T, divergence_T)


def run_with(*groups, label="a", **fields):
    return Run(label, Path("."), groups=list(groups), **fields)


def points(values):
    return dict(zip(values.steps.tolist(), values.values.tolist(), strict=True))


# --- series --------------------------------------------------------------------------------------------------------


def test_series_come_from_the_log_where_it_has_them():
    scalars = {
        "critic/score/mean": {2: 0.5, 1: 0.25},
        "tw_grpo/group_reward_std": {1: 0.1},
        "response_length/mean": {1: 64.0},
    }
    run = run_with(group(1), scalars=scalars)
    assert points(series.reward_mean(run)) == {1: 0.25, 2: 0.5}
    assert points(series.reward_spread(run)) == {1: 0.1}
    assert points(series.response_length(run)) == {1: 64.0}


def test_series_come_from_the_dumps_where_nothing_is_logged():
    run = run_with(group(1), group(1, rewards=(0.0, 0.0), lengths=(4, 4)), group(2))
    assert points(series.reward_mean(run)) == {1: 0.75, 2: 1.5}
    deviation = np.std([2, 1], ddof=1)
    assert points(series.reward_spread(run)) == pytest.approx({1: deviation / 2, 2: deviation})
    assert points(series.response_length(run)) == {1: 3.5, 2: 3.0}


def test_series_come_from_rollouts_where_nothing_else_is_left():
    run = run_with(rollout_rewards={1: {"u": [2.0, 1.0], "v": [0.0, 0.0]}, 2: {}})
    assert points(series.reward_mean(run)) == {1: 0.75}
    assert points(series.reward_spread(run)) == pytest.approx({1: np.std([2, 1], ddof=1) / 2})
    assert series.response_length(run) is None
    assert series.divergence(run) is None


def test_spread_is_the_trainers_metric():
    torch = pytest.importorskip("torch")
    from verl_twgrpo.training.metrics import spread_metrics

    rewards = [2.0, 1.5, 0.0, 1.0]
    logged = spread_metrics(torch.tensor(rewards), ["u"] * 3 + ["v"])["tw_grpo/group_reward_std"]
    assert (series.spread(rewards[:3]) + series.spread(rewards[3:])) / 2 == pytest.approx(logged)


def test_divergence_is_the_mean_over_positions_where_every_response_is_alive():
    values = series.divergence(run_with(group(1), scalars={"tw_grpo/divergence_mean": {1: 7.0}}))
    assert points(values) == {1: 0.5}  # positions 0 and 1 of 4
    assert values.source == "content only"
    logged = series.divergence(run_with(scalars={"tw_grpo/divergence_mean": {1: 7.0}}))
    assert (points(logged), logged.source) == ({1: 7.0}, "all tokens")


def test_weights_by_position_end_where_the_longest_response_of_a_group_ends():
    weights, shortest = series.weights_by_position([group(1), group(2, lengths=(1, 2), weights=(1.0, 1.6))])
    np.testing.assert_allclose(weights[:, 0], [1.0, 1.2, 1.7, 1.5], rtol=1e-6)
    np.testing.assert_allclose(weights[:, 1], [1.0, 1.6, np.nan, np.nan], rtol=1e-6)
    assert shortest.tolist() == [2, 1]


def test_weights_that_differ_between_responses_are_shown_by_their_mean():
    np.testing.assert_allclose(mean_by_position([np.array([0.5]), np.array([1.5, 2.0])]), [1.0, 2.0])


def test_without_a_head_pass_the_divergence_comes_from_the_log_or_from_nowhere():
    blind = run_with(group(1, divergences=(np.nan,) * 4))
    assert series.divergence(blind) is None
    assert figures.divergence_figure([blind]) is None


def test_smoothing_keeps_a_constant_and_the_length():
    np.testing.assert_allclose(series.smooth(np.full(10, 3.0), 4), 3.0)
    np.testing.assert_allclose(series.smooth(np.array([0.0, 3.0, 0.0]), 3), [1.5, 1.0, 1.5])


# --- figures -------------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def close_figures():
    yield
    style.plt.close("all")


def test_runs_are_overlaid_in_one_panel_in_different_colours():
    runs = [run_with(group(1), group(2), label="ours"), run_with(group(1), group(2), label="grpo")]
    for draw in (figures.reward_figure, figures.length_figure, figures.divergence_figure):
        for axis in draw(runs).axes:
            labels = [line.get_label() for line in axis.lines]
            assert [label.split(" ")[0] for label in labels] == ["ours", "grpo"]
            assert len({line.get_color() for line in axis.lines}) == 2
            assert axis.get_xlabel() == "step"


def test_reward_figure_shows_mean_and_spread_within_groups():
    mean, deviation = figures.reward_figure([run_with(group(1), group(2))]).axes
    np.testing.assert_allclose(mean.lines[0].get_ydata(), [1.5, 1.5])
    np.testing.assert_allclose(deviation.lines[0].get_ydata(), np.std([2, 1], ddof=1), rtol=1e-6)


def test_a_long_run_is_drawn_as_a_running_mean_that_says_so():
    run = run_with(scalars={"response_length/mean": {step: float(step % 2) for step in range(100)}})
    raw, smoothed = figures.length_figure([run]).axes[0].lines
    assert len(raw.get_ydata()) == len(smoothed.get_ydata()) == 100
    assert smoothed.get_label() == "a, mean of 4 steps"
    assert np.ptp(smoothed.get_ydata()[4:-4]) < 1e-9 < np.ptp(raw.get_ydata())


def test_weights_figure_marks_where_the_padding_begins():
    figure = figures.weights_figure([run_with(group(1), group(2, lengths=(3, 4)), label="ours"), run_with(label="x")])
    axis = figure.axes[0]
    assert axis.get_title("left") + axis.get_title() == "ours"
    image = axis.images[0].get_array()
    assert image.shape == (4, 2)
    dashed = [line for line in axis.lines if line.get_linestyle() == "--"]
    assert [line.get_ydata().tolist() for line in dashed] == [[2, 3, 3]]
    assert "dashed line" in figure.get_suptitle() and "padding" in figure.get_suptitle()
    assert [other.get_ylabel() for other in figure.axes[1:]] == ["token weight"]  # no panel for the run without dumps


def test_weights_figure_of_degenerate_groups_only_is_drawn():
    assert figures.weights_figure([run_with(group(1, weights=(1.0, 1.0, 1.0, 1.0)))]) is not None


def test_validation_figure_has_a_panel_a_benchmark_with_intervals():
    def score(strict, soft=0.05):
        return Score(40, strict, strict - 0.1, strict + 0.2, strict + soft, strict, strict + 0.1, 0)

    figure = figures.validation_figure(
        {"ours": {0: {"clevrer": score(0.2)}, 4: {"clevrer": score(0.5), "mmvu": score(0.6, 0)}}, "grpo": {}}
    )
    clevrer, mmvu = figure.axes
    assert "clevrer (n = 40)" in clevrer.get_title() + clevrer.get_title("left")
    drawn = [bars.lines[0].get_ydata() for bars in clevrer.containers]
    np.testing.assert_allclose(drawn, [[20, 50], [25, 55]])
    bar = clevrer.containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(bar, [[0, 10], [0, 40]])
    assert len(mmvu.containers) == 1  # all of its questions have one answer: soft is strict
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["ours, strict", "ours, soft"]


def test_figures_without_data_are_not_drawn():
    for draw in (
        figures.reward_figure,
        figures.length_figure,
        figures.divergence_figure,
        figures.weights_figure,
    ):
        assert draw([run_with()]) is None
    assert figures.validation_figure({"a": {}}) is None


def test_a_saved_figure_names_its_runs_and_its_command(tmp_path):
    image = pytest.importorskip("PIL.Image")
    with style.look():
        figure = figures.length_figure([run_with(group(1))])
        style.save(figure, tmp_path / "f.png", ["ours", "grpo"], "verl-twgrpo report runs/ours runs/grpo --out o")
    note = "ours, grpo  ·  verl-twgrpo report runs/ours runs/grpo --out o"
    assert figure.get_supxlabel() == note
    with image.open(tmp_path / "f.png") as saved:
        assert saved.text["Source"] == note
        assert saved.width > 1200


def test_drawing_leaves_the_settings_of_matplotlib_alone(full_run):
    before = dict(style.matplotlib.rcParams)
    with style.look():
        figures.weights_figure([read_run(full_run, "full")])
    assert dict(style.matplotlib.rcParams) == before
