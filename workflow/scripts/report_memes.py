"""The memes browser: its page, its index, and the pieces of what every policy answered."""

from collections.abc import Sequence
from pathlib import Path

from memedynamics import gather, meme_answers, meme_page, meme_pieces, meme_runs, meme_tokens, report_page, tables
from memedynamics.job import progress, run
from memedynamics.report_page import Page
from memedynamics.thumbnails import Pictures, endings, forget_others

DATA = [*gather.MEME, "text", "label", "groups", "image_sha256"]


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
    study: str,
    pages: list[Page],
    images: Pictures,
    blur: bool,
    pictures: Sequence[Path] = (),
) -> None:
    """A run at a time, with all of its milestones: the answers of no more than one are in memory."""
    runs = meme_runs.sources(samples=[*base, *samples], traces=traces, responses=responses, attention=attention)
    assets, tokenizer = pieces.parent, meme_tokens.load(model)
    everything = tables.read_all(data, "data", DATA)
    counts = {(*name, at): found for name, of in runs.items() for at, found in meme_answers.counts(of.samples).items()}
    memes = meme_pieces.listed(everything, counts)
    index = meme_pieces.index(memes, everything, counts, meme_answers.looks(attention[:1]))
    index |= {"runs": meme_runs.described(list(counts)), "end": meme_runs.end(counts), "images": images, "blur": blur}
    index |= shown_pictures(index["pictures"], images, pictures)
    forget_others(page.parent / "pictures", pictures)
    report_page.copy_assets(pieces, [*meme_page.SHEETS, *meme_page.SCRIPTS])
    report_page.deliver(assets, f"{pieces.name}/index", index)
    for name, of in progress(runs.items(), "memes", len(runs)):
        for at, given in meme_answers.every(of).items():
            folder = f"{pieces.name}/{meme_runs.key(*name, at)}"
            for number, piece in meme_pieces.pieces(memes, given, tokenizer):
                report_page.deliver(assets, f"{folder}/{number}", piece)
    page.write_text(meme_page.page(index, study, pages, images, str(tables.provenance.get("commit", ""))[:12]))


def shown_pictures(names: Sequence[str], images: Pictures, folders: Sequence[Path]) -> dict[str, list[str]]:
    """What the index says of pictures: nothing where none are shown, since a digest tells a known picture."""
    if images == "none":
        return {"pictures": []}
    if images == "thumbnails":
        return {}
    known = endings(folders)
    return {"endings": [known[name] for name in names]}


if __name__ == "__main__":
    run(main)
