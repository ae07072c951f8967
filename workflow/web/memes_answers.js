/* What one policy answered to a meme, as a card: its first response token by token, and a summary of all of them.

   element(tag, attributes, ...children)              an element; children are elements or texts
   answerCard(index, run, meme, answer, base, shows)  answer, base: as `index.answer` gives them, null where there is none;
                                                      shows: tokens ("own" or "base"), looked (bool), picture (an element)
*/
"use strict";

// All of a study's words reach the page here, as text.
globalThis.element = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children.filter((child) => child !== null));
  return made;
};

globalThis.answerCard = (() => {
  const SHADES = [0.01, 0.03, 0.1, 0.3, 1]; // nat: where the next shade begins
  const MARKS = { fixedAlone: "fixed by it alone", broken: "broken", formatLost: "format lost" };
  const GIVEN = { y: "Yes", n: "No", "-": "No valid answer" };

  const percent = (thousandths) => `${(thousandths / 10).toFixed(0)}\u00a0%`;
  const nat = (thousandths) => `${(thousandths / 1000).toFixed(2)} nat`;
  const ones = (marks) => marks.split("1").length - 1;
  const sum = (numbers) => numbers.reduce((total, number) => total + number, 0);
  const note = (text) => element("p", { class: "note" }, text);

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

  function summary(answer) {
    const many = answer.answers.length;
    const right = answer.right[0] === "1" ? "right" : "wrong";
    const forced = answer.forced ? ", read after a header that was put there" : "";
    const first = element("p", {}, element("b", {}, GIVEN[answer.answers[0]], `, ${right}`), `. P(yes) ${percent(answer.p[0])}${forced}.`);
    const mean = percent(sum(answer.p) / many);
    return [first, note(`Of ${many} answers ${ones(answer.right)} are right, ${ones(answer.kept)} well-formed; mean P(yes) ${mean}.`)];
  }

  function marks(index, run, meme) {
    const found = Object.keys(MARKS).filter((name) => index.has(run, meme, name));
    return found.length ? element("p", { class: "memes-marks" }, ...found.map((name) => element("span", {}, MARKS[name]))) : null;
  }

  function looked(answer, picture) {
    const most = Math.max(...answer.cells, 1);
    const grid = element("div", { class: "memes-grid", "aria-hidden": "true" });
    for (const cell of answer.cells) {
      const square = element("i", { title: `${(cell / 100).toFixed(2)} % of all attention` });
      square.style.opacity = (0.75 * cell) / most;
      grid.append(square);
    }
    const frame = element("div", { class: "memes-looked" }, picture ?? element("div", { class: "memes-blank" }), grid);
    return element("div", {}, frame, note(`${(sum(answer.cells) / 100).toFixed(1)} % of its attention is on the picture.`));
  }

  function onBase(answer, base) {
    if (!base) return [note("The base has not answered this meme.")];
    const moved = answer.kl_base ?? null;
    const said = moved ? `KL(base‖policy) ${nat(answer.kl_base_sum)}; P(yes) after it ${percent(answer.p_on_base)}.` : "Not scored on this response.";
    return [tokens(base, moved), note(said)];
  }

  function onOwn(answer) {
    const moved = answer.kl_own ?? null;
    const said = [moved ? `KL(policy‖base) ${nat(answer.kl_own_sum)}.` : "", answer.cut ? "Cut: it had reached the longest response allowed." : ""];
    return [tokens(answer, moved), note(said.join(" ").trim())];
  }

  return (index, run, meme, answer, base, shows) => {
    const { name, seed, milestone, colour } = index.runs[run];
    const at = run > 0 && filters.get("milestone") ? `at ${milestone}` : "";
    const title = [name, seed === null ? "" : `seed ${seed}`, at].filter(Boolean).join(", ");
    const card = element("article", { class: "memes-card" }, element("h3", {}, title));
    card.style.setProperty("--colour", colour);
    if (!answer) card.append(note("Has not answered this meme."));
    else {
      const read = shows.looked && answer.cells ? looked(answer, shows.picture) : null;
      const said = shows.tokens === "base" && run > 0 ? onBase(answer, base) : onOwn(answer);
      card.append(...[...summary(answer), marks(index, run, meme), read, ...said].filter(Boolean));
    }
    return card;
  };
})();
