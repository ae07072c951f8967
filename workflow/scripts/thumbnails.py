"""The pictures of one split for the report."""

from pathlib import Path

from memedynamics import tables, thumbnails
from memedynamics.job import progress, run


def main(data: Path, pictures: Path, images: thumbnails.Pictures, threads: int) -> None:
    """Write a picture once, however many memes share it."""
    memes = tables.read(data, "data", ["dataset", "split", "image", "image_sha256"])
    memes = memes.unique("image_sha256", keep="first", maintain_order=True)
    pictures.mkdir(parents=True, exist_ok=True)
    shown = memes.select("image", "image_sha256").sort("image_sha256").rows()
    for _ in progress(thumbnails.make(shown, pictures, images, threads), "pictures", len(shown)):
        pass


if __name__ == "__main__":
    run(main)
