"""The sections of the study file that say where data and model are and how texts are drawn, scored and analysed."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, model_validator

Fraction = Annotated[float, Field(ge=0, le=1)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
Split = Literal["train", "val", "test"]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$")]
READERS = Literal[
    "hateful_memes",
    "hateful_memes_fine",
    "harmeme",
    "mami",
    "pridemm",
    "multioff",
    "mmhs150k",
    "table",
    "huggingface",
    "pictograms",
]


class Strict(BaseModel):
    """Base of every section: no unknown keys, no silent changes."""

    # `from` is a Python keyword: such keys have an alias, which is what files and jobs say.
    model_config = ConfigDict(extra="forbid", frozen=True, validate_by_name=True, serialize_by_alias=True)


class Dataset(Strict):
    """One dataset: where its files are and how its rows read."""

    reader: READERS = Field(description="the format on disk")
    root: Path | None = Field(None, description="folder that holds the dataset's files and pictures")
    hub_id: str | None = Field(None, description="dataset id on the Hugging Face hub (reader huggingface)")
    revision: str | None = Field(None, description="commit of the hub dataset; required with hub_id")
    splits: dict[Split, str | int] = Field(
        default_factory=dict,
        description="per split its source: a file or split name; for pictograms the number of memes. "
        "Empty: the format's own split files",
    )
    columns: dict[Literal["id", "image", "text", "label", "groups"], str] = Field(
        default_factory=dict, description="column names of readers table and huggingface, where they differ"
    )
    labels: dict[str, Literal[0, 1]] = Field(
        default_factory=dict, description="raw label value: 0 benign or 1 hateful (readers table and huggingface)"
    )
    style: Literal["plain", "shifted"] = Field("plain", description="drawing style (reader pictograms)")
    question: str = Field("hateful", description="which of the prompt's questions this dataset asks")
    max_bad_share: Fraction = Field(0.01, description="stop when more than this share of the rows is bad")

    @model_validator(mode="after")
    def _has_a_source(self) -> "Dataset":
        if self.reader == "huggingface" and (self.root is None) == (self.hub_id is None):
            raise ValueError("give either root (a local folder) or hub_id")
        if self.hub_id is not None and self.revision is None:
            raise ValueError("hub_id needs a pinned revision (a commit of the hub repository)")
        if self.root is None and self.reader not in ("huggingface", "pictograms"):
            raise ValueError("root is missing: the folder with the dataset's files")
        return self


class DemoTraining(Strict):
    """How the embedded demo's tiny base model is made."""

    steps: PositiveInt = Field(600, description="optimiser steps")
    malformed: Fraction = Field(0.25, description="share of training targets that break the format")
    wrong: Fraction = Field(0.25, description="share of training targets with the wrong answer")
    seed: Seed = Field(0, description="seed of weights, targets and order")


class BaseModelConfig(Strict):
    """The instruct model every method starts from."""

    source: str = Field(description="hub id, local folder, or demo")
    revision: str | None = Field(None, description="commit of the hub repository; required for a hub id")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("bfloat16", description="dtype of the weights")
    attn_implementation: str = Field("sdpa", description="attention implementation in transformers")
    processor: dict[str, object] = Field(
        default_factory=dict, description="processor arguments by their own names, e.g. max_pixels"
    )
    demo: DemoTraining = Field(default_factory=DemoTraining, description="training of the demo's model")


def _without_key(url: str) -> str:
    # The address is in every message of its server, and in the study file, which others read.
    if any(sign in url for sign in "@?#"):
        raise ValueError("has a user or a query in it; export the key and name its variable in key_variable")
    return url


class Server(Strict):
    """An OpenAI-compatible server that draws responses. Nothing here changes a result."""

    base_url: Annotated[str, Field(pattern=r"^https?://\S+$"), AfterValidator(_without_key)] = Field(
        description="address up to the version, e.g. http://127.0.0.1:8000/v1"
    )
    model: str | None = Field(
        None, description="the name it serves the study's model under; empty: the model's folder, results/<study>/model"
    )
    key_variable: Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]*$")] | None = Field(
        None, description="environment variable that holds the API key, which itself is never written down"
    )
    concurrency: PositiveInt = Field(64, description="requests under way at once")
    retries: NonNegativeInt = Field(8, description="times a failed request is sent again, after 1, 2, 4, … 60 s")
    timeout: PositiveInt = Field(600, description="seconds that one response may take")


class Sampling(Strict):
    """How responses are drawn: exact π by default, no truncation."""

    engine: Literal["transformers", "vllm", "openai"] = Field(
        "transformers",
        description="what draws responses: transformers, decoding of this project's own; vllm, on the job's own GPU; "
        "openai, a server (base samples; policies then draw with transformers)",
    )
    server: Server | None = Field(None, description="where engine openai sends its requests")
    vllm: dict[str, object] = Field(
        default_factory=dict, description="arguments of vllm.LLM (engine vllm), by its own names"
    )
    num_samples: PositiveInt = Field(8, description="responses a prompt (K)")
    max_new_tokens: PositiveInt = Field(512, description="response length at which sampling stops")
    temperature: Finite = Field(1.0, gt=0, description="softmax temperature; 1 samples from π itself")
    batch_size: PositiveInt = Field(8, description="prompts a batch; batches are cut at fixed ids")
    shards: PositiveInt = Field(1, description="jobs that share one split")
    seed: Seed = Field(0, description="seed of the sampling noise")


class Launch(Strict):
    """How many processes share a training, and where they run (accelerate launch)."""

    processes: PositiveInt = Field(
        1, description="processes, one a GPU, that share each step's batch: what a step sees stays what it is"
    )
    nodes: PositiveInt = Field(1, description="machines that the processes are spread over evenly (Slurm alone)")
    config: Path = Field(
        Path("config/accelerate/ddp.yaml"),
        description="Accelerate's settings: config/accelerate/ddp.yaml, fsdp.yaml, or a file of your own",
    )

    @model_validator(mode="after")
    def _evenly_spread(self) -> "Launch":
        if self.processes % self.nodes:
            raise ValueError(f"nodes: {self.processes} processes cannot be spread evenly over {self.nodes}")
        return self


class Preferences(Strict):
    """How pairs are built from the base samples."""

    rule: Literal["paired", "seed"] = Field(
        "paired",
        description="paired: rejected is well-formed but wrong where there is one, else badly formed; "
        "seed: rejected is the lowest reward below 1",
    )


class Probes(Strict):
    """How many prompts of each split have their base samples scored by every policy."""

    train: PositiveInt | None = Field(1000, description="train prompts; empty for all")
    val: PositiveInt | None = Field(None, description="val prompts; empty for all")
    out_of_domain: PositiveInt | None = Field(1000, description="prompts of each out-of-domain dataset; empty for all")
    seed: Seed = Field(0, description="seed of the stratified choice")


class OwnSamples(Strict):
    """Which prompts every policy answers itself, as often as the base does: paired tests compare equal K."""

    milestones: PositiveInt = Field(250, description="val prompts at every milestone")
    final: list[Literal["val", "test", "out_of_domain"]] = Field(
        ["val", "test", "out_of_domain"], description="answered whole at the end of training"
    )


class Scoring(Strict):
    """How texts are scored; only speed and memory depend on it."""

    batch_size: PositiveInt = Field(8, description="prompts a batch")
    shards: PositiveInt = Field(1, description="jobs that share one run")
    chunk: PositiveInt = Field(1024, description="response positions whose logits are held at once")


class Judge(Strict):
    """A model that says which of two responses is better, for preferences without labels (AI feedback)."""

    model: BaseModelConfig | None = Field(None, description="the judge; empty: the study's own base model")
    prompt: Name = Field("judge", description="config/prompts/<prompt>.yaml, with {prompt}, {one} and {two}")
    batch_size: PositiveInt = Field(8, description="pairs a batch")


class Sharpe(Strict):
    """Gradients of the decision, per meme."""

    memes: PositiveInt = Field(200, description="memes of each probed split, stratified by label")
    batch_size: PositiveInt = Field(8, description="memes a batch")


class Attention(Strict):
    """Where the last prompt token looks, on clean and on perturbed pictures."""

    memes: PositiveInt = Field(128, description="memes of each split, stratified by label")
    kept: PositiveInt = Field(64, description="memes whose grid and heads are kept, over all splits")
    noise: list[Annotated[int, Field(ge=1, le=255)]] = Field(
        [4, 8, 16, 32, 64], description="standard deviations of Gaussian pixel noise, of 255"
    )
    batch_size: PositiveInt = Field(8, description="memes a batch")


class MergePath(Strict):
    """Policies between two runs: what their merge is worth all the way from one to the other."""

    pairs: list[tuple[Name, Name]] = Field(
        default_factory=list, description="pairs of methods; empty: no such analysis"
    )
    memes: PositiveInt = Field(64, description="val memes, stratified by label")


class Gradients(Strict):
    """Gradients of the methods' objectives on the same batch."""

    memes: PositiveInt = Field(64, description="val memes, stratified by label")
    batch_size: PositiveInt = Field(4, description="memes a batch")


class Spectrum(Strict):
    """What the weight updates look like."""

    top: PositiveInt = Field(10, description="leading singular vectors compared with the base's")
    epsilon: Fraction = Field(0.5, description="an intruder's largest |cosine| with the base's vectors is below this")


class Report(Strict):
    """What the report shows of the memes, whose content may hurt and may not be for everybody."""

    images: Literal["none", "thumbnails", "full"] = Field(
        "thumbnails",
        description="none: no pictures; thumbnails: small ones, 256 px; full: besides, each picture as it is",
    )
    blur: bool = Field(True, description="pictures are blurred until they are clicked")
