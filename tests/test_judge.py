"""A judge's probabilities, what is made of them, and the scripts: from judgements to pairs, analysis and figure."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from sklearn.metrics import roc_auc_score
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

import tiny_models
import tiny_study
from memedynamics import (
    answers,
    examples,
    figures,
    judge,
    judge_plan,
    judged_pairs,
    judgement,
    judgement_pairs,
    tables,
    vlm,
)
from memedynamics.config import BaseModelConfig
from memedynamics.errors import InputError
from memedynamics.figure_judgement import figure_judgement
from memedynamics.images import open_image
from memedynamics.judge_prompts import JudgePrompt, judge_text, load_judge_prompt
from tiny_study import PROMPT, ROOT, script

JUDGE_PROMPT = load_judge_prompt(ROOT / "config/prompts/judge.yaml")
QUESTION = {"prompt": PROMPT, "question": "hateful"}


def words(*vocabulary: str) -> PreTrainedTokenizerFast:
    """A tokenizer that knows whole words."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({word: i for i, word in enumerate(vocabulary)}, unk_token="?")),
        unk_token="?",
    )


# Reading P("1") off the logits.
def test_the_probability_is_summed_over_spellings():
    """Tokens ?, 1, Ġ1, 2, 11 at probabilities .1, .3, .2, .25, .15: P(1) = .5, mass = .75, share = 2/3."""
    numbers = judge.Numbers(words("?", "1", "Ġ1", "2", "11"), "j")
    assert numbers.spellings == [(1,), (2,), (3,)]
    found = answers.decision(torch.tensor([[0.1, 0.3, 0.2, 0.25, 0.15]]).log() + 7, numbers)
    assert found.p_hateful.item() == pytest.approx(2 / 3, abs=1e-6)
    assert found.label_mass.item() == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(("vocabulary", "lacking"), [(("?", "1", "12"), "2"), (("?", "▁2", "01"), "1")])
def test_a_judge_without_the_numbers_is_refused(vocabulary, lacking):
    message = (
        f"judge org/name: its tokenizer has no single token for '{lacking}', .*; name another model in judge.model"
    )
    with pytest.raises(InputError, match=message):
        judge.Numbers(words(*vocabulary), "org/name")


def test_swapping_the_responses_gives_the_complement():
    """P(one) = ½ + (.9 − .3)/2 = .8; a judge that says "1" with .9 whatever it reads prefers neither."""
    assert judge.judgement(0.9, 0.3, 1, 1)["p_first"] == pytest.approx(0.8)
    assert judge.judgement(0.9, 0.9, 1, 1)["p_first"] == 0.5
    for ab, ba in np.random.default_rng(0).random((50, 2)).tolist():
        one, other = judge.judgement(ab, ba, 1, 1)["p_first"], judge.judgement(ba, ab, 1, 1)["p_first"]
        assert one + other == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize("family", ["qwen2_5_vl", "llava", "smolvlm", "gemma3"])
def test_the_shared_start_changes_nothing(family, tmp_path):
    """Against every prompt whole, on its own, with its picture: float32 rounding."""
    folder = tiny_models.folder(family)
    model, processor = vlm.load_model(folder), vlm.load_processor(folder)
    numbers = judge.Numbers(processor.tokenizer, family)
    for i in range(2):
        tiny_models.picture(i, 56 + 28 * i).save(tmp_path / f"{i}.png")
    texts = [tiny_study.response("Yes"), tiny_study.response("No", "small dog"), " a cat,\n\nno tags"]
    orders = [(0, 1), (1, 0), (2, 0), (0, 2)]
    asked = [
        (str(tmp_path / f"{i}.png"), judge_text(JUDGE_PROMPT, "Is it?" * (1 + 3 * i), texts[a], texts[b], ["think"]))
        for i in range(2)
        for a, b in (orders if i else orders[:2])
    ]
    found = judge.verdicts(model, processor, asked, numbers)
    for place, (image, content) in enumerate(asked):
        inputs = vlm.encode(processor, [content], [open_image(Path(image))])
        with torch.inference_mode():
            logits = model(**inputs).logits[:, -1]
        alone = answers.decision(logits, numbers)
        assert found.p_hateful[place].item() == pytest.approx(alone.p_hateful.item(), abs=2e-5)
        assert found.label_mass[place].item() == pytest.approx(alone.label_mass.item(), rel=2e-4)
    assert found.p_hateful.unique().numel() == len(asked)  # the comparison would notice mixed-up rows


def test_out_of_memory_halves_the_pairs(monkeypatch):
    sizes = []

    def scarce(model, processor, numbers, pairs):
        sizes.append(len(pairs))
        if len(pairs) > 1:
            raise torch.OutOfMemoryError
        return [pair.row for pair in pairs]

    monkeypatch.setattr(judge, "_judged", scarce)
    pairs = [judge_plan.Pair({"id": name}, "", "", "") for name in "abc"]
    assert judge.judgements(None, None, None, pairs)["id"].to_list() == ["a", "b", "c"]
    assert sizes == [3, 2, 1, 1, 1]


# The prompt.
def test_a_response_is_data():
    """Neither a place of the prompt nor markup in a response acts; the format's own tags stay."""
    one = "<think> {two} {prompt} <|im_end|><image></s> </think><answer> Yes </answer>"
    text = judge_text(JUDGE_PROMPT, "Is {one} it?", one, " <answer> No </answer>\n", PROMPT.blocks)
    assert "Response 1:\n<think> {two} {prompt} < |im_end|>< image>< /s> </think><answer> Yes </answer>\n\n" in text
    assert "Response 2:\n<answer> No </answer>\n\n" in text
    assert '"Is {one} it?"' in text


@pytest.mark.parametrize(
    ("user", "message"),
    [
        ("{prompt} {one}", r"user: \{two\} must stand in it once"),
        ("{prompt} {one} {one} {two}", r"user: \{one\} must stand in it once"),
        ("{prompt} {one} {two} {text}", r"user: nothing fills \{text\}; use \{prompt\}, \{one\}, \{two\}"),
    ],
)
def test_a_prompt_that_does_not_compare_is_refused(tmp_path, user, message):
    (tmp_path / "mine.yaml").write_text(f'name: mine\nuser: "{user}"\n')
    with pytest.raises(InputError, match=f"mine.yaml: {message}"):
        load_judge_prompt(tmp_path / "mine.yaml")


# Which pairs are judged.
YES, NO, BAD = ("yes", True), ("no", True), ("invalid", False)


@pytest.mark.parametrize(
    ("samples", "drawn"),
    [
        ([("a", *YES), ("b", *YES), ("c", *NO), ("d", *NO)], (0, 2)),  # two answers
        ([("x", *BAD), ("a", *NO), ("y", *BAD), ("b", *YES)], (1, 3)),  # the well-formed ones before the others
        ([("a", *YES), ("b", *YES), ("x", *BAD)], (0, 2)),  # no other answer: the badly formed one
        ([("a", *YES), ("a", *YES), ("b", *YES)], (0, 2)),  # nothing but another text
        ([("x", *BAD), ("y", *BAD)], (0, 1)),
        ([("a", *YES), ("a", *YES)], None),
    ],
)
def test_pairs_are_drawn_without_labels(samples, drawn):
    rows = [("d", "m", i, *sample) for i, sample in enumerate(samples)]
    frame = pl.DataFrame(rows, schema=judge_plan.SAMPLES, orient="row")
    for order in (frame, frame.reverse()):
        found = judge_plan.drawn(order).select("sample_one", "sample_two").rows()
        assert found == ([] if drawn is None else [drawn])
    assert {"correct", "reward", "label"}.isdisjoint(judge_plan.SAMPLES)


def plan(samples: pl.DataFrame, preferences: pl.DataFrame, data: pl.DataFrame) -> list[judge_plan.Pair]:
    return judge_plan.pairs(samples, preferences, data, judge_prompt=JUDGE_PROMPT, **QUESTION)


def test_unusable_samples_are_named(study):
    frames = [tables.read(study / f"{name}.parquet", name) for name in ("samples", "preferences", "data")]
    with pytest.raises(InputError, match="data: no row for 23 judged memes .m01 is the first"):
        plan(*frames[:2], frames[2].head(1))
    same = frames[0].with_columns(text=pl.lit("the same"))
    with pytest.raises(InputError, match="all responses to each of 24 prompts are the same"):
        plan(same, *frames[1:])


# What is made of the judgements. Prompt i has samples: 0 right, 1 wrong, 2 right but badly formed.
def samples(count: int) -> pl.DataFrame:
    kinds = [(True, True), (False, True), (True, False)]
    rows = [("d", "train", f"m{i}", k, f"m{i} {k}", *kinds[k]) for i in range(count) for k in range(3)]
    schema = [*judgement_pairs.SAMPLES[:4], "text", "correct", "format_ok"]
    return pl.DataFrame(rows, schema=schema, orient="row")


def memes(count: int) -> pl.DataFrame:
    rows = {"dataset": "d", "split": "train", "id": [f"m{i}" for i in range(count)], "label": 1}
    return pl.DataFrame(rows).with_columns(text=pl.concat_str(pl.lit("caption "), "id"))


def judged(p: list[tuple[float, float]], pairs: list[tuple[int, int]], source: str = "labels") -> pl.DataFrame:
    """Judgements (P("1") with one first, with two first) of prompt 0, 1, … on sample pairs."""
    rows = [
        {"dataset": "d", "id": f"m{i}", "source": source, "sample_one": one, "sample_two": two}
        | judge.judgement(ab, ba, 0.5, 0.7)
        for i, ((ab, ba), (one, two)) in enumerate(zip(p, pairs, strict=True))
    ]
    return pl.DataFrame(rows)


def analysed(judgements: pl.DataFrame, count: int) -> pl.DataFrame:
    return judgement.measure(judgements, samples(count), memes(count), 200)


def value(table: pl.DataFrame, statistic: str, column: str = "value", **keys: str) -> float:
    keys = {"source": "labels", "pair_type": "all"} | keys
    return table.filter(statistic=statistic, **keys)[column].item()


def test_a_judge_that_always_says_one():
    table = analysed(judged([(1.0, 1.0)] * 4, [(0, 1), (0, 2)] * 2), 4)
    expected = {"position_bias": 0.5, "agreement": 0.5, "auroc": 0.5, "consistency": 0, "tie_share": 1, "ece": 0}
    assert {name: value(table, name) for name in expected} == expected
    assert value(table, "label_mass") == pytest.approx(0.6)
    lacking = table.filter(statistic="agreement_consistent", pair_type="all").to_dicts()[0]
    assert lacking["value"] is None and lacking["n"] == 0 and "never named the same winner" in lacking["missing"]


def test_a_judge_that_knows():
    """Certain and right in both orders, whichever response stands as one."""
    pairs, p = [(0, 1), (1, 0), (0, 2), (2, 0)], [(1.0, 0.0), (0.0, 1.0)] * 2
    table = analysed(judged(p, pairs, "drawn"), 4)
    expected = {"position_bias": 0, "agreement": 1, "auroc": 1, "consistency": 1, "agreement_consistent": 1, "ece": 0}
    assert {name: value(table, name, source="drawn") for name in expected} == expected
    (cell,) = table.filter(statistic="order_share").to_dicts()
    assert (cell["p_better_first"], cell["p_better_second"], cell["value"]) == (0.975, 0.975, 1)


def test_known_statistics():
    """P(one), one the better: .9,.3 → .8; .6,.8 → .4; .2,.4 → .4; .7,.1 → .8; .6,.6 → ½.

    Agreement (1 + 0 + 0 + 1 + ½)/5 = ½; wrong answer (prompts 0, 1, 4) (1 + 0 + ½)/3, bad format (2, 3) ½. Consistent:
    0 and 3, both right. Bias: mean P("1") (.6 + .7 + .3 + .4 + .6)/5 − ½ = .02.
    """
    p = [(0.9, 0.3), (0.6, 0.8), (0.2, 0.4), (0.7, 0.1), (0.6, 0.6)]
    table = analysed(judged(p, [(0, 1), (0, 1), (0, 2), (0, 2), (0, 1)]), 5)
    assert value(table, "agreement") == pytest.approx(0.5)
    assert value(table, "agreement", pair_type="wrong_answer") == pytest.approx(0.5)
    assert value(table, "agreement", "n", pair_type="bad_format") == 2
    assert value(table, "agreement_consistent") == 1 and value(table, "agreement_consistent", "n") == 2
    assert value(table, "consistency") == pytest.approx(0.4)
    assert value(table, "position_bias") == pytest.approx(0.02)
    assert value(table, "tie_share") == pytest.approx(0.2)
    scores = np.array([0.8, 0.4, 0.4, 0.8, 0.5])
    assert value(table, "auroc") == pytest.approx(roc_auc_score([1] * 5 + [0] * 5, [*scores, *np.round(1 - scores, 9)]))
    low, high = value(table, "agreement", "ci_low"), value(table, "agreement", "ci_high")
    assert 0 <= low < 0.5 < high <= 1
    assert set(table["method"]) == {"judge"} and table["seed"].null_count() == len(table)


def test_drawn_pairs_without_a_better_response_are_not_graded():
    """Of three drawn pairs one is right against wrong; two of the prompts were paired by the labels."""
    drawn = judged([(0.9, 0.2)] * 3, [(1, 0), (1, 2), (2, 1)], "drawn")
    table = analysed(pl.concat([drawn, judged([(0.9, 0.2)] * 2, [(0, 1)] * 2)]), 3)
    assert value(table, "agreement", source="drawn") == 0 and value(table, "agreement", "n", source="drawn") == 1
    assert value(table, "position_bias", "n", source="drawn") == 3
    assert value(table, "paired_share", source="drawn") == pytest.approx(2 / 3)
    assert table.filter(statistic="paired_share", source="labels").is_empty()


def test_a_judge_that_guesses_is_at_chance():
    random = np.random.default_rng(3)
    count = 300
    table = analysed(judged(random.random((count, 2)).tolist(), [(0, 1)] * count), count)
    for statistic, chance in (("agreement", 0.5), ("auroc", 0.5), ("position_bias", 0.0), ("consistency", 0.5)):
        assert value(table, statistic, "ci_low") < chance < value(table, statistic, "ci_high"), statistic


def build(judgements: pl.DataFrame, count: int = 3) -> pl.DataFrame:
    return judged_pairs.build(judgements, samples(count), memes(count), **QUESTION)


def test_the_judge_chooses_the_drawn_pairs_alone():
    """m0: two wins; m1: one wins though each order names the first place; m2: a tie to within 1e-6, no pair."""
    drawn = judged([(0.3, 0.9), (0.8, 0.6), (0.5, 0.5 + 1e-6)], [(0, 1), (1, 2), (0, 1)], "drawn")
    found = build(pl.concat([drawn, judged([(0.9, 0.1)] * 3, [(0, 2)] * 3)]))
    assert found.select("id", "chosen", "rejected", "chosen_sample", "pair_type", "num_correct").rows() == [
        ("m0", "m0 1", "m0 0", 1, "judge", 2),
        ("m1", "m1 1", "m1 2", 1, "judge", 2),
    ]
    assert found["prompt"][0].startswith("Is it hateful?")


def test_a_judge_that_chooses_nothing_is_an_error():
    with pytest.raises(InputError, match="the judge prefers neither response in all of 3 pairs"):
        build(judged([(0.7, 0.7)] * 3, [(0, 1)] * 3, "drawn"))


@pytest.mark.parametrize(
    ("sure", "mass", "said"),
    [
        (9, 0.5, None),
        (2, 0.02, None),
        (1, 0.5, "hardly judges: both orders name the same winner in 10% of pairs .least 20%.;"),
        (9, 1e-5, "hardly judges: its label mass is 1e-05 .least 0.01.;"),
        (0, 1e-5, "hardly judges: its label mass is 1e-05 .least 0.01. and both orders .* in 0% of pairs"),
    ],
)
def test_a_judge_that_hardly_judges_is_warned_of(sure: int, mass: float, said: str | None, caplog):
    """Of ten drawn pairs `sure` have one winner; what it says of label pairs, that it knows them, does not count."""
    drawn = judged([(0.9, 0.1)] * sure + [(0.9, 0.6)] * (10 - sure), [(0, 1)] * 10, "drawn")
    drawn = drawn.with_columns(label_mass_ab=pl.lit(mass), label_mass_ba=pl.lit(mass))
    both = pl.concat([drawn, judged([(0.9, 0.1)] * 10, [(0, 1)] * 10)])
    assert len(build(both, 10)) == 10
    figure = figure_judgement(analysed(both, 10))
    below = " ".join(note.text for note in figure.layout.annotations)
    assert ("hardly judges" in below) == bool(said) == bool(caplog.messages)
    assert said is None or re.search(said, caplog.text)


def test_judgements_of_other_samples_are_an_error():
    drawn = judged([(0.3, 0.9)] * 3, [(0, 1), (0, 1), (0, 7)], "drawn")
    with pytest.raises(InputError, match="1 of 3 pairs are of memes or samples that are not in data and samples"):
        build(drawn)
    with pytest.raises(InputError, match="1 judged responses are not among the samples"):
        analysed(drawn, 3)
    with pytest.raises(InputError, match="data: no row for 1 judged memes .m2 is the first"):
        judgement.measure(judged([(0.3, 0.9)] * 3, [(0, 1)] * 3), samples(3), memes(2), 5)


# The scripts.
@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    return tiny_study.write_study(tmp_path_factory.mktemp("study"))


def run_judge(study: Path, work: Path, model: Path, **others: object) -> pl.DataFrame:
    given = {name: study / f"{name}.parquet" for name in ("preferences", "samples", "data")}
    settings = {"base": BaseModelConfig(source="tiny", dtype="float32"), "judge_prompt": JUDGE_PROMPT, **QUESTION}
    script("judge")(
        **{**given, **settings, "batch_size": 10, **others},
        model=model, judgements=work / "judgements.parquet", threads=1, work=work / "work",
    )  # fmt: skip
    return tables.read(work / "judgements.parquet", "judgements")


@pytest.fixture(scope="module")
def whole(study) -> pl.DataFrame:
    return run_judge(study, study, tiny_models.folder("qwen2_5_vl"))


def test_script_judges_both_sources(study, whole):
    assert whole["source"].value_counts().sort("source").rows() == [("drawn", 24), ("labels", 18)]
    p = whole.select((pl.col("p_one_ab") + 1 - pl.col("p_one_ba")) / 2 - pl.col("p_first")).to_series()
    assert p.abs().max() < 1e-12
    assert whole["p_one_ab"].n_unique() > 30 and whole["label_mass_ba"].is_between(0, 1).all()


def test_script_goes_on_where_it_was_killed(study, whole, tmp_path, monkeypatch):
    """The second batch fails at first; the run after judges it and those behind it alone, and ends up equal."""
    calls = []

    def failing(*given):
        calls.append(len(given[3]))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given)

    real = judge._judged
    monkeypatch.setattr(judge, "_judged", failing)
    with pytest.raises(KeyboardInterrupt):
        run_judge(study, tmp_path, tiny_models.folder("qwen2_5_vl"))
    assert run_judge(study, tmp_path, tiny_models.folder("qwen2_5_vl")).equals(whole)
    assert calls == [10, 10, 10, 10, 10, 2]


def test_script_refuses_a_judge_at_once(study, tmp_path, monkeypatch):
    """Before any weights are loaded."""
    monkeypatch.setattr(vlm, "load_processor", lambda model: type("P", (), {"tokenizer": words("?", "yes")}))
    monkeypatch.setattr(vlm, "load_model", lambda *given: pytest.fail("loaded"))
    with pytest.raises(InputError, match="judge tiny: its tokenizer has no single token for '1'"):
        run_judge(study, tmp_path, tmp_path)


@pytest.fixture(scope="module")
def made(study, whole) -> Path:
    """The study with the judge's pairs, the analysis and its figure beside it."""
    given = {"judgements": study / "judgements.parquet", "samples": study / "samples.parquet"}
    pairs = {"data": study / "data.parquet", "preferences": study / "judged.parquet"}
    script("judged_preferences")(**given, **pairs, **QUESTION)
    script("judgement")(**given, data=[study / "data.parquet"], table=study / "judgement.parquet", resamples=20)
    script("figure_judgement")(table=study / "judgement.parquet", figure=study / "judgement.html", notes=["a note"])
    return study


def test_the_pairs_train(made):
    """What a method reads of them: `training_rows`, and a DPO run to its end."""
    pairs, data = tables.read(made / "judged.parquet", "preferences"), tables.read(made / "data.parquet", "data")
    rows = examples.training_rows(pairs, data, **QUESTION, prompts="paired")
    assert len(rows) == len(pairs) and rows.null_count().sum_horizontal().item() == 0
    assert (rows["chosen"] != rows["rejected"]).all()
    run = made / "dpo_judge"
    run.mkdir()
    where = {**tiny_study.inputs(made), **tiny_study.outputs(run), "work": run / "work", "threads": 1}
    where["preferences"] = made / "judged.parquet"
    script("train_dpo")(**where, **tiny_study.settings("dpo", max_steps=1))
    assert json.loads((run / "run.json").read_text())["num_prompts"] == len(pairs)


def test_the_analysis_covers_both_sources(made):
    table = tables.read(made / "judgement.parquet", "judgement")
    found = table.filter(pair_type="all").group_by("source").agg(pl.col("statistic").unique())
    both = {"agreement", "agreement_consistent", "auroc", "ece", "ece_null", "position_bias", "consistency"}
    both |= {"label_mass", "tie_share", "order_share"}
    assert {s: set(names) for s, names in found.rows()} == {"labels": both, "drawn": both | {"paired_share"}}
    keys = ["source", "pair_type", "statistic", "p_better_first", "p_better_second"]
    assert table.select(pl.struct(keys).n_unique()).item() == len(table)
    shares = table.filter(statistic="order_share").group_by("source").agg(pl.col("value").sum())
    assert shares["value"].to_list() == pytest.approx([1, 1])


def test_the_figure_shows_the_table(made):
    figure = figure_judgement(tables.read(made / "judgement.parquet", "judgement"))
    table = tables.read(made / "judgement.parquet", "judgement")
    shown = [tuple(trace.y) for trace in figure.data if trace.error_y.array is not None]
    expected = table.filter(statistic="agreement", source="labels", pair_type="all")["value"].item()
    assert shown[0][0] == pytest.approx(expected)
    lines = next(a.text for a in figure.layout.annotations if "label mass" in a.text).split("<br>")
    assert max(map(len, lines)) <= figures.LINE
    assert (made / "judgement.html").stat().st_size > 1e6


def test_reductions_do_without_torch():
    code = "import memedynamics.judgement, memedynamics.judged_pairs, memedynamics.figure_judgement, sys; "
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": str(ROOT / "workflow")})


@pytest.mark.parametrize("name", ["judged_preferences", "judgement"])
def test_a_table_with_nan_is_named(made, tmp_path, name):
    bad = tables.read(made / "judgements.parquet", "judgements").with_columns(p_one_ba=float("nan"))
    tables.write(bad, tmp_path / "judgements.parquet", "judgements")
    given = {"judgements": tmp_path / "judgements.parquet", "samples": made / "samples.parquet"}
    pairs = {"data": made / "data.parquet", "preferences": tmp_path / "o.parquet", **QUESTION}
    own = pairs if name == "judged_preferences" else {"data": [], "table": tmp_path / "o.parquet", "resamples": 5}
    with pytest.raises(InputError, match="judgements.parquet, column p_one_ba: 42 values are NaN"):
        script(name)(**given, **own)


def test_the_shipped_prompt_is_its_own_kind():
    assert isinstance(JUDGE_PROMPT, JudgePrompt)
    text = judge_text(JUDGE_PROMPT, "asked", "first", "second", PROMPT.blocks)
    assert text.index("asked") < text.index("first") < text.index("second")
