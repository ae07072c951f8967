/* One meme: its picture, blurred until it is clicked, what is known of it, and a card for each policy that is shown.

   memeDetail(box, index)  box: where it is shown
     .show(meme, blurred)  meme null: nothing is chosen. What the cards show is the URL's: tokens=base, attention=on
*/
"use strict";

globalThis.memeDetail = (box, index) => {
  const clicked = new Set(); // memes whose picture is shown all the same
  const options = document.getElementById("memes-options");
  let wanted = 0;

  function image(meme, blurred, whole) {
    const source = index.picture(meme, whole);
    if (!source) return null;
    const said = blurred ? "Blurred picture" : `Picture of the meme ${index.ids[meme]}`;
    const shown = element("img", { src: source, alt: whole ? said : "" });
    return element("span", { class: blurred ? "memes-frame memes-blurred" : "memes-frame" }, shown);
  }

  function picture(meme, blurs) {
    const blurred = blurs && !clicked.has(meme);
    const frame = image(meme, blurred, true);
    if (!frame || !blurs) return frame;
    const said = blurred ? "Show the picture" : "Blur the picture";
    const button = element("button", { type: "button", class: "memes-reveal" }, frame, element("span", {}, said));
    button.addEventListener("click", async () => {
      if (!clicked.delete(meme)) clicked.add(meme);
      await show(meme, blurs);
      box.querySelector(".memes-reveal")?.focus();
    });
    return button;
  }

  function about(meme) {
    const { dataset, split } = index.split(meme);
    const groups = index.groupsOf(meme);
    const of = groups.length ? `; about ${groups.join(", ")}` : "";
    return element(
      "div",
      { class: "memes-about" },
      element("blockquote", { dir: "auto" }, index.texts[meme] || "(no caption)"),
      element("p", {}, element("b", {}, index.label(meme)), of),
      element("p", { class: "note" }, `${dataset} ${split}, id ${index.ids[meme]}`),
    );
  }

  async function answered(runs, meme) {
    try {
      return await Promise.all(runs.map((run) => index.answer(run, meme)));
    } catch (error) {
      return error;
    }
  }

  async function show(meme, blurs) {
    const mine = ++wanted;
    options.hidden = meme === null;
    if (meme === null) return;
    const runs = index.shownRuns();
    const answers = await answered(runs, meme);
    if (mine !== wanted) return; // another one was chosen meanwhile
    if (answers instanceof Error) {
      box.replaceChildren(element("p", { role: "alert" }, answers.message));
      return;
    }
    const looked = filters.get("attention") === "on";
    const shows = (picture) => ({ tokens: filters.get("tokens"), looked, picture });
    const cards = runs.map((run, place) => {
      const small = looked ? image(meme, blurs && !clicked.has(meme), false) : null;
      return answerCard(index, run, meme, answers[place], answers[0], shows(small));
    });
    const unread = looked && index.looked[meme] === "0" ? element("p", { class: "note" }, "Attention was not read for this meme.") : null;
    const head = [picture(meme, blurs), about(meme)].filter(Boolean);
    box.replaceChildren(
      element("h2", { class: "memes-hidden" }, `Meme ${index.ids[meme]}`),
      element("div", { class: "memes-head" }, ...head),
      ...[unread].filter(Boolean),
      element("div", { class: "memes-cards" }, ...cards),
    );
  }

  return { show };
};
