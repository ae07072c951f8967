/* The filters that hold across pages. Their state is the URL's query: ?method=sft&method=dpo&split=val.

   filters.chosen(name)          the Set of a filter's chosen values, as texts; empty: all
   filters.passes(name, value)   whether something with this value is shown; what is no choice of the filter always is:
                                 null (of no method, no seed, …), the weights' dataset `all`, the split `train-val`
   filters.subscribe(callback)   calls back now and after every change
   filters.get(key)              a page's own state besides: the text behind `key` in the URL, "" where there is none
   filters.put(key, text)        sets it and calls the subscribers; "" removes it
*/
"use strict";

globalThis.filters = (() => {
  const form = document.getElementById("filters");
  const toggle = document.getElementById("filters-toggle");
  const boxes = form ? [...form.querySelectorAll("fieldset[data-filter] input")] : [];
  const names = [...new Set(boxes.map((box) => box.name))];
  const subscribers = [];
  let query = new URLSearchParams(location.search);

  const chosen = (name) => new Set(query.getAll(name));

  // Milestones are told apart by six digits, as in the study file: some tables hold a third, others 0.333333.
  const short = (number) => Number(Number(number).toPrecision(6));
  const same = (name, text, value) =>
    name === "milestone" ? short(text) === short(value) : text === String(value);

  function passes(name, value) {
    if (value === null || value === undefined || !query.has(name)) return true;
    const isChoice = boxes.some((box) => box.name === name && same(name, box.value, value));
    return !isChoice || query.getAll(name).some((text) => same(name, text, value));
  }

  // A value that the page does not know would hide everything. What is of another page stays in the URL.
  function known(given) {
    const kept = new URLSearchParams();
    for (const [key, value] of given) {
      const own = boxes.filter((box) => box.name === key);
      if (!own.length || own.some((box) => box.value === value)) kept.append(key, value);
    }
    return kept;
  }

  const textOf = (box) => box.parentElement.textContent.trim();
  const labelOf = (box) => box.closest("fieldset").querySelector("legend").textContent.toLowerCase();

  function said() {
    const parts = names.map((name) => boxes.filter((box) => box.name === name && box.checked));
    const texts = parts.filter((part) => part.length).map((part) => `${labelOf(part[0])} ${part.map(textOf).join(", ")}`);
    return texts.join("; ") || "all shown";
  }

  function show() {
    for (const box of boxes) box.checked = chosen(box.name).has(box.value);
    if (form) document.getElementById("filters-said").textContent = said();
    for (const link of document.querySelectorAll("a[data-keep-query]")) link.search = query.toString();
    for (const callback of subscribers) callback();
  }

  function change(next) {
    query = next;
    const search = query.toString();
    history.replaceState(null, "", location.pathname + (search && `?${search}`) + location.hash);
    show();
  }

  function fromBoxes() {
    const next = new URLSearchParams([...query].filter(([key]) => !names.includes(key)));
    for (const box of boxes) if (box.checked) next.append(box.name, box.value);
    change(next);
  }

  function put(key, text) {
    const next = new URLSearchParams(query);
    if (text) next.set(key, text);
    else next.delete(key);
    change(next);
  }

  function open(shown) {
    form.hidden = !shown;
    toggle.setAttribute("aria-expanded", String(shown));
  }

  if (form) {
    form.addEventListener("change", (event) => boxes.includes(event.target) && fromBoxes());
    form.addEventListener("submit", (event) => event.preventDefault());
    form.addEventListener("reset", () => change(new URLSearchParams()));
    toggle.addEventListener("click", () => open(form.hidden));
    open(matchMedia("(min-width: 900px)").matches);
  }
  globalThis.addEventListener("popstate", () => {
    query = known(new URLSearchParams(location.search));
    show();
  });
  query = known(query);
  show();

  return {
    chosen,
    passes,
    put,
    get: (key) => query.get(key) ?? "",
    subscribe(callback) {
      subscribers.push(callback);
      callback();
    },
  };
})();
