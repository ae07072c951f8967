"""The fixed probes: seeded, stratified by label, whatever the order of rows."""

import polars as pl
import pytest

from memedynamics import probes, tables
from memedynamics.config import Probes


def memes(dataset: str, split: str, benign: int, hateful: int) -> pl.DataFrame:
    ids = [f"{dataset}{split}{i:04d}" for i in range(benign + hateful)]
    return pl.DataFrame({"dataset": dataset, "split": split, "id": ids, "label": [0] * benign + [1] * hateful})


def sampled(data: pl.DataFrame, k: int = 2) -> pl.DataFrame:
    rows = data.drop("label").join(pl.DataFrame({"sample": range(k)}), how="cross")
    tokens = pl.concat_list(pl.col("id").str.tail(4).cast(pl.Int32), "sample")
    return rows.with_columns(token_ids=tokens, correct=True, format_ok=False, reward=0.0, text=pl.lit("dropped"))


@pytest.mark.parametrize(
    ("size", "benign", "hateful", "kept"),
    [
        (100, 640, 360, (64, 36)),
        (10, 640, 360, (6, 4)),  # 6.4 and 3.6
        (1, 640, 360, (1, 0)),
        (0, 640, 360, (0, 0)),
        (50, 30, 20, (30, 20)),
        (None, 30, 20, (30, 20)),
        (10, 50, 0, (10, 0)),
    ],
)
def test_each_label_keeps_its_share(size: int | None, benign: int, hateful: int, kept: tuple[int, int]) -> None:
    chosen = probes.stratified(memes("d", "train", benign, hateful), size, [0])
    assert ((chosen["label"] == 0).sum(), (chosen["label"] == 1).sum()) == kept
    assert chosen["id"].is_unique().all()


def test_shares_stay_within_one_at_every_size() -> None:
    data = memes("d", "train", 37, 63)
    for size in range(101):
        hateful = probes.stratified(data, size, [5])["label"].sum()
        assert abs(hateful - 0.63 * size) <= 1


def test_the_choice_depends_on_the_seed_alone() -> None:
    data = memes("d", "train", 60, 40)
    chosen = set(probes.stratified(data, 20, [0])["id"])
    assert chosen == set(probes.stratified(data.sample(fraction=1, shuffle=True, seed=1), 20, [0])["id"])
    assert chosen != set(probes.stratified(data, 20, [1])["id"])
    assert chosen < set(probes.stratified(data, 50, [0])["id"])


def test_every_prompt_is_equally_likely() -> None:
    """Each of 10 memes is among 4 in 40 % of 2,000 seeds; standard error 1.1 points."""
    data = memes("d", "train", 5, 5)
    counts = pl.concat([probes.stratified(data, 4, [seed]) for seed in range(2000)])["id"].value_counts()["count"]
    assert counts.len() == 10
    assert (counts / 2000).to_list() == pytest.approx([0.4] * 10, abs=0.05)


def test_build() -> None:
    data = pl.concat([memes("in", "train", 20, 20), memes("in", "val", 6, 2), memes("out", "test", 9, 3)])
    sizes = Probes(train=10, val=None, out_of_domain=4)
    built = probes.build(sampled(data), data, sizes, "in")
    counts = built.group_by("dataset", "split", maintain_order=True).agg(pl.col("id").n_unique(), pl.len())
    assert counts.rows() == [("in", "train", 10, 20), ("in", "val", 8, 16), ("out", "test", 4, 8)]
    assert set(built["probe_kind"]) == {"base_sample"}
    first = built.row(0, named=True)
    assert first["token_ids"] == [int(first["id"][-4:]), 0]
    shuffled = sampled(data).sample(fraction=1, shuffle=True, seed=3)
    assert built.equals(probes.build(shuffled, data.reverse(), sizes, "in"))
    assert len(tables.conform(built, "probes")) == 44
