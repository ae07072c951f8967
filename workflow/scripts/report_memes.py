"""The memes browser: its page, its index, and the pieces of what every policy answered."""

from pathlib import Path

from memedynamics import gather, meme_answers, meme_pieces, meme_runs, meme_tokens, report_page, tables, thumbnails
from memedynamics.job import progress, run


def main(
    data: list[Path],
    base: list[Path],
    samples: list[Path],
    traces: list[Path],
    responses: list[Path],
    attention: list[Path],
    model: Path,
    page: Path,
    pieces: Path,
    images: thumbnails.Pictures,
    blur: bool,
    pictures: list[Path] = [],  # noqa: B006
) -> None:
    """Pieces are written a run at a time: no more than one run's answers are in memory."""
    runs = meme_runs.sources(samples=[*base, *samples], traces=traces, responses=responses, attention=attention)
    assets, tokenizer = pieces.parent, meme_tokens.load(model)
    everything = tables.read_all(data, "data", [*gather.MEME, "text", "label", "groups", "image_sha256"])
    counts = {name: meme_answers.counts(of.samples) for name, of in runs.items()}
    memes = meme_pieces.listed(everything, counts)
    looked = meme_answers.looks(runs[meme_runs.BASE_RUN].attention)
    described = meme_runs.described(list(runs))
    index = meme_pieces.index(memes, everything, counts, looked)
    shown = {"images": images, "blur": blur, "endings": thumbnails.endings(pictures, index["pictures"])}
    report_page.deliver(assets, f"{pieces.name}/index", index | shown | {"runs": described})
    for name, of in progress(zip(described, runs.values(), strict=True), "memes", len(runs)):
        for number, piece in meme_pieces.pieces(memes, meme_answers.everything(of), tokenizer):
            report_page.deliver(assets, f"{pieces.name}/{name['key']}/{number}", piece)
    page.write_text(meme_pieces.page(index, described, images))


if __name__ == "__main__":
    run(main)
