/* The memes browser: the state is the URL's (filters.js); list, detail and the page's own controls follow it. */
"use strict";

loaded("memes/index").then((given) => {
  const ROW = 92; // px, as in memes.css
  const index = memeIndex(given);
  const byKey = new Map(index.ids.map((_, meme) => [index.key(meme), meme]));
  const numbers = new Intl.NumberFormat("en");
  const said = document.getElementById("memes-count");
  const controls = [...document.querySelectorAll("#memes-tools [data-key]")];
  const blur = document.getElementById("memes-blur");
  const detail = memeDetail(document.getElementById("memes-detail"), index);
  const list = windowedList(document.getElementById("memes-list"), ROW, row, (meme) => filters.put("meme", index.key(meme)));

  const isBlurred = () => (filters.get("blur") || (index.blur ? "on" : "off")) === "on";

  // Right, wrong or unanswered at each seed that is shown, method by method.
  function verdicts(meme) {
    const found = new Map();
    for (const run of index.runs()) {
      const { name } = index.runs[run];
      const sign = index.bits(run, meme) < 0 ? "–" : index.has(run, meme, "right") ? "✓" : "✗";
      found.set(name, (found.get(name) ?? "") + sign);
    }
    return [...found].map(([name, signs]) => element("span", {}, `${name} ${signs}`));
  }
});
