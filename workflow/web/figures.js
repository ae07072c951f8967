/* Draws the figures' panels when they come into view, and again when the filters have changed since.

   A trace's `meta` says of which run it is, a point's `customdata` where it was measured; what says nothing stays.
*/
"use strict";

(() => {
  const panels = new Map();
  const visible = new Set();
  let filtered = 0; // how often

  const ofRun = ({ meta }) =>
    !meta || meta.method === "base" || (filters.passes("method", meta.method) && filters.passes("seed", meta.seed));

  const ofPoint = (where) =>
    !where || (filters.passes("dataset", where[0]) && filters.passes("split", where[1]) && ofFraction(where[2]));

  // Runs start at the base, whatever milestones are chosen.
  const ofFraction = (fraction) => fraction === 0 || filters.passes("milestone", fraction);

  function shownTrace(trace) {
    if (!ofRun(trace)) return { ...trace, visible: false };
    if (!Array.isArray(trace.customdata)) return trace;
    const y = trace.y.map((value, place) => (ofPoint(trace.customdata[place]) ? value : null));
    return { ...trace, y, connectgaps: true };
  }

  function shownLayout(layout, template) {
    const annotations = (layout.annotations ?? []).filter(({ name }) => !name || filters.passes("method", name));
    const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    return { ...layout, template, annotations, dragmode, autosize: true, width: undefined };
  }

  function draw(element) {
    const { panel, template, drawn } = panels.get(element);
    if (drawn === filtered) return;
    panels.get(element).drawn = filtered;
    const layout = shownLayout(panel.layout, template);
    Plotly.react(element, panel.data.map(shownTrace), layout, { displaylogo: false, responsive: true });
  }

  const observer = new IntersectionObserver(
    (entries) => {
      for (const { target, isIntersecting } of entries) {
        if (isIntersecting) visible.add(target);
        else visible.delete(target);
      }
      visible.forEach(draw);
    },
    { rootMargin: "300px" },
  );

  function place(panel, template, title) {
    const element = document.createElement("div");
    element.className = "panel";
    element.style.setProperty("--share", `${100 * panel.share}%`);
    element.style.height = `${panel.layout.height ?? 450}px`;
    element.setAttribute("role", "group");
    element.setAttribute("aria-label", `${title}: ${panel.title || "figure"}`);
    panels.set(element, { panel, template });
    return element;
  }

  async function open(container) {
    const { figure: name, title } = container.dataset;
    const [figure] = await Promise.all([loaded(`index/figure_${name}`), library("index/plotly")]);
    const elements = figure.panels.map((panel) => place(panel, figure.template, title));
    container.replaceChildren(...elements);
    for (const element of elements) observer.observe(element);
  }

  globalThis.whenSeen("[data-figure]", open);
  filters.subscribe(() => {
    filtered += 1;
    visible.forEach(draw);
  });
})();
