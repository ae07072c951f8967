"""The model card of an exported run: a Hugging Face README.md, filled from the study.

Names, settings and prompts are a user's own words: whatever goes into the text is escaped, what goes into the header is
written by a YAML library, and what goes into code is a literal.
"""

import json
import re
from collections.abc import Mapping
from html import escape

import yaml
from jinja2 import Environment, StrictUndefined

SPECIAL = re.compile(r"([\\`*_\[\]{}|~#!$])")

TEMPLATE = """\
---
{{ header }}---

# {{ method }}, seed {{ seed }}

{{ what }} It judges whether a meme (a picture with a caption) is hateful: the answer is yes or no, after a rationale.
It was made by the study {{ study }} with memedynamics, which compares ways of fine-tuning one vision-language model.

- base model: {{ base.source }}{% if base.revision %}, revision {{ base.revision }}{% endif %} ({{ base.architecture }})
- weights: {{ weights }}

## Data

| dataset | split | memes | hateful |
|---|---|---:|---:|
{% for row in data %}| {{ row.dataset }} | {{ row.split }} | {{ row.memes }} | {{ row.hateful }} |
{% endfor %}
{% if run.num_prompts %}Trained on {{ run.num_prompts }} prompts of {{ in_domain }}/train, \
{{ "%.1f" % (100 * run.label_balance) }} % of them hateful\
{% if run.mean_num_correct %}; the base model answered {{ "%.1f" % run.mean_num_correct }} of its samples a prompt \
right{% endif %}. Numbers below are of data it was not trained on, unless the split is train.\
{% else %}What it was trained on is not recorded with this run.{% endif %} The memes themselves are not part of this \
folder.

## Method

| setting | value |
|---|---|
{% for name, value in settings %}| {{ name }} | {{ value }} |
{% endfor %}
## Results

{% if metrics %}At the end of training, of sampled answers (temperature 1); in brackets the 95 % interval, a bootstrap \
over prompts.

| dataset | split | metric | this model | base model | prompts |
|---|---|---|---|---|---:|
{% for row in metrics %}| {{ row.dataset }} | {{ row.split }} | {{ row.metric }} | {{ row.value }} | {{ row.base }} | \
{{ row.n }} |
{% endfor %}{% else %}The study has not analysed this run's accuracy.
{% endif %}
### Distance from the base model

{% if movement %}KL divergence between base and this model, nat a response, with its 95 % interval.

| dataset | split | direction | KL | prompts |
|---|---|---|---|---:|
{% for row in movement %}| {{ row.dataset }} | {{ row.split }} | {{ row.direction }} | {{ row.value }} | {{ row.n }} |
{% endfor %}{% else %}The study has not analysed this run's KL divergence.
{% endif %}
## Intended use and limits

Research on how fine-tuning changes a vision-language model. It is no moderation system:

- It is wrong about as often as the table says on memes like these, and more often on others: see the splits of other \
datasets, where there are any. What counts as hateful is what the annotators of these datasets decided.
- Rationales are sampled text. They may be untrue, repeat what they should criticise, and need not be why it answered.
- Memes turn on culture, language and time. What its data lack it has not learnt; detectors of hate speech are \
known to flag the speech of the groups that they should protect. Nobody should be judged by it alone.
- Do not use it to make hateful content, or to find what a filter lets pass.

## How to load

{{ note }}

{{ code }}
## Versions

{{ versions }}

Logits of the exported folder against the policy that the study analysed: largest difference \
{{ "%.2g" % check.max_logit_gap }}, root mean square {{ "%.2g" % check.rms_logit_gap }} \
({{ check.dtype }}; training moved them by {{ "%.2g" % check.rms_logit_moved }}), equal next token \
at {{ "%.2f" % (100 * check.argmax_agreement) }} % of the positions.\
{% if check.warning %} Beware: {{ check.warning }}.{% endif %}
"""

WHOLE = """\
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

model = AutoModelForImageTextToText.from_pretrained(".", dtype={dtype})
processor = AutoProcessor.from_pretrained(".")
content = [{{"type": "image"}}, {{"type": "text", "text": {prompt}}}]
text = processor.apply_chat_template([{{"role": "user", "content": content}}], add_generation_prompt=True)
inputs = processor(text=[text], images=[[Image.open("meme.png").convert("RGB")]], add_special_tokens=False, \
return_tensors="pt")
print(processor.batch_decode(model.generate(**inputs, do_sample=True, temperature=1.0, max_new_tokens=512))[0])
"""
ADAPTER = """\
from peft import PeftModel
from transformers import AutoModelForImageTextToText

base = AutoModelForImageTextToText.from_pretrained({base}, revision={revision}, dtype={dtype})
model = PeftModel.from_pretrained(base, ".")
"""


class Raw(str):
    """Text that is Markdown already."""


def escaped(value: object) -> str:
    """`value` as Markdown text of one line: nothing in it is markup, HTML or a table's edge."""
    if isinstance(value, Raw):
        return value
    words = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    return SPECIAL.sub(r"\\\1", escape(" ".join(words.split()), quote=False))


def render(card: Mapping[str, object], header: Mapping[str, object], code: str) -> str:
    """The card of values `card` under a YAML `header`, with `code` as how to load it; a value that lacks raises."""
    environment = Environment(finalize=escaped, undefined=StrictUndefined, keep_trailing_newline=True)
    written = Raw(yaml.safe_dump(_lines(header), sort_keys=False, allow_unicode=True, width=10**6))
    return environment.from_string(TEMPLATE).render(**card, header=written, code=Raw(fenced(code)))


def _lines(value: object) -> object:
    """`value` with every text in one line: readers find the header's end by a line of its own."""
    if isinstance(value, Mapping):
        return {key: _lines(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_lines(one) for one in value]
    return " ".join(value.split()) if isinstance(value, str) else value


def fenced(code: str) -> str:
    """`code` as a block whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}python\n{code}{fence}\n"


def header(hub_base: str | None, relation: str, datasets: list[str], library: str) -> dict[str, object]:
    """The card's metadata; base model and datasets only where the hub has them, as it shows links for these."""
    tags = ["memedynamics", "hateful-memes", "vision-language", "hate-speech-detection"]
    found: dict[str, object] = {"license": "unknown", "library_name": library, "pipeline_tag": "image-text-to-text"}
    found |= {"base_model": hub_base, "base_model_relation": relation} if hub_base else {}
    return found | ({"datasets": datasets} if datasets else {}) | {"tags": tags}
