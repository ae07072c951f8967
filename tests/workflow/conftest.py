"""What the workflow's tests share."""

from smoke_study import HERE, PLANTED, SMOKE, TREE, copy_tree, guard_network, planned, snakemake, told

__all__ = ["HERE", "PLANTED", "SMOKE", "TREE", "copy_tree", "guard_network", "planned", "snakemake", "told"]
