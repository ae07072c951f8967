/* What the index says of each meme, and which memes are left by what was chosen.

   Search is for words within captions and ids: in 10,000 of them that takes a few milliseconds, so that a search
   library's index, which would have to be loaded and kept, gains nothing.
*/
"use strict";

globalThis.memeIndex = (given) => {
  const BITS = { right: 1, wellFormed: 2, fixedAlone: 4, broken: 8, formatLost: 16, disagrees: 32 };
  const FIRST = 48; // the character of code FIRST + bits stands for a meme; a space where it was not answered
  const SHOWS = { disagree: BITS.disagrees, fixed: BITS.fixedAlone, broken: BITS.broken, format: BITS.formatLost };
  const splitOf = given.splits.flatMap((split) => Array(split.listed).fill(split));
  const searched = given.texts.map((text, meme) => `${text}\n${given.ids[meme]}`.toLowerCase());

  // Negative where the run has not answered the meme.
  const bits = (run, meme) => given.flags[run].charCodeAt(meme) - FIRST;

  function has(run, meme, name) {
    const found = bits(run, meme);
    return found > 0 && (found & BITS[name]) > 0;
  }

  // A run stands here once for each of its milestones; where none is chosen, the end is shown.
  const atMilestone = (run) => (filters.get("milestone") ? filters.passes("milestone", run.milestone) : run.milestone === given.end);

  // Runs that the filters show; the base, run 0, always is.
  function shownRuns() {
    const shown = (run) => filters.passes("method", run.method) && filters.passes("seed", run.seed) && atMilestone(run);
    return given.runs.flatMap((run, place) => (place === 0 || shown(run) ? [place] : []));
  }

  // Not all memes are answered before the end.
  function answered() {
    const runs = shownRuns().slice(1);
    return (meme) => runs.some((run) => bits(run, meme) >= 0);
  }

  function seen() {
    const passes = ({ dataset, split }) => filters.passes("dataset", dataset) && filters.passes("split", split);
    const open = new Set(given.splits.filter(passes));
    return (meme) => open.has(splitOf[meme]);
  }

  function shows(choice) {
    const [what, method] = choice.split(":");
    if (what === "looked") return (meme) => given.looked[meme] === "1";
    const bit = SHOWS[what];
    if (!bit) return () => true;
    const ofMethod = (run) => run.method === method && filters.passes("seed", run.seed) && atMilestone(run);
    const own = method ? given.runs.flatMap((run, place) => (place && ofMethod(run) ? [place] : [])) : shownRuns();
    return (meme) => own.some((run) => bits(run, meme) > 0 && bits(run, meme) & bit);
  }

  // The numbers of the memes that are left.
  function found() {
    const words = filters.get("q").toLowerCase().split(/\s+/).filter(Boolean);
    const group = given.groups.indexOf(filters.get("group"));
    const tests = [seen(), shows(filters.get("show"))];
    if (filters.get("milestone")) tests.push(answered());
    if (filters.get("label")) tests.push((meme) => given.labels[meme] === filters.get("label"));
    if (group >= 0) tests.push((meme) => given.grouped[meme].includes(group));
    if (words.length) tests.push((meme) => words.every((word) => searched[meme].includes(word)));
    return splitOf.map((_, meme) => meme).filter((meme) => tests.every((test) => test(meme)));
  }

  function picture(meme, whole) {
    if (given.images === "none") return null;
    const { dataset, split } = splitOf[meme];
    const name = given.pictures[meme];
    const ending = whole && given.endings ? given.endings[meme] : ".webp";
    const folder = whole && given.endings ? "whole" : "small";
    return `pictures/${dataset}/${split}/${folder}/${name.slice(0, 2)}/${name}${ending}`;
  }

  return {
    ...given,
    bits,
    has,
    shownRuns,
    found,
    picture,
    split: (meme) => splitOf[meme],
    label: (meme) => (given.labels[meme] === "1" ? "hateful" : "benign"),
    groupsOf: (meme) => given.grouped[meme].map((group) => given.groups[group]),
    key: (meme) => `${splitOf[meme].dataset}/${splitOf[meme].split}/${given.ids[meme]}`,
    // What run `run` answered to `meme`: a promise; null where it did not.
    answer: async (run, meme) => {
      if (bits(run, meme) < 0) return null;
      const piece = await loaded(`memes/${given.runs[run].key}/${Math.floor(meme / given.piece)}`);
      return piece[meme % given.piece];
    },
  };
};
