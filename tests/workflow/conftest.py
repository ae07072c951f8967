"""What the workflow's tests share."""

from smoke_study import HERE, SMOKE, TREE, copy_tree, planned, snakemake, told

__all__ = ["HERE", "SMOKE", "TREE", "copy_tree", "planned", "snakemake", "told"]
