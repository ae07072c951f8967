/* A list of thousands of rows of which only those on the screen are in the page.

   windowedList(box, height, draw, choose)   box: the element with role listbox; height: px of a row; draw(item): the
                                             row's element; choose(item, pointed): called when a row is
                                             chosen, by pointer or by key
     .show(items, chosen)                    shows other items, `chosen` among them marked
*/
"use strict";

globalThis.windowedList = (box, height, draw, choose) => {
  const AROUND = 5; // rows kept above and below the window
  const room = document.createElement("div");
  room.setAttribute("role", "presentation");
  room.className = "memes-room";
  box.append(room);
  let items = [];
  let chosen = -1; // place among items

  function row(place) {
    const drawn = draw(items[place]);
    drawn.setAttribute("role", "option");
    drawn.id = `${box.id}-${place}`;
    drawn.style.transform = `translateY(${place * height}px)`;
    drawn.setAttribute("aria-selected", String(place === chosen));
    drawn.setAttribute("aria-setsize", items.length);
    drawn.setAttribute("aria-posinset", place + 1);
    drawn.addEventListener("click", () => pick(place, true));
    return drawn;
  }

  function render() {
    const first = Math.max(0, Math.floor(box.scrollTop / height) - AROUND);
    const last = Math.min(items.length, Math.ceil((box.scrollTop + box.clientHeight) / height) + AROUND);
    room.style.height = `${items.length * height}px`;
    room.replaceChildren(...Array.from({ length: Math.max(0, last - first) }, (_, i) => row(first + i)));
    if (chosen >= first && chosen < last) box.setAttribute("aria-activedescendant", `${box.id}-${chosen}`);
    else box.removeAttribute("aria-activedescendant");
  }

  function reveal(place) {
    const top = place * height;
    if (top < box.scrollTop) box.scrollTop = top;
    if (top + height > box.scrollTop + box.clientHeight) box.scrollTop = top + height - box.clientHeight;
  }

  function pick(place, pointed) {
    if (place < 0 || place >= items.length) return;
    chosen = place;
    reveal(place);
    render();
    choose(items[place], pointed);
  }

  box.addEventListener("keydown", (event) => {
    const page = Math.max(1, Math.floor(box.clientHeight / height) - 1);
    const steps = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -items.length, End: items.length };
    if (!(event.key in steps)) return;
    event.preventDefault();
    pick(Math.min(items.length - 1, Math.max(0, chosen + steps[event.key])), false);
  });
  let asked = 0;
  const soon = () => {
    cancelAnimationFrame(asked);
    asked = requestAnimationFrame(render);
  };
  box.addEventListener("scroll", soon, { passive: true });
  new ResizeObserver(soon).observe(box);

  return {
    show(given, item) {
      const other = given.length !== items.length || given.some((each, place) => each !== items[place]);
      items = given;
      chosen = items.indexOf(item);
      if (other) box.scrollTop = 0;
      if (chosen >= 0) reveal(chosen);
      render();
    },
  };
};
