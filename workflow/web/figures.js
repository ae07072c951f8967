/* Draws the figures' panels when they come into view, and again when the filters have changed since.

   A trace's `meta` says of which run it is, a point's `customdata` where it was measured; what says nothing stays. Many
   panels are of one milestone alone, the end or where all updates are of one norm: where another one is chosen, they
   stay as they are and say so.
*/
"use strict";

(() => {
  const panels = new Map();
  const visible = new Set();
  let filtered = 0; // how often

  const ofRun = ({ meta }) =>
    !meta || meta.method === "base" || (filters.passes("method", meta.method) && filters.passes("seed", meta.seed));

  const ofSplit = (where) => filters.passes("dataset", where[0]) && filters.passes("split", where[1]);

  // Runs start at the base, whatever milestones are chosen.
  const ofFraction = (fraction) => fraction === 0 || filters.passes("milestone", fraction);

  // The milestones that a panel shows against the choice, which would leave nothing of it; else none.
  function keptMilestones(traces) {
    const measured = traces.filter((trace) => ofRun(trace) && Array.isArray(trace.customdata));
    const points = measured.flatMap(({ customdata }) => customdata.filter((where) => where && ofSplit(where)));
    const own = [...new Set(points.map(([, , fraction]) => fraction))];
    return own.some((fraction) => filters.passes("milestone", fraction)) ? [] : own;
  }

  function shownTrace(trace, kept) {
    if (!ofRun(trace)) return { ...trace, visible: false };
    if (!Array.isArray(trace.customdata)) return trace;
    const isShown = (where) => !where || (ofSplit(where) && (kept.length > 0 || ofFraction(where[2])));
    const y = trace.y.map((value, place) => (isShown(trace.customdata[place]) ? value : null));
    return { ...trace, y, connectgaps: true };
  }

  // Said below the panel, which gets lower; a panel's own title is a note in it.
  function told(kept, margin) {
    if (!kept.length) return {};
    const own = kept.map((fraction) => Number(fraction.toPrecision(6))).join(", ");
    const text = `Of milestone ${own} alone, not ${[...filters.chosen("milestone")].join(", ")}`;
    const corner = { xref: "container", yref: "container", x: 1, y: 0, xanchor: "right", yanchor: "bottom" };
    const title = { ...corner, text, pad: { r: 12, b: 4 }, font: { size: 11 } };
    return { title, margin: { ...margin, b: margin.b + 18 } };
  }

  function shownLayout(layout, template, kept) {
    const annotations = (layout.annotations ?? []).filter(({ name }) => !name || filters.passes("method", name));
    const dragmode = matchMedia("(pointer: coarse)").matches ? false : "zoom";
    return { ...layout, ...told(kept, layout.margin), template, annotations, dragmode, autosize: true, width: undefined };
  }

  function draw(element) {
    const { panel, template, drawn } = panels.get(element);
    if (drawn === filtered) return;
    panels.get(element).drawn = filtered;
    const kept = keptMilestones(panel.data);
    const layout = shownLayout(panel.layout, template, kept);
    Plotly.react(element, panel.data.map((trace) => shownTrace(trace, kept)), layout, { displaylogo: false, responsive: true });
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
