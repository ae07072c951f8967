/* The memes browser: the state is the URL's (filters.js); list, detail and the page's own controls follow it. */
"use strict";

loaded("memes/index").then((given) => {
  const ROW = 98; // px, as in memes.css
  const index = memeIndex(given);
  const byKey = new Map(index.ids.map((_, meme) => [index.key(meme), meme]));
  const numbers = new Intl.NumberFormat("en");
  const said = document.getElementById("memes-count");
  const controls = [...document.querySelectorAll("main [data-key]")];
  const blur = document.getElementById("memes-blur");
  const detail = memeDetail(document.getElementById("memes-detail"), index);
  const list = windowedList(document.getElementById("memes-list"), ROW, row, choose);
  let soon = 0;

  // Not in the URL: who is sent a link decides alone. It holds until the tab is closed.
  const kept = `memedynamics blur ${location.pathname}`;
  const isBlurred = () => (sessionStorage.getItem(kept) ?? (index.blur ? "on" : "off")) === "on";

  // Shortly after: an arrow key that is held down passes by many memes.
  function choose(meme, pointed) {
    clearTimeout(soon);
    soon = setTimeout(() => {
      filters.put("meme", index.key(meme));
      // On a narrow screen the meme is below the list.
      if (pointed && matchMedia("(max-width: 900px)").matches) document.getElementById("memes-options").scrollIntoView();
    }, pointed ? 0 : 60);
  }

  // Right, wrong or unanswered at each seed that is shown, method by method, milestone after milestone.
  function verdicts(meme) {
    const found = new Map();
    for (const run of index.shownRuns()) {
      const { name, milestone } = index.runs[run];
      const sign = index.bits(run, meme) < 0 ? "–" : index.has(run, meme, "right") ? "✓" : "✗";
      const signs = found.get(name) ?? new Map();
      found.set(name, signs.set(milestone, (signs.get(milestone) ?? "") + sign));
    }
    const rising = (signs) => [...signs].sort(([one], [other]) => one - other).map(([, at]) => at);
    return [...found].map(([name, signs]) => element("span", {}, `${name} ${rising(signs).join(" → ")}`));
  }

  function row(meme) {
    const source = index.picture(meme, false);
    const image = element("div", { class: isBlurred() ? "memes-thumb memes-blurred" : "memes-thumb" });
    if (source) image.append(element("img", { src: source, alt: "" }));
    const { dataset, split } = index.split(meme);
    const where = [index.label(meme), ...index.groupsOf(meme), `${dataset} ${split}`].join(" · ");
    const words = element(
      "div",
      { class: "memes-words" },
      element("div", { class: "memes-caption", dir: "auto" }, index.texts[meme] || "(no caption)"),
      element("div", { class: "memes-verdicts" }, ...verdicts(meme)),
      element("div", { class: "memes-where" }, where),
    );
    return element("div", { class: "memes-row" }, ...(source ? [image, words] : [words]));
  }

  function follow() {
    for (const control of controls) {
      const state = filters.get(control.dataset.key);
      if (control.type === "checkbox") control.checked = state === control.value;
      else if (control !== document.activeElement || !state) control.value = state;
    }
    if (blur) blur.checked = isBlurred();
    const memes = index.found();
    const chosen = byKey.get(filters.get("meme")) ?? null;
    said.textContent = `${numbers.format(memes.length)} of ${numbers.format(index.ids.length)} memes`;
    list.show(memes, chosen);
    detail.show(chosen, isBlurred());
  }

  for (const control of controls) {
    const state = () => (control.type === "checkbox" && !control.checked ? "" : control.value);
    control.addEventListener("input", () => filters.put(control.dataset.key, state()));
  }
  blur?.addEventListener("change", () => {
    sessionStorage.setItem(kept, blur.checked ? "on" : "off");
    follow();
  });
  for (const form of document.querySelectorAll("main form")) {
    form.addEventListener("submit", (event) => event.preventDefault());
  }
  filters.subscribe(follow);
}).catch((error) => {
  document.getElementById("memes-count").textContent = error.message;
});
