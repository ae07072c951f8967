/* One meme: its picture, and what the base and every policy answered, token by token.

   memeDetail(box, index)   box: where it is shown
     .show(meme, options)   options: blur, tokens ("own" or "base"), attention (bool); meme null: nothing chosen
*/
"use strict";

// An element with attributes, and children that are elements or texts. All of a study's words reach the page here.
globalThis.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
};

globalThis.memeDetail = (box, index) => {
  const SHADES = [0.01, 0.03, 0.1, 0.3, 1]; // nat: where the next shade begins
  const revealed = new Set(); // memes whose picture was clicked
  let wanted = 0;

  const percent = (thousandths) => `${(thousandths / 10).toFixed(0)} %`;
  const nat = (thousandths) => `${(thousandths / 1000).toFixed(thousandths < 10000 ? 2 : 1)} nat`;
  const count = (marks, mark) => [...marks].filter((each) => each === mark).length;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);

  function nameOf(run) {
    return run.seed === null ? run.name : `${run.name} seed ${run.seed}`;
  }

  function picture(meme, options) {
    const source = index.picture(meme, true);
    if (!source) return null;
    const hidden = options.blur && !revealed.has(meme);
    const image = element("img", { src: source, alt: hidden ? "The meme's picture, blurred" : "The meme's picture" });
    const frame = element("div", { class: hidden ? "memes-frame memes-blurred" : "memes-frame" }, image);
    if (!options.blur) return frame;
    const said = hidden ? "Show the picture" : "Blur the picture";
    const button = element("button", { type: "button", class: "memes-reveal", "aria-pressed": String(!hidden) }, frame);
    button.append(element("span", { class: "memes-said" }, said));
    button.addEventListener("click", () => {
      if (!revealed.delete(meme)) revealed.add(meme);
      show(meme, options).then(() => box.querySelector(".memes-reveal")?.focus());
    });
    return button;
  }

  function about(meme) {
    const { dataset, split } = index.split(meme);
    const groups = index.groupsOf(meme).join(", ");
    return element(
      "div",
      { class: "memes-about" },
      element("blockquote", { dir: "auto" }, index.texts[meme] || "(no caption)"),
      element("p", {}, element("b", {}, index.label(meme)), groups ? `, about ${groups}` : ""),
      element("p", { class: "note" }, `${dataset} ${split}, id ${index.ids[meme]}`),
    );
  }

  // A token within a character has no text of its own: what it moved counts with the token that ends the character.
  function tokens(answer, distances) {
    const whole = element("p", { class: "memes-tokens", dir: "auto" });
    let at = 0;
    let moved = 0;
    answer.lengths.forEach((length, place) => {
      moved += distances ? distances[place] : 0;
      if (!length) return;
      const piece = element("span", {}, answer.text.slice(at, at + length));
      if (distances) {
        piece.className = `memes-kl${SHADES.filter((edge) => moved / 1000 >= edge).length}`;
        piece.title = `KL ${(moved / 1000).toFixed(3)} nat`;
      }
      whole.append(piece);
      at += length;
      moved = 0;
    });
    return whole;
  }

  function cells(answer, meme, options) {
    const source = index.picture(meme, false);
    if (!options.attention || !answer.cells) return null;
    const hidden = source && options.blur && !revealed.has(meme);
    const frame = element("div", { class: `memes-frame memes-looked${hidden ? " memes-blurred" : ""}` });
    frame.append(source ? element("img", { src: source, alt: "" }) : element("div", { class: "memes-blank" }));
    const most = Math.max(...answer.cells, 1);
    const grid = element("div", { class: "memes-grid", "aria-hidden": "true" });
    for (const cell of answer.cells) {
      const square = element("i", { title: `${(cell / 100).toFixed(2)} % of all attention` });
      square.style.opacity = (0.8 * cell) / most;
      grid.append(square);
    }
    frame.append(grid);
    const said = `${(sum(answer.cells) / 100).toFixed(1)} % of its attention is on the picture`;
    return element("div", {}, frame, element("p", { class: "note" }, said));
  }

  function marks(run, meme) {
    const words = { fixedAlone: "fixed by it alone", broken: "broken", formatLost: "format lost" };
    const found = Object.keys(words).filter((name) => index.has(run, meme, name));
    return found.length ? element("p", { class: "memes-marks" }, ...found.map((name) => element("span", {}, words[name]))) : null;
  }

  function summary(answer) {
    const many = answer.answers.length;
    const given = { y: "Yes", n: "No", "-": "no valid answer" }[answer.answers[0]];
    const right = answer.right[0] === "1" ? "right" : "wrong";
    const mean = sum(answer.p) / many;
    const first = element("p", {}, element("b", {}, `${given}, ${right}`), `, P(yes) ${percent(answer.p[0])}`);
    if (answer.forced) first.append(" (after a forced answer header)");
    const all = `Of ${many}: ${count(answer.right, "1")} right, ${count(answer.kept, "1")} well-formed, mean P(yes) ${percent(mean)}`;
    return [first, element("p", { class: "note" }, all)];
  }

  function words(run, answer, base, options) {
    if (options.tokens === "base" && run > 0) {
      if (!base) return [element("p", { class: "note" }, "The base has not answered this meme.")];
      const moved = answer.kl_base;
      const said = moved ? `KL(base‖policy) ${nat(sum(moved))}, P(yes) ${percent(answer.p_on_base)} after it` : "not scored on this response";
      return [tokens(base, moved), element("p", { class: "note" }, said)];
    }
    const parts = [tokens(answer, answer.kl_own)];
    if (answer.kl_own) parts.push(element("p", { class: "note" }, `KL(policy‖base) ${nat(sum(answer.kl_own))}`));
    if (answer.cut) parts.push(element("p", { class: "note" }, "Cut at the longest response allowed."));
    return parts;
  }

  function card(run, answer, base, meme, options) {
    const of = index.runs[run];
    const made = element("article", { class: "memes-card" }, element("h3", {}, nameOf(of)));
    made.style.setProperty("--colour", of.colour);
    if (!answer) made.append(element("p", { class: "note" }, "Has not answered this meme."));
    else made.append(...summary(answer), ...[marks(run, meme), cells(answer, meme, options)].filter(Boolean), ...words(run, answer, base, options));
    return made;
  }

  async function show(meme, options) {
    const mine = ++wanted;
    if (meme === null) return;
    const runs = index.runs_shown();
    let answers;
    try {
      answers = await Promise.all(runs.map((run) => index.answer(run, meme)));
    } catch (error) {
      answers = null;
      box.replaceChildren(element("p", { role: "alert" }, error.message));
    }
    if (mine !== wanted || !answers) return; // another meme was chosen meanwhile
    const unread = options.attention && index.looked[meme] !== "1" ? "Attention was not read for this meme." : null;
    box.replaceChildren(
      element("div", { class: "memes-head" }, ...[picture(meme, options), about(meme)].filter(Boolean)),
      element("p", { class: "note", role: "status" }, unread ?? ""),
      element("div", { class: "memes-cards" }, ...runs.map((run, i) => card(run, answers[i], answers[0], meme, options))),
    );
  }

  return { show };
};
