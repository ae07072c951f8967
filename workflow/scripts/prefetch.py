"""Everything that needs a network, fetched once into the hub's caches: base model, external runs, hub datasets."""

from memedynamics import checkpoints, sources
from memedynamics.config import BaseModelConfig, Dataset, ExternalMethod
from memedynamics.errors import InputError
from memedynamics.job import run
from memedynamics.readers import huggingface


def main(
    source: BaseModelConfig,
    datasets: dict[str, Dataset],
    methods: dict[str, ExternalMethod],
    judge: BaseModelConfig | None = None,
) -> None:
    """Fetch what the study names by hub id; what is there already costs a few requests."""
    for key, model in {"base_model": source, "judge.model": judge}.items():
        if model and sources.is_hub_id(model.source):
            checkpoints.check_folder(sources.fetch(model.source, model.revision, f"{key}.source"))
            print(f"{key}: {model.source} at {model.revision}")
    for name, method in methods.items():
        if sources.is_hub_id(method.path):
            sources.fetch(method.path, method.revision, f"methods.{name}.path")
            print(f"methods.{name}: {method.path} at {method.revision}")
    for name, dataset in datasets.items():
        if dataset.hub_id is not None:
            fetch_dataset(name, dataset)
            print(f"datasets.{name}: {dataset.hub_id} at {dataset.revision}")


def fetch_dataset(name: str, dataset: Dataset) -> None:
    """Fill the dataset cache; raises InputError naming the dataset, whatever the library stumbles over."""
    try:
        huggingface.fetch(dataset)
    except Exception as error:  # the library raises a dozen types
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"datasets.{name}: {dataset.hub_id} cannot be fetched: {reason}") from error


if __name__ == "__main__":
    run(main)
