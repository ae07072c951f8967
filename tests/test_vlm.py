"""One interface, five families: encoding, hidden states, logits, adapters and remembered pictures."""

import re

import pytest
import torch
from peft import PeftModel, get_peft_model
from trl.data_utils import apply_chat_template, prepare_multimodal_messages

import tiny_models
from memedynamics import adapters, vlm
from memedynamics.config import Adapter
from memedynamics.errors import InputError
from memedynamics.prompts import messages

CONTENTS = ["Is it hateful? {a}", "Answer Yes or No, in this format: <answer> Yes or No </answer>"]
PICTURES = [tiny_models.picture(1), tiny_models.picture(2, 40, 80)]
ENDS = {
    "qwen2_5_vl": {"<|im_end|>", "<|endoftext|>"},
    "qwen3_vl": {"<|im_end|>", "<|endoftext|>"},
    "llava": {"</s>"},
    "smolvlm": {"<end_of_utterance>", "<|im_end|>"},
    "idefics3": {"<end_of_utterance>", "<|im_end|>"},
    "gemma3": {"<eos>", "<end_of_turn>"},
}


@pytest.fixture(scope="module", params=list(tiny_models.BUILDERS))
def family(request):
    return request.param


@pytest.fixture
def model(family):
    return vlm.load_model(tiny_models.folder(family))


@pytest.fixture(scope="module")
def processor(family):
    return vlm.load_processor(tiny_models.folder(family))


@pytest.fixture(scope="module")
def inputs(processor):
    return vlm.encode(processor, CONTENTS, PICTURES)


def moved(model, layers="all", seed=0):
    """A PeftModel whose adapter does something: B random instead of zero."""
    policy = get_peft_model(model, adapters.peft_config(model, Adapter(r=2, layers=layers)))
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in policy.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 3
    return policy.eval()


@torch.no_grad()
def logits(model, inputs):
    return vlm.project(model, vlm.hidden_states(model, **inputs).last_hidden_state)


@torch.no_grad()
def test_hidden_states_projected_are_the_models_own_logits(model, inputs):
    own = model(**inputs).logits
    assert torch.allclose(logits(model, inputs), own, atol=1e-5)
    policy = moved(model)
    assert torch.allclose(logits(policy, inputs), policy(**inputs).logits, atol=1e-5)
    assert (logits(policy, inputs) - own).abs().max() > 1e-3
    with policy.disable_adapter():
        assert torch.allclose(logits(policy, inputs), own, atol=1e-5)


@torch.no_grad()
def test_a_cache_comes_back(model, inputs):
    out = vlm.hidden_states(model, **inputs, use_cache=True)
    assert out.past_key_values.get_seq_length() == inputs["input_ids"].shape[1]


def test_loaded_models_are_frozen_and_in_eval_mode(model):
    assert not model.training and not any(parameter.requires_grad for parameter in model.parameters())
    assert model.dtype == torch.float32


def test_logits_are_float32_in_low_precision(family, inputs):
    model = vlm.load_model(tiny_models.folder(family), dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert logits(model, inputs.copy().to(model.device, model.dtype)).dtype == torch.float32


def test_prompts_are_the_same_tokens_in_sampling_and_in_trls_trainers(processor):
    """Ids of `encode`, of GRPO's rollouts (template tokenizes), of SFT and DPO (template, no special tokens)."""
    content, picture = CONTENTS[0], PICTURES[0]
    ours = vlm.encode(processor, [content], [picture])["input_ids"].tolist()
    chat = prepare_multimodal_messages([{"role": "user", "content": content}], images=[picture])
    grpo = processor.apply_chat_template([chat], add_generation_prompt=True, tokenize=True, return_dict=True)
    text = apply_chat_template({"prompt": messages(content), "completion": [_reply("No")]}, processor)["prompt"]
    sft = processor(text=[text], images=[[picture]], add_special_tokens=False, return_tensors="pt")
    assert ours == [list(ids) for ids in grpo["input_ids"]] == sft["input_ids"].tolist()


def _reply(text):
    return {"role": "assistant", "content": [{"type": "text", "text": text}]}


def test_one_bos_at_most(processor, inputs):
    bos = processor.tokenizer.bos_token_id
    if bos is not None:
        assert (inputs["input_ids"] == bos).sum(1).tolist() == [1, 1]


def test_batches_are_padded_on_the_left_and_hold_the_content(processor, inputs):
    mask, ids = inputs["attention_mask"], inputs["input_ids"]
    assert (mask.diff() >= 0).all() and mask.sum(1).unique().numel() == 2
    assert all(content in processor.tokenizer.decode(row) for content, row in zip(CONTENTS, ids, strict=True))


@torch.no_grad()
@pytest.mark.parametrize("row", [0, 1])
def test_padding_and_neighbours_do_not_change_a_prompts_logits(model, processor, inputs, row):
    alone = vlm.encode(processor, CONTENTS[row : row + 1], PICTURES[row : row + 1])
    positions = {}
    if not hasattr(model.model, "rope_deltas"):  # the others would count padding
        positions = {"position_ids": (inputs["attention_mask"].cumsum(-1) - 1).clamp(min=0)}
    both = logits(model, {**inputs, **positions})
    assert torch.allclose(logits(model, alone)[0, -1], both[row, -1], atol=1e-5)


def test_a_missing_pad_token_becomes_the_eos(family, tmp_path):
    tokenless = vlm.load_processor(tiny_models.folder(family))
    tokenless.tokenizer.pad_token = None
    tokenless.save_pretrained(tmp_path)
    tokenizer = vlm.load_processor(tmp_path).tokenizer
    assert tokenizer.pad_token == tokenizer.eos_token and tokenizer.padding_side == "left"


def test_end_tokens(family, model, processor):
    ends = {processor.tokenizer.convert_ids_to_tokens(end) for end in vlm.end_token_ids(model, processor)}
    assert ends == ENDS[family]
    assert vlm.end_token_ids(moved(model), processor) == vlm.end_token_ids(model, processor)


def test_the_picture_token_holds_the_pictures_place(model, processor, inputs):
    token = vlm.picture_token_id(moved(model))
    assert "image" in processor.tokenizer.convert_ids_to_tokens(token)
    assert (inputs["input_ids"] == token).any(1).all()


@pytest.mark.parametrize(("layers", "per_layer"), [("all", 7), ("attention", 4)])
def test_text_linears_are_the_decoders_alone(model, layers, per_layer):
    """Two layers of q, k, v, o (and gate, up, down)."""
    names = adapters.text_linears(model, layers)
    assert len(names) == len(set(names)) == 2 * per_layer
    decoder = next(name for name, module in model.named_modules() if module is model.get_decoder())
    assert all(name.startswith(f"{decoder}.layers.") for name in names)
    assert all(isinstance(model.get_submodule(name), torch.nn.Linear) for name in names)


def test_the_saved_targets_are_exactly_these_modules(model, tmp_path):
    names = adapters.text_linears(model, "attention")
    policy = get_peft_model(model, adapters.peft_config(model, Adapter(layers="attention")))
    assert sorted(policy.base_model.targeted_module_names) == sorted(names)
    pattern = policy.peft_config["default"].target_modules
    assert all(re.fullmatch(pattern, name) for name in names)
    assert not re.search(r"\d", pattern)


def test_training_the_adapter_touches_nothing_but_the_decoder(model, inputs):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    policy = get_peft_model(model, adapters.peft_config(model, Adapter(r=2)))
    trained = [(name, value) for name, value in policy.named_parameters() if value.requires_grad]
    assert trained and not any(re.search("vis|projector|connector|lm_head", name) for name, _ in trained)
    optimizer = torch.optim.SGD([value for _, value in trained], lr=1.0)
    policy(**inputs, labels=inputs["input_ids"]).loss.backward()
    optimizer.step()
    assert all(value.grad is not None for _, value in trained)
    after = {name.replace(".base_layer", ""): value for name, value in vlm.bare(policy).state_dict().items()}
    assert all(torch.equal(value, after[name]) for name, value in before.items())


@torch.no_grad()
def test_milestones_switch_and_the_reference_is_the_base(family, model, inputs, tmp_path):
    expected = {None: logits(model, inputs)}
    for seed, label in enumerate(["0.0625", "1"]):
        policy = moved(vlm.load_model(tiny_models.folder(family)), seed=seed)
        policy.save_pretrained(tmp_path / label)
        expected[label] = logits(policy, inputs)
    policy = adapters.load_adapters(model, {label: tmp_path / label for label in ["0.0625", "1"]})
    for label in ["0.0625", "1", None, "1", None, "0.0625"]:
        adapters.activate(policy, label)
        assert torch.equal(logits(policy, inputs), expected[label]), label
        assert not any(parameter.requires_grad for parameter in policy.parameters())
    assert (expected["1"] - expected["0.0625"]).abs().max() > 1e-3


def test_the_reference_of_a_bare_model_is_itself(model):
    adapters.activate(model, None)
    with pytest.raises(ValueError, match="bare model"):
        adapters.activate(model, "1")


@torch.no_grad()
def test_remembered_pictures_are_encoded_once_and_change_nothing(model, processor, inputs):
    policy = moved(model)
    calls = []
    tower = next(module for name, module in model.model.named_children() if "vis" in name)
    tower.register_forward_hook(lambda *_: calls.append(1))
    expected = logits(policy, inputs)
    others = vlm.encode(processor, CONTENTS, PICTURES[::-1])
    expected_others = logits(policy, others)
    calls.clear()
    with vlm.remembered_pictures(policy):
        for _ in range(2):
            assert torch.equal(logits(policy, inputs), expected)
            assert torch.equal(logits(policy, others), expected_others)
        copies = {name: value.clone() for name, value in inputs.items()}
        assert torch.equal(policy(**copies).logits, expected)
    assert len(calls) == 2
    logits(policy, inputs)
    assert len(calls) == 3


@torch.no_grad()
def test_equal_patches_in_another_shape_are_another_picture():
    """White pictures of 1 x 4 and 2 x 2 merged patches have equal pixel values; only the grid tells them apart."""
    model = vlm.load_model(tiny_models.folder("qwen2_5_vl"))
    processor = vlm.load_processor(tiny_models.folder("qwen2_5_vl"))
    white = [tiny_models.picture(0).resize(size).point(lambda _: 255) for size in [(112, 28), (56, 56)]]
    wide, square = (vlm.encode(processor, ["x"], [picture]) for picture in white)
    assert torch.equal(wide["pixel_values"], square["pixel_values"])
    expected = [logits(model, wide), logits(model, square)]
    with vlm.remembered_pictures(model):
        assert all(torch.equal(logits(model, given), e) for given, e in zip([wide, square], expected, strict=True))


def test_remembering_ends_with_an_error_too(model):
    with pytest.raises(RuntimeError), vlm.remembered_pictures(model):
        raise RuntimeError
    assert "get_image_features" not in vars(model.model)


def test_lora_options_pass_through_and_wrong_ones_are_named():
    model = vlm.load_model(tiny_models.folder("qwen2_5_vl"))
    config = adapters.peft_config(model, Adapter(r=4, options={"use_rslora": True}))
    assert (config.use_rslora, config.r, config.lora_alpha) == (True, 4, 8)
    assert adapters.peft_config(model, Adapter(r=4, alpha=3)).lora_alpha == 3
    with pytest.raises(InputError, match=r"adapter\.options\.use_rlora: peft\.LoraConfig has no"):
        adapters.peft_config(model, Adapter(options={"use_rlora": True}))
    with pytest.raises(InputError, match=r"adapter\.options\.target_modules: is set"):
        adapters.peft_config(model, Adapter(options={"target_modules": "all-linear"}))


def test_an_adapter_saved_is_an_ordinary_peft_folder(model, inputs, tmp_path):
    policy = moved(model)
    expected = logits(policy, inputs)
    policy.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(vlm.load_model(vlm.bare(policy).config._name_or_path), tmp_path)
    assert torch.equal(logits(loaded.eval(), inputs), expected)


def test_bfloat16_logits_are_those_of_its_states_in_float32(family):
    """Rounded to bfloat16, 8 bits of mantissa, a logit near 20 would be off by up to 2⁻⁴."""
    model = vlm.load_model(tiny_models.folder(family), dtype="bfloat16")
    hidden = 30 * torch.randn(3, 5, model.lm_head.in_features, generator=torch.manual_seed(0)).bfloat16()
    exact = hidden.double() @ model.lm_head.weight.double().T
    found = vlm.project(model, hidden)
    assert found.dtype == torch.float32 and found.shape == exact.shape
    assert (found.double() - exact).abs().max() < 1e-4
    assert (model.lm_head(hidden).double() - exact).abs().max() > 1e-3
