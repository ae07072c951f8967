"""What identifies a row. Nothing else is here: what loads a model imports it and must not rerun for more."""

MEME = ["dataset", "split", "id"]
