"""Exports: the merged folder is the policy, plain libraries load it, and the card says what the study knows."""

import json
import shutil
from pathlib import Path

import polars as pl
import pytest
import torch
import yaml
from peft import PeftModel
from transformers import AutoModelForImageTextToText, AutoProcessor

import merge_runs
import tiny_models
from memedynamics import card_numbers, checkpoints, export_card, external, model_card, servable, tables, vlm
from memedynamics.config import BaseModelConfig, MergedMethod
from memedynamics.errors import InputError
from tiny_study import PROMPT, outputs, script

HOSTILE = "x | <script>alert(1)</script> ](http://evil) `code` **bold**\n---\n# heading {{ 7 * 7 }}"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return merge_runs.base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six val memes, two of them hateful."""
    folder = tmp_path_factory.mktemp("data")
    names = [f"m{i}" for i in range(6)]
    for i, name in enumerate(names):
        tiny_models.picture(i).save(folder / f"{name}.png")
    memes = {
        "dataset": "memes", "split": "val", "id": names, "image": [str(folder / f"{name}.png") for name in names],
        "image_sha256": "0" * 64, "width": 56, "height": 56, "text": [f"caption {i}" for i in range(6)],
        "label": [1, 1, 0, 0, 0, 0], "groups": pl.Series([[]] * 6, dtype=pl.List(pl.String)),
    }  # fmt: skip
    tables.write(pl.DataFrame(memes), folder / "val.parquet", "data")
    return folder / "val.parquet"


def export(
    model: Path, data: Path, run: tuple[Path, Path], folder: Path, dtype: str = "float32", **given: object
) -> Path:
    settings = {
        "recipe": {"kind": "sft", "args": {"learning_rate": 0.001}}, "shared": {"adapter": {"kind": "lora", "r": 4}},
        "hub_datasets": {}, "analyses": [folder / "none/accuracy.parquet"], "method": "sft", "seed": 1,
    }  # fmt: skip
    script("export")(
        model=model, milestones=run[0], run=run[1], data=[data], folder=folder / "export", prompt=PROMPT,
        base=BaseModelConfig(source="tiny", dtype=dtype), questions={"memes": "hateful"}, in_domain="memes", threads=1,
        **{**settings, **given},
    )  # fmt: skip
    return folder / "export"


@torch.no_grad()
def answer(policy: torch.nn.Module, folder: Path) -> torch.Tensor:
    """Logits for a meme, picture and all, through the processor in `folder` and no code of this project."""
    processor = AutoProcessor.from_pretrained(folder)
    content = [{"type": "image"}, {"type": "text", "text": "Is it hateful?"}]
    text = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    inputs = processor(text=[text], images=[[tiny_models.picture(7)]], add_special_tokens=False, return_tensors="pt")
    return policy(**inputs).logits.float()


@pytest.mark.parametrize("kind", ["lora", "rslora", "dora", "ia3", "full"])
def test_plain_libraries_load_what_the_study_analysed(model: Path, data: Path, tmp_path: Path, kind: str) -> None:
    run = merge_runs.run(tmp_path / "run", model, kind, 3)
    folder = export(model, data, run, tmp_path)
    expected = answer(merge_runs.ended(*run, model), model)
    whole = AutoModelForImageTextToText.from_pretrained(folder)
    assert (answer(whole, folder) - expected).abs().max() < 1e-5
    assert (answer(AutoModelForImageTextToText.from_pretrained(model), model) - expected).abs().max() > 1e-2
    if kind != "full":
        base = AutoModelForImageTextToText.from_pretrained(model)
        assert (answer(PeftModel.from_pretrained(base, folder / "adapter"), model) - expected).abs().max() < 1e-6
    assert (folder / "adapter").exists() == (kind != "full")
    found = json.loads((folder / "check.json").read_text())
    assert found["max_logit_gap"] < 1e-4 and found["argmax_agreement"] == 1 and found["rms_logit_moved"] > 1e-3
    assert not list(tmp_path.glob(".*partial"))


def test_half_precision_keeps_its_dtype_and_files(data: Path, tmp_path: Path) -> None:
    model = merge_runs.base(tmp_path / "model", "bfloat16")
    folder = export(model, data, merge_runs.run(tmp_path / "run", model, "lora", 3), tmp_path, "bfloat16")
    names = [file.name for file in checkpoints.weight_files(model)]
    assert [file.name for file in checkpoints.weight_files(folder)] == names and len(names) > 1
    assert AutoModelForImageTextToText.from_pretrained(folder, dtype="auto").dtype == torch.bfloat16
    missing = {file.name for file in model.iterdir()} - {file.name for file in folder.iterdir()}
    assert missing == {checkpoints.MANIFEST}


def test_a_merge_exports_as_full_weights(model: Path, data: Path, tmp_path: Path) -> None:
    runs = [merge_runs.run(tmp_path / kind, model, kind, i) for i, kind in enumerate(("lora", "dora"))]
    (tmp_path / "merged").mkdir()
    method = MergedMethod(kind="merge", how="linear", of=["a", "b"])
    script("merge")(
        model=model, parents=[run[0] for run in runs], runs=[run[1] for run in runs], method=method, seed=0, threads=1,
        **outputs(tmp_path / "merged"),
    )  # fmt: skip
    run = outputs(tmp_path / "merged")["milestones"], outputs(tmp_path / "merged")["run"]
    folder = export(model, data, run, tmp_path, recipe=method.model_dump(mode="json"))
    card = (folder / "README.md").read_text()
    assert "A merge of other runs" in card and "trained.merge.how | linear" in card
    assert "not recorded with this run" in card
    assert json.loads((folder / "check.json").read_text())["max_logit_gap"] == 0


def test_a_wrong_merge_is_refused(model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An update of half its size: what a wrong scaling, as of rsLoRA taken for LoRA, does."""
    run, write = merge_runs.run(tmp_path / "run", model, "lora", 3), servable.merged_model.write
    half = lambda base, change, *rest: write(base, lambda *x: None if (d := change(*x)) is None else d / 2, *rest)  # noqa: E731
    monkeypatch.setattr(servable.merged_model, "write", half)
    with pytest.raises(InputError, match=r"run/milestones/1: its logits are .* off those of the exported folder"):
        export(model, data, run, tmp_path)
    assert not (tmp_path / "export").exists()


def test_comparing_by_hand() -> None:
    """One prompt, two positions of two logits. Off by 0, 0, 3, 4.5: largest 4.5, √((9 + 20.25)/4); from the base by
    1 everywhere: 1. The argmax of the second position differs: ½.
    """
    policy = [torch.tensor([[0.0, 1], [2, 1]])]
    found = servable.compare(policy, [policy[0] - 1], [torch.tensor([[0.0, 1], [5, 5.5]])], "float32")
    assert (found["max_logit_gap"], found["argmax_agreement"], found["positions"]) == (4.5, 0.5, 2)
    assert found["rms_logit_gap"] == pytest.approx(((9 + 20.25) / 4) ** 0.5) and found["rms_logit_moved"] == 1
    with pytest.raises(InputError):
        servable.refuse_unequal(found, Path("x"))
    lost = servable.compare(policy, policy, [policy[0] * float("nan")], "float32")
    with pytest.raises(InputError):
        servable.refuse_unequal(lost, Path("x"))


def test_an_update_that_is_rounded_away_is_warned_about() -> None:
    """Training moved each logit by 1; off by 0.5 is more than a third of it, off by 0.25 is not."""
    policy = [torch.zeros(2, 2)]
    far, near = (servable.compare(policy, [policy[0] - 1], [policy[0] + gap], "bfloat16") for gap in (0.5, 0.25))
    assert "0.5 off" in servable.blurred(far) and "moved them by 1 only" in servable.blurred(far)
    assert servable.blurred(near) is None
    check = {**far, "warning": servable.blurred(far)}
    assert "Beware: in bfloat16 the export's logits are 0.5 off" in card(check=check)
    assert "Beware" not in card(check={**near, "warning": None})


def test_prompt_tuning_has_no_merged_model(model: Path, data: Path, tmp_path: Path) -> None:
    from peft import PromptTuningConfig, get_peft_model

    torch.manual_seed(0)
    size = AutoModelForImageTextToText.from_pretrained(model).config.text_config
    config = PromptTuningConfig(
        task_type="CAUSAL_LM", num_virtual_tokens=3, token_dim=size.hidden_size, num_layers=size.num_hidden_layers,
        num_attention_heads=size.num_attention_heads, num_transformer_submodules=1,
    )  # fmt: skip
    get_peft_model(vlm.load_model(model), config).save_pretrained(tmp_path / "run/milestones/1")
    (tmp_path / "run/run.json").write_text('{"kind": "adapter", "steps": {"0": 0, "1": 8}}')
    folder = export(model, data, (tmp_path / "run/milestones", tmp_path / "run/run.json"), tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["adapter", "check.json"]
    assert "there is no merged model" in (folder / "adapter/README.md").read_text()
    assert json.loads((folder / "check.json").read_text())["rms_logit_moved"] > 1e-3


# --- the card


def card(header: dict[str, object] | None = None, **given: object) -> str:
    values = {
        "study": "s", "method": "sft", "seed": 1, "in_domain": "memes", "what": "It was trained.", "weights": "whole",
        "base": {"source": "org/base", "revision": "abc", "architecture": "Qwen"}, "note": "Load it.",
        "run": {"num_prompts": 9, "label_balance": 0.25, "mean_num_correct": None},
        "settings": [("args.lr", 0.1)], "versions": "torch 2", "metrics": [], "movement": [],
        "data": [{"dataset": "memes", "split": "val", "memes": 6, "hateful": "33.3%"}],
        "check": {"max_logit_gap": 1e-5, "rms_logit_gap": 1e-6, "rms_logit_moved": 0.5, "argmax_agreement": 1.0,
                  "dtype": "float32", "warning": None},
    }  # fmt: skip
    return model_card.render(
        {**values, **given}, header or model_card.header("org/base", "adapter", [], "peft"), "pass\n"
    )


def head(text: str) -> dict[str, object]:
    return yaml.safe_load(text.split("---\n")[1])


def test_the_header_is_the_hubs() -> None:
    found = head(card(model_card.header("org/base", "finetune", ["org/memes"], "transformers")))
    assert found["base_model"] == "org/base" and found["base_model_relation"] == "finetune"
    assert found["license"] == "unknown" and found["datasets"] == ["org/memes"]
    assert found["library_name"] == "transformers" and "hateful-memes" in found["tags"]
    # A base model that the hub does not have has no link there.
    assert "base_model" not in head(card(model_card.header(None, "finetune", [], "transformers")))


def test_users_words_stay_words() -> None:
    row = {"dataset": HOSTILE, "split": "val", "memes": 1, "hateful": "0%"}
    text = card(
        model_card.header(HOSTILE, "finetune", [HOSTILE], "peft"), data=[row], method=HOSTILE, study=HOSTILE,
        settings=[(HOSTILE, HOSTILE), ("nested", [HOSTILE])],
    )  # fmt: skip
    one_line = " ".join(HOSTILE.split())
    assert head(text)["datasets"] == [one_line] and head(text)["base_model"] == one_line
    rest = text[text.index("\n# x") :]
    assert "<script>" not in rest and "49" not in rest and "\n# heading" not in rest and "\n---" not in rest
    for line in rest.splitlines():
        if line.startswith("| x"):
            assert line.replace(r"\|", "").count("|") in (3, 5), line
    assert rest.count("](http") == rest.count(r"\](http") > 0 and "**bold" not in rest


def test_code_cannot_leave_its_block() -> None:
    block = model_card.fenced('text = "```\\n# out"\n')
    assert block.startswith("````python\n") and block.endswith("````\n")


def test_the_code_on_the_card_runs(
    model: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """As it stands, in the exported folder."""
    folder = export(model, data, merge_runs.run(tmp_path / "run", model, "lora", 3), tmp_path)
    text = (folder / "README.md").read_text()
    code = text.split("```python\n")[1].split("```\n")[0].replace("max_new_tokens=512", "max_new_tokens=2")
    monkeypatch.chdir(folder)
    tiny_models.picture(1).save("meme.png")
    exec(code, {})
    assert "<|im_start|>assistant" in capsys.readouterr().out


def test_numbers_are_the_tables(tmp_path: Path, data: Path) -> None:
    """Two of six memes are hateful: 33.3 %. Accuracy of the run at its end beside the base's."""
    assert card_numbers.data([tables.read(data, "data")]) == [
        {"dataset": "memes", "split": "val", "memes": 6, "hateful": "33.3%"}
    ]
    keys = {"dataset": "memes", "split": "val", "statistic": "accuracy", "versus": None, "n": 6}
    who = ["method", "seed", "fraction", "probe_kind", "value", "ci_low", "ci_high"]
    rows = [
        ("sft", 1, 1.0, "own_sample", 0.75, 0.5, 0.875),
        ("sft", 2, 1.0, "own_sample", 0.1, 0.1, 0.1),
        ("sft", 1, 0.5, "own_sample", 0.1, 0.1, 0.1),
        ("base", None, 0.0, "base_sample", 0.5, None, None),
    ]
    rows = [keys | dict(zip(who, row, strict=True)) for row in rows]
    frame = pl.DataFrame(rows, schema_overrides={"versus": pl.String})
    assert card_numbers.metrics(frame, "sft", 1) == [
        {
            "dataset": "memes",
            "split": "val",
            "n": 6,
            "metric": "accuracy",
            "value": "0.750 (0.500 to 0.875)",
            "base": "0.500",
        }
    ]
    whole = {"statistic": "per_response", "estimator": "exact", "span": "all"}
    kl = frame.with_columns(
        direction=pl.lit("reverse"), reference=pl.lit("base"), **{name: pl.lit(value) for name, value in whole.items()}
    )
    # A chained run is measured against its parent too: the card is about the base.
    kl = pl.concat([kl, kl.with_columns(reference=pl.lit("other"), value=pl.lit(9.0))])
    assert card_numbers.movement(kl, "sft", 1) == [
        {
            "dataset": "memes", "split": "val", "n": 6, "direction": "reverse, on its own samples",
            "value": "0.750 (0.500 to 0.875)",
        }
    ]  # fmt: skip
    assert card_numbers.settings({"a": {"b": 1, "c": None}, "d": [], "e": [2]}) == [("a.b", 1), ("e", [2])]


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({"loss_reference": "base"}, "| its loss compared it with | the base model |"),
        ({"loss_reference": "first"}, "| its loss compared it with | the end of first |"),
        ({"loss_reference": "own"}, "| its loss compared it with | its own start |"),
        ({"loss_reference": None}, "| its loss compared it with | nothing |"),
        ({"packages": {"llamafactory": "0.9.5", "torch": "2.8.0"}}, "llamafactory (LLaMA-Factory's) 0.9.5, torch (LL"),
    ],
)
def test_the_card_names_the_losses_reference_and_the_trainers_packages(record: dict, shown: str, data: Path) -> None:
    run = {"kind": "adapter", "total_steps": 3, **record}
    story = export_card.Story("s", "m", 1, {"kind": "dpo"}, {}, run, {"source": "x"}, {}, "memes")
    found = export_card.values(story, [data], [], {})
    rows = [f"| {name} | {value} |" for name, value in found["settings"]]
    assert any(shown in text for text in [*rows, found["versions"]])
    assert len([row for row in rows if "its loss" in row]) == ("loss_reference" in record)


def test_an_adapter_forgets_where_it_was_trained(model: Path, data: Path, tmp_path: Path) -> None:
    """No path of this machine: the hub's id where there is one, else nothing."""
    run = merge_runs.run(tmp_path / "run", model, "lora", 3)
    folder = export(model, data, run, tmp_path)
    config = json.loads((folder / "adapter" / external.WHERE).read_text())
    assert config["base_model_name_or_path"] is None
    assert not any(
        str(tmp_path) in file.read_text() for file in folder.rglob("*.json") if file.name != "tokenizer.json"
    )
    other = tmp_path / "hub"
    shutil.copytree(model, other)
    checkpoints.write_manifest(other, "org/three", "a" * 40)
    servable.write_adapter(run[0] / "1", tmp_path / "adapter", "org/three")
    assert json.loads((tmp_path / "adapter" / external.WHERE).read_text())["base_model_name_or_path"] == "org/three"
