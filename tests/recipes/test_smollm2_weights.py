"""The summaries of recipes/smollm2_weights, on arrays made by hand and on tiny random models."""

from __future__ import annotations

import argparse
import importlib
import json
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from verl_twgrpo.algorithm import group_divergence, token_weights
from verl_twgrpo.torchvision_ops import declare_missing_ops

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
V = 40


@pytest.fixture(scope="module")
def recipe():
    """The recipe's modules; ``__main__`` is ``command``."""
    names = ("checks", "drawing", "measuring", "others", "positions", "sampling", "statistics", "tokens")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(ROOT)
        modules = {name: importlib.import_module(f"recipes.smollm2_weights.{name}") for name in names}
        command = importlib.import_module("recipes.smollm2_weights.__main__")
    return SimpleNamespace(command=command, **modules)


@pytest.fixture(scope="module")
def model():
    declare_missing_ops()
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, initializer_range=0.5, tie_word_embeddings=True,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


def some_sample(recipe, lengths=(3, 5, 2, 5, 4, 5, 1, 5)):
    generator = torch.Generator().manual_seed(1)
    responses = [torch.randint(V, (n,), generator=generator).tolist() for n in lengths]
    return recipe.sampling.Sample("q", "A,B", "ABC", torch.randint(V, (6,), generator=generator).tolist(), responses)


def made_group(recipe, lengths, weights, entropy=1.0):
    """A group whose weights are given, the same in every reading; D_t = w_t - 1."""
    one = recipe.sampling.Sample("q", "A", "AB", [0], [[1] * n for n in lengths])
    weight = {kind: np.array(weights, dtype=np.float32) for kind in recipe.measuring.KINDS}
    divergence = {kind: values - 1 for kind, values in weight.items()}
    rows = [np.full(n, entropy, dtype=np.float32) for n in lengths]
    return recipe.measuring.Weighted(one, divergence, weight, rows, rows)


def test_a_row_ends_with_its_end_token_and_an_unfinished_one_is_whole(recipe):
    assert recipe.sampling.ended([5, 2, 2, 2], end=2) == [5, 2]
    assert recipe.sampling.ended([5, 6], end=2) == [5, 6]


def test_live_rows_and_regions_tell_the_tail_from_the_rest(recipe):
    live_T = recipe.statistics.live_rows([2, 4, 5])
    assert live_T.tolist() == [3, 3, 2, 2, 1]
    masks = {name: mask.tolist() for name, mask in recipe.statistics.regions(live_T).items()}
    assert masks["no row ended"] == [False, True, False, False, False]
    assert masks["ragged tail"] == [False, False, True, True, True]
    assert masks["tail, 2 or more live"] == [False, False, True, True, False]


def test_rank_correlation_follows_order_and_shares_ranks_of_ties(recipe):
    assert recipe.statistics.spearman(np.array([3.0, 1.0, 3.0, 0.0]), np.array([2.5, 1.0, 2.5, 0.0])) == pytest.approx(
        1
    )
    a = np.array([0.0, 1.0, 2.0, 3.0])
    assert recipe.statistics.spearman(a, np.exp(a)) == pytest.approx(1)
    assert recipe.statistics.spearman(a, -(a**3)) == pytest.approx(-1)
    assert recipe.statistics.pearson(a, np.exp(a)) < 0.95
    assert math.isnan(recipe.statistics.pearson(a, np.ones(4)))
    assert math.isnan(recipe.statistics.spearman(a[:2], a[:2]))


def test_tail_share_counts_tokens_not_positions(recipe):
    live_T = recipe.statistics.live_rows([1, 2, 3])  # 3, 2, 1 live
    assert recipe.statistics.tail_share(np.ones(3), live_T) == pytest.approx(3 / 6)
    assert recipe.statistics.tail_share(np.array([1.0, 2.0, 4.0]), live_T) == pytest.approx(8 / 11)


def test_centred_values_keep_no_trace_of_the_number_of_live_rows(recipe):
    live_T = np.array([3, 3, 1, 1])
    assert recipe.statistics.centred(np.array([1.0, 3.0, 10.0, 12.0]), live_T).tolist() == [-1, 1, -1, 1]


def test_middle_leaves_out_nan_and_says_how_many_are_left(recipe):
    median, low, high, count = recipe.statistics.middle([1.0, math.nan, 3.0, 2.0])
    assert (median, count) == (2.0, 3)
    assert 1 <= low < 2 < high <= 3
    assert recipe.statistics.middle([math.nan])[3] == 0


def test_a_class_gains_nothing_from_standing_in_the_tail(recipe):
    group = made_group(recipe, [2, 2, 5], [1.0, 1.2, 1.5, 1.5, 1.7])
    classes = [["word"] * 2, ["word"] * 2, ["word", "word", "digit", "digit", "punctuation"]]
    lines = {line["class"]: line for line in recipe.tokens.class_table([group], [classes]) if line["reading"] == "jsd"}
    assert lines["digit"]["weight"] == pytest.approx(1.5) and lines["digit"]["tokens"] == 2
    assert lines["digit"]["same_live"] == pytest.approx(-0.2 / 3)
    assert lines["punctuation"]["same_live"] == pytest.approx(0.4 / 3)
    assert "format tag" not in lines


def test_words_are_ranked_by_weight_among_positions_with_as_many_live_rows(recipe):
    group = made_group(recipe, [4, 4], [1.0, 1.2, 1.6, 1.2])
    tokens = [["x", " a", " b", " c"]] * 2
    table = [line for line in recipe.tokens.word_table([group], [tokens], least=2) if line["reading"] == "released"]
    assert [line["token"] for line in table][0] == " b"
    assert "x" not in {line["token"] for line in table}, "position 0 says nothing"
    assert recipe.tokens.word_table([group], [tokens], least=3) == []


def test_extremes_pass_over_position_0_and_show_live_rows_in_context(recipe):
    group = made_group(recipe, [2, 4], [1.0, 1.2, 1.7, 1.4])
    table = recipe.tokens.extreme_table([group], [[["a", " b"], ["c", " d", "\n", " f"]]])
    heaviest, lightest = [line for line in table if line["reading"] == "jsd"]
    assert (heaviest["position"], heaviest["live_rows"], heaviest["tokens"]) == (2, 1, "c d[↵]")
    assert (lightest["position"], lightest["tokens"]) == (1, "a[ b] | c[ d]")


def test_tables_by_group_by_live_rows_and_by_position(recipe):
    group = made_group(recipe, [2] * 4 + [4] * 4, [1.0, 1.2, 1.6, 1.7])
    line = next(line for line in recipe.positions.group_table([group]) if line["reading"] == "released")
    assert line["weight_mean_no_row_ended"] == pytest.approx(1.2)
    assert line["weight_mean_tail"] == pytest.approx(1.65)
    assert (line["heaviest_is_last"], line["lightest_is_last"], line["fewest_live"]) == (1, 0, 4)
    assert line["tail_token_share"] == pytest.approx(8 / 24)
    lines = recipe.positions.summary_table(
        recipe.positions.group_table([group, made_group(recipe, [3] * 8, [1.0, 1.4, 1.7])])
    )
    summary = {(line["reading"], line["measure"]): line for line in lines}
    assert summary["live", "weight_mean_no_row_ended"]["median"] == pytest.approx((1.2 + 1.55) / 2)
    assert summary["live", "weight_mean_tail"]["groups"] == 1, "a group without a tail has no say in it"
    assert ("live", "divergence_over_bound") not in summary
    by_live = {(line["live_rows"], line["reading"]): line for line in recipe.positions.live_table([group])}
    assert by_live[8, "jsd"]["weight"] == pytest.approx(1.2), "position 0 is left out"
    assert by_live[4, "jsd"]["positions"] == 2 and by_live[3, "jsd"]["groups"] == 0
    profile = recipe.positions.profile_table([group, made_group(recipe, [8], [1.0] * 8)])
    assert (profile[3]["groups"], profile[7]["groups"]) == (2, 1)
    assert profile[2]["weight_live"] == pytest.approx(1.3)


def test_correlations_are_within_groups_and_by_region(recipe):
    group = made_group(recipe, [4, 4, 8], [1.0, 1.2, 1.6, 1.3, 1.7, 1.1, 1.3, 1.4])
    group.weight["released"] = 2.7 - group.weight["jsd"]
    lines = recipe.positions.correlation_table([group, group])
    table = {(line["first"], line["second"], line["region"], line["measure"]): line for line in lines}
    assert table["jsd", "released", "ragged tail", "pearson"]["median"] == pytest.approx(-1, abs=1e-5)
    assert table["jsd", "live", "no row ended", "spearman"]["median"] == pytest.approx(1)
    assert table["jsd", "live", "all", "spearman"]["groups"] == 2


def test_the_bound_of_eq_4_is_reached_by_rows_that_share_no_token(recipe):
    many, lengths = 20_000, [2] * 5 + [1] * 3
    logits = torch.full((8, 2, many), -60.0)
    for row in range(8):
        logits[row, :, row] = 60.0
    reached = group_divergence(logits.log_softmax(-1), lengths, "jsd").numpy()
    limit = recipe.positions.bound(recipe.statistics.live_rows(lengths))
    assert (reached <= limit + 1e-4).all()
    assert reached == pytest.approx(limit, rel=1e-3)


def test_hidden_states_and_weights_are_those_of_whole_rows(recipe, model):
    one = some_sample(recipe)
    head = model.lm_head.weight.detach()
    group = recipe.measuring.weigh(one, recipe.measuring.hidden_states(model, one), head)
    T = max(one.lengths)
    log_probs = torch.zeros(len(one.responses), T, V)
    with torch.no_grad():
        for row, response in enumerate(one.responses):
            logits = model(torch.tensor([one.prompt + response])).logits[0, len(one.prompt) - 1 : -1]
            log_probs[row, : len(response)] = logits.log_softmax(-1)
            chosen = log_probs[row, range(len(response)), response]
            assert group.log_prob[row] == pytest.approx(chosen.numpy(), abs=1e-4)
    for kind in recipe.measuring.KINDS:
        expected = group_divergence(log_probs, one.lengths, kind)
        assert group.divergence[kind] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)
        expected_w = token_weights(expected, one.lengths, kind=kind, vocabulary_size=V).numpy()
        assert group.weight[kind] == pytest.approx(expected_w, abs=1e-3)


@pytest.mark.parametrize("kind", ["jsd", "released"])
def test_the_gradient_through_w_is_that_of_autograd(recipe, model, monkeypatch, kind):
    monkeypatch.setattr(recipe.measuring, "SLICE", 2)
    one = some_sample(recipe)
    hidden, head = recipe.measuring.hidden_states(model, one), model.lm_head.weight.detach()
    group = recipe.measuring.weigh(one, hidden, head)
    advantages = np.random.default_rng(0).standard_normal(8)
    advantages -= advantages.mean()

    logits = torch.nn.utils.rnn.pad_sequence((hidden @ head.t()).split(one.lengths), batch_first=True)
    logits = logits.double().requires_grad_(True)
    log_probs = logits.log_softmax(-1)
    weights = token_weights(group_divergence(log_probs, one.lengths, kind), one.lengths, kind=kind, vocabulary_size=V)

    def objective(weights):
        chosen = [log_probs[i, range(len(row)), row] for i, row in enumerate(one.responses)]
        terms = [
            (a * weights[: len(c)] * (c - c.detach()).exp()).sum() for a, c in zip(advantages, chosen, strict=True)
        ]
        return sum(terms)

    (fixed,) = torch.autograd.grad(objective(weights.detach()), logits, retain_graph=True)
    (whole,) = torch.autograd.grad(objective(weights), logits)
    leak, leak_live = recipe.checks.gradient_leak(group, hidden, head, kind, advantages)
    expected = (whole - fixed).norm() / fixed.norm()
    assert leak == pytest.approx(float(expected), rel=1e-2)
    assert leak_live <= leak


def test_rounding_slice_by_slice_is_rounding_at_once(recipe, model, monkeypatch):
    one = some_sample(recipe)
    hidden, head = recipe.measuring.hidden_states(model, one), model.lm_head.weight.detach()
    logits = torch.nn.utils.rnn.pad_sequence((hidden @ head.t()).split(one.lengths), batch_first=True)
    expected = {
        "logits": group_divergence(logits.bfloat16().float().log_softmax(-1), one.lengths, "jsd"),
        "log-probs": group_divergence(logits.log_softmax(-1).bfloat16().float(), one.lengths, "jsd"),
    }
    monkeypatch.setattr(recipe.measuring, "SLICE", 2)
    rounded = recipe.checks.rounded_divergences(hidden, one.lengths, head)
    for what, value in expected.items():
        assert rounded[what, "jsd"].numpy() == pytest.approx(value.numpy(), rel=1e-3, abs=1e-4)


def test_errors_of_a_number_format(recipe):
    found = recipe.checks.compare(
        np.array([0.0, 1.0, 2.0]), np.array([0.1, 1.1, 2.0]), np.array([1.0, 1.3]), np.array([1, 1.5])
    )
    assert found["divergence_relative_max"] == pytest.approx(0.1)
    assert found["divergence_relative_median"] == pytest.approx(0.05)
    assert found["divergence_at_0"] == pytest.approx(0.1)
    assert found["weight_error_max"] == pytest.approx(0.2)


def test_dtype_lines_have_every_setting_and_bfloat16_moves_the_divergence(recipe, model):
    one = some_sample(recipe)
    hidden, head = recipe.measuring.hidden_states(model, one), model.lm_head.weight.detach()
    lines = recipe.checks.dtype_lines(recipe.measuring.weigh(one, hidden, head), hidden, head, hidden.bfloat16())
    table = recipe.checks.dtype_table(lines)
    assert len(table) == 4 * len(recipe.measuring.KINDS)
    assert all(0 < line["divergence_relative_max"] < 0.5 for line in table if line["reading"] == "jsd")


def test_copies_of_one_row_differ_by_noise_only(recipe, model):
    assert recipe.checks.noise_of_identical_rows(model, some_sample(recipe)) < 1e-4


class Letters:
    """A tokenizer of one character per token."""

    def decode(self, ids, skip_special_tokens=False):
        return "".join(chr(97 + i % 26) for i in ids)


def test_the_page_shows_one_group_once_a_reading(recipe):
    groups = [made_group(recipe, lengths, [1.0, 1.5, 1.5, 1.6]) for lengths in ([3, 4, 4], [2, 3, 4], [4, 4, 4])]
    page = recipe.drawing.heat_map_page(groups, Letters(), "python -m recipes.smollm2_weights")
    assert page.count("<section") == len(recipe.measuring.KINDS)
    assert all(name in page for name in recipe.measuring.NAMES.values())
    assert page.count("data-v=") == 9 * len(recipe.measuring.KINDS), "the group of which one row is left at the end"


def test_tables_and_figures_are_written(recipe, tmp_path):
    groups = [made_group(recipe, [2] * 4 + [4] * 4, [1.0, 1.2, 1.6, 1.7])]
    classes = [[["first token", "word", "digit", "word"][:n] for n in groups[0].sample.lengths]]
    tables = {
        "profile": recipe.positions.profile_table(groups),
        "live_rows": recipe.positions.live_table(groups),
        "classes": recipe.tokens.class_table(groups, classes),
    }
    recipe.command.write_table(tmp_path / "classes.csv", tables["classes"])
    assert (tmp_path / "classes.csv").read_text().splitlines()[0].startswith("class,reading,tokens")
    recipe.drawing.draw(tmp_path, tables, groups, "python -m recipes.smollm2_weights")
    for name in ("weights.png", "tokens.png"):
        assert (tmp_path / name).read_bytes()[:4] == b"\x89PNG"


def test_questions_with_several_true_options_come_from_annotations_as_from_parquet(recipe, tmp_path):
    from verl_twgrpo.data.parquet import write_parquet

    options = [f"({letter}) thing {letter}" for letter in "ABCDE"]
    raw = [
        {"id": f"q{k}", "video": f"v{k}", "question": f"why did the boy jump {k} times", "options": options,
         "answer": "(C)", "type": "CW"} for k in range(20)
    ]  # fmt: skip
    (tmp_path / "raw.json").write_text(json.dumps(raw))
    items = recipe.sampling.read_questions(str(tmp_path / "raw.json"), 3, seed=0)
    assert len(items) == 3 and all(len(item.answers) > 1 for item in items)
    write_parquet(items, tmp_path / "made.parquet")
    assert [item.id for item in recipe.sampling.read_questions(str(tmp_path / "made.parquet"), 3, 0)] == [
        i.id for i in items
    ]
    with pytest.raises(ValueError, match="raw.json: .* several true options"):
        recipe.sampling.read_questions(str(tmp_path / "raw.json"), 50, seed=0)


def test_samples_are_kept_and_refused_for_other_settings(recipe, tmp_path, monkeypatch):
    one = some_sample(recipe)
    monkeypatch.setattr(recipe.sampling, "read_questions", lambda *_: ["a question"])
    monkeypatch.setattr(recipe.sampling, "sample", lambda *_: [one])
    args = argparse.Namespace(gguf="a.gguf", questions="q.json", groups=1, seed=0)
    assert recipe.sampling.samples_of(args, None, None, tmp_path) == [one]
    monkeypatch.setattr(recipe.sampling, "sample", lambda *_: pytest.fail("sampled again"))
    assert recipe.sampling.samples_of(args, None, None, tmp_path) == [one]
    args.seed = 1
    with pytest.raises(ValueError, match="other settings"):
        recipe.sampling.samples_of(args, None, None, tmp_path)


def test_everything_is_written_for_a_tiny_model(recipe, tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=V, hidden_size=16, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        initializer_range=0.5,
    )  # fmt: skip
    tiny = LlamaForCausalLM(config).eval()
    samples = [some_sample(recipe)] * 2
    recipe.command.describe(tiny, Letters(), samples, tmp_path, "python -m recipes.smollm2_weights")
    recipe.command.check(tiny, samples, tmp_path, seed=0)
    written = {path.name for path in tmp_path.iterdir()}
    tables = ("checks", "classes", "correlations", "dtype", "extremes", "groups", "live_rows", "profile", "summary")
    assert written == {f"{name}.csv" for name in tables} | {"weights.png", "tokens.png", "tokens.html"}
    checks = (tmp_path / "checks.csv").read_text()
    assert "gradient through w,jsd" in checks and "identical rows" in checks


def test_a_dump_for_other_weightings_is_what_they_read(recipe, model):
    """Behind its own prompt every log-prob is the same; behind another one it is the definition's."""
    group = recipe.measuring.weigh(
        some_sample(recipe), recipe.measuring.hidden_states(model, some_sample(recipe)), model.lm_head.weight.detach()
    )
    same = recipe.others.blank_log_probs(model, group, group.sample.prompt)
    for one, other in zip(same, group.log_prob, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)
    prompt = group.sample.prompt[:2]
    blank = recipe.others.blank_log_probs(model, group, prompt)
    row = group.sample.responses[1]
    with torch.no_grad():
        logits = model(torch.tensor([[*prompt, *row]])).logits[0, len(prompt) - 1 : -1].double()
    expected = logits.log_softmax(-1).gather(1, torch.tensor(row)[:, None]).squeeze(1)
    np.testing.assert_allclose(blank[1], expected.numpy(), atol=1e-4)
    rows = list(recipe.others.dump_rows(group, blank, Letters()))
    assert [len(line["log_probs_blank"]) for line in rows] == list(group.sample.lengths)
    assert rows[1]["weight"] == group.weight["jsd"][: len(row)].tolist()


def test_a_question_is_taken_out_of_its_prompt(recipe):
    assert recipe.others.without_question("user\nWhy?\nA x", "Why?") == "user\n\nA x"
    with pytest.raises(ValueError, match="does not hold its question 'Why'"):
        recipe.others.without_question("user\nA x", "Why")
